"""The label doctor's checks of a single sample."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from src.errors import UserError
from src.image_io import (
    IGNORE,
    numbers_of,
    open_image,
    packed_colours,
    read_binary,
    read_image,
    stored_mode,
)
from train_utils.data.class_table import ClassTable
from train_utils.data.labels import read_label
from train_utils.data.samples import Sample

DARK = 64  # an image whose largest value is below this is reported
JPEG_SUFFIXES = (".jpg", ".jpeg", ".jfif")


@dataclass
class Finding:
    """What the files of one sample hold; None for what cannot be read."""

    split: str
    sample: Sample
    image: Tensor | None = None  # uint8 [C, H, W]
    target: np.ndarray | None = None  # uint8 [H, W]
    encoding: str = ""  # how the label was read
    roi_share: float | None = None  # share of the image's pixels inside the ROI mask
    mode: str = ""  # Pillow's name of the image's mode
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check_sample(
    split: str, sample: Sample, table: ClassTable, channels: int, max_pixels: int | None
) -> Finding:
    """Reads image, label and ROI mask one by one, so that one error does not hide another."""
    finding = Finding(split, sample)
    finding.image = try_reading(finding, read_image, sample.image, channels, max_pixels)
    if finding.image is not None:
        check_image(finding)
    if sample.label is not None:
        label = try_reading(finding, read_label, sample.label, table, max_pixels)
        if label is None:
            finding.errors[-1] += likely_cause(sample.label, table)
        else:
            finding.target, finding.encoding = label
        if sample.label.suffix.lower() in JPEG_SUFFIXES:
            finding.warnings.append(
                f"{sample.label}: is a JPEG, which changes values near edges; save labels as PNG"
            )
    roi = None
    if sample.roi is not None:
        roi = try_reading(finding, read_binary, sample.roi, "ROI mask", max_pixels)
    if not same_size(finding, sample.label, finding.target):
        finding.target = None
    if roi is not None:
        mask, _ = roi
        same_size(finding, sample.roi, mask)
        apply_roi(finding, mask)
    return finding


def try_reading(finding: Finding, function: Callable, *args: object) -> object:
    """function(*args), or None with the message of its UserError among the errors."""
    try:
        return function(*args)
    except UserError as error:
        finding.errors.append(str(error))
        return None


def check_image(finding: Finding) -> None:
    """Records the mode of the file; warns if the image is very dark."""
    path = finding.sample.image
    finding.mode = stored_mode(path)
    largest = int(finding.image.max())
    if largest < DARK:
        finding.warnings.append(
            f"{path}: is very dark, its largest value is {largest} of 255 "
            "(12 bits stored in 16 look like this: scale them up)"
        )


def same_size(finding: Finding, path: Path | None, mask: np.ndarray | None) -> bool:
    """Whether a mask has its image's size (or one of the two is missing); reports it if not."""
    if mask is None or finding.image is None:
        return True
    height, width = finding.image.shape[1:]
    if mask.shape == (height, width):
        return True
    cause = ""
    if mask.shape == (width, height):
        cause = " (turned by 90°: an EXIF orientation that the other lacks?)"
    finding.errors.append(
        f"{path}: is {mask.shape[1]}×{mask.shape[0]} pixels, "
        f"its image {finding.sample.image} is {width}×{height}{cause}"
    )
    return False


def apply_roi(finding: Finding, mask: np.ndarray) -> None:
    """Sets target pixels outside the ROI mask (bool [H, W]) to IGNORE; reports an empty mask."""
    sample = finding.sample
    finding.roi_share = float(mask.mean())
    if finding.roi_share == 0:
        finding.errors.append(
            f"{sample.roi}: the ROI mask is empty, so {sample.image} would have no valid pixel"
        )
    if finding.target is not None and finding.target.shape == mask.shape:
        finding.target = np.where(mask, finding.target, IGNORE).astype(np.uint8)


# --- labels that cannot be read ------------------------------------------------------------------


def likely_cause(path: Path, table: ClassTable) -> str:
    """Why a label may have values outside the table: smoothed edges, JPEG artefacts, or "".

    The stray values of smoothing lie between those of the classes, at the edges between them.
    """
    try:
        image = open_image(path)
        numbers = numbers_of(path, image)
        colours = packed_colours(image)
    except UserError:
        return ""
    by_colour = numbers is None or (bool(table.palette) and colours is not None)
    values = colours if by_colour else numbers
    found, counts = np.unique(values, return_counts=True)
    expected = expected_values(table, by_colour, found, counts)
    stray = torch.from_numpy(~np.isin(values, expected))
    if not stray.any() or stray.all() or len(found) - len(expected) < 3:
        return ""
    rank = np.searchsorted(np.sort(expected), values)
    between = between_neighbours(torch.from_numpy(rank.astype(np.float32)), stray)
    if between.sum() > 0.9 * stray.sum():
        return (
            " [the stray pixels lie along the edges: "
            "drawn or resized with smoothing, or saved as JPEG]"
        )
    return (
        " [many stray values away from the edges: "
        "JPEG artefacts, or a photograph instead of a label]"
    )


def expected_values(
    table: ClassTable, by_colour: bool, found: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """The numbers or packed colours of the table; for any pair, the two most frequent values."""
    if table.any_pair:
        return found[np.argsort(-counts)[:2]]
    if by_colour:
        return np.array([red << 16 | green << 8 | blue for red, green, blue in table.palette])
    return np.array(list(table.numbers))


def between_neighbours(rank: Tensor, stray: Tensor) -> Tensor:
    """bool [H, W]: stray pixels with two different expected values in their 5×5 neighbourhood.

    rank: float32 [H, W], position of each pixel's value among the sorted expected values.
    stray: bool [H, W], pixels whose value is not an expected one.
    """
    highest = F.max_pool2d(rank.masked_fill(stray, -1)[None], 5, 1, 2)[0]
    lowest = -F.max_pool2d(-rank.masked_fill(stray, 1e6)[None], 5, 1, 2)[0]
    return (highest > lowest) & (lowest < 1e6) & stray

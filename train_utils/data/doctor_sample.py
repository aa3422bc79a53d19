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
from train_utils.data.border_weights import read_weights
from train_utils.data.class_table import ClassTable
from train_utils.data.doctor_instances import Objects, check_objects, read_objects
from train_utils.data.labels import count_objects, read_label
from train_utils.data.problems import Problem, problem_of
from train_utils.data.samples import Sample, label_path

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
    label: Path | None = None  # the label of the kind that is read
    objects: Objects | None = None  # of a label with one id an object
    weight: np.ndarray | None = None  # float32 [H, W]
    roi_share: float | None = None  # share of the image's pixels inside the ROI mask
    mode: str = ""  # Pillow's name of the image's mode
    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


def check_sample(
    split: str,
    sample: Sample,
    table: ClassTable,
    channels: int,
    max_pixels: int | None,
    label_kind: str = "classes",
) -> Finding:
    """Reads the files of a sample one by one, so that one error does not hide another."""
    finding = Finding(split, sample, label=label_path(sample, label_kind))
    finding.image = try_reading(finding, read_image, sample.image, channels, max_pixels)
    if finding.image is not None:
        check_image(finding)
    if finding.label is not None:
        if label_kind == "instances":
            check_instances(finding, max_pixels)
        else:
            check_classes(finding, table, max_pixels)
        check_suffix(finding)
        if not same_size(finding, finding.label, finding.target):
            finding.target = finding.objects = None
    if sample.weight is not None:
        finding.weight = try_reading(finding, read_weights, sample.weight, max_pixels)
        if not same_size(finding, sample.weight, finding.weight):
            finding.weight = None
    if sample.roi is not None:
        roi = try_reading(finding, read_binary, sample.roi, "ROI mask", max_pixels)
        if roi is not None:
            same_size(finding, sample.roi, roi[0])
            apply_roi(finding, roi[0])
    return finding


def try_reading(finding: Finding, function: Callable, path: Path, *args: object) -> object:
    """function(path, *args), or None with the problem of its UserError among the errors."""
    try:
        return function(path, *args)
    except UserError as error:
        finding.errors.append(problem_of(error, path))
        return None


def check_image(finding: Finding) -> None:
    """Records the mode of the file; warns if the image is very dark."""
    path = finding.sample.image
    finding.mode = stored_mode(path)
    largest = int(finding.image.max())
    if largest < DARK:
        text = (
            f"{path}: is very dark, its largest value is {largest} of 255 "
            "(12 bits stored in 16 look like this: scale them up)"
        )
        finding.warnings.append(Problem(text, "dark", path.name))


def check_classes(finding: Finding, table: ClassTable, max_pixels: int | None) -> None:
    """Reads a label of classes; an error gets a note on its likely cause."""
    path = finding.label
    try:
        finding.target, finding.encoding = read_label(path, table, max_pixels)
    except UserError as error:
        finding.errors.append(problem_of(error, path, likely_cause(path, table)))


def check_instances(finding: Finding, max_pixels: int | None) -> None:
    """Reads a label with one id an object."""
    finding.objects = try_reading(finding, read_objects, finding.label, max_pixels)
    if finding.objects is not None:
        finding.target, finding.encoding = finding.objects.target, "instance ids"
        finding.warnings += check_objects(finding.objects)


def check_suffix(finding: Finding) -> None:
    """Warns of a label that is a JPEG."""
    path = finding.label
    if path.suffix.lower() in JPEG_SUFFIXES:
        text = f"{path}: is a JPEG, which changes values near edges; save labels as PNG"
        finding.warnings.append(Problem(text, "JPEG", path.name))


def same_size(finding: Finding, path: Path, mask: np.ndarray | None) -> bool:
    """Whether a mask has its image's size (or one of the two is missing); reports it if not."""
    if mask is None or finding.image is None:
        return True
    height, width = finding.image.shape[1:]
    if mask.shape == (height, width):
        return True
    cause = ""
    if mask.shape == (width, height):
        cause = " (turned by 90°: an EXIF orientation that the other lacks?)"
    text = (
        f"{path}: is {mask.shape[1]}×{mask.shape[0]} pixels, "
        f"its image {finding.sample.image} is {width}×{height}{cause}"
    )
    finding.errors.append(Problem(text, f"size{cause}", path.name))
    return False


def apply_roi(finding: Finding, mask: np.ndarray) -> None:
    """Sets target pixels outside the ROI mask (bool [H, W]) to IGNORE; reports an empty mask."""
    sample = finding.sample
    finding.roi_share = float(mask.mean())
    if finding.roi_share == 0:
        text = f"{sample.roi}: the ROI mask is empty, so {sample.image} would have no valid pixel"
        finding.errors.append(Problem(text, "empty ROI mask", sample.roi.name))
    if finding.target is not None and finding.target.shape == mask.shape:
        finding.target = np.where(mask, finding.target, IGNORE).astype(np.uint8)


# --- labels that cannot be read ------------------------------------------------------------------


def likely_cause(path: Path, table: ClassTable) -> str:
    """Why a label may have values outside the table: smoothed edges, JPEG artefacts, or "".

    The stray values of smoothing lie between those of the classes, at the edges between them. Of a
    label with one id an object the error says all that is to be said.
    """
    try:
        image = open_image(path)
        numbers = numbers_of(path, image)
        colours = packed_colours(image)
    except UserError:
        return ""
    if count_objects(path, image):
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
        " [many stray values away from the edges: ids of objects (--label-kind instances), "
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

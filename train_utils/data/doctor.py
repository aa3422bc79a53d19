"""The label doctor: looks at every file of a data set, and says what is wrong and what training would make of it.

Errors are what training would refuse or learn wrongly from; warnings are what a person should look at.
"""

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F

from src.errors import UserError
from src.image_io import (
    IGNORE,
    numbers_of,
    open_image,
    packed_colours,
    read_binary,
    read_image,
    stem_of,
    stored_mode,
)
from train_utils.data.class_table import contradiction, read_label
from train_utils.data.statistics import channel_sums, mean_and_std
from train_utils.dice_coefficient_loss import median_frequency_weights

NAMED = 8  # files or values that a line names at most


@dataclass
class Finding:
    """What was found in the files of one sample; what could not be read is None."""

    split: str
    sample: object
    image: torch.Tensor | None = None  # uint8 [C, H, W]
    target: np.ndarray | None = None  # uint8 [H, W]
    encoding: str = ""
    roi_share: float | None = None
    mode: str = ""
    errors: list = field(default_factory=list)
    warnings: list = field(default_factory=list)


@dataclass
class Report:
    """lines: the report; errors and warnings: sentences; shown: Findings for the contact sheet."""

    lines: list = field(default_factory=list)
    errors: list = field(default_factory=list)
    warnings: list = field(default_factory=list)
    shown: list = field(default_factory=list)

    def text(self):
        return "\n".join(
            [
                *self.lines,
                "",
                f"{len(self.errors)} errors, {len(self.warnings)} warnings",
                *(f"ERROR: {text}" for text in self.errors),
                *(f"warning: {text}" for text in self.warnings),
            ]
        )


def check(files, table, channels=3, max_pixels=None, shown=6):
    """The Report on a DatasetFiles whose labels are read by a ClassTable. Reads each file once; keeps `shown` pairs a split."""
    report, seen = Report(errors=list(files.problems)), Seen(len(table.names))
    for split, samples in files.splits.items():
        wanted = {round(i) for i in np.linspace(0, max(len(samples) - 1, 0), shown)}
        for i, sample in enumerate(samples):
            finding = examine(split, sample, table, channels, max_pixels)
            report.errors += finding.errors
            report.warnings += finding.warnings
            seen.add(finding)
            if i in wanted and finding.image is not None and finding.target is not None:
                report.shown.append(finding)
    report.lines += ["class table:", *(f"  {line}" for line in table.describe())]
    for split, samples in files.splits.items():
        report.lines += seen.describe(split, len(samples), table.names)
    report.lines += seen.suggest()
    errors, warnings = seen.judge(table.names)
    report.errors += errors
    report.warnings += warnings
    return report


# --- one sample ---------------------------------------------------------------------------------------------------------


def examine(split, sample, table, channels, max_pixels):
    """The Finding about one sample. Image, label and ROI mask are tried one by one, so that one error hides no other."""
    finding = Finding(split, sample)
    finding.image = attempt(finding, read_image, sample.image, channels, max_pixels)
    if finding.image is not None:
        finding.mode = stored_mode(sample.image)
        if finding.image.max() < 64:
            finding.warnings.append(
                f"{sample.image}: is very dark, its largest value is {int(finding.image.max())} of 255 "
                "(12 bits stored in 16 look like this: scale them up)"
            )
    if sample.label is not None:
        read = attempt(finding, read_label, sample.label, table, max_pixels)
        if read is None:
            finding.errors[-1] += explain(sample.label, table)
        else:
            finding.target, finding.encoding = read
        if sample.label.suffix.lower() in (".jpg", ".jpeg", ".jfif"):
            finding.warnings.append(
                f"{sample.label}: is a JPEG, which changes values near edges; save labels as PNG"
            )
    roi = attempt(finding, read_binary, sample.roi, "ROI mask", max_pixels) if sample.roi else None
    compare_sizes(finding, roi)
    return finding


def attempt(finding, function, *args):
    """function(*args), or None with its UserError noted."""
    try:
        return function(*args)
    except UserError as error:
        finding.errors.append(str(error))
        return None


def compare_sizes(finding, roi):
    """Notes masks of another size than the image; the target gets the ROI, if they fit."""
    sample, image = finding.sample, finding.image
    masks = [
        ("label", sample.label, finding.target),
        ("ROI mask", sample.roi, roi[0] if roi else None),
    ]
    for what, path, mask in masks:
        if mask is not None and image is not None and mask.shape != tuple(image.shape[1:]):
            turned = mask.shape[::-1] == tuple(image.shape[1:])
            finding.errors.append(
                f"{path}: is {mask.shape[1]}×{mask.shape[0]} pixels, its image {sample.image} is "
                f"{image.shape[2]}×{image.shape[1]}"
                + (" (turned by 90°: an EXIF orientation that the other lacks?)" if turned else "")
            )
            if what == "label":
                finding.target = None
    if roi:
        finding.roi_share = float(roi[0].mean())
        if finding.roi_share == 0:
            finding.errors.append(
                f"{sample.roi}: the ROI mask is empty, so that no pixel of {sample.image} would count"
            )
        if finding.target is not None and roi[0].shape == finding.target.shape:
            finding.target = np.where(roi[0], finding.target, IGNORE).astype(np.uint8)


def explain(path, table):
    """What the stray values of an unreadable label look like: smoothed edges, JPEG artefacts, or neither ("")."""
    try:
        image = open_image(path)
        numbers = numbers_of(path, image)
        colours = packed_colours(image)
    except UserError:
        return ""
    codes = colours if numbers is None or (table.palette and colours is not None) else numbers
    found, counts = np.unique(codes, return_counts=True)
    if table.any_pair:
        expected = found[np.argsort(-counts)[:2]]
    else:
        expected = np.array(
            [*table.numbers]
            if codes is numbers
            else [r << 16 | g << 8 | b for r, g, b in table.palette]
        )
    place = torch.from_numpy(np.searchsorted(np.sort(expected), codes).astype(np.float32))[None]
    stray = torch.from_numpy(~np.isin(codes, expected))
    if not stray.any() or stray.all() or len(found) - len(expected) < 3:
        return ""
    highest = F.max_pool2d(place.masked_fill(stray, -1), 5, 1, 2)[0]
    lowest = -F.max_pool2d(-place.masked_fill(stray, 1e6), 5, 1, 2)[0]
    between = (highest > lowest) & (lowest < 1e6) & stray
    if between.sum() > 0.9 * stray.sum():
        return " [the stray pixels lie along the edges: drawn or resized with smoothing, or saved as JPEG]"
    return " [many stray values away from the edges: JPEG artefacts, or a photograph in place of a label]"


# --- all samples --------------------------------------------------------------------------------------------------------


class Seen:
    """What is added up over all samples of all splits."""

    def __init__(self, num_classes):
        self.num_classes = num_classes
        self.pixels = defaultdict(
            lambda: np.zeros(256, np.int64)
        )  # split → pixels of each class and of IGNORE
        self.images = defaultdict(
            lambda: np.zeros(256, np.int64)
        )  # split → images in which each class occurs
        self.sizes, self.modes, self.encodings = (
            defaultdict(Counter),
            defaultdict(Counter),
            defaultdict(Counter),
        )
        self.roi_shares, self.plain = defaultdict(list), defaultdict(list)
        self.same_image, self.same_label = (
            defaultdict(list),
            defaultdict(list),
        )  # content → (split, path)
        self.sums = None

    def add(self, finding):
        split, sample, image, target = finding.split, finding.sample, finding.image, finding.target
        if image is not None:
            self.sizes[split][tuple(image.shape[1:])] += 1
            self.modes[split][finding.mode] += 1
            self.same_image[digest(image.numpy())].append((split, sample.image))
        if finding.roi_share is not None:
            self.roi_shares[split].append(finding.roi_share)
        if target is None:
            return
        counts = np.bincount(target.ravel(), minlength=256)
        self.pixels[split] += counts
        self.images[split] += counts > 0
        self.encodings[split][finding.encoding] += 1
        if np.count_nonzero(counts[:IGNORE]) < 2:
            self.plain[split].append(sample.label)
        else:
            self.same_label[digest(target)].append((split, sample.label))
        if image is not None and split in ("train", "all"):
            sums = channel_sums(image, torch.from_numpy(target != IGNORE))
            self.sums = sums if self.sums is None else tuple(a + b for a, b in zip(self.sums, sums))

    def describe(self, split, count, names):
        """The lines about one split."""

        def tally(counter):
            return (
                ", ".join(f"{number} × {thing}" for thing, number in counter.most_common(NAMED))
                or "none"
            )

        pixels, judged = self.pixels[split], max(1, self.pixels[split][:IGNORE].sum())
        sizes = Counter(
            {f"{width}×{height}": number for (height, width), number in self.sizes[split].items()}
        )
        lines = [
            "",
            f"{split}: {count} samples, {sum(self.encodings[split].values())} labels that can be read",
            f"  image sizes: {tally(sizes)}",
            f"  image modes: {tally(self.modes[split])}",
            f"  labels are read as: {tally(self.encodings[split])}",
        ]
        if self.roi_shares[split]:
            shares = self.roi_shares[split]
            lines.append(
                f"  ROI masks cover {100 * min(shares):.1f} to {100 * max(shares):.1f} % of an image"
            )
        for index, name in enumerate(names):
            lines.append(
                f"  {name:<16}{100 * pixels[index] / judged:8.3f} % of the pixels that count, in "
                f"{self.images[split][index]} images"
            )
        lines.append(
            f"  {'not judged':<16}{100 * pixels[IGNORE] / max(1, pixels.sum()):8.3f} % of all pixels"
        )
        lines.append(
            f"  foreground (all but {names[0]}): {100 * pixels[1 : len(names)].sum() / judged:.3f} %"
        )
        return lines

    def suggest(self):
        """Mean, std and class weights for train.py's flags, from the training samples."""
        if self.sums is None or not self.sums[0]:
            return []
        words = [
            " ".join(f"{value:.3f}" for value in values.tolist())
            for values in mean_and_std(*self.sums)
        ]
        pixels = self.pixels["train"] + self.pixels["all"]
        weights = median_frequency_weights(torch.from_numpy(pixels[: self.num_classes]))
        return [
            "",
            f"suggested, from the training images: --mean {words[0]} --std {words[1]}",
            f"  --class-weights {','.join(f'{weight:.3g}' for weight in weights.tolist())} (auto gives these)",
        ]

    def judge(self, names):
        """(errors, warnings) that no single sample shows."""
        errors, warnings = [], []
        for group in self.same_image.values():
            if len(group) > 1:
                paths = ", ".join(str(path) for _, path in group[:NAMED])
                across = len({split for split, _ in group}) > 1
                if across:
                    errors.append(
                        f"the same picture in several splits, so that scores would be flattered: {paths}"
                    )
                else:
                    warnings.append(f"the same picture twice: {paths}")
        doubled = {
            path for group in self.same_image.values() if len(group) > 1 for _, path in group
        }
        for group in self.same_label.values():
            if len(group) > 1 and not {stem_of(path) for _, path in group} <= {
                stem_of(path) for path in doubled
            }:
                warnings.append(
                    "the same label for different pictures, one of which must be wrong: "
                    + ", ".join(str(path) for _, path in group[:NAMED])
                )
        pairs = {
            name: [count, f"a label of {split}"]
            for split, found in self.encodings.items()
            for name, count in found.items()
        }
        if contradiction(pairs):
            errors.append(contradiction(pairs))
        training = self.pixels["train"] + self.pixels["all"]
        for split, pixels in self.pixels.items():
            if len(self.encodings[split]) > 1:
                warnings.append(
                    f"{split}: labels of several encodings: "
                    + ", ".join(
                        f"{count} as {name}" for name, count in self.encodings[split].items()
                    )
                )
            missing = [name for i, name in enumerate(names) if pixels[i] and not training[i]]
            if missing:
                warnings.append(
                    f"{split}: holds classes that no training image has: {', '.join(missing)}"
                )
            if len(names) == 2 and pixels[1] > pixels[0]:
                warnings.append(
                    f"{split}: {names[1]} covers {100 * pixels[1] / pixels[:2].sum():.0f} % of the pixels; are "
                    "the labels inverted?"
                )
        for split, plain in self.plain.items():
            warnings.append(
                f"{split}: {len(plain)} labels hold a single class: {', '.join(str(p) for p in plain[:NAMED])}"
            )
        absent = [name for i, name in enumerate(names) if not training[i]]
        if absent and training.any():
            warnings.append(f"no training image has a pixel of: {', '.join(absent)}")
        return errors, warnings


def digest(array):
    return hashlib.sha256(
        repr(array.shape).encode() + np.ascontiguousarray(array).tobytes()
    ).hexdigest()

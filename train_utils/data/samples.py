"""A sample's files, and which image, label and ROI mask belong together by their names."""

import re
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from src.image_io import stem_of

# What file names have beside the sample's name: x.jpg belongs to x_mask.png, 21_training.tif to
# 21_manual1.gif, x_0000.nii.gz (the first channel in nnU-Net's names) to x.nii.gz.
IMAGE_ENDINGS = r"(_training|_test|_image|_img|_sat|_0000)$"
LABEL_ENDINGS = (
    r"(_training_mask|_test_mask|_mask|_masks|_label|_labels|_labelids|_manual1|_1stho|_gt|_seg"
    r"|_segmentation|_annotation|_l|_p|_roi|_fov)$"
)


@dataclass(frozen=True)
class Sample:
    """The files of one image; None for those that it does not have.

    roi: mask of the valid pixels.
    second: label by a second observer, who is scored for comparison with the model.
    """

    name: str
    image: Path
    label: Path | None = None
    roi: Path | None = None
    second: Path | None = None


@dataclass
class DatasetFiles:
    """The samples of a dataset, and sentences about files that do not match.

    splits: {"train", "val", "test": samples} if the layout has splits, else {"all": samples}.
    """

    splits: dict[str, list[Sample]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, split: str, samples: list[Sample], problems: list[str]) -> None:
        """Adds a split and the problems of its files."""
        self.splits[split] = samples
        self.problems += problems


def pair(
    images: list[Path],
    labels: list[Path],
    rois: list[Path],
    label_folder: Path,
    roi_folder: Path | None = None,
    labels_required: bool = True,
) -> tuple[list[Sample], list[str]]:
    """Pairs files of equal names, else files whose names are equal without their endings.

    labels_required: report images without a label. If there are ROI masks, each image needs one.
    Returns (samples, problems).
    """
    by_name, by_short_name, problems = {}, {}, []
    for image in images:
        name = match_key(image)
        if name in by_name:
            problems.append(two_files(by_name[name], image))
        by_name.setdefault(name, image)
        by_short_name.setdefault(match_key(image, IMAGE_ENDINGS), image)

    def image_of(path: Path) -> Path | None:
        short = match_key(path, LABEL_ENDINGS)
        return by_name.get(match_key(path)) or by_name.get(short) or by_short_name.get(short)

    images = list(by_name.values())
    label_of, label_problems = match_files(labels, image_of)
    if labels_required:
        label_problems += missing_files("label", images, label_of, label_folder)
    roi_of, roi_problems = match_files(rois, image_of)
    if rois:
        roi_problems += missing_files("ROI mask", images, roi_of, roi_folder)
    samples = [
        Sample(stem_of(image), image, label_of.get(image), roi_of.get(image)) for image in images
    ]
    return samples, problems + label_problems + roi_problems


def match_key(path: Path, endings: str | None = None) -> str:
    """The file name in lower case, without suffix and without one of the `endings` (a regex)."""
    stem = stem_of(path).lower()
    if endings is None:
        return stem
    return re.sub(endings, "", stem)


def match_files(
    files: list[Path], image_of: Callable[[Path], Path | None]
) -> tuple[dict[Path, Path], list[str]]:
    """({image: file}, problems) of labels or of ROI masks; image_of(file) is its image or None."""
    found, problems = {}, []
    for path in files:
        image = image_of(path)
        if image is None:
            problems.append(f"{path} has no image")
        elif image in found:
            problems.append(two_files(found[image], path))
        else:
            found[image] = path
    return found, problems


def missing_files(
    what: str, images: Iterable[Path], found: Container[Path], folder: Path | None
) -> list[str]:
    """The problems of images without a label or a ROI mask."""
    return [f"{image} has no {what} in {folder}" for image in images if image not in found]


def two_files(first: Path, second: Path) -> str:
    """The problem of two files for one image."""
    return f"{first} and {second} are two files for one image; keep one of them"

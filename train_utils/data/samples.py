"""A sample's files, and which image, label and ROI mask belong together by their names."""

import re
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from src.errors import UserError
from src.image_io import stem_of
from train_utils.data.instance_labels import instance_files
from train_utils.data.problems import Problem

# What file names have beside the sample's name: x.jpg belongs to x_mask.png, 21_training.tif to
# 21_manual1.gif, x_0000.nii.gz (the first channel in nnU-Net's names) to x.nii.gz.
IMAGE_ENDINGS = r"(_training|_test|_image|_img|_sat|_0000)$"
LABEL_ENDINGS = (
    r"(_training_mask|_test_mask|_mask|_masks|_label|_labels|_labelids|_manual1|_1stho|_gt|_seg"
    r"|_segmentation|_annotation|_l|_p|_roi|_fov|_instance|_instances|_instanceids|_ids|_weight"
    r"|_weights)$"
)
TRAINING_SPLITS = ("train", "all")  # "all": a dataset without splits


@dataclass(frozen=True)
class Sample:
    """The files of one image; None for those that it does not have.

    roi: mask of the valid pixels.
    second: label by a second observer, who is scored for comparison with the model.
    instances: label with one id an object: a file, or a folder with one mask an object.
    weight: map of the loss's weight at each pixel.
    """

    name: str
    image: Path
    label: Path | None = None
    roi: Path | None = None
    second: Path | None = None
    instances: Path | None = None
    weight: Path | None = None


def label_path(sample: Sample, label_kind: str) -> Path | None:
    """The label that is read as "classes" or "instances".

    Without instances, a label is read as ids: the masks/ of many datasets hold them.
    """
    if label_kind == "instances":
        return sample.instances or sample.label
    return sample.label


def choose_label_kind(given: str | None, samples: Iterable[Sample]) -> str:
    """What the labels are read as: "classes", or "instances" for one id an object.

    It is `given` (--label-kind), if that is not None; else "instances" if there are no other
    labels. UserError for "classes" without any.
    """
    samples = list(samples)
    has_labels = any(sample.label for sample in samples)
    instances = [sample.instances for sample in samples if sample.instances]
    if given == "classes" and instances and not has_labels:
        raise UserError(
            f"--label-kind classes: there are no labels of classes, only ids of objects such as "
            f"{instances[0]}; give --label-kind instances to read those"
        )
    if given is None:
        return "instances" if instances and not has_labels else "classes"
    return given


@dataclass
class DatasetFiles:
    """The samples of a dataset, and sentences about files that do not match.

    splits: {"train", "val", "test": samples} if the layout has splits, else {"all": samples}.
    problems: each a Problem, or any string. notes: on files that are not used, which is no problem.
    """

    splits: dict[str, list[Sample]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, split: str, samples: list[Sample], problems: list[str]) -> None:
        """Adds a split and the problems of its files."""
        self.splits[split] = samples
        self.problems += problems


# --- files of one image --------------------------------------------------------------------------


def pair(
    images: list[Path],
    labels: list[Path],
    rois: list[Path],
    label_folder: Path,
    roi_folder: Path | None = None,
    labels_required: bool = True,
) -> tuple[list[Sample], list[Problem]]:
    """Pairs files of equal names, else files whose names are equal without their endings.

    labels_required: report images without a label. If there are ROI masks, each image needs one.
    Returns (samples, problems).
    """
    by_name, problems = {}, []
    for image in images:
        name = match_key(image)
        if name in by_name:
            problems.append(two_files(by_name[name], image))
        by_name.setdefault(name, image)
    images = list(by_name.values())
    image_of = image_finder(images)
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


def add_files(
    samples: list[Sample], field_name: str, files: Sequence[Path]
) -> tuple[list[Sample], list[Problem]]:
    """The samples with the files that belong to their images by name, and problems of the files.

    field_name: that of Sample which holds the file.
    """
    file_of, problems = match_files(files, image_finder([sample.image for sample in samples]))
    found = [replace(each, **{field_name: file_of.get(each.image)}) for each in samples]
    return found, problems


def image_finder(images: Iterable[Path]) -> Callable[[Path], Path | None]:
    """A function that returns the image to which a label or mask belongs by its name, or None."""
    by_name, by_short_name = {}, {}
    for image in images:
        by_name.setdefault(match_key(image), image)
        by_short_name.setdefault(match_key(image, IMAGE_ENDINGS), image)

    def image_of(path: Path) -> Path | None:
        short = match_key(path, LABEL_ENDINGS)
        return by_name.get(match_key(path)) or by_name.get(short) or by_short_name.get(short)

    return image_of


def match_key(path: Path, endings: str | None = None) -> str:
    """The file name in lower case, without suffix and without one of the `endings` (a regex)."""
    stem = path.name if path.is_dir() else stem_of(path)
    if endings is None:
        return stem.lower()
    return re.sub(endings, "", stem.lower())


def match_files(
    files: Iterable[Path], image_of: Callable[[Path], Path | None]
) -> tuple[dict[Path, Path], list[Problem]]:
    """({image: file}, problems) of labels or of ROI masks; image_of(file) is its image or None."""
    found, problems = {}, []
    for path in files:
        image = image_of(path)
        if image is None:
            problems.append(Problem(f"{path} has no image", "no image", path.name))
        elif image in found:
            problems.append(two_files(found[image], path))
        else:
            found[image] = path
    return found, problems


def missing_files(
    what: str, images: Iterable[Path], found: Container[Path], folder: Path | str | None
) -> list[Problem]:
    """The problems of images without a label, ROI mask or weight map."""
    return [
        Problem(f"{image} has no {what} in {folder}", f"no {what}", image.name)
        for image in images
        if image not in found
    ]


def ids_among_labels(samples: Iterable[Sample], folder: Path) -> list[Problem]:
    """The problems of ids of objects in a folder of labels, where only image files are read.

    They are .npy files and folders of masks that belong to samples without a label.
    """
    image_of = image_finder(each.image for each in samples if not (each.label or each.instances))
    return [
        Problem(
            f"{path} is not read: ids of objects as .npy, or as a folder with one mask an object, "
            "are looked for in instances/; move it there",
            "ids among labels",
            path.name,
        )
        for path in instance_files(folder)
        if (path.is_dir() or path.suffix.lower() == ".npy") and image_of(path)
    ]


def two_files(first: Path, second: Path) -> Problem:
    """The problem of two files for one image."""
    text = f"{first} and {second} are two files for one image; keep one of them"
    return Problem(text, "two files", second.name)

"""Layouts: which files of a folder are the images and labels of each split.

A layout is a function of the data's path that returns a DatasetFiles. This file holds the two that
serve any images, `folder` and `from_list`; public_datasets.py holds those of published datasets and
volume_layouts.py that of volumes. Files that do not match are collected as problems, so that the
label doctor can report all of them. Training refuses a dataset with problems.
"""

from collections.abc import Callable, Container, Iterable
from pathlib import Path
from typing import NamedTuple

from src.errors import UserError
from src.image_io import image_files, stem_of
from train_utils.data.instance_labels import instance_files
from train_utils.data.problems import Problem
from train_utils.data.samples import (
    TRAINING_SPLITS,
    DatasetFiles,
    Sample,
    add_files,
    ids_among_labels,
    missing_files,
    pair,
)
from train_utils.data.text_lines import read_lines
from train_utils.data.wrong_files import refuse_empty, refuse_inner_folder, refuse_unreadable
from train_utils.plurals import counted

# Split → names that its folder may have.
SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
IMAGE_FOLDERS = ("images",)
ROI_FOLDERS = ("roi", "rois", "fov")


class Folders(NamedTuple):
    """The folders of the samples of a split; None for missing ones."""

    images: Path | None
    labels: Path | None
    rois: Path | None
    instances: Path | None
    weights: Path | None


# The names that each of the Folders may have.
FOLDER_NAMES = (
    IMAGE_FOLDERS,
    ("masks", "labels", "annotations"),
    ROI_FOLDERS,
    ("instances",),
    ("weights",),
)


def first_folder(root: Path, names: Iterable[str]) -> Path | None:
    """The folder in `root` that has one of the names, or None; UserError if there are two."""
    found = [root / name for name in names if (root / name).is_dir()]
    if len(found) > 1:
        raise UserError(f"{found[0]} and {found[1]} both exist; keep one, or rename the other")
    return found[0] if found else None


def optional_files(
    folder: Path | None, list_files: Callable[[Path], list[Path]] = image_files
) -> list[Path]:
    """The image files of a folder; [] for None. list_files: the files that are read."""
    return list_files(folder) if folder else []


# --- images/ and masks/ --------------------------------------------------------------------------


def folder(
    root: str | Path, list_files: Callable[[Path], list[Path]] = image_files
) -> DatasetFiles:
    """Any images/ + masks/ (+ roi/): without splits, or with train/, val/, test/ above or below.

    masks/ may also be called labels/ or annotations/. Beside it, or in place of it, there may be
    instances/ with one id an object, and weights/ with a map for each training image. Files are
    paired by name, see pair(). A test split may have no labels.

    list_files: the files of a folder that are read; of other files than images there are neither
    instances nor weights. UserError if there are no training images.
    """
    found, dataset = find_folders(Path(root)), DatasetFiles()
    for split, folders in found.items():
        if list_files is not image_files:
            folders = folders._replace(instances=None, weights=None)
        # A folder inside instances/ holds one mask an object, unless it is that of a split.
        split_folders = {each.instances for each in found.values()}
        if optional_files(folders.images, list_files):
            dataset.add(split, *pair_folders(split, folders, list_files, split_folders))
    dataset.notes += unused_images(Path(root), found, list_files)
    if "all" in dataset.splits and len(dataset.splits) > 1:
        # Beside val/ or test/, the images without a split are for training.
        dataset.splits["train"] = dataset.splits.pop("all")
    if not dataset.splits.keys() & {"all", "train"}:
        folders = found["train"] if "train" in found else found["all"]
        refuse_unreadable(folders.images, list_files)
        if Path(root).resolve().with_name("images").is_dir():
            refuse_inner_folder(Path(root), [name for names in FOLDER_NAMES for name in names])
        refuse_empty(Path(root) / "images", list_files)
    return dataset


def unused_images(
    root: Path, found: dict[str, Folders], list_files: Callable[[Path], list[Path]]
) -> list[str]:
    """A note on each folder with images that belong to no split, such as images/ beside train/."""
    used = {folders.images for folders in found.values()}
    parents = {sample_folders(root).images, *used} - {None}
    below = {each for parent in parents for each in parent.iterdir() if each.is_dir()}
    visible = {each for each in below if not each.name.startswith((".", "__"))}
    notes = []
    for folder in sorted((parents | visible) - used):
        files = list_files(folder)
        if files:
            notes.append(f"{folder} belongs to no split: {counted(len(files), 'files')} not used")
    return notes


def find_folders(root: Path) -> dict[str, Folders]:
    """{split or "all": its folders}."""
    everywhere = sample_folders(root)
    found = {"all": everywhere}
    for split, names in SPLITS.items():
        above = first_folder(root, names)
        below = Folders(*(place and first_folder(place, names) for place in everywhere))
        if above and first_folder(above, IMAGE_FOLDERS):
            found[split] = sample_folders(above)
        elif below.images:
            found[split] = below
    if "train" in found:
        del found["all"]
    return found


def sample_folders(root: Path) -> Folders:
    """The folders in `root`."""
    return Folders(*(first_folder(root, names) for names in FOLDER_NAMES))


def pair_folders(
    split: str,
    folders: Folders,
    list_files: Callable[[Path], list[Path]],
    split_folders: Container[Path | None],
) -> tuple[list[Sample], list[Problem]]:
    """(samples, problems) of one split."""
    ids = optional_files(folders.instances, instance_files)
    ids = [path for path in ids if path not in split_folders]
    labels_required = split != "test" or bool(folders.labels or folders.instances)
    label_folder = folders.labels or folders.images.with_name("masks")
    samples, problems = pair(
        list_files(folders.images),
        list_files(label_folder),
        optional_files(folders.rois, list_files),
        label_folder,
        folders.rois,
        labels_required and not ids,
    )
    if ids:
        samples, more = add_files(samples, "instances", ids)
        problems += more + without_labels(samples, folders)
    problems += ids_among_labels(samples, label_folder)
    weights = optional_files(folders.weights, weight_files)
    if weights:
        samples, more = add_files(samples, "weight", weights)
        problems += more
    if weights and split in TRAINING_SPLITS:
        found = {sample.image for sample in samples if sample.weight}
        images = [sample.image for sample in samples]
        problems += missing_files("weight map", images, found, folders.weights)
    return samples, problems


def weight_files(folder: Path) -> list[Path]:
    """The weight maps in the folder, sorted: image files and .npy files."""
    return [path for path in instance_files(folder) if path.is_file()]


def without_labels(samples: list[Sample], folders: Folders) -> list[Problem]:
    """The problems of images that have neither a label nor instances."""
    images = [sample.image for sample in samples]
    found = {sample.image for sample in samples if sample.label or sample.instances}
    if not folders.labels:
        return missing_files("label", images, found, folders.instances)
    places = f"{folders.labels} or {folders.instances}"
    return missing_files("label", images, found, places)


# --- text files that list the paths --------------------------------------------------------------


def from_list(root: str | Path) -> DatasetFiles:
    """A text file of image and label paths, or a folder with train.txt (and val.txt, test.txt).

    A line is image, label and ROI mask (the last two are optional), separated by tabs, by commas
    or, in lines without either, by spaces. Paths are relative to the text file's folder. Lines
    that begin with # are comments. UserError if there are no training images.
    """
    root, dataset = Path(root), DatasetFiles()
    if root.is_file():
        files = {"all": root}
    else:
        files = {split: root / f"{split}.txt" for split in SPLITS}
    for split, file in files.items():
        if file.is_file():
            dataset.add(split, *read_list(file, labels_required=split != "test"))
    if not dataset.splits.keys() & {"all", "train"}:
        raise UserError(
            f"{root}: for --dataset list, --data-path must name a text file with a line of image "
            "and label paths for each image, or a folder with train.txt (and val.txt, test.txt)"
        )
    return dataset


def read_list(file: Path, labels_required: bool) -> tuple[list[Sample], list[Problem]]:
    """(samples, problems) of one list file; UserError if it lists no images."""
    samples, problems, images, names = [], [], set(), set()
    for number, line in enumerate(read_lines(file), 1):
        fields = split_line(line)
        if not fields:
            continue
        place = f"{file}, line {number}"
        if len(fields) > 3 or not fields[0]:
            text = (
                f"{place}: holds {len(fields)} paths; give an image, its label and its ROI mask "
                "(put tabs between paths that contain spaces)"
            )
            problems.append(Problem(text, "paths of a line", f"line {number}"))
            continue
        paths = [file.parent / text if text else None for text in fields]
        image, label, roi = paths + [None] * (3 - len(paths))
        for path in paths:
            if path and not path.is_file():
                problems.append(Problem(f"{place}: there is no {path}", "no file", path.name))
        if labels_required and not label:
            problems.append(Problem(f"{place}: {image} has no label", "no label", image.name))
        if image in images:
            text = f"{place}: {image} is listed twice"
            problems.append(Problem(text, "listed twice", image.name))
        name = stem_of(image)
        if name in names:  # such as x/001.png and y/001.png
            name = fields[0]
        images.add(image)
        names.add(name)
        samples.append(Sample(name, image, label, roi))
    if not samples and not problems:
        raise UserError(f"{file}: lists no images; write a line of image and label for each image")
    return samples, problems


def split_line(line: str) -> list[str]:
    """The fields of a line of a list file; [] for a blank line or a comment."""
    line = line.strip()
    if line.startswith("#"):
        return []
    if "\t" in line:
        fields = line.split("\t")
    elif "," in line:
        fields = line.split(",")
    else:
        fields = line.split()
    return [text.strip() for text in fields]

"""Layouts: which files of a folder are the images and labels of each split.

A layout is a function of the data's path that returns a DatasetFiles. This file holds the two that
serve any images, `folder` and `from_list`; public_datasets.py holds those of published datasets and
volume_layouts.py that of volumes.
Files that do not match are collected as problems, so that the label doctor can report all of them.
Training refuses a dataset with problems.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from src.errors import UserError
from src.image_io import image_files, stem_of
from train_utils.data.samples import DatasetFiles, Sample, pair

# Split → names that its folder may have.
SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
IMAGE_FOLDERS = ("images",)
LABEL_FOLDERS = ("masks", "labels", "annotations")
ROI_FOLDERS = ("roi", "rois", "fov")


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

    masks/ may also be called labels/ or annotations/. Files are paired by name, see pair(). A test
    split may have no masks. list_files: the files of a folder that are read. UserError if there are
    no training images.
    """
    dataset = DatasetFiles()
    for split, (images, labels, rois) in find_folders(Path(root)).items():
        files = optional_files(images, list_files)
        if not files:
            continue
        labels_required = split != "test" or labels is not None
        labels = labels or images.with_name("masks")
        roi_files = optional_files(rois, list_files)
        found = pair(files, list_files(labels), roi_files, labels, rois, labels_required)
        dataset.add(split, *found)
    if "all" in dataset.splits and len(dataset.splits) > 1:
        # Beside val/ or test/, the images without a split are for training.
        dataset.splits["train"] = dataset.splits.pop("all")
    if not dataset.splits.keys() & {"all", "train"}:
        raise UserError(
            f"{Path(root) / 'images'}: no images there; --data-path must name a folder with "
            "images/ and masks/ (and roi/ if pixels are to be ignored), or with train/images/, "
            "train/masks/ and the same for val and test"
        )
    return dataset


def find_folders(root: Path) -> dict[str, list[Path | None]]:
    """{split or "all": folders of images, labels and ROI masks}; None for missing folders."""
    folders = {"all": sample_folders(root)}
    for split, names in SPLITS.items():
        above = first_folder(root, names)
        below = []
        for place in folders["all"]:
            below.append(first_folder(place, names) if place else None)
        if above and first_folder(above, IMAGE_FOLDERS):
            folders[split] = sample_folders(above)
        elif below[0]:
            folders[split] = below
    if "train" in folders:
        del folders["all"]
    return folders


def sample_folders(root: Path) -> list[Path | None]:
    """The folders of images, labels and ROI masks in `root`; None for missing ones."""
    return [first_folder(root, names) for names in (IMAGE_FOLDERS, LABEL_FOLDERS, ROI_FOLDERS)]


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


def read_list(file: Path, labels_required: bool) -> tuple[list[Sample], list[str]]:
    """(samples, problems) of one list file; UserError if it lists no images."""
    samples, problems, images, names = [], [], set(), set()
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), 1):
        fields = split_line(line)
        if not fields:
            continue
        place = f"{file}, line {number}"
        if len(fields) > 3 or not fields[0]:
            problems.append(
                f"{place}: holds {len(fields)} paths; give an image, its label and its ROI mask "
                "(put tabs between paths that contain spaces)"
            )
            continue
        paths = [file.parent / text if text else None for text in fields]
        image, label, roi = paths + [None] * (3 - len(paths))
        for path in paths:
            if path and not path.is_file():
                problems.append(f"{place}: there is no {path}")
        if labels_required and not label:
            problems.append(f"{place}: {image} has no label")
        if image in images:
            problems.append(f"{place}: {image} is listed twice")
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

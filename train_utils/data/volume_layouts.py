"""The layout of volumes: which files of a folder are images, labels and ROI volumes."""

import json
import re
from dataclasses import replace
from pathlib import Path

from src.errors import UserError
from src.image_io import stem_of
from src.volume_io import volume_files
from train_utils.data import layouts
from train_utils.data.layouts import first_folder, folder, optional_files
from train_utils.data.problems import Problem
from train_utils.data.samples import (
    DatasetFiles,
    Sample,
    add_files,
    image_finder,
    match_key,
    pair,
)
from train_utils.data.wrong_files import refuse_inner_folder, refuse_unreadable

ROI_FOLDERS = ("roisTr", *layouts.ROI_FOLDERS)


def volumes(root: str | Path) -> DatasetFiles:
    """imagesTr/ + labelsTr/ (+ roisTr/, imagesTs/, labelsTs/), or images/ + masks/ (+ roi/).

    The first is the layout of the Medical Segmentation Decathlon and of nnU-Net; the Decathlon's
    dataset.json lists the files; ROI volumes may also be in roi/. The second is that of
    layouts.folder(). UserError if there are no training volumes, or several files for a sample.
    """
    root = Path(root)
    if not (root / "imagesTr").is_dir():
        refuse_inner_folder(root, ("imagesTr", "labelsTr"))
        return folder(root, volume_files)
    dataset, roi_folder = DatasetFiles(), first_folder(root, ROI_FOLDERS)
    listed = listed_files(root / "dataset.json")
    if listed is None:
        images, labels = root / "imagesTr", root / "labelsTr"
        refuse_more_channels(volume_files(images), volume_files(labels))
        train, problems = pair(volume_files(images), volume_files(labels), [], labels)
        train = without_channel(train)
        images, labels = volume_files(root / "imagesTs"), volume_files(root / "labelsTs")
        test, more = pair(images, labels, [], root / "labelsTs", labels_required=False)
        test, problems = without_channel(test), problems + more
    else:
        train, test = listed
        problems = missing_files(root / "dataset.json", [*train, *test])
        if not any(sample.label for sample in test):
            test, more = add_own_files(test, "label", volume_files(root / "labelsTs"))
            problems += more
    train, test, roi_problems = with_rois(train, test, roi_folder)
    dataset.add("train", train, problems + roi_problems)
    if test:
        dataset.add("test", test, [])
    if not dataset.splits["train"]:
        refuse_unreadable(root / "imagesTr", volume_files)
        raise UserError(f"{root / 'imagesTr'}: no volumes there; put .nii.gz files into it")
    return dataset


def listed_files(path: Path) -> tuple[list[Sample], list[Sample]] | None:
    """(training, test samples) that dataset.json lists, each sorted by name.

    The Decathlon and nnU-Net v1 have such a file. None without it or without a list in it.
    UserError for a file of another kind.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        training, test = content["training"], content.get("test", [])
        training = [(path.parent / row["image"], path.parent / row["label"]) for row in training]
        test = [listed_test_pair(path.parent, row) for row in test]
    except (FileNotFoundError, KeyError):
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: cannot be read as the description of a dataset ({error}); correct or remove "
            "it"
        ) from None
    samples, test = (
        [Sample(stem_of(image), stored_image(image), label) for image, label in pairs]
        for pairs in (training, test)
    )
    return sorted(samples, key=sample_name), sorted(test, key=sample_name)


def listed_test_pair(root: Path, row: dict | str) -> tuple[Path, Path | None]:
    """(image, label) of a row of the test list, which may be the image alone."""
    if isinstance(row, str):
        return root / row, None
    label = row.get("label")
    return root / row["image"], root / label if label else None


def stored_image(image: Path) -> Path:
    """The file of a listed image: nnU-Net v1 lists x.nii.gz and stores x_0000.nii.gz.

    UserError if there are further channels.
    """
    if image.exists():
        return image
    sample = stem_of(image)
    suffix = image.name.removeprefix(sample)
    first, second = (image.with_name(f"{sample}_000{channel}{suffix}") for channel in (0, 1))
    if not first.exists():
        return image
    if second.exists():
        raise further_channel(second, sample)
    return first


def with_rois(
    train: list[Sample], test: list[Sample], roi_folder: Path | None
) -> tuple[list[Sample], list[Sample], list[Problem]]:
    """(training, test samples with the ROI volumes of a folder, problems).

    Test images need no ROI volume there.
    """
    files = optional_files(roi_folder, volume_files)
    test, problems = add_own_files(test, "roi", files)
    used = {sample.roi for sample in test}
    files = [path for path in files if path not in used]
    if not files:
        return train, test, problems
    images = [sample.image for sample in train]
    paired, more = pair(images, [], files, roi_folder, roi_folder, labels_required=False)
    roi_of = {sample.image: sample.roi for sample in paired}
    train = [replace(sample, roi=roi_of.get(sample.image)) for sample in train]
    return train, test, problems + more


def add_own_files(
    samples: list[Sample], field_name: str, files: list[Path]
) -> tuple[list[Sample], list[Problem]]:
    """add_files() with those of the files that belong to a sample."""
    image_of = image_finder(sample.image for sample in samples)
    return add_files(samples, field_name, [path for path in files if image_of(path)])


def refuse_more_channels(images: list[Path], labels: list[Path]) -> None:
    """UserError for x_0001 beside the label x: nnU-Net's files of a sample's further channels."""
    names = {match_key(label) for label in labels}
    for image in images:
        sample, _, number = match_key(image).rpartition("_")
        channel = re.fullmatch(r"\d{4}", number) and number != "0000"
        if channel and sample in names and match_key(image) not in names:
            raise further_channel(image, sample)


def further_channel(image: Path, sample: str) -> UserError:
    """The error of a file that holds another channel than the sample's first."""
    return UserError(
        f"{image}: is a further channel of the sample {sample}; channels are read from one file: "
        "save those of each sample as one .nii.gz with four axes, and give --in-channels"
    )


def without_channel(samples: list[Sample]) -> list[Sample]:
    """The samples without nnU-Net's _0000 (first channel) in their names, as in its splits."""
    return [replace(sample, name=sample.name.removesuffix("_0000")) for sample in samples]


def sample_name(sample: Sample) -> str:
    """The sample's name, for sorting."""
    return sample.name


def missing_files(description: Path, samples: list[Sample]) -> list[Problem]:
    """The problems of files that dataset.json names and that are not there."""
    paths = [path for sample in samples for path in (sample.image, sample.label) if path]
    return [
        Problem(f"{description} names {path}, which is not there", "not there", path.name)
        for path in paths
        if not path.exists()
    ]

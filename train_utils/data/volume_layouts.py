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
    IMAGE_ENDINGS,
    LABEL_ENDINGS,
    DatasetFiles,
    Sample,
    match_key,
    pair,
)
from train_utils.data.wrong_files import refuse_inner_folder, refuse_unreadable

ROI_FOLDERS = ("roisTr", *layouts.ROI_FOLDERS)


def volumes(root: str | Path) -> DatasetFiles:
    """imagesTr/ + labelsTr/ (+ roisTr/, imagesTs/), or images/ + masks/ (+ roi/).

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
        test = [Sample(stem_of(path), path) for path in volume_files(root / "imagesTs")]
        test = without_channel(test)
    else:
        train, test = listed
        problems = missing_files(root / "dataset.json", [*train, *test])
    train, roi_problems = with_rois(train, test, roi_folder)
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
        pairs = [(path.parent / row["image"], path.parent / row["label"]) for row in training]
        images = [path.parent / row for row in test if isinstance(row, str)]
    except (FileNotFoundError, KeyError):
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: cannot be read as the description of a dataset ({error}); correct or remove "
            "it"
        ) from None
    samples = [Sample(stem_of(image), stored_image(image), label) for image, label in pairs]
    test = [Sample(stem_of(image), stored_image(image)) for image in images]
    return sorted(samples, key=sample_name), sorted(test, key=sample_name)


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
    samples: list[Sample], test: list[Sample], roi_folder: Path | None
) -> tuple[list[Sample], list[Problem]]:
    """The training samples with their ROI volumes, and the problems of those.

    The folder may also hold the ROI volumes of the test images, which are not used.
    """
    files = optional_files(roi_folder, volume_files)
    not_used = {match_key(sample.image, IMAGE_ENDINGS) for sample in test}
    files = [path for path in files if match_key(path, LABEL_ENDINGS) not in not_used]
    if not files:
        return samples, []
    images = [sample.image for sample in samples]
    paired, problems = pair(images, [], files, roi_folder, roi_folder, labels_required=False)
    roi_of = {sample.image: sample.roi for sample in paired}
    return [replace(sample, roi=roi_of.get(sample.image)) for sample in samples], problems


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

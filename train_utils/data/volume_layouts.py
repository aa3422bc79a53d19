"""The layout of volumes: which files of a folder are images, labels and ROI volumes."""

import json
from dataclasses import replace
from pathlib import Path

from src.errors import UserError
from src.image_io import stem_of
from src.volume_io import volume_files
from train_utils.data.layouts import folder
from train_utils.data.problems import Problem
from train_utils.data.samples import DatasetFiles, Sample, pair


def volumes(root: str | Path) -> DatasetFiles:
    """imagesTr/ + labelsTr/ (+ imagesTs/), or images/ + masks/ (+ roi/) as layouts.folder().

    The first is the layout of the Medical Segmentation Decathlon and of nnU-Net; the Decathlon's
    dataset.json lists the files. UserError if there are no training volumes.
    """
    root = Path(root)
    if not (root / "imagesTr").is_dir():
        return folder(root, volume_files)
    dataset = DatasetFiles()
    listed = listed_files(root / "dataset.json")
    if listed is None:
        images, labels = root / "imagesTr", root / "labelsTr"
        train, problems = pair(volume_files(images), volume_files(labels), [], labels)
        dataset.add("train", without_channel(train), problems)
        test = [Sample(stem_of(path), path) for path in volume_files(root / "imagesTs")]
        test = without_channel(test)
    else:
        train, test = listed
        dataset.add("train", train, missing_files(root / "dataset.json", [*train, *test]))
    if test:
        dataset.add("test", test, [])
    if not dataset.splits["train"]:
        raise UserError(f"{root / 'imagesTr'}: no volumes there; put .nii.gz files into it")
    return dataset


def listed_files(path: Path) -> tuple[list[Sample], list[Sample]] | None:
    """(training, test samples) that a Decathlon dataset.json lists, sorted by name.

    None without such a file or such a list in it. UserError for a file of another kind.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        training, test = content["training"], content.get("test", [])
        samples = []
        for row in training:
            image, label = path.parent / row["image"], path.parent / row["label"]
            samples.append(Sample(stem_of(image), image, label))
        images = [path.parent / row for row in test if isinstance(row, str)]
    except (FileNotFoundError, KeyError):
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: cannot be read as the description of a dataset ({error}); correct or remove "
            "it"
        ) from None
    test = [Sample(stem_of(image), image) for image in images]
    return sorted(samples, key=sample_name), sorted(test, key=sample_name)


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

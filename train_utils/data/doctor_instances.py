"""The label doctor's checks of labels with one id an object, and of weight maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.image_io import image_files
from src.instances import GAP, separate
from train_utils.data.instance_labels import describe_ids, read_instances
from train_utils.data.problems import Problem
from train_utils.data.samples import DatasetFiles, Sample

IDS_SHOWN = 8  # that a line lists at most


@dataclass(frozen=True)
class Objects:
    """The objects of one label.

    ids: int32 [H, W], as stored. target: uint8 [H, W], 1 for objects, with gaps where they touch.
    touching: how many touch another one. pixels: of all objects. scattered: ids in several places.
    vanished: ids without a pixel in the target.
    """

    path: Path
    ids: np.ndarray
    target: np.ndarray
    count: int
    touching: int
    pixels: int
    scattered: list[int]
    vanished: list[int]


def read_objects(path: Path, max_pixels: int | None) -> Objects:
    """Reads a label with one id an object; UserError if it cannot be read."""
    ids = read_instances(path, max_pixels)
    facts, separated = describe_ids(ids), separate(ids)
    vanished = np.setdiff1d(ids, separated).tolist()
    target = (separated > 0).astype(np.uint8)
    pixels = np.count_nonzero(ids)
    return Objects(
        path, ids, target, facts.objects, facts.touching, pixels, facts.scattered, vanished
    )


# --- warnings ------------------------------------------------------------------------------------


def check_objects(objects: Objects) -> list[Problem]:
    """Warnings about one label."""
    path, problems = objects.path, []
    if objects.count == 0:
        problems.append(Problem(f"{path}: holds no object", "no object", path.name))
    if objects.scattered and objects.count == 1:
        text = (
            f"{path}: holds one id, {objects.scattered[0]}, in separate places; a mask of two "
            "values is read with --label-kind classes"
        )
        problems.append(Problem(text, "one id", path.name))
    elif objects.scattered:
        text = (
            f"{path}: objects in two or more separate places: {list_ids(path, objects.scattered)}; "
            "give each object an id of its own, unless another one lies across it"
        )
        problems.append(Problem(text, "scattered", path.name))
    if objects.vanished:
        text = (
            f"{path}: objects of which nothing is left in the target, where objects that touch "
            f"lose {GAP} px on each side: {list_ids(path, objects.vanished)}"
        )
        problems.append(Problem(text, "vanished", path.name))
    return problems


def list_ids(path: Path, ids: Sequence[int]) -> str:
    """ "id 3, 17", or of a folder with one mask an object "a.png, b.png"; the first ones alone."""
    shown = ids[:IDS_SHOWN]
    more = ", …" if len(ids) > len(shown) else ""
    if path.is_dir():
        files = image_files(path)
        return ", ".join(files[index - 1].name for index in shown) + more
    return "id " + ", ".join(str(index) for index in shown) + more


def check_label_kind(files: DatasetFiles, label_kind: str) -> tuple[list[Problem], list[Problem]]:
    """(errors, warnings) about samples that have another kind of label than the one that is read.

    Errors are for training samples without a label of that kind.
    """
    errors, warnings = [], []
    for split, samples in files.splits.items():
        if label_kind == "instances" and any(sample.instances for sample in samples):
            warnings += read_in_place_of_ids(samples)
        elif label_kind == "classes" and split != "test":
            errors += without_classes(samples)
    return errors, warnings


def read_in_place_of_ids(samples: Sequence[Sample]) -> list[Problem]:
    """Warnings about samples without instances: their labels of classes are read as ids."""
    return [
        Problem(
            f"{sample.label}: is read as ids of objects, because instances/ has none of "
            f"{sample.image.name}; if it holds classes, add the ids",
            "label read as ids",
            sample.label.name,
        )
        for sample in samples
        if sample.label and not sample.instances
    ]


def without_classes(samples: Sequence[Sample]) -> list[Problem]:
    """Errors about samples that have nothing but instances."""
    return [
        Problem(
            f"{sample.image} has ids of objects, but no label of classes; add the label, or give "
            "--label-kind instances",
            "no classes",
            sample.image.name,
        )
        for sample in samples
        if sample.instances and not sample.label
    ]


# --- text of the report --------------------------------------------------------------------------


def describe_unread(samples: Sequence[Sample], label_kind: str) -> list[str]:
    """The line about labels of the other kind than the one that is read, if there are any."""
    both = [sample for sample in samples if sample.instances and sample.label]
    if not both:
        return []
    other = "instances" if label_kind == "classes" else "classes"
    return [
        f"  {len(both)} samples have labels of both kinds; --label-kind {other} reads the other"
    ]


def describe_objects(numbers: Sequence[tuple[int, int, int]]) -> list[str]:
    """The lines about the objects of a split; numbers: (count, touching, pixels) of each label."""
    counts, touching, pixels = np.array(numbers).reshape(-1, 3).T
    total = max(1, counts.sum())
    return [
        f"  objects: {counts.sum():,} in all, {np.median(counts):g} in the median image, "
        f"{counts.max()} at most; {pixels.sum() / total:.0f} px large on average",
        f"  {touching.sum():,} of them ({100 * touching.sum() / total:.1f} %) touch another one; "
        f"in the target they lose {GAP} px on each such side",
    ]


def describe_weights(numbers: Sequence[tuple[float, float, float]]) -> str:
    """The line about the weight maps of a split; numbers: (lowest, highest, mean) of each map."""
    lowest, highest, means = np.array(numbers).T
    return (
        f"  weight maps: {len(means)}, weights from {lowest.min():.4g} to {highest.max():.4g}, "
        f"mean {means.mean():.4g}"
    )

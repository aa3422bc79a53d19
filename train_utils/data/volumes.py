"""Samples of volumes: image, label and ROI read, checked against each other, normalized."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from src.errors import UserError
from src.image_io import IGNORE, MANY_CLASSES, list_values
from src.volume_io import read_label_volume, read_volume, stored_spacing
from src.volumes import (
    Geometry,
    check_same_space,
    normalize_volume,
    resampled_shape,
    resize_label,
    resize_volume,
    size_text,
)
from train_utils.data.class_table import UNKNOWN, ClassTable
from train_utils.data.labels import (
    classes_by_number,
    is_0_and_255,
    pair_name,
    unknown_numbers,
    values_by_count,
)
from train_utils.data.samples import Sample
from train_utils.distributed_utils import broadcast_from_rank_zero, log
from train_utils.plurals import counted

SPARSE = "ids, with 255 for unlabelled voxels"  # name of an encoding
OTHER_ENCODINGS = ("ids", "0/1", "1 alone", SPARSE)  # in which class 1 is 1


def read_sample(
    sample: Sample, classes: ClassTable, channels: int, spacing: Sequence[float]
) -> tuple[Tensor, Tensor, str]:
    """(image float32 [C, D, H, W], target uint8 [D, H, W], name of the label's encoding).

    Each channel of the image has mean 0 and standard deviation 1 inside the ROI, or as a whole
    without one. Target voxels outside the ROI are IGNORE. Both have voxels of the size `spacing`
    (D, H, W), within 10 %. UserError for files that cannot be used or do not fit together.
    """
    image, geometry = read_volume(sample.image, channels)
    target, encoding = read_target(sample.label, classes, sample.image, geometry)
    roi = None
    if sample.roi:
        roi = read_roi(sample.roi, sample.image, geometry)
        target[~roi] = IGNORE
        roi = torch.from_numpy(roi)
    image, target = normalize_volume(torch.from_numpy(image), roi), torch.from_numpy(target)
    shape = resampled_shape(geometry.shape, geometry.spacing or spacing, spacing)
    if shape:
        image, target = resize_volume(image, shape), resize_label(target, shape)
    return image, target, encoding


def read_target(
    path: Path, table: ClassTable, image_path: Path, image_geometry: Geometry
) -> tuple[np.ndarray, str]:
    """(target uint8 [D, H, W] of classes and IGNORE, name of the encoding).

    255 means unlabelled, unless the table says otherwise or the label holds 0 and 255 alone.
    UserError for values outside the table, and for a label that does not lie where its image lies.
    """
    numbers, geometry = read_label_volume(path)
    check_same_space(path, geometry, image_path, image_geometry)
    return make_target(path, numbers, table)


def make_target(path: Path, numbers: np.ndarray, table: ClassTable) -> tuple[np.ndarray, str]:
    """read_target() of a label that was read from `path` as numbers [D, H, W]."""
    if table.any_pair:
        return read_pair(path, numbers)
    target = classes_by_number(numbers, table)
    if is_0_and_255(numbers, table):
        return target, "0/255"
    encoding = "ids"
    if 255 not in table.numbers and (numbers == 255).any():
        target[numbers == 255] = IGNORE
        encoding = SPARSE
    if (target == UNKNOWN).any():
        raise UserError(unknown_numbers(path, numbers, target))
    return target, encoding


def read_pair(path: Path, numbers: np.ndarray) -> tuple[np.ndarray, str]:
    """make_target() of a label of two values.

    255 means unlabelled beside two others, or beside 1 alone.
    """
    found = np.unique(numbers).tolist()
    target, encoding = np.zeros(numbers.shape, np.uint8), pair_name(found)
    if found == [1, 255] or (len(found) == 3 and found[-1] == 255):
        target[numbers == 255] = IGNORE
        found, encoding = found[:-1], SPARSE
    if len(found) > 2 or (len(found) == 1 and found[0] not in (0, 1)):
        listed = list_values(*values_by_count(numbers))
        raise UserError(
            f"{path}: a label of two classes holds 0 and 1, or 0 and 255, or 0, 1 and 255 for "
            f"unlabelled voxels; this one holds {listed}; {MANY_CLASSES}"
        )
    if found[-1] > 0:
        target[numbers == found[-1]] = 1
    return target, encoding


def doubtful_255(encodings: dict[str, tuple[int, str | Path]]) -> str:
    """A warning if some labels hold 0 and 255 alone, and others class 1 as 1; "" otherwise.

    The first may be labels of a few slices without foreground, where 255 marks unlabelled voxels.

    encodings: {"0/255": (number of labels, path of one of them), …}.
    """
    if "0/255" not in encodings or encodings.keys().isdisjoint(OTHER_ENCODINGS):
        return ""
    count, path = encodings["0/255"]
    return (
        f"warning: {counted(count, 'labels')} with 0 and 255 alone, such as {path}, unlike others: "
        "their 255 is read as class 1; if it marks unlabelled voxels, ignore 255 in a classes.csv"
    )


def conflicting_255(encodings: dict[str, tuple[int, str | Path]]) -> str:
    """What is wrong if 255 is a class in one label and unlabelled in another; "" otherwise.

    encodings: those of doubtful_255().
    """
    if "0/255" not in encodings or SPARSE not in encodings:
        return ""
    return (
        f"{encodings['0/255'][1]} holds 0 and 255, "
        f"{encodings[SPARSE][1]} holds 255 for unlabelled voxels: a value "
        "would mean two things; store the class as 1, or ignore 255 in a classes.csv"
    )


def read_roi(path: Path, image_path: Path, image_geometry: Geometry) -> np.ndarray:
    """bool [D, H, W]: voxels above 0, which are inside the ROI. UserError if there are none."""
    values, geometry = read_label_volume(path)
    check_same_space(path, geometry, image_path, image_geometry)
    if not values.any():
        raise UserError(
            f"{path}: the ROI is empty: every voxel of {image_path} would be ignored; correct it"
        )
    return values > 0


def choose_spacing(wanted: Sequence[float] | None, samples: Sequence[Sample]) -> list[float]:
    """The size (D, H, W) of a voxel that volumes are resampled to: `wanted`, or the median.

    The median of each axis is that of the samples whose files store a spacing; 1 without any.
    """
    if wanted:
        return list(wanted)
    stored = broadcast_from_rank_zero(lambda: [stored_spacing(each.image) for each in samples])
    known = [spacing for spacing in stored if spacing]
    if not known:
        log("the volumes do not say their voxels' size: taken as equal on all axes (--spacing)")
        return [1.0, 1.0, 1.0]
    spacing = [float(f"{value:.5g}") for value in np.median(known, axis=0)]
    others = sum(resampled_shape((1, 1, 1), each, spacing) is not None for each in known)
    text = f"voxels of {size_text(spacing)}, the median of the training volumes"
    if others:
        text += f"; {counted(others, 'volumes')} with other voxels will be resampled to it"
    log(text)
    return spacing


def choose_crop(
    crop_size: int | Sequence[int],
    sizes: Sequence[Sequence[int]],
    margins: Sequence[int] = (0, 0, 0),
) -> list[int]:
    """The sides (D, H, W) of the crops.

    Three numbers are taken as they are. A single one is cut on each axis to the median size of the
    volumes, rounded up to a multiple of 8: three poolings then lose nothing.

    sizes: of the training volumes. margins: how far crops reach beyond them at each border.
    """
    if not isinstance(crop_size, int):
        return list(crop_size)
    median = np.median(np.array(sizes), axis=0) + 2 * np.array(margins)
    return [min(crop_size, 8 * math.ceil(side / 8)) for side in median]

"""The masks of an image: label, ROI mask and weight map, read and checked against the image."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from src.errors import UserError
from src.image_io import read_binary, resize_target
from src.instances import connected_objects, separate
from train_utils.data.border_weights import read_weights
from train_utils.data.class_table import ClassTable
from train_utils.data.instance_labels import read_instances
from train_utils.data.labels import read_label


def read_any_label(
    path: Path, label_kind: str, classes: ClassTable, max_pixels: int | None = None
) -> tuple[np.ndarray, str]:
    """(label [H, W], name of its encoding): classes, or one id an object.

    label_kind: "classes" or "instances". UserError for a label that cannot be read.
    """
    if label_kind == "instances":
        return read_instances(path, max_pixels), "instance ids"
    return read_label(path, classes, max_pixels)


def target_of(label: np.ndarray, label_kind: str) -> np.ndarray:
    """The target uint8 [H, W] of a label [H, W]; objects are class 1, with gaps between them."""
    if label_kind == "instances":
        label = separate(label) > 0
    return label.astype(np.uint8)


def objects_of(label: np.ndarray, label_kind: str) -> np.ndarray:
    """The ids of objects, int [H, W]; of a label of classes the connected regions of class 1."""
    if label_kind == "instances":
        return label
    return connected_objects(label == 1, diagonal=True)


def resized(values: np.ndarray, size: Sequence[int] | None) -> np.ndarray:
    """Values [H, W] at another size: each pixel takes the old one at its centre. None: as is."""
    if not size:
        return values
    return resize_target(torch.from_numpy(values), size).numpy()


def check_size(path: Path, mask: np.ndarray, image_path: Path, image: Tensor) -> None:
    """UserError if a mask [H, W] has another size than its image [C, H, W]."""
    height, width = image.shape[1:]
    if mask.shape != (height, width):
        raise UserError(
            f"{path}: is {mask.shape[1]}×{mask.shape[0]} pixels, but its image {image_path} is "
            f"{width}×{height}; they must be equal (check the EXIF orientation)"
        )


def read_roi(
    path: Path,
    image_path: Path,
    image: Tensor,
    size: Sequence[int] | None = None,
    max_pixels: int | None = None,
) -> np.ndarray:
    """bool [H, W]: the valid pixels of an image [C, H, W], at the `size` if it is given.

    UserError if the mask has another size than the image, and if it is empty.
    """
    roi = read_binary(path, "ROI mask", max_pixels)[0]
    check_size(path, roi, image_path, image)
    if not roi.any():
        raise UserError(
            f"{path}: the ROI mask is empty: every pixel of {image_path} would be ignored; "
            "correct the mask"
        )
    return resized(roi, size)


def read_weight_map(
    path: Path | None,
    image_path: Path,
    image: Tensor,
    size: Sequence[int] | None = None,
    max_pixels: int | None = None,
) -> np.ndarray:
    """float32 [H, W]: the weight of each pixel of an image [C, H, W], 1 without a file.

    size: see read_roi(). UserError if the file has another size than the image, and see
    read_weights().
    """
    if path is None:
        return np.ones(size or image.shape[1:], np.float32)
    weight = read_weights(path, max_pixels)
    check_size(path, weight, image_path, image)
    return resized(weight, size)

"""The labels of the images that are scored after the training, checked before it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from src.errors import UserError
from src.volume_io import read_label_volume
from train_utils.data import masks, volumes
from train_utils.data.class_table import ClassTable
from train_utils.data.description import missing_pixels
from train_utils.data.labels import conflicting_encodings
from train_utils.data.samples import Sample, label_path

MAX_LABELS = 1_000
MAX_PIXELS = 1e8  # a second or two


def check_labels(
    title: str,
    samples: Sequence[Sample],
    classes: ClassTable,
    label_kind: str,
    max_pixels: int | None,
    is_volumes: bool,
) -> None:
    """UserError for labels that could not be scored: missing, unreadable, or all ignored.

    Only labels are read, up to MAX_LABELS or MAX_PIXELS of them, and none is kept. Whether a volume
    and its label lie in the same space is checked when the volume is scored. title: name of
    the split. label_kind, max_pixels: see SegmentationDataset.
    """
    pixels, encodings = torch.zeros(256, dtype=torch.int64), {}
    for sample in samples[:MAX_LABELS]:
        path = label_path(sample, label_kind)
        if path is None:
            raise UserError(f"{sample.image}: has no label to train or evaluate with")
        if is_volumes:
            target, encoding = volumes.make_target(path, read_label_volume(path)[0], classes)
        else:
            target, encoding = read_image_target(path, classes, label_kind, max_pixels)
        pixels += torch.from_numpy(np.bincount(target.ravel(), minlength=256))
        number, first = encodings.get(encoding, (0, path))
        encodings[encoding] = number + 1, first
        if pixels.sum() > MAX_PIXELS:
            break
    problem = conflicting_encodings(encodings) if classes.any_pair else ""
    is_all = sum(number for number, _ in encodings.values()) == len(samples)
    if is_all and not problem:
        problem = missing_pixels(title, pixels, classes, encodings, for_training=False)
    if problem:
        raise UserError(problem)


def read_image_target(
    path: Path, classes: ClassTable, label_kind: str, max_pixels: int | None
) -> tuple[np.ndarray, str]:
    """(target uint8 [H, W] without an ROI, name of the label's encoding)."""
    label, encoding = masks.read_any_label(path, label_kind, classes, max_pixels)
    return masks.target_of(label, label_kind), encoding

"""Reads the images of predict.py, with their ROI masks and labels, while others are computed."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from src.errors import UserError
from src.field_of_view import find_field_of_view
from src.image_decoding import count_pixels
from src.image_io import IGNORE, read_binary, read_image
from src.inference import BATCH_PIXELS
from src.instances import separate
from train_utils.data.class_table import ClassTable
from train_utils.data.inputs import IMAGES, INSTANCES, FileKind, Input, find_partners
from train_utils.data.instance_labels import read_instances
from train_utils.data.labels import read_label

MAX_AHEAD = 16  # images that are read while others are computed
AHEAD_PIXELS = 32 * 1024**2  # no more pixels than this are read ahead


@dataclass(frozen=True)
class Job:
    """One image or volume to segment, and the files that belong to it."""

    input: Input
    roi_path: Path | None
    label_path: Path | None


@dataclass(frozen=True)
class Picture:
    """One image that was read.

    image: uint8 [C, H, W]. roi: bool [H, W], or None for the whole image. label: class ids and
    IGNORE, uint8 [H, W], or None. instances: ids of the true objects, int32 [H, W], or None.
    """

    job: Job
    image: Tensor
    roi: Tensor | None
    label: Tensor | None
    instances: Tensor | None = None

    @property
    def target(self) -> Tensor:
        """The label with pixels outside the ROI ignored."""
        if self.roi is None:
            return self.label
        return self.label.masked_fill(~self.roi, IGNORE)


def find_jobs(
    inputs: Sequence[Input],
    roi_mask: str,
    labels: str,
    kind: FileKind = IMAGES,
    instances: bool = False,
) -> list[Job]:
    """The inputs, each with its ROI mask and label, if there are any.

    kind: of the inputs, ROI masks and labels. instances: whether labels are ids of objects: images,
    .npy files, or folders of masks.
    """
    roi_paths = label_paths = [None] * len(inputs)
    if roi_mask:
        roi_paths = find_partners(roi_mask, inputs, "--roi-mask", kind)
    if labels:
        label_kind = INSTANCES if instances else kind
        label_paths = find_partners(labels, inputs, "--labels", label_kind)
    return [Job(*files) for files in zip(inputs, roi_paths, label_paths, strict=True)]


def read_picture(
    job: Job,
    channels: int,
    max_pixels: int | None,
    auto_roi: bool,
    classes: ClassTable,
    instances: bool = False,
) -> Picture:
    """Reads the files of a job; UserError for a file that is broken or of another size.

    instances: whether the label holds ids of objects. They are class 1, with a gap of background
    between those that touch, as in training.
    """
    image = read_image(job.input.path, channels, max_pixels)
    roi = label = ids = None
    if auto_roi:
        roi = find_field_of_view(image)
        if roi is None:
            raise UserError(
                f"{job.input.path}: shows no round field of view on a dark ground; give "
                "--roi-mask, or leave out --auto-roi"
            )
    elif job.roi_path:
        values, _ = read_binary(job.roi_path, "ROI mask", max_pixels)
        roi = checked_size(values, job.roi_path, image, job.input.path)
    if job.label_path and instances:
        values = read_instances(job.label_path, max_pixels)
        ids = checked_size(values, job.label_path, image, job.input.path)
        label = torch.from_numpy((separate(values) > 0).astype(np.uint8))
    elif job.label_path:
        values, _ = read_label(job.label_path, classes, max_pixels)
        label = checked_size(values, job.label_path, image, job.input.path)
    return Picture(job, image, roi, label, ids)


def checked_size(values: np.ndarray, path: Path, image: Tensor, image_path: Path) -> Tensor:
    """The values [H, W] as a tensor; UserError if the image [C, H, W] has another size."""
    if values.shape != tuple(image.shape[1:]):
        raise UserError(
            f"{path}: is {values.shape[1]}×{values.shape[0]} pixels, its image {image_path} is "
            f"{image.shape[2]}×{image.shape[1]}; give the one that was drawn on this image, or "
            "resize it to this size without smoothing (nearest neighbour)"
        )
    return torch.from_numpy(values)


def read_ahead(
    pool: ThreadPoolExecutor,
    read: Callable[[Job], Picture],
    jobs: list[Job],
    failed: dict[str, str],
) -> Iterator[Picture]:
    """The pictures in order, while threads read the next ones.

    Broken files are left out and noted in `failed`, {path: reason}. Pictures that are read ahead
    have at most AHEAD_PIXELS together. A larger one is read when it is needed.
    """
    waiting, reading = deque(jobs), deque()

    def keep_reading(one_in_use: bool) -> None:
        pixels = sum(size for _, size, _ in reading)
        while waiting and len(reading) < MAX_AHEAD:
            size = count_pixels(waiting[0].input.path)
            if pixels + size > AHEAD_PIXELS and (reading or one_in_use):
                return
            pixels += size
            job = waiting.popleft()
            reading.append((job, size, pool.submit(read, job)))

    keep_reading(one_in_use=False)
    while reading:
        job, _, future = reading.popleft()
        try:
            picture = future.result()
        except UserError as error:
            failed[str(job.input.path)] = str(error)
        else:
            keep_reading(one_in_use=True)
            yield picture
            del picture, future  # or it would be in memory while the next one is read
        keep_reading(one_in_use=False)


def equal_sizes(pictures: Iterable[Picture]) -> Iterator[list[Picture]]:
    """Neighbours of one size together, up to BATCH_PIXELS."""
    group = []
    for picture in pictures:
        if group and picture.image.shape != group[0].image.shape:
            yield group
            group = []
        group.append(picture)
        if (len(group) + 1) * picture.image[0].numel() > BATCH_PIXELS:
            yield group
            group = []
        del picture  # or it would be in memory while the next one is read
    if group:
        yield group

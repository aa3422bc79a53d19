"""Reads the images and volumes of predict.py, with their ROI masks and labels."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
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
from src.volume_io import read_volume
from src.volumes import Geometry, normalize_volume
from train_utils.data.class_table import ClassTable
from train_utils.data.inputs import Job
from train_utils.data.instance_labels import read_instances
from train_utils.data.labels import read_label
from train_utils.data.volumes import read_roi, read_target

MAX_AHEAD = 16  # images that are read while others are computed
AHEAD_PIXELS = 32 * 1024**2  # no more pixels than this are read ahead


@dataclass(frozen=True)
class Picture:
    """One image that was read.

    image: uint8 [C, H, W].
    roi: bool [H, W]; None for the whole image.
    label: class ids and IGNORE, uint8 [H, W]; None without one.
    instances: ids of the true objects, int32 [H, W]; None without them.
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


@dataclass(frozen=True)
class Scan:
    """One volume that was read.

    image: float32 [C, D, H, W], normalized inside the ROI.
    geometry: where its voxels are.
    roi: bool [D, H, W]; None for the whole volume.
    target: class ids, and IGNORE also outside the ROI, uint8 [D, H, W]; None without a label.
    encoding: how the label stores the ids, see read_target(); "" without one.
    """

    job: Job
    image: Tensor
    geometry: Geometry
    roi: Tensor | None
    target: Tensor | None
    encoding: str = ""


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


def read_scan(job: Job, channels: int, classes: ClassTable) -> Scan:
    """Reads the files of a job; UserError for a file that is broken or lies elsewhere."""
    path, roi, target, encoding = job.input.path, None, None, ""
    values, geometry = read_volume(path, channels)
    if job.roi_path:
        roi = torch.from_numpy(read_roi(job.roi_path, path, geometry))
    if job.label_path:
        label, encoding = read_target(job.label_path, classes, path, geometry)
        target = torch.from_numpy(label)
        if roi is not None:
            target.masked_fill_(~roi, IGNORE)
    image = normalize_volume(torch.from_numpy(values), roi)
    return Scan(job, image, geometry, roi, target, encoding)


def checked_size(values: np.ndarray, path: Path, image: Tensor, image_path: Path) -> Tensor:
    """The values [H, W] as a tensor; UserError if the image [C, H, W] has another size."""
    if values.shape != tuple(image.shape[1:]):
        raise UserError(
            f"{path}: is {values.shape[1]}×{values.shape[0]} pixels, its image {image_path} is "
            f"{image.shape[2]}×{image.shape[1]}; give the one that was drawn on this image, or "
            "resize it to this size without smoothing (nearest neighbour)"
        )
    return torch.from_numpy(values)


# --- reading ahead --------------------------------------------------------------------------------


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

"""Datasets: the class that reads samples (image, label, region of interest), the DATASETS table.

An item is (image uint8 [C, H, W], target uint8 [H, W]), of volumes (float32 [C, D, H, W], uint8
[D, H, W]), and then the maps that are asked for, see MAPS. A target pixel that is ignored is IGNORE
from here on, and no later code needs to know why. How files are decoded is in src/image_io.py and
src/volume_io.py; how labels are read, and which files belong together, is in train_utils/data/.

`python my_dataset.py check --dataset NAME --data-path DIR` checks a dataset and says what it found.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from src.errors import UserError
from src.image_io import IGNORE, read_image, resize_image
from train_utils.data import large_sets, layouts, masks, public_datasets, volume_layouts, volumes
from train_utils.data.class_table import BINARY, ClassTable, two_classes
from train_utils.data.description import describe, missing_pixels
from train_utils.data.labels import conflicting_encodings
from train_utils.data.problems import refuse_problems
from train_utils.data.public_datasets import list_drive
from train_utils.data.samples import Sample, label_path
from train_utils.distributed_utils import log

__all__ = [
    "DATASETS",
    "Data",
    "IGNORE",
    "MAPS",
    "DriveDataset",
    "Sample",
    "SegmentationDataset",
    "VolumeDataset",
    "list_drive",
    "list_samples",
    "open_dataset",
]

# What an item may hold beside image and target, each [H, W]:
#   weight: float32, the weight of each pixel in the cross entropy, for training
#   instances: int32, the id of the object that a pixel belongs to, 0 for none, for evaluation
MAPS = ("weight", "instances")
VESSEL = two_classes("vessel")
Item = tuple[Tensor, ...]


class SegmentationDataset(Dataset):
    """The samples of any dataset. Item: (image, target, *maps), after `transforms`.

    Args:
        samples: each with a label. Pixels outside the ROI mask become IGNORE.
        classes: the ClassTable that the labels are read by.
        transforms: function of (image, target, *maps), or None.
        cache: decoded images to keep in memory after the first read: all (True), none (False), or
            as many as fit into this number of bytes.
        channels: of the image, see read_image.
        size: (height, width) to which images and targets are resized when read; None: their own.
        max_pixels: largest image that is decoded; None: Pillow's limit.
        label_kind: "classes", or "instances" for labels with one id an object. Objects are then
            class 1, with a gap of background between those that touch, see src.instances.separate.
        maps: the names of MAPS that an item holds, in the order of MAPS.
        border: function of the objects' ids [H, W] that gives a factor of the "weight" map, such as
            border_weights(), or None. Of a label of two classes each connected region of class 1 is
            an object.

    Attributes: `examined`, the dataset of those samples of a large one that were read before
    training, see open_dataset; None: all.
    """

    nouns = ("images", "pixels")  # in messages
    channel_bytes = 1  # of a pixel's channel
    spacing = None  # of volumes: the size (D, H, W) of a voxel

    def __init__(
        self,
        samples: Sequence[Sample],
        classes: ClassTable = BINARY,
        transforms: Callable | None = None,
        cache: bool | float = True,
        channels: int = 3,
        size: Sequence[int] | None = None,
        max_pixels: int | None = None,
        label_kind: str = "classes",
        maps: Sequence[str] = (),
        border: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.samples, self.classes, self.transforms = list(samples), classes, transforms
        self.channels, self.size, self.max_pixels = channels, size, max_pixels
        self.label_kind, self.maps, self.border = label_kind, maps, border
        self.cache_limit = float("inf") if cache is True else int(cache)
        self._forget()

    def _forget(self) -> None:
        """Empties the cache, and forgets what was read."""
        self.examined = None
        self._cache = {}  # index → (image, target, *maps)
        self.cached_bytes = 0
        self.sizes = {}  # index → (height, width) of the samples read so far
        self.label_encodings = {}  # index → how the label is encoded

    def with_samples(
        self, samples: Sequence[Sample], transforms: Callable | None = None
    ) -> "SegmentationDataset":
        """A dataset of `samples` with the same reading options, other transforms and no cache."""
        dataset = copy.copy(self)
        dataset.samples, dataset.transforms = list(samples), transforms
        dataset.cache_limit = 0
        dataset._forget()
        return dataset

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Item:
        # Transforms may change tensors in place; the cached ones must not change.
        item = tuple(tensor.clone() for tensor in self.read(index))
        return self.transforms(*item) if self.transforms else item

    def read(self, index: int) -> Item:
        """Sample `index` before the transforms, from memory if it is there. Not to be modified.

        UserError for a file that cannot be used.
        """
        if index in self._cache:
            return self._cache[index]
        item = self._decode(index)
        size = sum(tensor.nbytes for tensor in item)
        if self.cached_bytes + size <= self.cache_limit:
            self._cache[index] = item
            self.cached_bytes += size
        return item

    def _decode(self, index: int) -> Item:
        sample = self.samples[index]
        path = label_path(sample, self.label_kind)
        if path is None:
            raise UserError(f"{sample.image}: has no label to train or evaluate with")
        image = read_image(sample.image, self.channels, self.max_pixels)
        files = sample.image, image, self.size, self.max_pixels
        label, encoding = masks.read_any_label(path, self.label_kind, self.classes, self.max_pixels)
        masks.check_size(path, label, sample.image, image)
        self.label_encodings[index] = encoding
        label = masks.resized(label, self.size)
        target, maps = masks.target_of(label, self.label_kind), []
        if "weight" in self.maps:
            weight = masks.read_weight_map(sample.weight, *files)
            if self.border:
                weight = weight * self.border(masks.objects_of(label, self.label_kind))
            maps.append(weight)
        if "instances" in self.maps:
            maps.append(label)
        if sample.roi:
            outside = ~masks.read_roi(sample.roi, *files)
            target[outside] = IGNORE
            for values in maps:
                values[outside] = 0
        if self.size:
            image = resize_image(image, self.size)
        self.sizes[index] = target.shape
        return image, *(torch.from_numpy(each) for each in (target, *maps))

    @property
    def encodings(self) -> dict[str, tuple[int, Path]]:
        """{how labels are encoded: (number of labels read so far, path of the first)}."""
        found = {}
        for index, encoding in sorted(self.label_encodings.items()):
            first = label_path(self.samples[index], self.label_kind)
            count, path = found.get(encoding, (0, first))
            found[encoding] = count + 1, path
        return found

    def count_pixels(self, threads: bool = False) -> Tensor:
        """Reads every sample, which finds bad files before training, and counts its pixels.

        Returns int64 [256]: pixels of each class id; entry IGNORE counts the ignored ones.
        UserError if labels contradict each other. threads: read several at a time.
        """

        def count(index: int) -> Tensor:
            return torch.bincount(self.read(index)[1].flatten(), minlength=256)

        if threads:
            counts = large_sets.in_threads(count, len(self))
        else:
            counts = [count(index) for index in range(len(self))]
        conflict = self.conflict()
        if conflict:
            raise UserError(conflict)
        return sum(counts)

    def describe(self, pixels: Tensor) -> str:
        """Text on what count_pixels() found: images, shares of the classes, label encodings."""
        names = [sample.name for sample in self.samples]
        return describe(names, self.nouns, pixels, self.classes, self.encodings)

    def conflict(self) -> str:
        """What is wrong with the labels read so far if they contradict each other; else ""."""
        if self.classes.any_pair:
            return conflicting_encodings(self.encodings)
        return ""

    def fits_in_memory(self) -> bool:
        """Whether all samples are cached, and fit into the limit when padded to one size.

        All samples must have been read.
        """
        sides = [max(sides) for sides in zip(*self.sizes.values(), strict=True)]
        pixel_bytes = self.channels * self.channel_bytes + 1 + 4 * len(self.maps)
        padded = len(self) * pixel_bytes * math.prod(sides)
        return len(self._cache) == len(self) and padded <= self.cache_limit

    def stack(self) -> Item:
        """All samples before the transforms, padded to one size: see collate_with_sizes."""
        return self.collate_with_sizes([self.read(i) for i in range(len(self))])

    @staticmethod
    def collate_fn(batch: Sequence[Item]) -> Item:
        """[(image [C, h, w], target [h, w], …)] → images [N, C, H, W], targets [N, H, W], and maps.

        H and W, and D of volumes, are the largest of the batch. Images and maps are padded with 0
        at the end of each axis, that is at the right and below, targets with IGNORE.
        """
        images, targets, *maps = zip(*batch, strict=True)
        stacked = (pad_and_stack(each, fill=0) for each in maps)
        return pad_and_stack(images, fill=0), pad_and_stack(targets, fill=IGNORE), *stacked

    @staticmethod
    def collate_with_sizes(batch: Sequence[Item]) -> Item:
        """collate_fn's images and targets, int64 [N, 2] (or 3): their sizes without padding, and
        the maps."""
        images, targets, *maps = SegmentationDataset.collate_fn(batch)
        return images, targets, torch.tensor([item[1].shape for item in batch]), *maps


def pad_and_stack(tensors: Sequence[Tensor], fill: int) -> Tensor:
    """Stacks tensors of different sizes, each padded at the end of its axes."""
    shape = [max(sides) for sides in zip(*(tensor.shape for tensor in tensors), strict=True)]
    batch = tensors[0].new_full((len(tensors), *shape), fill)
    for row, tensor in zip(batch, tensors, strict=True):
        row[tuple(slice(side) for side in tensor.shape)] = tensor
    return batch


@dataclass(frozen=True)
class Data:
    """The data of a training run.

    train, val: the datasets; val may be None.
    test_samples: the samples that are scored at the end; they are not read before.
    split: names of the images, see TrainingState.
    pixels: int64 [256], training pixels of each class id.
    mean, std: of each channel, of pixels in 0–1; None for volumes.
    spacing: size (D, H, W) of a voxel; None for images.
    """

    train: SegmentationDataset
    val: SegmentationDataset | None
    test_samples: list[Sample]
    split: dict[str, list[str]]
    pixels: Tensor
    mean: list[float] | None
    std: list[float] | None
    spacing: list[float] | None = None


class VolumeDataset(SegmentationDataset):
    """The samples of a dataset of volumes. Item: (image float32 [C, D, H, W], target [D, H, W]).

    Each channel of an image has mean 0 and standard deviation 1 inside its ROI.

    Args:
        samples, classes, transforms, cache: see SegmentationDataset.
        channels: of the volumes.
        spacing: size (D, H, W) of a voxel. Volumes with other voxels are resampled to it.
    """

    nouns = ("volumes", "voxels")
    channel_bytes = 4

    def __init__(
        self,
        samples: Sequence[Sample],
        classes: ClassTable = BINARY,
        transforms: Callable | None = None,
        cache: bool | float = True,
        channels: int = 1,
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__(samples, classes, transforms, cache, channels)
        self.spacing = spacing

    def _decode(self, index: int) -> Item:
        sample = self.samples[index]
        if sample.label is None:
            raise UserError(f"{sample.image}: has no label to train or evaluate with")
        image, target, encoding = volumes.read_sample(
            sample, self.classes, self.channels, self.spacing
        )
        self.label_encodings[index] = encoding
        self.sizes[index] = tuple(target.shape)
        return image, target

    def describe(self, pixels: Tensor) -> str:
        """As for images, and what 255 is read as where labels differ in it."""
        text = super().describe(pixels)
        doubt = volumes.doubtful_255(self.encodings)
        return f"{text}\n  {doubt}" if doubt else text

    def conflict(self) -> str:
        """As for images, or if 255 is a class in one label and unlabelled in another."""
        return super().conflict() or volumes.conflicting_255(self.encodings)


class DriveDataset(SegmentationDataset):
    """DRIVE retinal vessels (Staal et al. 2004): 0 background, 1 vessel, 255 outside the ROI.

    For library use only: the scripts read DRIVE by its row of DATASETS, with the same result.
    Reads root/DRIVE/training or root/DRIVE/test. UserError names what is missing or unusable.
    """

    def __init__(
        self,
        root: str | Path,
        train: bool,
        transforms: Callable | None = None,
        cache: bool | float = True,
    ) -> None:
        super().__init__(list_drive(root, train), VESSEL, transforms, cache)


def list_samples(dataset: str, root: str | Path) -> dict[str, list[Sample]]:
    """{"train", "val", "test": samples}, or {"all": samples}, of a row of DATASETS.

    Logs which files are not used. UserError for files without partner.
    """
    found = DATASETS[dataset]["layout"](root)
    refuse_problems(found.problems)
    for note in found.notes:
        log(f"note: {note}")
    return found.splits


def open_dataset(
    samples: Sequence[Sample],
    title: str,
    transforms: Callable | None = None,
    *,
    for_training: bool = False,
    **options: object,
) -> tuple[SegmentationDataset, Tensor]:
    """Reads every sample once, so that files that cannot be used raise UserError here.

    Of a large dataset of images only a part is read here; the others raise it when they are used,
    and none is kept in memory. Returns (the dataset, the pixels of each class id that were read,
    int64 [256]), and logs what it found under `title`. options: those of SegmentationDataset, or
    with `spacing` those of VolumeDataset. UserError also for no samples, for labels without a valid
    pixel, and with `for_training` for labels without a foreground pixel: of a large dataset it is
    a warning.
    """
    if not samples:
        raise UserError(f"{title}: there are no images; check --data-path and the split")
    dataset_class = VolumeDataset if "spacing" in options else SegmentationDataset
    part = samples if dataset_class is VolumeDataset else large_sets.choose_sample(samples)
    is_large = len(part) < len(samples)
    if is_large:
        options["cache"] = False
    dataset = examined = dataset_class(samples, transforms=transforms, **options)
    if is_large:
        examined = dataset.examined = dataset.with_samples(part)
    pixels = examined.count_pixels(threads=is_large)
    problem = missing_pixels(title, pixels, examined.classes, examined.encodings, for_training)
    if problem and not (is_large and pixels[:IGNORE].any()):
        raise UserError(problem)
    text = examined.describe(pixels)
    if is_large:
        text = large_sets.describe_part(len(part), len(samples), text)
    log(f"{title}: {text}")
    if problem:
        log(f"warning: of the images that were read, {problem}")
    return dataset, pixels


# One row for each dataset:
#   layout: function of --data-path that finds the files, see train_utils/data/layouts.py
#   classes: the class table; one in a file replaces it
#   ordered: hold out the last samples instead of random ones, because neighbours are similar
#   mean, std: of the channels, of pixels in 0–1; None: computed from the training images, or for
#       volumes by each volume's own
#   dims: 2 for images, 3 for volumes
#   preset: the default of --preset: "best" for volumes and for images without an up and a down
#       (microscopes, fundus, aerial), "scenes" for upright images (streets, rooms)
# DRIVE's mean and std are the tutorials': the mean and std of each training image inside the ROI,
# averaged over the images. Weights trained with them expect them. compute_mean_std.py prints these
# as well as those of all pixels together.
USUAL = {"ordered": False, "mean": None, "std": None, "dims": 2, "preset": "best"}
DATASETS = {
    "drive": {
        **USUAL,
        "layout": public_datasets.drive,
        "classes": VESSEL,
        "ordered": True,
        "mean": [0.709, 0.381, 0.224],
        "std": [0.127, 0.079, 0.043],
    },
    "camvid": {
        **USUAL,
        "layout": public_datasets.camvid,
        "classes": public_datasets.CAMVID,
        "preset": "scenes",
    },
    "folder": {**USUAL, "layout": layouts.folder, "classes": BINARY},
    "list": {**USUAL, "layout": layouts.from_list, "classes": BINARY},
    "chase_db1": {**USUAL, "layout": public_datasets.chase_db1, "classes": VESSEL, "ordered": True},
    "stare": {**USUAL, "layout": public_datasets.stare, "classes": VESSEL},
    "hrf": {**USUAL, "layout": public_datasets.hrf, "classes": VESSEL, "ordered": True},
    "volumes": {**USUAL, "layout": volume_layouts.volumes, "classes": BINARY, "dims": 3},
}


if __name__ == "__main__":
    from train_utils.cli.check_dataset import main  # only the command line needs it

    main(DATASETS)

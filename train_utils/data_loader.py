"""The batches of a run: random crops for training, cut on the training device, and whole images.

Loaders are handed the dataset and the crops; this module knows neither flags nor transforms.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from src.device import to_device
from train_utils.distributed_utils import local_world_size, rank, world_size

# Distinct pairs (seed, epoch) give distinct seeds for up to a million epochs; so do their ranks.
SEED_STRIDE = 1_000_003
RANK_STRIDE = 4099


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of an epoch's random order."""
    return seed * SEED_STRIDE + epoch


def crop_seed(seed: int, epoch: int, rank: int) -> int:
    """The seed of the random crops of a rank in an epoch."""
    return epoch_seed(seed, epoch) * RANK_STRIDE + rank


class EpochBatches:
    """Batch sampler whose order depends on the seed and the epoch alone: a resumed run repeats it.

    Each epoch is a new permutation of `size` items, each `repeats` times. Rank r of `ranks` takes
    every ranks-th of it. If the items do not divide evenly, the first of the permutation come once
    more, so that all ranks have equally many batches, and at least one. A single process repeats
    nothing, and its last batch may be smaller.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        repeats: int = 1,
    ) -> None:
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.rank, self.ranks, self.repeats = rank, ranks, repeats
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self.items_per_rank() / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches())

    def batches(self) -> list[list[int]]:
        """This epoch's batches of this rank, as lists of indices."""
        generator = torch.Generator().manual_seed(epoch_seed(self.seed, self.epoch))
        order = torch.randperm(self.size * self.repeats, generator=generator) % self.size
        order = order.tolist()
        order += order * (self.ranks // self.size + 1)
        end = self.items_per_rank() * self.ranks
        own = order[self.rank : end : self.ranks]
        return [own[i : i + self.batch_size] for i in range(0, len(own), self.batch_size)]

    def items_per_rank(self) -> int:
        """Items of a rank in an epoch, repeated ones included."""
        return math.ceil(self.size * self.repeats / self.ranks)


class CropLoader:
    """Iterates over batches (images, targets) of random crops, as train_one_epoch expects them.

    Args:
        source: iterable of batches of whole images: (images uint8 [N, C, H, W], targets uint8
            [N, H, W], sizes int64 [N, 2]), padded to one size; sizes are those without padding.
            A StackedImages or a DataLoader.
        batches: the EpochBatches that the source follows.
        crops: cuts the crops, called with (images, targets, sizes, generator).
        seed: seed of the crops. They depend on it, the epoch and the rank alone, so a resumed run
            repeats them, whichever the source.
        device: where the crops are cut.
    """

    def __init__(
        self,
        source: Iterable,
        batches: EpochBatches,
        crops: Callable,
        seed: int,
        device: torch.device,
    ) -> None:
        self.source, self.batches, self.crops = source, batches, crops
        self.seed, self.device = seed, device

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        seed = crop_seed(self.seed, self.batches.epoch, self.batches.rank)
        generator = torch.Generator().manual_seed(seed)
        non_blocking = self.device.type == "cuda"
        for images, targets, sizes in self.source:
            images = images.to(self.device, non_blocking=non_blocking)
            targets = targets.to(self.device, non_blocking=non_blocking)
            yield self.crops(images, targets, sizes, generator)


class StackedImages:
    """All images of a dataset on one device; batches are taken there, without workers or files."""

    def __init__(
        self,
        images: Tensor,
        targets: Tensor,
        sizes: Tensor,
        batches: EpochBatches,
        device: torch.device,
    ) -> None:
        self.images, self.targets = images.to(device), targets.to(device)
        self.sizes, self.batches = sizes, batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for batch in self.batches:
            chosen = torch.tensor(batch)
            on_device = to_device(chosen, self.images.device)
            yield self.images[on_device], self.targets[on_device], self.sizes[chosen]


def make_loader(
    dataset: Dataset,
    device: torch.device,
    workers: int | None = None,
    prefetch: int | None = None,
    pin_memory: bool | None = None,
    in_memory: bool = True,
    **options: object,
) -> DataLoader:
    """A DataLoader of `dataset`, with further `options` of DataLoader.

    Args:
        workers: processes that load. None: one for each CPU core, up to 8, divided by the processes
            of this machine; none for images in memory.
        prefetch: batches that each worker keeps ready; None: PyTorch's default.
        pin_memory: load into page-locked memory, which a GPU copies from in the background. None:
            for CUDA.
        in_memory: whether the dataset has all images in memory.
    """
    if workers is None:
        workers = 0 if in_memory else min(8, cores() // local_world_size())
    if pin_memory is None:
        pin_memory = device.type == "cuda"
    options.setdefault("collate_fn", dataset.collate_fn)
    return DataLoader(
        dataset,
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        pin_memory=pin_memory,
        **options,
    )


def make_evaluation_loader(
    dataset: Dataset,
    device: torch.device,
    workers: int | None = None,
    prefetch: int | None = None,
    pin_memory: bool | None = None,
) -> DataLoader:
    """One whole image at a time: rank r of R loads the images r, r + R, … of the dataset."""
    return make_loader(
        dataset,
        device,
        workers,
        prefetch,
        pin_memory,
        dataset.fits_in_memory(),
        sampler=rank_indices(len(dataset)),
    )


def rank_indices(size: int) -> range:
    """Indices of the images that this rank evaluates: every world_size-th."""
    return range(rank(), size, world_size())


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

"""The batches of a run: random crops for training, cut on the training device, and whole images.

Loaders are handed the dataset and the cropper; this module knows neither flags nor transforms.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from src.free_memory import free_memory
from train_utils.distributed_utils import local_world_size, log, rank, world_size
from train_utils.random_state import SeededSamples

# Distinct pairs (seed, epoch) give distinct seeds for up to a million epochs; so do their ranks.
SEED_STRIDE = 1_000_003
RANK_STRIDE = 4099


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of an epoch's random order."""
    return seed * SEED_STRIDE + epoch


def crop_seed(seed: int, epoch: int, rank: int) -> int:
    """The seed of the random crops of a rank in an epoch, and of its samples' transforms."""
    return epoch_seed(seed, epoch) * RANK_STRIDE + rank


class EpochBatches:
    """Batch sampler of an epoch's items, in an order that a resumed run repeats.

    The order depends on the seed, the epoch, its number of items and the number of items before it.
    By default an epoch is a permutation of `size` items, each `repeats` times. If it takes any
    other number of items, and does not begin and end with whole permutations, it takes the next
    part of a sequence of permutations of `size` items, which continue from epoch to epoch: over the
    run each item comes equally often, up to one.

    Rank r of `ranks` takes every ranks-th item. If the items do not divide evenly, the first ones
    of the epoch come once more, so that all ranks have equally many batches, and at least one. A
    single process repeats nothing, and its last batch may be smaller.
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
        self.set_epoch(0)

    def set_epoch(self, epoch: int, start: int | None = None, items: int | None = None) -> None:
        """Chooses the order of this epoch.

        start: number of items of all ranks in the epochs before it. items: number of items in this
        epoch. None: each epoch has size · repeats items.
        """
        whole = self.size * self.repeats
        self.epoch = epoch
        self.start = epoch * whole if start is None else start
        self.items = whole if items is None else items

    def __len__(self) -> int:
        return math.ceil(self.items_per_rank() / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches())

    def batches(self) -> list[list[int]]:
        """This epoch's batches of this rank, as lists of indices."""
        order = self.order()
        order += order * (self.ranks // self.items + 1)
        end = self.items_per_rank() * self.ranks
        own = order[self.rank : end : self.ranks]
        return [own[i : i + self.batch_size] for i in range(0, len(own), self.batch_size)]

    def order(self) -> list[int]:
        """This epoch's items of all ranks."""
        if self.start % self.size == 0 and self.items % self.size == 0:
            return self.permutation(self.items, self.epoch)
        first, before = divmod(self.start, self.size)
        order = []
        while len(order) < before + self.items:
            order += self.permutation(self.size, first + len(order) // self.size)
        return order[before : before + self.items]

    def permutation(self, length: int, number: int) -> list[int]:
        """A random order of `length` items, a multiple of `size`, seeded by `number`."""
        generator = torch.Generator().manual_seed(epoch_seed(self.seed, number))
        return (torch.randperm(length, generator=generator) % self.size).tolist()

    def items_per_rank(self) -> int:
        """Items of a rank in an epoch, repeated ones included."""
        return math.ceil(self.items / self.ranks)


class SeededBatches:
    """The batches of an EpochBatches with a random seed for each item: lists of (index, seed).

    The seeds depend on the run's seed, the epoch, the rank and the item's place in the epoch alone.
    """

    def __init__(self, batches: EpochBatches) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        seed = crop_seed(self.batches.seed, self.batches.epoch, self.batches.rank)
        generator = torch.Generator().manual_seed(seed)
        for batch in self.batches:
            seeds = torch.randint(2**63 - 1, (len(batch),), generator=generator)
            yield list(zip(batch, seeds.tolist(), strict=True))


class CropLoader:
    """Iterates over batches of random crops (images, targets, *maps), as train_one_epoch expects.

    Args:
        source: iterable of batches of whole images: (images, N of uint8 [C, H, W], targets, N of
            uint8 [H, W], sizes int64 [N, 2], *maps, N of [H, W] each), padded to one size; sizes
            are those without padding. A StackedImages or a DataLoader.
        batches: the EpochBatches that the source follows.
        cropper: cuts the crops, called with (images, targets, sizes, generator, device), and with
            `maps` if there are any.
        seed: seed of the crops. They depend on it, the epoch and the rank alone, so a resumed run
            repeats them.
        device: where the crops are cut.
    """

    def __init__(
        self,
        source: Iterable,
        batches: EpochBatches,
        cropper: Callable,
        seed: int,
        device: torch.device,
    ) -> None:
        self.source, self.batches, self.cropper = source, batches, cropper
        self.seed, self.device = seed, device

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        seed = crop_seed(self.seed, self.batches.epoch, self.batches.rank)
        generator = torch.Generator().manual_seed(seed)
        for images, targets, sizes, *maps in self.source:
            options = {"maps": maps} if maps else {}
            yield self.cropper(images, targets, sizes, generator, self.device, **options)


class StackedImages:
    """All images of a dataset in memory; batches are taken there, without workers or files.

    stack: images uint8 [M, C, H, W], targets uint8 [M, H, W], sizes int64 [M, 2] and the maps, as
    dataset.stack() gives them. They are kept where pick_memory() says, the sizes on the CPU.
    """

    def __init__(
        self, stack: Sequence[Tensor], batches: EpochBatches, device: torch.device
    ) -> None:
        images, targets, self.sizes, *maps = stack
        parts = [images, targets, *maps]
        memory = pick_memory(sum(part.nbytes for part in parts), device)
        self.parts = [part.to(memory) for part in parts]
        self.batches = batches

    def __iter__(self) -> Iterator[tuple]:
        for batch in self.batches:
            # Views: nothing is copied yet.
            images, targets, *maps = [[part[i] for i in batch] for part in self.parts]
            yield images, targets, self.sizes[batch], *maps


def pick_memory(size: int, device: torch.device) -> torch.device:
    """Where `size` bytes of images are kept for training on the device: there, or on the CPU.

    On the CPU if they would take more than half of the device's free memory.
    """
    free = free_memory(device)
    if device.type == "cpu" or free is None or 2 * size <= free:
        return device
    log(
        f"the training images take {size / 1e9:.1f} GB, more than half of the {free / 1e9:.1f} GB "
        f"that are free on {device}: they stay in the CPU's memory"
    )
    return torch.device("cpu")


def make_loader(
    dataset: Dataset,
    device: torch.device,
    workers: int | None = None,
    prefetch: int | None = None,
    pin_memory: bool | None = None,
    in_memory: bool = True,
    **options: object,
) -> DataLoader:
    """A DataLoader of `dataset`, with its `options`. Its workers stay for the next epochs.

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
    return DataLoader(
        dataset,
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        # PyTorch's own would advance whenever workers are started, so differently after resuming.
        generator=torch.Generator(),
        **options,
    )


def batches_ahead(loader: CropLoader | DataLoader) -> int:
    """Number of batches that the loader's workers keep ready; 0 without workers."""
    source = loader.source if isinstance(loader, CropLoader) else loader
    if not isinstance(source, DataLoader):
        return 0
    return source.num_workers * (source.prefetch_factor or 0)


def make_training_loader(
    dataset: Dataset,
    device: torch.device,
    batches: EpochBatches,
    collate_fn: Callable,
    **options: object,
) -> DataLoader:
    """The batches of this rank, with random transforms that a resumed run repeats exactly.

    They are the same for any number of workers. options: those of make_loader().
    """
    samples, seeds = SeededSamples(dataset), SeededBatches(batches)
    return make_loader(samples, device, batch_sampler=seeds, collate_fn=collate_fn, **options)


def make_evaluation_loader(dataset: Dataset, device: torch.device, **options: object) -> DataLoader:
    """One whole image at a time: rank r of R loads the images r, r + R, … of the dataset.

    options: those of make_loader().
    """
    return make_loader(
        dataset,
        device,
        in_memory=dataset.fits_in_memory(),
        sampler=rank_indices(len(dataset)),
        collate_fn=dataset.collate_fn,
        **options,
    )


def rank_indices(size: int) -> range:
    """Indices of the images that this rank evaluates: every world_size-th."""
    return range(rank(), size, world_size())


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

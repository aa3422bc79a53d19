"""Loaders of a run: batches of augmented crops, cut on the training device, and images to judge, one at a time."""

import os

import torch
from torch.utils.data import DataLoader

from train_utils.distributed_utils import rank, world_size


class CropLoader:
    """What a DataLoader is to train_one_epoch: an iterable of (images, targets) with a length.

    Args:
        source: iterable of whole images in batches, (images uint8 [N, C, H, W], targets uint8 [N, H, W], sizes int64
            [N, 2]), padded to one size, the sizes being those without the padding: StackedImages or a DataLoader.
        batches: EpochBatches, the images that each batch is cut from.
        crops: transforms.RandomAffineCrops.
        seed: of the parameters of the crops. They depend on it, the epoch and the rank alone, so that a resumed run
            repeats them, whichever the source.
        device: where the crops are cut.
    """

    def __init__(self, source, batches, crops, seed, device):
        self.source, self.batches, self.crops, self.seed, self.device = (
            source,
            batches,
            crops,
            seed,
            device,
        )

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        generator = torch.Generator().manual_seed(
            (self.seed * 1_000_003 + self.batches.epoch) * 4099 + self.batches.rank
        )
        for images, targets, sizes in self.source:
            images, targets = (
                tensor.to(self.device, non_blocking=True) for tensor in (images, targets)
            )
            yield self.crops(images, targets, sizes, generator)


class StackedImages:
    """All images of a data set on one device, from which batches are taken there, without workers or files."""

    def __init__(self, images, targets, sizes, batches, device):
        self.images, self.targets, self.sizes, self.batches = (
            images.to(device),
            targets.to(device),
            sizes,
            batches,
        )

    def __iter__(self):
        for batch in self.batches:
            chosen = torch.tensor(batch)
            there = chosen.to(self.images.device)
            yield self.images[there], self.targets[there], self.sizes[chosen]


def make_loader(
    dataset, device, workers=None, prefetch=None, pin_memory=None, in_memory=True, **options
):
    """A DataLoader of `dataset` with `options`. What is None sets itself.

    workers: processes that read, by default one a CPU core up to 8 for a GPU and for what is read from files (not
    `in_memory`), and none where the CPU that trains has it all in memory. prefetch: batches that each worker keeps ready.
    pin_memory: page-locked memory, which a GPU copies from while it computes, by default for CUDA.
    """
    if workers is None:
        workers = min(8, cores() // world_size()) if device.type == "cuda" or not in_memory else 0
    pin_memory = device.type == "cuda" if pin_memory is None else pin_memory
    return DataLoader(
        dataset,
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        pin_memory=pin_memory,
        **{"collate_fn": dataset.collate_fn, **options},
    )


def rank_indices(size):
    """Indices of the images that this rank judges: every world_size-th."""
    return range(rank(), size, world_size())


def cores():
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""Large datasets: only a sample of their files is read before training, for statistics."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from src.image_decoding import count_pixels
from train_utils.data.samples import Sample

# A dataset is large above one of these. Reading it all would take minutes.
LARGE_IMAGES = 1_000
LARGE_PIXELS = 2e9
# The sample: so many images, fewer of very large ones.
SAMPLE_IMAGES = 200
SAMPLE_PIXELS = 1e8
THREADS = min(8, os.cpu_count() or 1)


def choose_sample(samples: Sequence[Sample]) -> list[Sample]:
    """The samples of a large dataset whose files are read for statistics, all of a small one.

    They are random, but the same each time, and sorted as they were.
    """
    if (
        len(samples) <= LARGE_IMAGES
        and sum(count_pixels(each.image) for each in samples) <= LARGE_PIXELS
    ):
        return list(samples)
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0)).tolist()
    chosen, pixels = [], 0
    for index in order[:SAMPLE_IMAGES]:
        pixels += count_pixels(samples[index].image)  # by the header; 0 for a broken file
        if chosen and pixels > SAMPLE_PIXELS:
            break
        chosen.append(index)
    return [samples[index] for index in sorted(chosen)]


def describe_part(part: int, total: int, description: str) -> str:
    """The description of the images that were read of a large dataset, and how many they are."""
    return (
        f"read {part:,} of {total:,} images, the others when they are used, "
        "none is kept in memory (python my_dataset.py check reads all)\n"
        f"  of these: {description}"
    )


def in_threads(function: Callable[[int], Tensor], count: int) -> list[Tensor]:
    """[function(0), function(1), …], several at a time. Pillow decodes without Python's lock."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(function, range(count)))

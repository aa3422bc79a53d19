"""Large datasets: a sample of their files is read before training, and one is validated on."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor

from src.image_decoding import count_pixels
from train_utils.data.samples import Sample
from train_utils.distributed_utils import log

# A dataset is large above one of these. Reading it all would take minutes.
LARGE_IMAGES = 1_000
LARGE_PIXELS = 2e9
# The sample: so many images, fewer of very large ones.
SAMPLE_IMAGES = 200
SAMPLE_PIXELS = 1e8
THREADS = min(8, os.cpu_count() or 1)


def choose_sample(samples: Sequence[Sample]) -> list[Sample]:
    """The samples of a large dataset whose files are read for statistics, all of a small one.

    They are chosen by random_order(), and sorted as they were.
    """
    if (
        len(samples) <= LARGE_IMAGES
        and sum(count_pixels(each.image) for each in samples) <= LARGE_PIXELS
    ):
        return list(samples)
    chosen, pixels = [], 0
    for index in random_order(samples)[:SAMPLE_IMAGES]:
        pixels += count_pixels(samples[index].image)  # by the header; 0 for a broken file
        if chosen and pixels > SAMPLE_PIXELS:
            break
        chosen.append(index)
    return [samples[index] for index in sorted(chosen)]


def choose_validation(samples: Sequence[Sample], most: int) -> list[Sample]:
    """At most `most` of the validation samples, 0: all. Logs how many they are, if not all.

    They are chosen by random_order(), and sorted as they were.
    """
    if not 0 < most < len(samples):
        return list(samples)
    log(
        f"validation: {most:,} of {len(samples):,} are evaluated after each epoch, always the same "
        "ones; --val-images 0 takes all"
    )
    return [samples[index] for index in sorted(random_order(samples)[:most])]


def random_order(samples: Sequence[Sample]) -> list[int]:
    """The indices of the samples in a random order that is the same each time.

    It depends on the sizes of the image files, so that files with other names give the same order.
    Only files of equal size are told apart by their place among the samples.
    """
    seen, keys = Counter(), []
    for sample in samples:
        size = os.path.getsize(sample.image)
        keys.append(hashlib.sha256(f"{size} {seen[size]}".encode()).digest())
        seen[size] += 1
    return sorted(range(len(samples)), key=keys.__getitem__)


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

"""Statistics of the training data: mean and std of the channels, and class weights."""

from collections.abc import Sequence
from statistics import median
from typing import Protocol

import torch
from torch import Tensor

from src.image_io import IGNORE
from train_utils.distributed_utils import broadcast_from_rank_zero, log

# A class of a few pixels would otherwise have nearly all of the loss, and a background of nearly
# all pixels none of it. CamVid's weights are 0.14 to 15.4.
SMALLEST_WEIGHT, LARGEST_WEIGHT = 0.05, 20.0


class ReadableDataset(Protocol):
    """A dataset whose read(i) returns (image uint8 [C, H, W], target uint8 [H, W])."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[Tensor, Tensor]: ...


def channel_sums(image: Tensor, valid: Tensor) -> tuple[int, Tensor, Tensor]:
    """(number of pixels, Σx [C], Σx² [C]) over the valid pixels, in float64, with x in 0–1.

    image: uint8 [C, H, W]. valid: bool [H, W].
    """
    values = image[:, valid].double() / 255
    return values.shape[1], values.sum(1), (values**2).sum(1)


def add_sums(
    first: tuple[int, Tensor, Tensor] | None, second: tuple[int, Tensor, Tensor]
) -> tuple[int, Tensor, Tensor]:
    """The sums of two images together; `first` is None for the first image."""
    if first is None:
        return second
    return first[0] + second[0], first[1] + second[1], first[2] + second[2]


def mean_and_std(count: int, total: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation, each [C], from channel_sums()."""
    mean = total / count
    return mean, (squares / count - mean**2).clamp_min(0).sqrt()


def channel_statistics(dataset: ReadableDataset) -> dict[str, tuple[Tensor, Tensor]]:
    """{"pooled": (mean, std), "per image": (mean, std)} of a dataset, each [C] in float64.

    Pooled: over the valid pixels of all images together. Per image: mean and std of each image,
    averaged over the images; such averages are the constants of the tutorials. An image with many
    valid pixels has more weight in the pooled statistics only.
    """
    sums, per_image = None, []
    for i in range(len(dataset)):
        image, target, *_ = dataset.read(i)
        image_sums = channel_sums(image, target != IGNORE)
        sums = add_sums(sums, image_sums)
        if image_sums[0]:
            per_image.append(torch.stack(mean_and_std(*image_sums)))
    mean, std = torch.stack(per_image).mean(0)
    return {"pooled": mean_and_std(*sums), "per image": (mean, std)}


def median_frequency_weights(pixels: Sequence[int], sampled: bool = False) -> list[float]:
    """Class weights by median frequency balancing, after Eigen and Fergus 2015.

    The weight of a class is the median of the classes' shares over its own share, within
    SMALLEST_WEIGHT and LARGEST_WEIGHT. Shares are of all pixels; the paper (arXiv:1411.4734) takes
    those of the images in which the class occurs. A class without pixels gets 0, or the largest
    weight of the others if only a sample of the images was read: it may occur in the rest.

    pixels: number of valid pixels of each class. sampled: whether they are of a sample.
    """
    found = [count for count in pixels if count]
    if not found:
        return [1.0] * len(pixels)
    middle = median(found)

    def weight(count: int) -> float:
        return min(max(middle / count, SMALLEST_WEIGHT), LARGEST_WEIGHT)

    unseen = weight(min(found)) if sampled else 0.0
    return [weight(count) if count else unseen for count in pixels]


def choose_mean_and_std(
    mean: list[float] | None, std: list[float] | None, dataset: ReadableDataset
) -> tuple[list[float], list[float]]:
    """`mean` and `std` where they are given, else those of the dataset's valid pixels, in 0–1."""
    if not (mean and std):
        pooled = broadcast_from_rank_zero(lambda: channel_statistics(dataset)["pooled"])
        computed = [[round(value, 4) for value in values.tolist()] for values in pooled]
        mean = mean or computed[0]
        std = std or [max(value, 0.001) for value in computed[1]]  # a blank channel has std 0
        log(f"mean {mean}, std {std}, computed from the training images")
    return mean, std


def choose_class_weights(
    choice: str | list[float], pixels: Tensor, sampled: bool = False
) -> Tensor | None:
    """Weights float32 [K] of the cross entropy, or None.

    choice: "none", "auto" (median frequency balancing) or the weights. pixels, sampled: training
    pixels of each class, see median_frequency_weights().
    """
    if choice == "none":
        return None
    if choice == "auto":
        weights = torch.tensor(median_frequency_weights(pixels.tolist(), sampled))
    else:
        weights = torch.tensor(choice)
    log(f"class weights: {', '.join(f'{weight:.3g}' for weight in weights.tolist())}")
    return weights

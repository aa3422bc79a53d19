"""Mean and std of the channels of the training images."""

from typing import Protocol

import torch
from torch import Tensor

from src.image_io import IGNORE
from train_utils.distributed_utils import broadcast_from_rank_zero, log


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


def rounded(mean_and_std: tuple[Tensor, Tensor]) -> tuple[list[float], list[float]]:
    """Mean and std [C] as --mean and --std take them: 4 decimals, and std above 0.

    A blank channel has a standard deviation of 0.
    """
    mean, std = ([round(value, 4) for value in values.tolist()] for values in mean_and_std)
    return mean, [max(value, 0.001) for value in std]


def flag_values(mean_and_std: tuple[Tensor, Tensor]) -> list[str]:
    """The values of --mean and of --std as text."""
    return [" ".join(f"{value:.4f}" for value in values) for values in rounded(mean_and_std)]


def choose_mean_and_std(
    mean: list[float] | None, std: list[float] | None, dataset: ReadableDataset
) -> tuple[list[float], list[float]]:
    """`mean` and `std` where they are given, else those of the dataset's valid pixels, in 0–1."""
    if not (mean and std):
        pooled = broadcast_from_rank_zero(lambda: channel_statistics(dataset)["pooled"])
        computed = rounded(pooled)
        mean, std = mean or computed[0], std or computed[1]
        log(f"mean {mean}, std {std}, computed from the training images")
    return mean, std

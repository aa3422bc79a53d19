"""Volumes as pictures: three orthogonal slices through the structure, side by side."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from src.image_io import IGNORE

WHITE = 255  # between the slices and below shorter ones


class Slices(NamedTuple):
    """The same three slices of a volume, of its label and of its prediction.

    image: uint8 [1, h, w]. target, prediction: [h, w]. inside: bool [h, w], True on the slices; the
    other three are 0 where it is False.
    """

    image: Tensor
    target: Tensor
    prediction: Tensor
    inside: Tensor

    def on_white(self, picture: np.ndarray) -> np.ndarray:
        """A picture uint8 [h, w, 3] made of one of the others, with white between the slices."""
        return np.where(self.inside.numpy()[..., None], picture, np.uint8(WHITE))


def slices_of(
    image: Tensor, target: Tensor, prediction: Tensor, spacing: Sequence[float]
) -> Slices:
    """Slices through the target's foreground, or the prediction's if there is none.

    image: float [C, D, H, W], of which the first channel is shown; target, prediction: [D, H, W].
    Long voxels are repeated, so that lengths are right to about half a voxel.
    """
    point = densest_point(target)
    if point is None:
        point = densest_point(prediction) or [side // 2 for side in target.shape]
    factors = [max(1, round(size / min(spacing))) for size in spacing]
    volumes = as_grey(image[0]), target, prediction, torch.ones_like(target, dtype=torch.bool)
    grey, *others = [orthogonal_slices(volume, point, factors, fill=0) for volume in volumes]
    return Slices(grey[None], *others)


def densest_point(ids: Tensor) -> list[int] | None:
    """On each axis the slice with most foreground of [D, H, W]; None without any."""
    foreground = (ids > 0) & (ids != IGNORE)
    if not foreground.any():
        return None
    return [int(foreground.sum(others).argmax()) for others in ((1, 2), (0, 2), (0, 1))]


def as_grey(volume: Tensor) -> Tensor:
    """uint8 of a float volume: black to white from its 1st to its 99th percentile."""
    sample = volume.flatten()[:: max(1, volume.numel() // 1_000_000)].sort().values
    last = len(sample) - 1
    low, high = sample[round(0.01 * last)], sample[round(0.99 * last)]
    return ((volume - low) / (high - low).clamp_min(1e-6) * 255).clamp(0, 255).byte()


def orthogonal_slices(
    volume: Tensor, point: Sequence[int], factors: Sequence[int], fill: int
) -> Tensor:
    """[h, w]: the slices of [D, H, W] across D, H and W through the point, from left to right.

    The ends of D and H, superior and anterior in NIfTI files, are at the top. factors: how often a
    voxel is repeated along each axis. fill: what is below shorter slices and between them.
    """
    for axis, factor in enumerate(factors):
        volume = volume.repeat_interleave(factor, axis)
    d, h, w = (index * factor + factor // 2 for index, factor in zip(point, factors, strict=True))
    slices = [volume[d].flip(0), volume[:, h].flip(0), volume[:, :, w].flip(0)]
    height, gap = max(len(each) for each in slices), max(1, volume.shape[2] // 32)
    padded = [F.pad(each, [0, gap, 0, height - len(each)], value=fill) for each in slices]
    return torch.cat(padded, dim=1)[:, :-gap]

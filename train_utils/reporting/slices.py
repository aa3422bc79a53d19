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
    everywhere = torch.ones((), dtype=torch.bool).expand(target.shape)
    volumes = image[0], target, prediction, everywhere
    grey, *others, inside = [orthogonal_slices(each, point, factors, fill=0) for each in volumes]
    grey = as_grey(grey, *grey_range(image[0])) * inside
    return Slices(grey[None], *others, inside)


def densest_point(ids: Tensor) -> list[int] | None:
    """On each axis the slice with most foreground of [D, H, W]; None without any."""
    foreground = (ids > 0) & (ids != IGNORE)
    if not foreground.any():
        return None
    return [int(foreground.sum(others).argmax()) for others in ((1, 2), (0, 2), (0, 1))]


def grey_range(volume: Tensor) -> tuple[Tensor, Tensor]:
    """(the 1st percentile, the 99th) of a float volume, of about a million of its voxels."""
    sample = volume.flatten()[:: max(1, volume.numel() // 1_000_000)].sort().values
    last = len(sample) - 1
    return sample[round(0.01 * last)], sample[round(0.99 * last)]


def as_grey(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """uint8 of floats: black to white from `low` to `high`."""
    return ((values - low) / (high - low).clamp_min(1e-6) * 255).clamp(0, 255).byte()


def orthogonal_slices(
    volume: Tensor, point: Sequence[int], factors: Sequence[int], fill: int
) -> Tensor:
    """[h, w]: the slices of [D, H, W] across D, H and W through the point, from left to right.

    The ends of D and H, superior and anterior in NIfTI files, are at the top. factors: how often a
    voxel is repeated along each axis. fill: what is below shorter slices and between them.
    """
    slices = []
    for axis, index in enumerate(point):
        down, across = (factor for other, factor in enumerate(factors) if other != axis)
        plane = volume.select(axis, index).flip(0)
        slices.append(plane.repeat_interleave(down, 0).repeat_interleave(across, 1))
    height, gap = max(len(each) for each in slices), max(1, slices[0].shape[1] // 32)
    padded = [F.pad(each, [0, gap, 0, height - len(each)], value=fill) for each in slices]
    return torch.cat(padded, dim=1)[:, :-gap]

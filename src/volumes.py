"""Volumes in memory: where their voxels are, resampling, normalization."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import UserError

Strips = Iterator[tuple[slice, Tensor]]  # (slices, probabilities [K, d, H, W])

SLAB = 2**22  # voxels that probabilities are resampled for at a time
FLOAT64_VOXELS = 2**20  # that are normalized at a time
SAME_PLACE = 0.1  # voxels that corners of an image and its label may lie apart
SAME_SPACING = 0.1  # relative difference of voxel sizes up to which nothing is resampled


@dataclass(frozen=True)
class Geometry:
    """Where the voxels of a volume are, and how its file stores them.

    shape: (D, H, W).
    spacing: size of a voxel (D, H, W) in mm; None if the file does not say.
    affine: float64 [4, 4], from voxel (w, h, d) to mm; None if the file does not say.
    header: that of the NIfTI file, or None.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float] | None = None
    affine: np.ndarray | None = None
    header: object = None


def check_same_space(
    path: str | Path, geometry: Geometry, image_path: str | Path, image_geometry: Geometry
) -> None:
    """UserError if a label or an ROI volume does not lie where its image lies.

    Corners may be SAME_PLACE voxels apart: headers are often rounded. Two files that say nothing
    of their place need the same size only. One alone is refused: a NIfTI file is turned to one
    orientation when it is read, and how the other one lies is unknown.
    """
    if geometry.shape != image_geometry.shape:
        raise UserError(
            f"{path}: is {size_text(geometry.shape)} voxels, but its image {image_path} is "
            f"{size_text(image_geometry.shape)}; they must be equal"
        )
    if geometry.affine is None and image_geometry.affine is None:
        return
    if geometry.affine is None or image_geometry.affine is None:
        raise UserError(
            f"{path}: only one of it and its image {image_path} stores its orientation; "
            "save both as NIfTI, or both as stacks"
        )
    apart = np.linalg.norm(corners(geometry) - corners(image_geometry), axis=1).max()
    if not apart <= SAME_PLACE * min(image_geometry.spacing):
        raise UserError(
            f"{path}: its affine places voxels up to {apart:.3g} mm away from those of its image "
            f"{image_path}; save it with the image's affine if the voxels belong together"
        )


def corners(geometry: Geometry) -> np.ndarray:
    """float64 [8, 3]: positions of the corner voxels in mm."""
    ends = [(0, side - 1) for side in reversed(geometry.shape)]
    voxels = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3)
    return voxels @ geometry.affine[:3, :3].T + geometry.affine[:3, 3]


def size_text(shape: Sequence[int]) -> str:
    """ "35×51×35" for a shape (D, H, W)."""
    return "×".join(str(side) for side in shape)


# --- resampling and normalization -----------------------------------------------------------------


def same_spacing(spacing: Sequence[float], wanted: Sequence[float]) -> bool:
    """Whether no axis differs by more than SAME_SPACING."""
    return all(abs(own / new - 1) <= SAME_SPACING for own, new in zip(spacing, wanted, strict=True))


def resampled_shape(
    shape: Sequence[int], spacing: Sequence[float], wanted: Sequence[float]
) -> tuple[int, int, int] | None:
    """The shape (D, H, W) with voxels of the size `wanted` in place of `spacing`.

    None if no axis differs by more than SAME_SPACING: the volume then stays as it is.
    """
    if same_spacing(spacing, wanted):
        return None
    ratios = [own / new for own, new in zip(spacing, wanted, strict=True)]
    return tuple(max(1, round(side * ratio)) for side, ratio in zip(shape, ratios, strict=True))


def resize_volume(volume: Tensor, shape: Sequence[int]) -> Tensor:
    """float32 [C, D, H, W] at another size, interpolated between eight voxels.

    An axis that shrinks to less than half is averaged: interpolation would skip voxels there.
    """
    sides = list(volume.shape[1:])
    for axis, side in enumerate(shape):
        if sides[axis] > 2 * side:
            sides[axis] = side
    if sides != list(volume.shape[1:]):
        volume = F.interpolate(volume[None], sides, mode="area")[0]
    return F.interpolate(volume[None], tuple(shape), mode="trilinear")[0]


def resize_label(label: Tensor, shape: Sequence[int]) -> Tensor:
    """A label uint8 [D, H, W] at another size: each voxel takes the old voxel at its centre."""
    resized = F.interpolate(label[None, None].float(), tuple(shape), mode="nearest-exact")
    return resized[0, 0].to(label.dtype)


def resampled_strips(
    strips: Strips,
    shape: tuple[int, int, int],
    wanted: tuple[int, int, int],
) -> Strips:
    """Probabilities at the size `wanted`, interpolated from strips of a volume of `shape`.

    The result is that of resizing the whole volume, which is never in memory.
    """
    depth, size, done, before = wanted[0], wanted[1:], 0, None
    # Slice i of the result lies at position (i + ½) · ratio − ½ between slices of the strips.
    position = ((torch.arange(depth) + 0.5) * (shape[0] / depth) - 0.5).clamp(0, shape[0] - 1)
    lower = position.floor().long()
    upper = (lower + 1).clamp_max(shape[0] - 1)
    step = max(1, SLAB // (size[0] * size[1]))
    for part, probs in strips:
        start = part.start
        if before is not None:
            start, probs = start - 1, torch.cat([before, probs], dim=1)
        before = probs[:, -1:].clone()
        ready = int((upper < part.stop).sum())
        for first in range(done, ready, step):
            chosen = slice(first, min(first + step, ready))
            share = (position - lower)[chosen].float().view(1, -1, 1, 1)
            below, above = (probs[:, index[chosen] - start] for index in (lower, upper))
            slab = torch.lerp(below, above, share)
            yield chosen, F.interpolate(slab, size, mode="bilinear")
        done = ready


def normalize_volume(volume: Tensor, roi: Tensor | None = None) -> Tensor:
    """Each channel of [C, D, H, W] with mean 0 and standard deviation 1 of its own voxels.

    roi: bool [D, H, W], the voxels that mean and standard deviation are of; None: all. A constant
    channel becomes 0. Computed in float64, a few slices at a time; the result is float32.
    """
    normalized = torch.empty_like(volume, dtype=torch.float32)
    step = max(1, FLOAT64_VOXELS // volume[0, 0].numel())
    for channel, result in zip(volume, normalized, strict=True):
        mean, std = mean_and_std(channel, roi, step)
        if std <= 1e-6 * mean.abs().clamp_min(1e-6):
            std = 1
        for values, slices in zip(channel.split(step), result.split(step), strict=True):
            slices.copy_((values.double() - mean) / std)
    return normalized


def mean_and_std(channel: Tensor, roi: Tensor | None, step: int) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation of [D, H, W] in float64, `step` slices at a time.

    roi: see normalize_volume().
    """

    def voxels() -> Iterator[Tensor]:
        for first in range(0, len(channel), step):
            part = slice(first, first + step)
            values = channel[part] if roi is None else channel[part][roi[part]]
            yield values.double()

    count = channel.numel() if roi is None else int(roi.count_nonzero())
    mean = sum(values.sum() for values in voxels()) / count
    variance = sum((values - mean).square().sum() for values in voxels()) / count
    return mean, variance.sqrt()

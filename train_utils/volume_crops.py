"""Random crops of volumes, cut on the training device; transforms.py has those of images.

Axes are in the order (D, H, W). Positions are in voxels: voxel i covers i to i + 1.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from src.device import to_device
from src.image_io import IGNORE
from src.unet_3d import through_plane_axis


class RandomVolumeCrops:
    """Cuts one crop from each volume of a batch, with random rotation, scale, flips, intensities.

    A single grid_sample computes all crops, each with its own random parameters.

    Args:
        crop_size: sides (D, H, W) of the crops in voxels.
        spacing: size (D, H, W) of a voxel. Rotation keeps lengths in its unit. Where voxels are at
            least twice as long on one axis, crops are rotated and scaled in the plane of the other
            two alone: between slices there is too little detail.
        scale: range of a random scale factor for half of the crops; the others have factor 1.
        rotate: largest angle in degrees about each axis, for half of the crops.
        jitter: the contrast changes by a factor of 1 − jitter to 1 + jitter, the brightness by up
            to jitter standard deviations.
        flip_probs: probability of a flip of each axis.
        foreground: share of the crops that are centred on a random foreground voxel, as far as
            they stay inside the volume.
        margins: voxels at each border of a crop that valid convolutions remove, on each axis. Crops
            reach this far beyond the volume, which is mirrored there.
    """

    def __init__(
        self,
        crop_size: Sequence[int],
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
        scale: Sequence[float] = (0.8, 1.25),
        rotate: float = 30.0,
        jitter: float = 0.25,
        flip_probs: Sequence[float] = (0.5, 0.5, 0.5),
        foreground: float = 1 / 3,
        margins: Sequence[int] = (0, 0, 0),
    ) -> None:
        self.crop_size, self.scale, self.rotate, self.jitter = crop_size, scale, rotate, jitter
        self.spacing = torch.tensor(spacing, dtype=torch.float64)
        self.flip_probs, self.foreground, self.margins = flip_probs, foreground, margins
        # 1 for the axes that are scaled and about which crops are rotated, else 0.
        axis = through_plane_axis(spacing)
        self.scaled_axes, self.rotation_axes = torch.ones(3), torch.ones(3)
        if axis is not None:
            self.scaled_axes[axis] = 0
            self.rotation_axes = 1 - self.scaled_axes

    def __call__(
        self,
        images: Tensor,
        targets: Tensor,
        sizes: Tensor,
        generator: torch.Generator,
        device: torch.device | None = None,
    ) -> tuple[Tensor, Tensor]:
        """images float32 [N, C, D, H, W], targets uint8 [N, D, H, W] → float32 [N, C, d, h, w],
        int64 [N, d, h, w], where (d, h, w) is crop_size.

        sizes: int64 [N, 3], the volumes' sizes without padding. generator: on the CPU. device:
        where the crops are computed; None: where the volumes are.
        """
        if not isinstance(images, Tensor):
            images, targets = torch.stack(list(images)), torch.stack(list(targets))
        device = device or images.device
        images, targets = to_device(images, device), to_device(targets, device)
        n = len(images)
        # Two more rows than are used: with fewer, a seed would no longer give the same crops.
        random = torch.rand(6, n, generator=generator)
        matrices = self.random_matrices(n, generator)
        covered = self.covered_voxels(matrices)
        position = torch.rand(n, 3, generator=generator)
        contrast, brightness, use_foreground, choice = random[:4]
        jitter = self.jitter * (2 * torch.stack([contrast, brightness], dim=1) - 1)
        wanted = torch.stack([use_foreground < self.foreground, choice], dim=1)
        # One copy for all parameters; the CPU does not wait for it.
        parts = [matrices.flatten(1), covered, position, jitter, wanted, sizes]
        parameters = torch.cat([part.float() for part in parts], dim=1)
        parts = to_device(parameters, device).split([9, 3, 3, 2, 2, 3], dim=1)
        matrices, covered, position, jitter, wanted, sizes = parts

        centres = (position * (sizes - covered).clamp_min(0)).round() + covered / 2
        voxels, found = random_foreground(targets, wanted[:, 1])
        on_foreground = found & (wanted[:, 0] > 0)
        centres = torch.where(on_foreground[:, None], voxels + 0.5, centres)
        centres = keep_inside(centres, covered, sizes)
        mirror_at = sizes if any(self.margins) else None
        image, target = cut_crops(
            images, targets, matrices.view(n, 3, 3), centres, self.crop_size, mirror_at
        )
        contrast, brightness = jitter.view(n, 2, 1, 1, 1, 1).unbind(1)
        return image * (1 + contrast) + brightness, target

    def random_matrices(self, n: int, generator: torch.Generator) -> Tensor:
        """float64 [n, 3, 3]: from offsets in voxels of a crop to those of its volume."""
        probs = torch.tensor([0.5, 0.5, *self.flip_probs])
        chosen = torch.rand(5, n, generator=generator) < probs[:, None]
        rotated, scaled, *flipped = chosen
        angles = 2 * torch.rand(n, 3, generator=generator, dtype=torch.float64) - 1
        angles = torch.deg2rad(angles * self.rotate) * self.rotation_axes * rotated[:, None]
        factor = torch.rand(n, generator=generator, dtype=torch.float64)
        factor = self.scale[0] + factor * (self.scale[1] - self.scale[0])
        factor = torch.where(scaled, factor, 1.0)[:, None]
        factors = torch.where(self.scaled_axes > 0, factor, 1.0)
        signs = torch.where(torch.stack(flipped, dim=1), -1.0, 1.0)
        # Voxels of the crop → mm → turned → voxels of the volume.
        turned = rotations(angles) * self.spacing / self.spacing[:, None]
        return turned * (signs / factors)[:, None, :]

    def covered_voxels(self, matrices: Tensor) -> Tensor:
        """[n, 3]: sides, in voxels of the volume, of what the output of a crop covers.

        Rotation is left out: the corners of a turned crop may lie outside the volume.
        """
        scale = matrices.square().mul(self.spacing[:, None] ** 2).sum(1).sqrt() / self.spacing
        inner = [
            side - 2 * margin for side, margin in zip(self.crop_size, self.margins, strict=True)
        ]
        return scale * torch.tensor(inner)


def rotations(angles: Tensor) -> Tensor:
    """[n, 3, 3]: rotations about the axes D, H and W, one after the other, by angles [n, 3]."""
    total = torch.eye(3, dtype=angles.dtype).expand(len(angles), 3, 3)
    for axis, (first, second) in enumerate(((1, 2), (0, 2), (0, 1))):
        cos, sin = angles[:, axis].cos(), angles[:, axis].sin()
        single = torch.eye(3, dtype=angles.dtype).repeat(len(angles), 1, 1)
        single[:, first, first], single[:, second, second] = cos, cos
        single[:, first, second], single[:, second, first] = -sin, sin
        total = total @ single
    return total


def keep_inside(centres: Tensor, covered: Tensor, sizes: Tensor) -> Tensor:
    """The centres [n, 3] moved so that the crops stay inside their volumes, as far as they fit.

    They begin at whole voxels: a crop of factor 1 then copies voxels without interpolation.
    """
    free = sizes - covered
    corner = (centres - covered / 2 + 1e-3).floor()  # whole numbers may have become a little less
    corner = torch.minimum(corner.clamp_min(0), free.floor())
    return torch.where(free >= 0, corner, (free / 2).round()) + covered / 2


def random_foreground(targets: Tensor, choice: Tensor) -> tuple[Tensor, Tensor]:
    """(a foreground voxel of each target as float [n, 3], bool [n] whether it has one).

    Foreground is what is neither class 0 nor IGNORE. choice: [n], uniform in 0–1, chooses among the
    voxels of a target. Nothing waits for the device.
    """
    foreground = ((targets > 0) & (targets != IGNORE)).flatten(1)
    numbers = foreground.cumsum(1, dtype=torch.int32)
    total = numbers[:, -1]
    number = torch.minimum((choice * total).int(), (total - 1).clamp_min(0)) + 1
    index = torch.searchsorted(numbers, number[:, None])[:, 0].clamp_max(numbers.shape[1] - 1)
    height, width = targets.shape[2:]
    voxels = [index // (height * width), index // width % height, index % width]
    return torch.stack(voxels, dim=1).float(), total > 0


def cut_crops(
    images: Tensor,
    targets: Tensor,
    matrices: Tensor,
    centres: Tensor,
    crop_size: Sequence[int],
    mirror_at: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Crops (float32 [N, C, *crop_size], int64 [N, *crop_size]) of images and targets.

    A voxel at the offset v from the centre of a crop shows the volume at centre + matrix · v:
    the image interpolated between eight voxels, the target's voxel there. Beyond the volume the
    image is 0 and the target IGNORE.

    Args:
        images: [N, C, D, H, W]. targets: [N, D, H, W].
        matrices: [N, 3, 3]. centres: [N, 3], in voxels.
        mirror_at: sizes [N, 3], beyond which images are mirrored in place of being 0, or None.
    """
    n, device = len(images), images.device
    sides = to_device(torch.tensor(images.shape[2:]), device)
    half = to_device(torch.tensor(crop_size), device) / 2
    # grid_sample's coordinates: the crop and the volume span −1…1, in the order (W, H, D).
    linear = (matrices * half * 2 / sides[:, None]).flip(1, 2)
    shift = (2 * centres / sides - 1).flip(1)
    grid = F.affine_grid(
        torch.cat([linear, shift[:, :, None]], dim=2), (n, 1, *crop_size), align_corners=False
    )
    position = (grid + 1) * sides.flip(0) / 2  # in voxels, (W, H, D)
    if mirror_at is not None:
        last = (mirror_at.flip(1)[:, None, None, None] - 1).clamp_min(1e-6)
        centre = (position - 0.5).remainder(2 * last)
        centre = torch.minimum(centre, 2 * last - centre)
        grid = (2 * centre + 1) / sides.flip(0) - 1
    image = F.grid_sample(images, grid, mode="bilinear", align_corners=False)
    column, row, slice_ = position.floor().long().unbind(-1)
    depth, height, width = images.shape[2:]
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    inside &= (slice_ >= 0) & (slice_ < depth)
    index = (slice_ * height + row) * width + column
    index = index.masked_fill(~inside, 0).flatten(1)
    target = targets.flatten(1).gather(1, index).view(inside.shape)
    return image, target.masked_fill(~inside, IGNORE).long()

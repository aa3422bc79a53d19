"""The 3D U-Net for volumes."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import DoubleConv, OutConv, centre_crop, pad_to
from .tiles import reflected_indices

LEVELS = 3  # poolings
BORDER = 2  # voxels that the two convolutions of a level remove at each border when unpadded


class UNet3D(nn.Module):
    """3D U-Net (Çiçek et al. 2016, arXiv:1606.06650): U-Net for volumes, with three poolings.

    Each level has two 3³ convolutions, each followed by BatchNorm and ReLU; the second doubles the
    channels before the pooling. Up-convolutions keep the channels; the skip is concatenated.

    Args:
        in_channels: channels of the volume.
        num_classes: number of classes, including the background.
        base_c: channels of the first convolution, 32 in the paper.
        norm: whether BatchNorm follows each 3³ convolution.
        bias: whether the 3³ convolutions have a bias; None: only without BatchNorm, which would
            cancel it. The paper counts it: 19,069,955 parameters with 3 channels and 3 classes
            without those of BatchNorm.
        padded: True: the output has the input's size. False: valid convolutions as published,
            132×132×116 → 44×44×28.
        spacing: size of a voxel (D, H, W) in any unit. An axis with voxels at least twice as long
            as on the others is not pooled until the others have caught up, see poolings().

    Shape: volume [N, in_channels, D, H, W] → {"out": [N, num_classes, D, H, W] logits}. Any side of
        at least 8 voxels, fewer on an axis that is pooled less often.
        With padded=False in training mode {"out": [N, num_classes, d, h, w] logits} of the
        volume's centre: each side is cut to valid_sides() and loses `margin` voxels at each
        border. In eval mode the volume is mirrored beyond its borders.
    Raises ValueError for a smaller volume.
    """

    paper = "Çiçek et al. 2016, arXiv:1606.06650"
    dims = 3
    margin = 0
    min_training_side = 8
    training_bytes = 140

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 2,
        base_c: int = 32,
        norm: bool = True,
        bias: bool | None = None,
        padded: bool = True,
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.base_c = base_c
        self.padded = padded
        self.poolings = poolings(spacing)
        self.margins = [0, 0, 0] if padded else margins(self.poolings)
        self.margin = max(self.margins)
        if not padded:
            self.training_bytes = 75
        elif 1 in self.poolings[0]:  # the levels below are larger then
            self.training_bytes = 190
        conv = {"norm": norm, "bias": bias, "padding": int(padded), "dims": 3}
        c, pool = base_c, self.poolings
        self.in_conv = DoubleConv(in_channels, c * 2, mid_channels=c, **conv)
        self.down1 = Down3D(c * 2, c * 4, pool[0], **conv)
        self.down2 = Down3D(c * 4, c * 8, pool[1], **conv)
        self.down3 = Down3D(c * 8, c * 16, pool[2], **conv)
        self.up1 = Up3D(c * 16, c * 8, pool[2], **conv)
        self.up2 = Up3D(c * 8, c * 4, pool[1], **conv)
        self.up3 = Up3D(c * 4, c * 2, pool[0], **conv)
        self.out_conv = OutConv(c * 2, num_classes, dims=3)

    def forward(self, volume: Tensor) -> dict[str, Tensor]:
        sides = volume.shape[2:]
        if self.padded:
            self.check_sides(sides)
            return {"out": self.network(volume)}
        if self.training:
            self.check_sides(sides)
            return {"out": self.network(centre_crop(volume, valid_sides(sides, self.poolings)))}
        logits = self.network(mirrored(volume, self.margins, self.poolings))
        return {"out": logits[:, :, : sides[0], : sides[1], : sides[2]]}

    def network(self, volume: Tensor) -> Tensor:
        """Logits of the whole volume, or of its centre when unpadded."""
        x1 = self.in_conv(volume)
        x2 = self.down1(x1)
        x3 = self.down2(x2)
        x = self.down3(x3)
        x = self.up1(x, x3)
        x = self.up2(x, x2)
        x = self.up3(x, x1)
        return self.out_conv(x)

    def check_sides(self, sides: Sequence[int]) -> None:
        """Raises ValueError if a side of the volume is too small."""
        smallest = min_sides(self.poolings, self.padded)
        if any(side < least for side, least in zip(sides, smallest, strict=True)):
            raise ValueError(
                f"UNet3D needs volumes of at least {'×'.join(map(str, smallest))} voxels, "
                f"got {'×'.join(map(str, sides))}"
            )


class Down3D(nn.Sequential):
    """Max pooling, then two convolutions, the second of which doubles the channels.

    [N, in, D, H, W] → [N, out, D / pool, H / pool, W / pool], rounded down. `conv` holds options
    of DoubleConv.
    """

    def __init__(
        self, in_channels: int, out_channels: int, pool: Sequence[int], **conv: object
    ) -> None:
        super().__init__(
            MaxPool3d(tuple(pool)),
            DoubleConv(in_channels, out_channels, mid_channels=in_channels, **conv),
        )


class MaxPool3d(nn.MaxPool3d):
    """Max pooling of volumes by a tuple of whole factors of (D, H, W).

    The backward pass of PyTorch's own is not deterministic on CUDA, and an error there if
    deterministic algorithms are asked for. Then this one pools first within the slices and then
    between them, with equal results.
    """

    def forward(self, volume: Tensor) -> Tensor:
        if not torch.are_deterministic_algorithms_enabled():
            return super().forward(volume)
        depth, *in_plane = self.kernel_size
        slices = F.max_pool2d(volume.flatten(1, 2), in_plane)
        volume = slices.unflatten(1, volume.shape[1:3])
        pooled = F.max_pool2d(volume.flatten(3), (depth, 1))
        return pooled.unflatten(3, volume.shape[3:])


class Up3D(nn.Module):
    """Up-convolution by the factors of the pooling, the skip beside it, two convolutions.

    Shape: deep [N, in, d, h, w] and skip [N, out, D, H, W] → [N, out, D, H, W]; with valid
    convolutions the skip is cut to the size of the up-convolution, which then loses 2 voxels at
    each border.
    """

    def __init__(
        self, in_channels: int, out_channels: int, pool: Sequence[int], **conv: object
    ) -> None:
        super().__init__()
        self.padded = bool(conv["padding"])
        pool = tuple(pool)
        self.up = nn.ConvTranspose3d(in_channels, in_channels, pool, stride=pool, bias=False)
        self.conv = DoubleConv(in_channels + out_channels, out_channels, **conv)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        deep = self.up(deep)
        if self.padded:
            deep = pad_to(deep, skip.shape[2:])
        else:
            skip = centre_crop(skip, deep.shape[2:])
        return self.conv(torch.cat([skip, deep], dim=1))


# --- sizes ----------------------------------------------------------------------------------------


def through_plane_axis(spacing: Sequence[float]) -> int | None:
    """The axis whose voxels are at least twice as long as on both others; None if there is none."""
    longest = max(range(3), key=lambda axis: spacing[axis])
    others = [spacing[axis] for axis in range(3) if axis != longest]
    if spacing[longest] < 2 * max(others):
        return None
    return longest


def poolings(spacing: Sequence[float]) -> list[list[int]]:
    """Pooling factors [LEVELS][3] for voxels of the size `spacing` (D, H, W).

    With voxels 2 to 4 times as long on one axis the first pooling is in-plane, that is 1 on this
    axis and 2 on the others; with 4 to 8 times the first two; beyond that all three.
    """
    factors = [[2, 2, 2] for _ in range(LEVELS)]
    axis = through_plane_axis(spacing)
    if axis is None:
        return factors
    ratio = spacing[axis] / max(spacing[other] for other in range(3) if other != axis)
    for level in range(min(LEVELS, int(math.log2(ratio)))):
        factors[level][axis] = 1
    return factors


def strides(pools: Sequence[Sequence[int]], levels: int = LEVELS) -> list[int]:
    """Voxels of the volume per voxel below the first `levels` poolings, for each axis."""
    return [math.prod(pool[axis] for pool in pools[:levels]) for axis in range(3)]


def margins(pools: Sequence[Sequence[int]]) -> list[int]:
    """Voxels that the unpadded network removes at each border of each axis: 44 with 2³ poolings.

    Each level removes BORDER of its own voxels on the way down and, but for the lowest, on the
    way up.
    """
    down = [[BORDER * stride for stride in strides(pools, level)] for level in range(LEVELS + 1)]
    return [
        sum(level[axis] for level in down) + sum(level[axis] for level in down[:-1])
        for axis in range(3)
    ]


def min_sides(pools: Sequence[Sequence[int]], padded: bool = True) -> list[int]:
    """Smallest sides of a volume: one voxel at the lowest level, or in the unpadded output."""
    if padded:
        return strides(pools)
    smallest = []
    for axis in range(3):
        side = 1 + 2 * BORDER
        for pool in reversed(pools):  # the side that the output needs, level by level
            side = math.ceil(side / pool[axis]) + 2 * BORDER
        for pool in reversed(pools):  # and the volume's side for it
            side = side * pool[axis] + 2 * BORDER
        smallest.append(side)
    return smallest


def valid_sides(sides: Sequence[int], pools: Sequence[Sequence[int]]) -> list[int]:
    """The largest sides up to `sides` with which every pooling of the unpadded network is even."""
    smallest, steps = min_sides(pools, padded=False), strides(pools)
    return [
        side - (side - least) % step
        for side, least, step in zip(sides, smallest, steps, strict=True)
    ]


def mirrored(volume: Tensor, margin: Sequence[int], pools: Sequence[Sequence[int]]) -> Tensor:
    """The volume with mirrored borders, such that the unpadded network's output covers it.

    Its output may be larger; it then begins at the volume's first voxel.
    """
    smallest, steps = min_sides(pools, padded=False), strides(pools)
    for axis, side in enumerate(volume.shape[2:]):
        needed = max(side + 2 * margin[axis], smallest[axis])
        extra = (smallest[axis] - needed) % steps[axis]
        indices = reflected_indices(-margin[axis], needed + extra, side, volume.device)
        volume = volume.index_select(axis + 2, indices)
    return volume

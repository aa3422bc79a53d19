"""The building blocks of the U-Nets."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DoubleConv(nn.Sequential):
    """(3×3 convolution → BatchNorm → ReLU) twice: [N, in, H, W] → [N, out, H, W].

    Args:
        mid_channels: channels between the two convolutions; None: out_channels.
        norm: whether BatchNorm follows each convolution.
        bias: whether the convolutions have a bias; None: only without BatchNorm, which would
            cancel it.
        padding: 1 keeps the size; 0 removes 2 pixels at each border.
        dims: 2 for images; 3 for volumes [N, C, D, H, W], with 3×3×3 convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        mid_channels: int | None = None,
        norm: bool = True,
        bias: bool | None = None,
        padding: int = 1,
        dims: int = 2,
    ) -> None:
        mid_channels = mid_channels or out_channels
        if bias is None:
            bias = not norm
        layers, convolution, batch_norm = [], nn.Conv2d, nn.BatchNorm2d
        if dims == 3:
            convolution, batch_norm = nn.Conv3d, nn.BatchNorm3d
        for inputs, outputs in ((in_channels, mid_channels), (mid_channels, out_channels)):
            layers.append(convolution(inputs, outputs, kernel_size=3, padding=padding, bias=bias))
            if norm:
                layers.append(batch_norm(outputs))
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class Down(nn.Sequential):
    """Max pooling to half the size, then DoubleConv: [N, in, H, W] → [N, out, ⌊H/2⌋, ⌊W/2⌋].

    `conv` holds options of DoubleConv.
    """

    def __init__(self, in_channels: int, out_channels: int, **conv: Any) -> None:
        super().__init__(nn.MaxPool2d(2), DoubleConv(in_channels, out_channels, **conv))


class Up(nn.Module):
    """Upsamples to twice the size, pads to the skip's size, concatenates the skip, convolves.

    `in_channels` is the number of channels after concatenation: S + C when bilinear, S + C/2 when
    a transposed convolution halves the channels. `conv` holds options of DoubleConv.

    align_corners: of the bilinear upsampling, see torch.nn.Upsample. True, as in the tutorials: the
    distance between the new pixels depends on the size, and a network that was trained on crops
    sees a whole image at other distances; False: it is half a pixel at any size.

    Shape: deep [N, C, h, w] and skip [N, S, H, W] → [N, out, H, W].
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        bilinear: bool = True,
        align_corners: bool = True,
        **conv: Any,
    ) -> None:
        super().__init__()
        half = in_channels // 2
        if bilinear:
            self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=align_corners)
            self.conv = DoubleConv(in_channels, out_channels, mid_channels=half, **conv)
        else:
            self.up = nn.ConvTranspose2d(in_channels, half, kernel_size=2, stride=2)
            self.conv = DoubleConv(in_channels, out_channels, **conv)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        deep = pad_to(self.up(deep), skip.shape[-2:])
        return self.conv(torch.cat([skip, deep], dim=1))


class OutConv(nn.Sequential):
    """1×1 convolution to one logit per class: [N, in, H, W] → [N, num_classes, H, W].

    dims: 2 for images; 3 for volumes [N, in, D, H, W].
    """

    def __init__(self, in_channels: int, num_classes: int, dims: int = 2) -> None:
        convolution = nn.Conv3d if dims == 3 else nn.Conv2d
        super().__init__(convolution(in_channels, num_classes, kernel_size=1))


def pad_to(features: Tensor, size: Sequence[int], mode: str = "constant") -> Tensor:
    """Pads [N, C, h, w] or [N, C, d, h, w] to size ([D,] H, W), with zeros or by the mode of F.pad,
    or crops it.

    The first pixel stays the first one, and the change is at the bottom and the right: a side that
    was halved, whether rounded down or up, and doubled again stays aligned with what it was.
    """
    missing = [side - own for side, own in zip(size, features.shape[2:], strict=True)]
    # An exported graph has no such branch: it would be for the sizes of its example alone.
    if not torch.compiler.is_exporting() and not any(missing):
        return features
    padding = []
    for pixels in reversed(missing):  # F.pad begins with the last axis
        padding += [0, pixels]
    return F.pad(features, padding, mode)


def centre_crop(tensor: Tensor, size: Sequence[int]) -> Tensor:
    """The central pixels ([d,] h, w) of a tensor [..., [D,] H, W].

    If the border is odd, the crop is one pixel nearer to the top and the left.
    """
    for axis, side in zip(range(-len(size), 0), size, strict=True):
        tensor = tensor.narrow(axis, (tensor.shape[axis] - side) // 2, side)
    return tensor


def check_image_size(model: nn.Module, image: Tensor) -> None:
    """Raises ValueError if a side of the image [..., H, W] is below model.min_training_side."""
    minimum = model.min_training_side
    height, width = image.shape[-2:]
    # Not min(height, width): an exported graph would be for one order of the two alone.
    if height < minimum or width < minimum:
        mode = "training" if model.training else "eval"
        raise ValueError(
            f"{type(model).__name__} in {mode} mode needs images of at least "
            f"{minimum}×{minimum} pixels, got {(height, width)}"
        )

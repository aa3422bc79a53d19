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
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        mid_channels: int | None = None,
        norm: bool = True,
        bias: bool | None = None,
        padding: int = 1,
    ) -> None:
        mid_channels = mid_channels or out_channels
        if bias is None:
            bias = not norm
        layers = []
        for inputs, outputs in ((in_channels, mid_channels), (mid_channels, out_channels)):
            layers.append(nn.Conv2d(inputs, outputs, kernel_size=3, padding=padding, bias=bias))
            if norm:
                layers.append(nn.BatchNorm2d(outputs))
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

    Shape: deep [N, C, h, w] and skip [N, S, H, W] → [N, out, H, W].
    """

    def __init__(
        self, in_channels: int, out_channels: int, bilinear: bool = True, **conv: Any
    ) -> None:
        super().__init__()
        half = in_channels // 2
        if bilinear:
            self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            self.conv = DoubleConv(in_channels, out_channels, mid_channels=half, **conv)
        else:
            self.up = nn.ConvTranspose2d(in_channels, half, kernel_size=2, stride=2)
            self.conv = DoubleConv(in_channels, out_channels, **conv)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        deep = pad_to(self.up(deep), skip.shape[-2:])
        return self.conv(torch.cat([skip, deep], dim=1))


class OutConv(nn.Sequential):
    """1×1 convolution to one logit per class: [N, in, H, W] → [N, num_classes, H, W]."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(nn.Conv2d(in_channels, num_classes, kernel_size=1))


def pad_to(features: Tensor, size: Sequence[int]) -> Tensor:
    """Pads [N, C, h, w] with zeros on all sides to size (H, W); crops where it is smaller.

    If the padding is odd, the bottom and the right get the extra pixel.
    """
    height = size[0] - features.shape[-2]
    width = size[1] - features.shape[-1]
    # An exported graph has no such branch: it would be for the sizes of its example alone.
    if not torch.compiler.is_exporting() and height == 0 and width == 0:
        return features
    # (x + 2) // 2 − 1 is x // 2, without a negative quotient, which ONNX rounds towards 0.
    top = (height + 2) // 2 - 1
    left = (width + 2) // 2 - 1
    return F.pad(features, [left, width - left, top, height - top])


def centre_crop(tensor: Tensor, size: Sequence[int]) -> Tensor:
    """The central (h, w) pixels of a tensor [..., H, W].

    If the border is odd, the crop is one pixel nearer to the top and the left.
    """
    height, width = size
    top = (tensor.shape[-2] - height) // 2
    left = (tensor.shape[-1] - width) // 2
    return tensor[..., top : top + height, left : left + width]


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

"""The building blocks of the U-Nets."""

import torch
import torch.nn as nn
import torch.nn.functional as F


class DoubleConv(nn.Sequential):
    """(3×3 convolution → BatchNorm → ReLU) twice: [N, in, H, W] → [N, out, H, W].

    Args:
        mid_channels: channels between the two convolutions (default: out_channels).
        norm: whether BatchNorm follows each convolution.
        bias: whether the convolutions have a bias; None: only without BatchNorm, which would cancel it.
        padding: 1 keeps the size; 0 takes a border of 2 pixels from it.
    """

    def __init__(
        self, in_channels, out_channels, mid_channels=None, norm=True, bias=None, padding=1
    ):
        mid_channels = mid_channels or out_channels
        bias = not norm if bias is None else bias
        layers = []
        for channels in ((in_channels, mid_channels), (mid_channels, out_channels)):
            layers.append(nn.Conv2d(*channels, kernel_size=3, padding=padding, bias=bias))
            layers += [nn.BatchNorm2d(channels[1])] if norm else []
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class Down(nn.Sequential):
    """Halves the size, then convolves: [N, in, H, W] → [N, out, ⌊H/2⌋, ⌊W/2⌋]. `conv`: options of DoubleConv."""

    def __init__(self, in_channels, out_channels, **conv):
        super().__init__(nn.MaxPool2d(2), DoubleConv(in_channels, out_channels, **conv))


class Up(nn.Module):
    """Doubles the size, pads to the skip's size, concatenates the skip, convolves. `conv`: options of DoubleConv.

    deep [N, C, h, w] and skip [N, S, H, W] → [N, out, H, W], where `in_channels` counts what is concatenated:
    S + C when bilinear, S + C/2 when a transposed convolution halves the channels on the way.
    """

    def __init__(self, in_channels, out_channels, bilinear=True, **conv):
        super().__init__()
        if bilinear:
            self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            self.conv = DoubleConv(in_channels, out_channels, mid_channels=in_channels // 2, **conv)
        else:
            self.up = nn.ConvTranspose2d(in_channels, in_channels // 2, kernel_size=2, stride=2)
            self.conv = DoubleConv(in_channels, out_channels, **conv)

    def forward(self, deep, skip):
        deep = pad_to(self.up(deep), skip.shape[-2:])
        return self.conv(torch.cat([skip, deep], dim=1))


class OutConv(nn.Sequential):
    """1×1 convolution to one logit a class: [N, in, H, W] → [N, num_classes, H, W]."""

    def __init__(self, in_channels, num_classes):
        super().__init__(nn.Conv2d(in_channels, num_classes, kernel_size=1))


def pad_to(features, size):
    """Zero-pads [N, C, h, w] on all sides to size = (H, W); at odd sizes the lower right side gets the extra pixel."""
    height, width = size[0] - features.shape[-2], size[1] - features.shape[-1]
    if height == 0 and width == 0:
        return features
    return F.pad(features, [width // 2, width - width // 2, height // 2, height - height // 2])


def centre_crop(tensor, size):
    """The central size = (h, w) of a tensor [..., H, W]; where it is off by one, the upper left of the two."""
    top, left = (tensor.shape[-2] - size[0]) // 2, (tensor.shape[-1] - size[1]) // 2
    return tensor[..., top : top + size[0], left : left + size[1]]


def check_side(model, image, minimum):
    """ValueError if the image [..., H, W] is too small for the model's poolings to leave something of it."""
    if min(image.shape[-2:]) < minimum:
        raise ValueError(
            f"{type(model).__name__} needs images of at least {minimum}×{minimum} pixels, "
            f"got {tuple(image.shape[-2:])}"
        )

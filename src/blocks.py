"""The four building blocks of the U-Net."""

import torch
import torch.nn as nn
import torch.nn.functional as F


class DoubleConv(nn.Sequential):
    """(3×3 convolution → BatchNorm → ReLU) twice: [N, in, H, W] → [N, out, H, W].

    The convolutions are padded, so sizes stay, and have no bias, which BatchNorm would cancel.
    """

    def __init__(self, in_channels, out_channels, mid_channels=None):
        mid_channels = mid_channels or out_channels
        super().__init__(
            nn.Conv2d(in_channels, mid_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(mid_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(mid_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class Down(nn.Sequential):
    """Halves the size, then convolves: [N, in, H, W] → [N, out, ⌊H/2⌋, ⌊W/2⌋]."""

    def __init__(self, in_channels, out_channels):
        super().__init__(nn.MaxPool2d(2), DoubleConv(in_channels, out_channels))


class Up(nn.Module):
    """Doubles the size, pads to the skip's size, concatenates the skip, convolves.

    deep [N, C, h, w] and skip [N, S, H, W] → [N, out, H, W], where `in_channels` counts what is concatenated:
    S + C when bilinear, S + C/2 when a transposed convolution halves the channels on the way.
    """

    def __init__(self, in_channels, out_channels, bilinear=True):
        super().__init__()
        if bilinear:
            self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            self.conv = DoubleConv(in_channels, out_channels, mid_channels=in_channels // 2)
        else:
            self.up = nn.ConvTranspose2d(in_channels, in_channels // 2, kernel_size=2, stride=2)
            self.conv = DoubleConv(in_channels, out_channels)

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

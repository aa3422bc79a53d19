"""The deep residual U-Net."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from .blocks import OutConv


class ResidualUnit(nn.Module):
    """Pre-activation residual unit: x + conv(ReLU(BN(conv(ReLU(BN(x)))))), [N, in, H, W] → [N, out, ⌈H/stride⌉, ⌈W/stride⌉].

    The 3×3 convolutions have no bias; the first has the stride. Where stride or channels change the size, a 1×1
    convolution takes the place of the identity. `first`: the unit that sees the image, without BN and ReLU before it.
    """

    def __init__(self, in_channels, out_channels, stride=1, first=False):
        super().__init__()
        self.residual = nn.Sequential(
            *([] if first else [nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True)]),
            nn.Conv2d(
                in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False
            ),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(
                in_channels, out_channels, kernel_size=1, stride=stride, bias=False
            )

    def forward(self, x):
        return self.residual(x) + self.shortcut(x)


class ResUNet(nn.Module):
    """Deep residual U-Net (Zhang, Liu, Wang 2018, "Road Extraction by Deep Residual U-Net", arXiv:1711.10684), table 1.

    Seven levels of residual units: three encode, one is the bridge, three decode. Convolutions of stride 2 take the place
    of pooling. The paper leaves the kind of upsampling open: here it is bilinear, to the skip's size.

    Args:
        in_channels, num_classes: channels of the image; classes, the background included.
        base_c: channels of the first level, 64 in the paper; each of the three levels below doubles them.

    Shape: image [N, in_channels, H, W] → {"out": [N, num_classes, H, W] logits}, for any H, W ≥ 1 in eval mode.
    """

    paper = "Zhang et al. 2018, arXiv:1711.10684"

    def __init__(self, in_channels=1, num_classes=2, base_c=64):
        super().__init__()
        self.in_channels, self.num_classes, self.base_c = in_channels, num_classes, base_c
        self.encode1 = ResidualUnit(in_channels, base_c, first=True)
        self.encode2 = ResidualUnit(base_c, base_c * 2, stride=2)
        self.encode3 = ResidualUnit(base_c * 2, base_c * 4, stride=2)
        self.bridge = ResidualUnit(base_c * 4, base_c * 8, stride=2)
        self.decode1 = ResidualUnit(base_c * (4 + 8), base_c * 4)
        self.decode2 = ResidualUnit(base_c * (2 + 4), base_c * 2)
        self.decode3 = ResidualUnit(base_c * (1 + 2), base_c)
        self.out_conv = OutConv(base_c, num_classes)

    def forward(self, image):
        x1 = self.encode1(image)
        x2 = self.encode2(x1)
        x3 = self.encode3(x2)
        x = self.bridge(x3)
        x = self.decode1(join(x, x3))
        x = self.decode2(join(x, x2))
        x = self.decode3(join(x, x1))
        return {"out": self.out_conv(x)}


def join(deep, skip):
    """deep [N, C, h, w] resampled to the skip's size [N, S, H, W] and concatenated to it: [N, S + C, H, W]."""
    deep = F.interpolate(deep, size=skip.shape[-2:], mode="bilinear", align_corners=False)
    return torch.cat([skip, deep], dim=1)

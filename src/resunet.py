"""The deep residual U-Net."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import OutConv, pad_to


class ResidualUnit(nn.Module):
    """Pre-activation residual unit: x + conv(ReLU(BN(conv(ReLU(BN(x)))))).

    The 3×3 convolutions have no bias; the first one has the stride. Where stride or channels
    change the shape, a 1×1 convolution replaces the identity.

    Args:
        stride: of the first convolution.
        first: for the unit that gets the image; it has no BatchNorm and ReLU at its input.

    Shape: [N, in_channels, H, W] → [N, out_channels, ⌈H/stride⌉, ⌈W/stride⌉].
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, first: bool = False
    ) -> None:
        super().__init__()
        layers = []
        if not first:
            layers += [nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True)]
        layers += [
            nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        ]
        self.residual = nn.Sequential(*layers)
        self.shortcut = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.residual(x) + self.shortcut(x)


class ResUNet(nn.Module):
    """Deep residual U-Net, table 1 of Zhang, Liu, Wang 2018 (arXiv:1711.10684), "Road Extraction
    by Deep Residual U-Net".

    Seven levels of residual units: three encode, one is the bridge, three decode. Convolutions of
    stride 2 replace pooling. The paper does not specify the upsampling: here it is bilinear, to
    the skip's size.

    Args:
        in_channels: channels of the image.
        num_classes: number of classes, including the background.
        base_c: channels of the first level, 64 in the paper; each of the three levels below
            doubles them.

    Shape: image [N, in_channels, H, W] → {"out": [N, num_classes, H, W] logits}, for any
        H, W ≥ 1 in eval mode.
    """

    paper = "Zhang et al. 2018, arXiv:1711.10684"
    dims = 2
    margin = 0
    min_training_side = 16
    training_bytes = 125

    def __init__(self, in_channels: int = 1, num_classes: int = 2, base_c: int = 64) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.base_c = base_c
        self.encode1 = ResidualUnit(in_channels, base_c, first=True)
        self.encode2 = ResidualUnit(base_c, base_c * 2, stride=2)
        self.encode3 = ResidualUnit(base_c * 2, base_c * 4, stride=2)
        self.bridge = ResidualUnit(base_c * 4, base_c * 8, stride=2)
        self.decode1 = ResidualUnit(base_c * (4 + 8), base_c * 4)
        self.decode2 = ResidualUnit(base_c * (2 + 4), base_c * 2)
        self.decode3 = ResidualUnit(base_c * (1 + 2), base_c)
        self.out_conv = OutConv(base_c, num_classes)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x1 = self.encode1(image)
        x2 = self.encode2(x1)
        x3 = self.encode3(x2)
        x = self.bridge(x3)
        x = self.decode1(upsample_and_concat(x, x3))
        x = self.decode2(upsample_and_concat(x, x2))
        x = self.decode3(upsample_and_concat(x, x1))
        return {"out": self.out_conv(x)}


def upsample_and_concat(deep: Tensor, skip: Tensor) -> Tensor:
    """Upsamples deep [N, C, ⌈H/2⌉, ⌈W/2⌉] to twice its size, crops it to that of skip [N, S, H, W],
    and appends it to the skip's channels: [N, S + C, H, W]."""
    deep = F.interpolate(deep, scale_factor=2, mode="bilinear", align_corners=False)
    return torch.cat([skip, pad_to(deep, skip.shape[-2:])], dim=1)

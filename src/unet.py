"""The padded U-Net with BatchNorm."""

import torch.nn as nn

from .blocks import DoubleConv, Down, OutConv, Up, check_side


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015, arXiv:1505.04597) with padded convolutions, so the output has the input's size.

    Args:
        in_channels: channels of the image.
        num_classes: classes, the background included.
        bilinear: upsample bilinearly, with half the channels at the bottom; otherwise by transposed convolution.
        base_c: channels of the first level; each of the four levels below doubles them.
        norm: whether BatchNorm follows each 3×3 convolution.
        bias: whether the 3×3 convolutions have a bias; None: only without BatchNorm, which would cancel it.

    Shape: image [N, in_channels, H, W] → {"out": [N, num_classes, H, W] logits}, for any H, W ≥ 16.
    Raises ValueError for a smaller image: four halvings would leave nothing of it. In training a single image must have
    a side of at least 32, since BatchNorm needs more than one value a channel.
    """

    paper = "Ronneberger et al. 2015, arXiv:1505.04597 (padded, with BatchNorm)"

    def __init__(
        self, in_channels=1, num_classes=2, bilinear=True, base_c=64, norm=True, bias=None
    ):
        super().__init__()
        self.in_channels, self.num_classes, self.bilinear, self.base_c = (
            in_channels,
            num_classes,
            bilinear,
            base_c,
        )
        half = 2 if bilinear else 1  # a transposed Up halves the channels itself
        conv = {"norm": norm, "bias": bias}
        self.in_conv = DoubleConv(in_channels, base_c, **conv)
        self.down1 = Down(base_c, base_c * 2, **conv)
        self.down2 = Down(base_c * 2, base_c * 4, **conv)
        self.down3 = Down(base_c * 4, base_c * 8, **conv)
        self.down4 = Down(base_c * 8, base_c * 16 // half, **conv)
        self.up1 = Up(base_c * 16, base_c * 8 // half, bilinear, **conv)
        self.up2 = Up(base_c * 8, base_c * 4 // half, bilinear, **conv)
        self.up3 = Up(base_c * 4, base_c * 2 // half, bilinear, **conv)
        self.up4 = Up(base_c * 2, base_c, bilinear, **conv)
        self.out_conv = OutConv(base_c, num_classes)

    def forward(self, image):
        check_side(self, image, 16)
        x1 = self.in_conv(image)
        x2 = self.down1(x1)
        x3 = self.down2(x2)
        x4 = self.down3(x3)
        x = self.down4(x4)
        x = self.up1(x, x4)
        x = self.up2(x, x3)
        x = self.up3(x, x2)
        x = self.up4(x, x1)
        return {"out": self.out_conv(x)}

"""The U-Net as it was published: valid convolutions, no norm."""

import math

import torch
import torch.nn as nn

from .blocks import DoubleConv, Down, OutConv, centre_crop
from .inference import overlap_tile

POOLED = 16  # side of the pixels of the lowest level, in pixels of the image: four halvings
TILE_OUTPUT = 388  # largest side of a tile's output in px, that of the paper's figure 1


class UpCrop(nn.Module):
    """2×2 up-convolution to half the channels, the skip's centre beside it, two valid 3×3 convolutions.

    deep [N, C, h, w] and skip [N, C/2, H, W] → [N, C/2, 2h − 4, 2w − 4].
    """

    def __init__(self, in_channels):
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, in_channels // 2, kernel_size=2, stride=2)
        self.conv = DoubleConv(in_channels, in_channels // 2, norm=False, padding=0)

    def forward(self, deep, skip):
        deep = self.up(deep)
        return self.conv(torch.cat([centre_crop(skip, deep.shape[-2:]), deep], dim=1))


class UNetOriginal(nn.Module):
    """U-Net of Ronneberger, Fischer, Brox 2015 (arXiv:1505.04597), figure 1: 23 convolutional layers.

    Valid 3×3 convolutions with bias and ReLU, no norm; 2×2 up-convolutions without ReLU; dropout .5 at the end of the
    contracting path (its last two levels, as in the network the authors published); Gaussian weights with standard
    deviation √(2/N), N being a neuron's inputs (section 3). An output pixel sees `margin` pixels to all sides.

    Args:
        in_channels, num_classes: channels of the image; classes, the background included.
        base_c: channels of the first level, 64 in the paper; each of the four levels below doubles them.

    Shape: image [N, in_channels, H, W] →
        in eval mode {"out": [N, num_classes, H, W] logits} for any H, W ≥ 1, tile by tile with mirrored borders;
        in training {"out": [N, num_classes, h, w]} of the image's centre without its margin, e.g. 572 → 388: sizes must be
        16·k + 60 with k ≥ 8 for every pooling to see an even size, so others are cropped to the next smaller one. The
        target's centre belongs to it. ValueError for H or W below 188.
    """

    paper = "Ronneberger et al. 2015, arXiv:1505.04597"
    margin = 92  # of the 572 − 388 px that a tile loses, half on each side
    min_training_side = 188

    def __init__(self, in_channels=1, num_classes=2, base_c=64):
        super().__init__()
        self.in_channels, self.num_classes, self.base_c = in_channels, num_classes, base_c
        self.tile_output = TILE_OUTPUT
        valid = {"norm": False, "padding": 0}
        self.in_conv = DoubleConv(in_channels, base_c, **valid)
        self.down1 = Down(base_c, base_c * 2, **valid)
        self.down2 = Down(base_c * 2, base_c * 4, **valid)
        self.down3 = Down(base_c * 4, base_c * 8, **valid)
        self.down4 = Down(base_c * 8, base_c * 16, **valid)
        self.dropout = nn.Dropout(0.5)
        self.up1 = UpCrop(base_c * 16)
        self.up2 = UpCrop(base_c * 8)
        self.up3 = UpCrop(base_c * 4)
        self.up4 = UpCrop(base_c * 2)
        self.out_conv = OutConv(base_c, num_classes)
        self.apply(init_weights)

    def forward(self, image):
        if self.training:
            return {
                "out": self.valid(
                    centre_crop(image, [legal_side(side) for side in image.shape[-2:]])
                )
            }
        tile = [tile_side(side, self.tile_output) for side in image.shape[-2:]]
        return {"out": overlap_tile(self.valid, image, tile, self.margin, POOLED)}

    def valid(self, image):
        """Logits [N, num_classes, H − 184, W − 184] of an image with sides of 16·k + 60, k ≥ 8."""
        x1 = self.in_conv(image)
        x2 = self.down1(x1)
        x3 = self.down2(x2)
        x4 = self.dropout(self.down3(x3))
        x = self.dropout(self.down4(x4))
        x = self.up1(x, x4)
        x = self.up2(x, x3)
        x = self.up3(x, x2)
        x = self.up4(x, x1)
        return self.out_conv(x)


def legal_side(side):
    """The largest side 16·k + 60 px, k ≥ 8, that is not above `side`; ValueError below 188."""
    if side < UNetOriginal.min_training_side:
        raise ValueError(
            f"UNetOriginal learns from images of at least 188×188 pixels, got a side of {side}: its valid "
            "convolutions take a border of 92 pixels off"
        )
    return side - (side - 60) % POOLED


def tile_side(side, largest_output):
    """The input's side of the smallest tiles that cover `side` px with no more of them than the largest would need.

    Neighbours overlap by 4 px: a tile's output, 16·k − 124 px, is 4 more than a multiple of 16, and tiles have to begin at
    such multiples to see the same grid of pooled pixels. Then the cut into tiles changes nothing in the result.
    """
    new = max(side - 4, 1)  # px that are not the overlap of a last tile
    tiles = math.ceil(new / (largest_output - 4))
    return math.ceil(new / tiles / POOLED) * POOLED + 4 + 2 * UNetOriginal.margin


def init_weights(module):
    """He initialisation, paper section 3: a 3×3 convolution has 9 inputs a channel, an up-convolved pixel has one."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        inputs = module.in_channels * (
            math.prod(module.kernel_size) if isinstance(module, nn.Conv2d) else 1
        )
        nn.init.normal_(module.weight, std=math.sqrt(2 / inputs))
        nn.init.zeros_(module.bias)

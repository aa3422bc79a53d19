"""The U-Net as it was published: valid convolutions, no norm."""

import math

import torch
from torch import Tensor, nn

from .blocks import DoubleConv, Down, OutConv, centre_crop, check_image_size
from .tiles import overlap_tile

STRIDE = 16  # pixels of the image per pixel of the lowest level: four poolings
TILE_OUTPUT = 388  # largest side of a tile's output in pixels, as in figure 1 of the paper


class UpCrop(nn.Module):
    """2×2 up-convolution to half the channels, the skip's centre beside it, two 3×3 convolutions.

    Shape: deep [N, C, h, w] and skip [N, C/2, H, W] → [N, C/2, 2h − 4, 2w − 4].
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, in_channels // 2, kernel_size=2, stride=2)
        self.conv = DoubleConv(in_channels, in_channels // 2, norm=False, padding=0)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        deep = self.up(deep)
        skip = centre_crop(skip, deep.shape[-2:])
        return self.conv(torch.cat([skip, deep], dim=1))


class UNetOriginal(nn.Module):
    """U-Net of Ronneberger, Fischer, Brox 2015 (arXiv:1505.04597), figure 1: 23 convolutions.

    Valid 3×3 convolutions with bias and ReLU, no norm; 2×2 up-convolutions without ReLU; dropout
    0.5 at the end of the contracting path (its last two levels, as in the authors' published
    network); weights from a normal distribution with standard deviation √(2/N), where N is the
    number of inputs of a neuron (section 3).

    Args:
        in_channels: channels of the image.
        num_classes: number of classes, including the background.
        base_c: channels of the first level, 64 in the paper; each of the four levels below
            doubles them.

    Shape: image [N, in_channels, H, W] →
        in eval mode {"out": [N, num_classes, H, W] logits} for any H, W ≥ 1, computed tile by
            tile with mirrored borders;
        in training mode {"out": [N, num_classes, h, w] logits} of the image's centre, e.g.
            572 → 388. The image is cropped to valid_input_side() and loses `margin` pixels at
            each border; centre_crop() of the target to (h, w) belongs to the output.
    Raises ValueError in training mode for H or W below 188.
    """

    paper = "Ronneberger et al. 2015, arXiv:1505.04597"
    dims = 2
    margin = 92  # (572 − 388) / 2
    min_training_side = 188
    training_bytes = 55  # of crops of 1,020 px; less of smaller ones, which lose more at the border

    def __init__(self, in_channels: int = 1, num_classes: int = 2, base_c: int = 64) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.base_c = base_c
        self.tile_output = TILE_OUTPUT
        conv = {"norm": False, "padding": 0}
        self.in_conv = DoubleConv(in_channels, base_c, **conv)
        self.down1 = Down(base_c, base_c * 2, **conv)
        self.down2 = Down(base_c * 2, base_c * 4, **conv)
        self.down3 = Down(base_c * 4, base_c * 8, **conv)
        self.down4 = Down(base_c * 8, base_c * 16, **conv)
        self.dropout = nn.Dropout(0.5)
        self.up1 = UpCrop(base_c * 16)
        self.up2 = UpCrop(base_c * 8)
        self.up3 = UpCrop(base_c * 4)
        self.up4 = UpCrop(base_c * 2)
        self.out_conv = OutConv(base_c, num_classes)
        self.apply(init_weights)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        height, width = image.shape[-2:]
        if self.training:
            check_image_size(self, image)
            centre = centre_crop(image, [valid_input_side(height), valid_input_side(width)])
            return {"out": self.valid(centre)}
        tile = [tile_side(height, self.tile_output), tile_side(width, self.tile_output)]
        return {"out": overlap_tile(self.valid, image, tile, self.margin, STRIDE)}

    def valid(self, image: Tensor) -> Tensor:
        """The network of figure 1: [N, in_channels, H, W] → [N, num_classes, H − 184, W − 184].

        H and W must be valid input sides, 16·k + 60 with k ≥ 8.
        """
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


def valid_input_side(side: int) -> int:
    """The largest valid input side, 16·k + 60 pixels, that is at most `side` (≥ 188).

    With these sides every 2×2 pooling gets an even size, as the paper requires.
    """
    return side - (side - 60) % STRIDE


def tile_side(side: int, largest_output: int) -> int:
    """The input side of the smallest tiles that cover `side` pixels.

    There are no more tiles than outputs of `largest_output` pixels would need. Neighbouring
    outputs overlap by 4 pixels: an output has 16·k − 124 pixels, 4 more than a multiple of 16,
    and tiles must start at multiples of 16 to share one grid of pooled pixels. Then the result
    does not depend on the size of the tiles.
    """
    overlap = 4
    covered = max(side - overlap, 1)  # each tile adds its output without the overlap
    tiles = math.ceil(covered / (largest_output - overlap))
    step = math.ceil(covered / tiles / STRIDE) * STRIDE
    return step + overlap + 2 * UNetOriginal.margin


def init_weights(module: nn.Module) -> None:
    """He initialization, section 3 of the paper: a neuron of a 3×3 convolution has 9 inputs per
    channel, one of an up-convolution has 1."""
    if not isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        return
    inputs = module.in_channels
    if isinstance(module, nn.Conv2d):
        inputs *= math.prod(module.kernel_size)
    nn.init.normal_(module.weight, std=math.sqrt(2 / inputs))
    nn.init.zeros_(module.bias)

"""The padded U-Net with BatchNorm."""

from torch import Tensor, nn

from .blocks import DoubleConv, Down, OutConv, Up, check_image_size


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015, arXiv:1505.04597), padded: the output has the input's size.

    Args:
        in_channels: channels of the image.
        num_classes: number of classes, including the background.
        bilinear: upsample bilinearly, with half the channels at the bottom; otherwise by
            transposed convolution.
        base_c: channels of the first level; each of the four levels below doubles them.
        norm: whether BatchNorm follows each 3×3 convolution.
        bias: whether the 3×3 convolutions have a bias; None: only without BatchNorm, which would
            cancel it.
        align_corners: how bilinear upsampling places the pixels, see Up. Weights are for one of the
            two; those of the tutorials, and of `train.py --preset classic`, for True.

    Shape: image [N, in_channels, H, W] → {"out": [N, num_classes, H, W] logits}, any H, W ≥ 16.
    Raises ValueError for a smaller image: four poolings would leave no pixel of it. Training on a
    single image needs a side of at least 32: BatchNorm needs more than one value per channel.
    """

    paper = "Ronneberger et al. 2015, arXiv:1505.04597 (padded, with BatchNorm)"
    dims = 2
    margin = 0
    min_training_side = 16
    training_bytes = 100

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 2,
        bilinear: bool = True,
        base_c: int = 64,
        norm: bool = True,
        bias: bool | None = None,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.bilinear = bilinear
        self.base_c = base_c
        factor = 2 if bilinear else 1  # a transposed convolution halves the channels itself
        conv = {"norm": norm, "bias": bias}
        self.in_conv = DoubleConv(in_channels, base_c, **conv)
        self.down1 = Down(base_c, base_c * 2, **conv)
        self.down2 = Down(base_c * 2, base_c * 4, **conv)
        self.down3 = Down(base_c * 4, base_c * 8, **conv)
        self.down4 = Down(base_c * 8, base_c * 16 // factor, **conv)
        up = {"bilinear": bilinear, "align_corners": align_corners, **conv}
        self.up1 = Up(base_c * 16, base_c * 8 // factor, **up)
        self.up2 = Up(base_c * 8, base_c * 4 // factor, **up)
        self.up3 = Up(base_c * 4, base_c * 2 // factor, **up)
        self.up4 = Up(base_c * 2, base_c, **up)
        self.out_conv = OutConv(base_c, num_classes)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        check_image_size(self, image)
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

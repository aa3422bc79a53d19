"""The Attention U-Net: a U-Net with attention gates on its skips."""

import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import check_image_size, pad_to
from .unet import UNet


class AttentionGate(nn.Module):
    """Additive attention on a skip, equations 1 and 2 of Oktay et al. 2018:

        q = ψᵀ σ₁(W_xᵀ x + W_gᵀ g + b_g) + b_ψ        α = σ₂(q)        output: α · x

    with σ₁ = ReLU and σ₂ = sigmoid. The linear maps are 1×1 convolutions. As in the paper, x is
    reduced to the coarser grid of the gating signal g (stride 2), and the coefficients α are
    resampled to the grid of x, here bilinearly since images are 2-D.

    Args:
        skip_channels: channels of x.
        gating_channels: channels of g.
        mid_channels: channels of the space in which both are added (F_int).

    Shape: x [N, skip_channels, H, W] and g [N, gating_channels, ⌊H/2⌋, ⌊W/2⌋]
        → [N, skip_channels, H, W].
    """

    def __init__(self, skip_channels: int, gating_channels: int, mid_channels: int) -> None:
        super().__init__()
        self.w_x = nn.Conv2d(skip_channels, mid_channels, kernel_size=1, stride=2, bias=False)
        self.w_g = nn.Conv2d(gating_channels, mid_channels, kernel_size=1)  # its bias is b_g
        self.psi = nn.Conv2d(mid_channels, 1, kernel_size=1)

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        reduced = pad_to(self.w_x(x), g.shape[2:])  # at odd sizes it has one row or column more
        q = self.psi(F.relu(reduced + self.w_g(g)))
        alpha = F.interpolate(q.sigmoid(), scale_factor=2, mode="bilinear", align_corners=False)
        return x * pad_to(alpha, x.shape[2:], mode="replicate")


class AttentionUNet(UNet):
    """Attention U-Net (Oktay et al. 2018, arXiv:1804.03999): a U-Net with gates on three skips.

    The gating signal is the decoder's output one level below. As in the paper, the first skip has
    no gate, since its features are not yet high-dimensional, and `mid_channels` of a gate is the
    number of the skip's channels. The default widths, 16 to 256 with transposed convolutions, are
    those of the authors' published code. Encoder and decoder are those of UNet.

    Args, shape and errors: as for UNet.
    """

    paper = "Oktay et al. 2018, arXiv:1804.03999"

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 2,
        bilinear: bool = False,
        base_c: int = 16,
        norm: bool = True,
        bias: bool | None = None,
        align_corners: bool = True,
    ) -> None:
        super().__init__(in_channels, num_classes, bilinear, base_c, norm, bias, align_corners)
        factor = 2 if bilinear else 1
        self.gate1 = AttentionGate(base_c * 8, base_c * 16 // factor, mid_channels=base_c * 8)
        self.gate2 = AttentionGate(base_c * 4, base_c * 8 // factor, mid_channels=base_c * 4)
        self.gate3 = AttentionGate(base_c * 2, base_c * 4 // factor, mid_channels=base_c * 2)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        check_image_size(self, image)
        x1 = self.in_conv(image)
        x2 = self.down1(x1)
        x3 = self.down2(x2)
        x4 = self.down3(x3)
        x = self.down4(x4)
        x = self.up1(x, self.gate1(x4, x))
        x = self.up2(x, self.gate2(x3, x))
        x = self.up3(x, self.gate3(x2, x))
        x = self.up4(x, x1)
        return {"out": self.out_conv(x)}

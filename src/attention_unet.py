"""The Attention U-Net: gates on the skips."""

import torch.nn as nn
import torch.nn.functional as F

from .blocks import check_side
from .unet import UNet


class AttentionGate(nn.Module):
    """Additive attention on a skip, equations 1 and 2 of Oktay et al. 2018:

        q = ψᵀ σ₁(W_xᵀ x + W_gᵀ g + b_g) + b_ψ        α = σ₂(q)        returned: α · x

    with σ₁ = ReLU and σ₂ = sigmoid. The linear maps are 1×1 convolutions. x is brought to the gating signal's coarser
    grid on the way (stride 2), and the coefficients α back to x's grid by bilinear resampling, its trilinear in 2-D.

    Args:
        skip_channels, gating_channels: of x and of g.
        mid_channels: of the space in which the two are added (F_int).

    Shape: x [N, skip_channels, H, W] and g [N, gating_channels, ⌊H/2⌋, ⌊W/2⌋] → [N, skip_channels, H, W].
    """

    def __init__(self, skip_channels, gating_channels, mid_channels):
        super().__init__()
        self.w_x = nn.Conv2d(skip_channels, mid_channels, kernel_size=1, stride=2, bias=False)
        self.w_g = nn.Conv2d(gating_channels, mid_channels, kernel_size=1)  # its bias is b_g
        self.psi = nn.Conv2d(mid_channels, 1, kernel_size=1)

    def forward(self, x, g):
        height, width = g.shape[
            -2:
        ]  # at odd sizes the strided x has one row or column more, which no g belongs to
        q = self.psi(F.relu(self.w_x(x)[..., :height, :width] + self.w_g(g)))
        return x * F.interpolate(
            q.sigmoid(), size=x.shape[-2:], mode="bilinear", align_corners=False
        )


class AttentionUNet(UNet):
    """Attention U-Net (Oktay et al. 2018, arXiv:1804.03999): a U-Net whose three deeper skips pass a gate.

    The gating signal is the decoder's output one scale below. As in the paper the first skip has no gate, since its
    features are not yet high-dimensional, and a gate's inner space has the skip's channels. The default widths, 16 to 256
    with transposed convolutions, are those of the authors' published code; encoder and decoder are UNet's.

    Args and shape: those of UNet. ValueError for an image with a side below 16.
    """

    paper = "Oktay et al. 2018, arXiv:1804.03999"

    def __init__(
        self, in_channels=1, num_classes=2, bilinear=False, base_c=16, norm=True, bias=None
    ):
        super().__init__(in_channels, num_classes, bilinear, base_c, norm, bias)
        half = 2 if bilinear else 1
        self.gate1 = AttentionGate(base_c * 8, base_c * 16 // half, mid_channels=base_c * 8)
        self.gate2 = AttentionGate(base_c * 4, base_c * 8 // half, mid_channels=base_c * 4)
        self.gate3 = AttentionGate(base_c * 2, base_c * 4 // half, mid_channels=base_c * 2)

    def forward(self, image):
        check_side(self, image, 16)
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

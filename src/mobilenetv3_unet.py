"""U-Net on the encoder of MobileNetV3-Large."""

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import MobileNet_V3_Large_Weights, mobilenet_v3_large

from .blocks import OutConv, Up, pad_to
from .encoder import Stages, adapt_first_conv, load_imagenet_weights

# The last blocks at 1/2, 1/4, 1/8, 1/16 and 1/32 of the size in mobilenet_v3_large().features.
STAGES = [1, 3, 6, 12, 15]


class MobileV3Unet(nn.Module):
    """U-Net with torchvision's MobileNetV3-Large as encoder and a bilinear decoder.

    MobileNetV3: Howard et al. 2019, arXiv:1905.02244. The encoder's first convolution halves the
    size, so the logits have half the size and are upsampled bilinearly. Where a side is odd, what
    was rounded up is cropped at its end; the tutorials crop at the start, and resize the logits, so
    that features of whole images are moved by up to 8 px. Stages and names of the
    weights are those of the tutorials' MobileV3Unet, compared with their published source:
    `backbone.0.0.weight`, …, `up1.conv.0.weight`, …, `conv.0.weight`.

    Args:
        num_classes: number of classes, including the background.
        pretrain_backbone: load ImageNet weights into the encoder; see load_imagenet_weights().
        in_channels: channels of the image; see adapt_first_conv() for values other than 3.
        align_corners: how bilinear upsampling places the pixels, see Up. Weights are for one of the
            two; those of the tutorials, and of `train.py --preset classic`, for True.

    Shape: image [N, in_channels, H, W] → {"out": [N, num_classes, H, W] logits}, for any H, W ≥ 1
        in eval mode. Training on a single image needs a side of at least 33: BatchNorm needs more
        than one value per channel.
    """

    paper = "encoder: Howard et al. 2019, arXiv:1905.02244"
    dims = 2
    margin = 0
    min_training_side = 33
    base_c = 16  # at half the size of the image
    training_bytes = 75

    def __init__(
        self,
        num_classes: int,
        pretrain_backbone: bool = False,
        in_channels: int = 3,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.num_classes = num_classes
        features = mobilenet_v3_large().features
        if pretrain_backbone:
            load_imagenet_weights(features, MobileNet_V3_Large_Weights.IMAGENET1K_V1)
        features[0][0] = adapt_first_conv(features[0][0], in_channels, pretrain_backbone)
        self.backbone = Stages(features, STAGES)
        c1, c2, c3, c4, c5 = (features[index].out_channels for index in STAGES)
        up = {"align_corners": align_corners}
        self.up1 = Up(c5 + c4, c4, **up)
        self.up2 = Up(c4 + c3, c3, **up)
        self.up3 = Up(c3 + c2, c2, **up)
        self.up4 = Up(c2 + c1, c1, **up)
        self.conv = OutConv(c1, num_classes)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x1, x2, x3, x4, x = self.backbone(image)
        x = self.up1(x, x4)
        x = self.up2(x, x3)
        x = self.up3(x, x2)
        x = self.up4(x, x1)
        logits = self.conv(x)
        logits = F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)
        return {"out": pad_to(logits, image.shape[-2:])}

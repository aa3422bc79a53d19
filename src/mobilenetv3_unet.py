"""U-Net on the encoder of MobileNetV3-Large."""

import torch.nn as nn
import torch.nn.functional as F
from torchvision.models import MobileNet_V3_Large_Weights, mobilenet_v3_large

from .blocks import OutConv, Up
from .encoder import Stages, for_channels, load_features

STAGES = [
    1,
    3,
    6,
    12,
    15,
]  # the last blocks at 1/2, 1/4, 1/8, 1/16 and 1/32 of torchvision's mobilenet_v3_large().features


class MobileV3Unet(nn.Module):
    """U-Net whose encoder is torchvision's MobileNetV3-Large (Howard et al. 2019, arXiv:1905.02244), decoder bilinear.

    The encoder's first convolution halves the size already, so the logits come at half the size and are upsampled
    bilinearly. Stages and names of the weights are those of the tutorials' MobileV3Unet (compared with their published
    source): `backbone.0.0.weight`, …, `up1.conv.0.weight`, …, `conv.0.weight`.

    Args:
        num_classes: classes, the background included.
        pretrain_backbone: load the encoder's ImageNet weights; see imagenet_features for where from and for errors.
        in_channels: channels of the image. Other than 3: the first convolution is a new one, with ImageNet weights only
            for 1 channel; see for_channels.

    Shape: image [N, in_channels, H, W] → {"out": [N, num_classes, H, W] logits}, for any H, W ≥ 1 in eval mode. In training
    a single image must have a side of at least 33, since BatchNorm needs more than one value a channel.
    """

    paper = "encoder: Howard et al. 2019, arXiv:1905.02244"
    min_training_side = 33

    def __init__(self, num_classes, pretrain_backbone=False, in_channels=3):
        super().__init__()
        self.in_channels, self.num_classes = in_channels, num_classes
        features = mobilenet_v3_large().features
        if pretrain_backbone:
            load_features(features, MobileNet_V3_Large_Weights.IMAGENET1K_V1)
        features[0][0] = for_channels(features[0][0], in_channels, pretrain_backbone)
        self.backbone = Stages(features, STAGES)
        c1, c2, c3, c4, c5 = (features[index].out_channels for index in STAGES)
        self.up1 = Up(c5 + c4, c4)
        self.up2 = Up(c4 + c3, c3)
        self.up3 = Up(c3 + c2, c2)
        self.up4 = Up(c2 + c1, c1)
        self.conv = OutConv(c1, num_classes)

    def forward(self, image):
        x1, x2, x3, x4, x = self.backbone(image)
        x = self.up1(x, x4)
        x = self.up2(x, x3)
        x = self.up3(x, x2)
        x = self.up4(x, x1)
        return {
            "out": F.interpolate(
                self.conv(x), size=image.shape[-2:], mode="bilinear", align_corners=False
            )
        }

"""U-Net on the encoder of VGG16 with BatchNorm."""

import torch.nn as nn
from torchvision.models import VGG16_BN_Weights
from torchvision.models.vgg import cfgs, make_layers

from .blocks import OutConv, Up, check_side
from .encoder import Stages, for_channels, load_features

STAGES = [
    5,
    12,
    22,
    32,
    42,
]  # the last ReLU before each pooling of torchvision's vgg16_bn().features
CHANNELS = [64, 128, 256, 512, 512]


class VGG16UNet(nn.Module):
    """U-Net whose encoder is torchvision's VGG16-BN (Simonyan, Zisserman 2014, arXiv:1409.1556), decoder bilinear.

    Stages and names of the weights are those of the tutorials' VGG16UNet (compared with their published source):
    `backbone.0.weight`, …, `up1.conv.0.weight`, …, `conv.0.weight`.

    Args:
        num_classes: classes, the background included.
        pretrain_backbone: load the encoder's ImageNet weights; see imagenet_features for where from and for errors.
        in_channels: channels of the image. Other than 3: the first convolution is a new one, with ImageNet weights only
            for 1 channel; see for_channels.

    Shape: image [N, in_channels, H, W] → {"out": [N, num_classes, H, W] logits}, for any H, W ≥ 16.
    Raises ValueError for a smaller image.
    """

    paper = "encoder: Simonyan, Zisserman 2014, arXiv:1409.1556"

    def __init__(self, num_classes, pretrain_backbone=False, in_channels=3):
        super().__init__()
        self.in_channels, self.num_classes = in_channels, num_classes
        features = make_layers(
            cfgs["D"], batch_norm=True
        )  # without the classifier's 120 million weights
        if pretrain_backbone:
            load_features(features, VGG16_BN_Weights.IMAGENET1K_V1)
        else:
            features.apply(init_weights)
        features[0] = for_channels(features[0], in_channels, pretrain_backbone)
        self.backbone = Stages(features, STAGES)
        c1, c2, c3, c4, c5 = CHANNELS
        self.up1 = Up(c5 + c4, c4)
        self.up2 = Up(c4 + c3, c3)
        self.up3 = Up(c3 + c2, c2)
        self.up4 = Up(c2 + c1, c1)
        self.conv = OutConv(c1, num_classes)

    def forward(self, image):
        check_side(self, image, 16)
        x1, x2, x3, x4, x = self.backbone(image)
        x = self.up1(x, x4)
        x = self.up2(x, x3)
        x = self.up3(x, x2)
        x = self.up4(x, x1)
        return {"out": self.conv(x)}


def init_weights(module):
    """The weights that torchvision's VGG begins with."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(module.bias)

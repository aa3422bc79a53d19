"""U-Net on the encoder of VGG16 with BatchNorm."""

from torch import Tensor, nn
from torchvision.models import VGG16_BN_Weights
from torchvision.models.vgg import cfgs, make_layers

from .blocks import OutConv, Up, check_image_size
from .encoder import Stages, adapt_first_conv, load_imagenet_weights

STAGES = [5, 12, 22, 32, 42]  # last ReLU before each pooling of torchvision's vgg16_bn().features
CHANNELS = [64, 128, 256, 512, 512]


class VGG16UNet(nn.Module):
    """U-Net with torchvision's VGG16-BN as encoder and a bilinear decoder.

    VGG16: Simonyan, Zisserman 2014, arXiv:1409.1556. Stages and names of the weights are those of
    the tutorials' VGG16UNet, compared with their published source: `backbone.0.weight`, …,
    `up1.conv.0.weight`, …, `conv.0.weight`.

    Args:
        num_classes: number of classes, including the background.
        pretrain_backbone: load ImageNet weights into the encoder; see load_imagenet_weights().
        in_channels: channels of the image; see adapt_first_conv() for values other than 3.
        align_corners: how bilinear upsampling places the pixels, see Up. Weights are for one of the
            two; those of the tutorials, and of `train.py --preset classic`, for True.

    Shape: image [N, in_channels, H, W] → {"out": [N, num_classes, H, W] logits}, any H, W ≥ 16.
    Raises ValueError for a smaller image.
    """

    paper = "encoder: Simonyan, Zisserman 2014, arXiv:1409.1556"
    dims = 2
    margin = 0
    min_training_side = 16
    base_c = CHANNELS[0]
    training_bytes = 120

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
        # Not vgg16_bn().features: that would create the 120 million weights of the classifier.
        features = make_layers(cfgs["D"], batch_norm=True)
        if pretrain_backbone:
            load_imagenet_weights(features, VGG16_BN_Weights.IMAGENET1K_V1)
        else:
            features.apply(init_weights)
        features[0] = adapt_first_conv(features[0], in_channels, pretrain_backbone)
        self.backbone = Stages(features, STAGES)
        c1, c2, c3, c4, c5 = CHANNELS
        up = {"align_corners": align_corners}
        self.up1 = Up(c5 + c4, c4, **up)
        self.up2 = Up(c4 + c3, c3, **up)
        self.up3 = Up(c3 + c2, c2, **up)
        self.up4 = Up(c2 + c1, c1, **up)
        self.conv = OutConv(c1, num_classes)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        check_image_size(self, image)
        x1, x2, x3, x4, x = self.backbone(image)
        x = self.up1(x, x4)
        x = self.up2(x, x3)
        x = self.up3(x, x2)
        x = self.up4(x, x1)
        return {"out": self.conv(x)}


def init_weights(module: nn.Module) -> None:
    """Initializes a convolution as torchvision's VGG does."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(module.bias)

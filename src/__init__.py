"""Models and inference: all that is needed to use a network, and nothing that trains one."""

from inspect import signature
from typing import Any

from torch import nn

from .attention_unet import AttentionUNet
from .mobilenetv3_unet import MobileV3Unet
from .resunet import ResUNet
from .unet import UNet
from .unet_3d import UNet3D
from .unet_original import UNetOriginal
from .unet_plus_plus import UNetPlusPlus
from .vgg16_unet import VGG16UNet

# One row per architecture: the name that --model and checkpoints use, and its class.
# A class takes in_channels and num_classes, and has six attributes:
#     paper              the source, as the table of --list-models prints it
#     dims               2 for images [N, C, H, W], 3 for volumes [N, C, D, H, W]
#     margin             pixels that valid convolutions remove at each border of a training image;
#                        0 where all convolutions are padded
#     min_training_side  the smallest side of a training image in pixels; models with four
#                        poolings refuse smaller images in eval mode too
#     base_c             channels of the first level; a model that has no such argument has only one
#     training_bytes     memory of a training step in float32: bytes for each pixel and channel of
#                        the first level, about a tenth more than src.memory.LiveBytes counts on
#                        crops of 256 px; the weights and the loss are not included
# A model with several outputs in training mode has their number as `outputs`.
MODELS = {
    "attention_unet": AttentionUNet,
    "mobilenetv3_unet": MobileV3Unet,
    "resunet": ResUNet,
    "unet": UNet,
    "unet_3d": UNet3D,
    "unet_original": UNetOriginal,
    "unet_plus_plus": UNetPlusPlus,
    "vgg16_unet": VGG16UNet,
}


def build_model(name: str, **kwargs: Any) -> nn.Module:
    """Builds the architecture `name` of MODELS with its keyword arguments.

    Raises ValueError for an unknown name.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; choose one of {', '.join(sorted(MODELS))}")
    return MODELS[name](**kwargs)


def default_options(name: str) -> dict[str, Any]:
    """The keyword arguments of the architecture `name` of MODELS and their defaults.

    An argument without a default has the value None.
    """
    options = {}
    for parameter in signature(MODELS[name]).parameters.values():
        has_default = parameter.default is not parameter.empty
        options[parameter.name] = parameter.default if has_default else None
    return options


__all__ = [
    "MODELS",
    "AttentionUNet",
    "MobileV3Unet",
    "ResUNet",
    "UNet",
    "UNet3D",
    "UNetOriginal",
    "UNetPlusPlus",
    "VGG16UNet",
    "build_model",
    "default_options",
]

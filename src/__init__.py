"""Models and inference: what is needed to use a network, and nothing that trains one."""

from inspect import signature

from .attention_unet import AttentionUNet
from .mobilenetv3_unet import MobileV3Unet
from .resunet import ResUNet
from .unet import UNet
from .unet_original import UNetOriginal
from .unet_plus_plus import UNetPlusPlus
from .vgg16_unet import VGG16UNet

# One row an architecture: the name that --model and checkpoints use, and the class that it builds.
MODELS = {
    "attention_unet": AttentionUNet,
    "mobilenetv3_unet": MobileV3Unet,
    "resunet": ResUNet,
    "unet": UNet,
    "unet_original": UNetOriginal,
    "unet_plus_plus": UNetPlusPlus,
    "vgg16_unet": VGG16UNet,
}


def build_model(name, **kwargs):
    """Builds the architecture `name` of MODELS with its keyword arguments; ValueError for an unknown name."""
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; there are: {', '.join(sorted(MODELS))}")
    return MODELS[name](**kwargs)


def default_options(name):
    """The keyword arguments that the architecture `name` of MODELS takes, with their defaults; None where it has none."""
    parameters = signature(MODELS[name]).parameters.values()
    return {each.name: None if each.default is each.empty else each.default for each in parameters}


__all__ = [
    "MODELS",
    "AttentionUNet",
    "MobileV3Unet",
    "ResUNet",
    "UNet",
    "UNetOriginal",
    "UNetPlusPlus",
    "VGG16UNet",
    "build_model",
    "default_options",
]

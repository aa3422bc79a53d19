"""The smallest UNet and its checkpoint, for tests of files that hold models."""

import pytest
import torch
from torch import nn

from src import UNet
from src.errors import UserError

KWARGS = {"in_channels": 3, "num_classes": 2, "bilinear": True, "base_c": 2}


def make_model(seed=0, **changes):
    """A UNet with random weights."""
    torch.manual_seed(seed)
    return UNet(**{**KWARGS, **changes})


def described(model, /, **changes):
    """The entries that a checkpoint needs to describe itself."""
    return {
        "model": model.state_dict(),
        "model_name": "unet",
        "model_kwargs": KWARGS,
        "class_names": ["no", "yes"],
        "mean": [0.5] * 3,
        "std": [0.2] * 3,
        "threshold": 0.4,
        **changes,
    }


def same_weights(first, second):
    """Whether two state_dicts are equal."""
    equal = all(torch.equal(value, second[name]) for name, value in first.items())
    return equal and first.keys() == second.keys()


def error_of(function, *args, **kwargs):
    """The message of the UserError that the call raises."""
    with pytest.raises(UserError) as caught:
        function(*args, **kwargs)
    return str(caught.value)


@torch.no_grad()
def fill_statistics(model, image):
    """Puts the model in eval mode with BatchNorm's statistics of one image [1, C, H, W].

    With those of a new model features shrink from level to level, and deep ones count for nothing.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    model.train()(image)
    model.eval()

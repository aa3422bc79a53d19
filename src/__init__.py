"""Models and inference: what is needed to use a network, and nothing that trains one."""

from .unet import UNet

# One row an architecture: the name that --model and checkpoints use, and the class that it builds.
MODELS = {
    "unet": UNet,
}


def build_model(name, **kwargs):
    """Builds the architecture `name` of MODELS with its keyword arguments; ValueError for an unknown name."""
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; there are: {', '.join(sorted(MODELS))}")
    return MODELS[name](**kwargs)


__all__ = ["MODELS", "UNet", "build_model"]

"""Memory classes, and the memory of a training step, estimated from the model and the crops."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from src import UNet

# {memory class: (bytes, largest crop)}. The largest crop also bounds the time of a step.
MEMORY = {"small": (4e9, 512), "medium": (12e9, 768), "large": (40e9, 1024)}
# The part of the memory class that is for activations and gradients. The rest is for weights, the
# optimizer, the images and the workspace of convolutions.
SHARE = 0.5
# Of each pixel and class: logits, log-softmax, probabilities and target as float32, and gradients.
CLASS_BYTES = 24


@dataclass(frozen=True)
class ModelNeeds:
    """What a plan knows of the model, by default the plain U-Net.

    training_bytes: memory of a training step, see src/__init__.py.
    base_c: channels of the first level; None: to be planned.
    least: smallest sides of a crop that the model can be trained on.
    strides: number of voxels, on each axis, that all poolings together make one of.
    margins: number of voxels, on each axis, that valid convolutions remove at each border.
    Strides and margins are of volumes; both are empty for images.
    outputs: number of outputs in training mode, each with a loss.
    """

    training_bytes: int = UNet.training_bytes
    base_c: int | None = None
    least: tuple[int, ...] = (UNet.min_training_side, UNet.min_training_side)
    strides: tuple[int, ...] = ()
    margins: tuple[int, ...] = ()
    outputs: int = 1


PLAIN_UNET = ModelNeeds()


def pixel_bytes(model: ModelNeeds, base_c: int, channels: int, classes: int) -> int:
    """The memory of a training step for each pixel: activations, image, target and the loss."""
    loss = CLASS_BYTES * classes * model.outputs
    return model.training_bytes * base_c + 4 * channels + 8 + loss


def step_bytes(crop: int | Sequence[int], batch: int, bytes_each: int) -> int:
    """The memory of a training step, without the weights.

    crop: side of a square, or all sides. bytes_each: bytes for each pixel, see pixel_bytes().
    """
    pixels = crop**2 if isinstance(crop, int) else math.prod(crop)
    return batch * pixels * bytes_each


def activation_limit(memory: str) -> float:
    """Bytes for the activations and gradients of a step. memory: a name of MEMORY."""
    return SHARE * MEMORY[memory][0]


def fitting_batch(crop: int | Sequence[int], batch: int, bytes_each: int, memory: str) -> int:
    """The batch, made smaller until a step fits into the memory class; at least 1."""
    limit = activation_limit(memory)
    while batch > 1 and step_bytes(crop, batch, bytes_each) > limit:
        batch -= 1
    return batch

"""The class weights of the cross entropy: of a flag, a preset, the plan, or from the pixels."""

import math
from collections.abc import Sequence
from statistics import median

import torch
from torch import Tensor

from train_utils.distributed_utils import log

TWO_CLASS_WEIGHTS = (1.0, 1.25)
# What `--class-weights preset` means for two classes. With more classes it means no weights. The
# presets best and scenes are planned: theirs is for checkpoints from before there were plans.
PRESET_CLASS_WEIGHTS = {
    "best": list(TWO_CLASS_WEIGHTS),
    "scenes": list(TWO_CLASS_WEIGHTS),
    "classic": [1.0, 2.0],
    "fast": list(TWO_CLASS_WEIGHTS),
    "original": "none",
}
# A class of a few pixels would otherwise have nearly all of the loss, and a background of nearly
# all pixels none of it. CamVid's weights are 0.14 to 15.4.
SMALLEST_WEIGHT, LARGEST_WEIGHT = 0.05, 20.0


def resolve_class_weights(
    choice: str | list[float], preset: str, num_classes: int
) -> str | list[float]:
    """ "none", "auto" or a list of weights, from the value of --class-weights."""
    if choice != "preset":
        return choice
    return PRESET_CLASS_WEIGHTS[preset] if num_classes == 2 else "none"


def make_class_weights(
    choice: str | list[float], pixels: Tensor, sampled: bool = False
) -> Tensor | None:
    """Weights float32 [K] of the cross entropy, or None. Logs them.

    choice: "none", "auto" (median frequency balancing) or the weights. pixels, sampled: training
    pixels of each class, see median_frequency_weights().
    """
    if choice == "none":
        return None
    if choice == "auto":
        weights = torch.tensor(median_frequency_weights(pixels.tolist(), sampled))
    else:
        weights = torch.tensor(choice)
    log(f"class weights: {', '.join(f'{weight:.3g}' for weight in weights.tolist())}")
    return weights


def plan_class_weights(pixels: Sequence[int], sampled: bool = False) -> tuple[float, ...]:
    """The plan's weights for images.

    Fixed for two classes; for more the square roots of median frequency balancing: with the full
    weights rare classes are found in too many places, see the results page.

    pixels, sampled: as for median_frequency_weights().
    """
    if len(pixels) <= 2:
        return TWO_CLASS_WEIGHTS[: len(pixels)]
    weights = median_frequency_weights(pixels, sampled)
    return tuple(round(math.sqrt(weight), 4) for weight in weights)


def plan_volume_class_weights(num_classes: int) -> tuple[float, ...]:
    """The plan's weights for volumes: equal ones for more than two classes.

    A third of the crops is centred on foreground, which balances the classes already.
    """
    return TWO_CLASS_WEIGHTS if num_classes == 2 else (1.0,) * num_classes


def median_frequency_weights(pixels: Sequence[int], sampled: bool = False) -> list[float]:
    """Class weights by median frequency balancing, after Eigen and Fergus 2015.

    The weight of a class is the median of the classes' shares over its own share, within
    SMALLEST_WEIGHT and LARGEST_WEIGHT. Shares are of all pixels; the paper (arXiv:1411.4734) takes
    those of the images in which the class occurs. A class without pixels gets 0, or the largest
    weight of the others if only a sample of the images was read: it may occur in the rest.

    pixels: number of valid pixels of each class. sampled: whether they are of a sample.
    """
    found = [count for count in pixels if count]
    if not found:
        return [1.0] * len(pixels)
    middle = median(found)

    def weight(count: int) -> float:
        return min(max(middle / count, SMALLEST_WEIGHT), LARGEST_WEIGHT)

    unseen = weight(min(found)) if sampled else 0.0
    return [weight(count) if count else unseen for count in pixels]

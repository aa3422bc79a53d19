"""Weights of milesial/Pytorch-UNet, described as a checkpoint of this project.

Its files are bare state_dicts, newer ones with `mask_values`: the value or colour of each class in
the masks. Its network is that of src.UNet with other names.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from train_utils.data.class_table import BINARY, ClassTable
from train_utils.reporting.pictures import with_default_colours

SOURCE = "milesial/Pytorch-UNet"
NOTE = (
    "note: {path} holds weights of milesial/Pytorch-UNet, which halves images (--scale 0.5) by "
    "default. If these were trained so, they expect images of half the size: resize the images for "
    "predict.py, and give train.py --resize"
)

# Parts of its names, and of ours.
NAMES = {
    "inc.double_conv.": "in_conv.",
    ".maxpool_conv.1.double_conv.": ".1.",
    ".conv.double_conv.": ".conv.",
    "outc.conv.": "out_conv.0.",
}
FIRST, LAST = "inc.double_conv.0.weight", "outc.conv.weight"


def is_foreign(content: dict) -> bool:
    """Whether a loaded file has the names of milesial/Pytorch-UNet."""
    weights = [content.get(name) for name in (FIRST, LAST)]
    return all(isinstance(weight, Tensor) and weight.ndim == 4 for weight in weights)


def describe_foreign(content: dict) -> dict:
    """The entries of a checkpoint, but for `format`, from a file for which is_foreign() is true.

    Channels, classes, width and upsampling are found from the shapes. That repository scales images
    to 0–1 and no further: mean 0 and std 1. Its only output of a network with one class is the
    logit z of a sigmoid, and the two logits (0, z) have the same probabilities: softmax gives
    class 1 eᶻ / (e⁰ + eᶻ) = sigmoid(z). Such a network is therefore read as one of two classes.
    """
    state = {our_name(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if len(content[LAST]) == 1:
        for name in ("out_conv.0.weight", "out_conv.0.bias"):
            if name in state:
                state[name] = torch.cat([torch.zeros_like(state[name]), state[name]])
    width, channels = content[FIRST].shape[:2]
    num_classes = len(state["out_conv.0.weight"])
    options = {"bilinear": "up1.up.weight" not in state, "base_c": width}
    if "in_conv.0.bias" in state:  # its early versions
        options["bias"] = True
    classes = class_table_of(content.get("mask_values"), num_classes)
    return {
        "source": SOURCE,
        "model": state,
        "model_name": "unet",
        "model_kwargs": {"in_channels": channels, "num_classes": num_classes, **options},
        "class_names": list(classes.names),
        "class_colours": with_default_colours(classes.colours).tolist(),
        "class_ids": classes.ids,
        "class_table": classes.to_dict(),
        "mean": [0.0] * channels,
        "std": [1.0] * channels,
        "resize": None,
        "threshold": 0.5,
        "args": {"model": "unet", "in_channels": channels, **options},
    }


def our_name(name: str) -> str:
    """The name of a weight in src.UNet."""
    for theirs, ours in NAMES.items():
        name = name.replace(theirs, ours)
    return name


def class_table_of(values: Any, num_classes: int) -> ClassTable:
    """The classes of `mask_values`; of 0, 1, … where the file has none that fit.

    0 and black are called background. Two classes of numbers are read like any two values.
    """
    if not isinstance(values, Sequence) or len(values) != num_classes:
        values = range(num_classes)
    colours = [as_colour(value) for value in values]
    if None not in colours:
        names = [name_of(index, not any(rgb)) for index, rgb in enumerate(colours)]
        numbers = {index: index for index in range(num_classes)}
        palette = {rgb: index for index, rgb in enumerate(colours)}
        return ClassTable(tuple(names), tuple(colours), numbers, palette)
    if num_classes == 2:
        return BINARY
    if not all(isinstance(value, int) and 0 <= value <= 65535 for value in values):
        values = range(num_classes)
    names = [name_of(value, value == 0) for value in values]
    numbers = {value: index for index, value in enumerate(values)}
    return ClassTable(tuple(names), (None,) * num_classes, numbers)


def as_colour(value: Any) -> tuple[int, int, int] | None:
    """(r, g, b) of a list of three bytes, None for anything else."""
    if not isinstance(value, (list, tuple)) or len(value) != 3:
        return None
    if not all(isinstance(part, int) and 0 <= part <= 255 for part in value):
        return None
    return tuple(value)


def name_of(number: int, is_background: bool) -> str:
    """The name of a class that has none."""
    if is_background:
        return "background"
    return f"class {number}"

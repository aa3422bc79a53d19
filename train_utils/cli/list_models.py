"""`--list-models`: parameters and multiply-adds of the architectures, from shapes alone."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from src import MODELS, build_model
from src.unet_original import valid_input_side
from train_utils.cli.defaults import CommandLine
from train_utils.cli.model_flags import model_kwargs

SIDE = 480  # px, of the square image that multiply-adds are counted for
CUBE = 64  # voxels, side of the volume that they are counted for


def list_models(datasets: dict) -> str:
    """The table of what `--model NAME` builds when no other flag is given."""
    command_line = CommandLine("train.py", "", datasets)
    descriptions = []
    for name in MODELS:
        args = command_line.resolve({"model": name})
        descriptions.append((name, model_kwargs(args, num_classes=2)))
    return model_table(descriptions)


def model_table(descriptions: Iterable[tuple[str, dict]]) -> str:
    """A text table of models: (name, keyword arguments of build_model) of each."""
    header = f"{'--model':18}{'parameters':>12}{'multiply-adds':>16}"
    lines = [f"{header}  at {SIDE}×{SIDE}, 3 channels, 2 classes"]
    for name, kwargs in descriptions:
        parameters, operations, side = cost(name, kwargs)
        note = ""
        if MODELS[name].dims == 3:
            note = f"; counted at {side}×{side}×{side}"
        elif side != SIDE:
            output_side = side - 2 * MODELS[name].margin
            note = f"; counted at {side}×{side}, of which {output_side}² come out"
        numbers = f"{parameters:12,}{operations / 1e9:14.2f} G"
        lines.append(f"{name:18}{numbers}  {MODELS[name].paper}{note}")
    return "\n".join(lines)


def cost(model_name: str, model_kwargs: dict) -> tuple[int, int, int]:
    """(parameters, multiply-adds of a square image, its side in px) of build_model()'s network.

    The side is SIDE, or CUBE for a volume. A network of valid convolutions predicts less than it
    sees: there the image is the next smaller one that it takes.
    """
    with torch.device("meta"):  # shapes without memory
        model = build_model(model_name, **model_kwargs).eval()
        network, side = model, SIDE if model.dims == 2 else CUBE
        if model.margin:
            network, side = model.valid, valid_input_side(SIDE)
        image = torch.empty(1, model.in_channels, *[side] * model.dims)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return parameters, multiply_adds(network, image), side


def multiply_adds(network: nn.Module, image: Tensor) -> int:
    """Multiply-adds of the convolutions and matrix products in network(image).

    Operations on single elements are not counted.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    return counter.get_total_flops() // 2  # PyTorch counts a multiplication and an addition as two

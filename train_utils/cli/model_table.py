"""What the architectures cost: parameters, and multiply-adds of one image. Counted without computing anything."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from src import MODELS, UNetOriginal, build_model
from src.unet_original import legal_side

SIDE = 480  # px, of the square image that multiply-adds are counted for


def multiply_adds(network, image):
    """Multiply-adds of the convolutions and matrix products in network(image); what is done by elements is not counted."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    return counter.get_total_flops() // 2  # PyTorch counts a multiplication and an addition as two


def cost(model_name, model_kwargs):
    """(parameters, multiply-adds, side of the image in px) of judging one SIDE² image with what build_model() builds.

    Valid convolutions give no output for the border: there the image is the next smaller one of a legal side.
    """
    with torch.device("meta"):  # shapes without memory
        model = build_model(model_name, **model_kwargs).eval()
        valid = isinstance(model, UNetOriginal)
        network, side = (model.valid, legal_side(SIDE)) if valid else (model, SIDE)
        image = torch.empty(1, model.in_channels, side, side)
    return (
        sum(parameter.numel() for parameter in model.parameters()),
        multiply_adds(network, image),
        side,
    )


def model_table(descriptions):
    """A text table of models: `descriptions` are dicts of model_name and model_kwargs, as a checkpoint holds them."""
    lines = [
        f"{'--model':18}{'parameters':>12}{'multiply-adds':>16}  at {SIDE}×{SIDE}, 3 channels, 2 classes"
    ]
    for description in descriptions:
        parameters, operations, side = cost(**description)
        name, paper = description["model_name"], MODELS[description["model_name"]].paper
        note = (
            f"; counted at {side}×{side}, of which {side - 2 * UNetOriginal.margin}² come out"
            if side != SIDE
            else ""
        )
        lines.append(f"{name:18}{parameters:12,}{operations / 1e9:14.2f} G  {paper}{note}")
    return "\n".join(lines)

"""Parameters and multiply-adds are those computed by hand."""

import pytest
import torch
from torch import nn

from src import MODELS
from train_utils.cli.list_models import cost, model_table, multiply_adds


@pytest.mark.parametrize(
    "layer, shape, by_hand",
    [
        (nn.Conv2d(3, 8, 3, padding=1), (3, 10, 12), 10 * 12 * 8 * 3 * 9),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1), (4, 10, 12), 5 * 6 * 6 * 4 * 9),
        (nn.Conv2d(4, 6, 3, padding=1, groups=2), (4, 10, 12), 10 * 12 * 6 * 2 * 9),
        # an output pixel has one input pixel
        (nn.ConvTranspose2d(4, 2, 2, stride=2), (4, 5, 6), 10 * 12 * 2 * 4),
        (nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.ReLU()), (3, 5, 6), 5 * 6 * 2 * 3),
    ],
    ids=["conv", "strided", "grouped", "transposed", "by elements"],
)
def test_multiply_adds_of_a_layer(layer, shape, by_hand):
    assert multiply_adds(layer, torch.empty(1, *shape)) == by_hand


def test_cost_of_a_unet_by_hand():
    """Base c, transposed. Convolutions in → out cost 9·in·out per pixel; level l has 4^−l of the
    image's pixels."""
    c, pixels = 4, 480 * 480
    widths = [c, 2 * c, 4 * c, 8 * c, 16 * c]
    down = [
        [(before, width), (width, width)]
        for before, width in zip([3, *widths], widths, strict=False)
    ]
    up = [[(2 * width, width), (width, width)] for width in widths[:-1]]
    total = sum(
        9 * a * b * pixels // 4**level
        for path in (down, up)
        for level, convs in enumerate(path)
        for a, b in convs
    )
    total += sum(
        2 * width * width * pixels // 4**level for level, width in enumerate(widths[:-1])
    )  # transposed
    total += c * 2 * pixels
    parameters, operations, side = cost(
        "unet", {"in_channels": 3, "num_classes": 2, "base_c": c, "bilinear": False}
    )
    assert (operations, side) == (total, 480)
    assert parameters == sum(p.numel() for p in MODELS["unet"](3, 2, False, c).parameters())


def test_valid_convolutions_are_counted_at_a_legal_size():
    _, operations, side = cost("unet_original", {"in_channels": 3, "num_classes": 2, "base_c": 1})
    assert side == 476 and operations > 0


def test_of_a_unet_plus_plus_only_what_predicts_is_counted():
    kwargs = {"in_channels": 3, "num_classes": 2, "base_c": 2}
    assert (
        cost("unet_plus_plus", kwargs)[1]
        == cost("unet_plus_plus", {**kwargs, "deep_supervision": False})[1]
    )


def test_the_table_has_a_line_for_each_model():
    kwargs = {"in_channels": 3, "num_classes": 2}
    lines = model_table((name, kwargs) for name in MODELS).splitlines()
    assert "480×480" in lines[0] and len(lines) == 1 + len(MODELS)
    by_name = {line.split()[0]: line for line in lines[1:]}
    assert by_name.keys() == MODELS.keys()
    assert "17,263,042" in by_name["unet"] and "arXiv:1505.04597" in by_name["unet"]
    assert "counted at 64×64×64" in by_name["unet_3d"]
    assert "counted at 476×476, of which 292² come out" in by_name["unet_original"]

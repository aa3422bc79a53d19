"""The residual U-Net is table 1 of Zhang et al. 2018, made of pre-activation units."""

import pytest
import torch
from torch import nn

from src import ResUNet
from src.resunet import ResidualUnit, upsample_and_concat

# Table 1: (filters, stride, side of the output) of the 15 convolutions, for an image of 224 px.
TABLE_1 = [
    (64, 1, 224),
    (64, 1, 224),
    (128, 2, 112),
    (128, 1, 112),
    (256, 2, 56),
    (256, 1, 56),
    (512, 2, 28),
    (512, 1, 28),
    (256, 1, 56),
    (256, 1, 56),
    (128, 1, 112),
    (128, 1, 112),
    (64, 1, 224),
    (64, 1, 224),
    (1, 1, 224),
]


def convolutions(model):
    """The convolutions of the table, which does not list the 1×1 of the shortcuts."""
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and "shortcut" not in name
    ]


def test_sizes_of_table_1():
    with torch.device("meta"):
        model, found = ResUNet(3, 1), []
        for conv in convolutions(model):
            conv.register_forward_hook(
                lambda conv, args, output: found.append(
                    (len(conv.weight), conv.stride[0], *output.shape[-2:])
                )
            )
        model(torch.empty(1, 3, 224, 224))
    assert found == [(*row, row[-1]) for row in TABLE_1]
    assert {conv.kernel_size for conv in convolutions(model)[:-1]} == {(3, 3)}
    assert not any(isinstance(module, nn.MaxPool2d) for module in model.modules())


def test_parameter_count():
    with torch.device("meta"):
        model = ResUNet(3, 1)
    # The paper says 7.8M. By hand: 9·in·out for 14 of the 15 convolutions, 64 + 1 for the last.
    ins = [3, 64, 64, 128, 128, 256, 256, 512, 768, 256, 384, 128, 192, 64]
    by_hand = sum(9 * a * row[0] for a, row in zip(ins, TABLE_1[:-1], strict=True)) + 65
    assert (
        sum(parameter.numel() for conv in convolutions(model) for parameter in conv.parameters())
        == by_hand
        == 7_780_097
    )
    # Also the 1×1 shortcuts, in·out each, and BatchNorm's scale and shift for the input channels of
    # all convolutions but the first and the last.
    shortcuts = sum(ins[i] * TABLE_1[i][0] for i in range(0, 14, 2))
    norms = 2 * sum(ins[1:])
    total = sum(parameter.numel() for parameter in model.parameters())
    assert total == by_hand + shortcuts + norms == 8_216_769


def test_unit_is_pre_activation_and_adds_its_input():
    torch.manual_seed(0)
    unit, x = ResidualUnit(4, 4).eval(), torch.randn(2, 4, 5, 6)
    assert [type(layer) for layer in unit.residual] == [nn.BatchNorm2d, nn.ReLU, nn.Conv2d] * 2
    assert [type(layer) for layer in ResidualUnit(3, 4, first=True).residual][:2] == [
        nn.Conv2d,
        nn.BatchNorm2d,
    ]
    before = x.clone()
    norm1, _, conv1, norm2, _, conv2 = unit.residual
    with torch.no_grad():
        expected = x + conv2(norm2(conv1(norm1(x).clamp_min(0))).clamp_min(0))
        torch.testing.assert_close(unit(x), expected)
        conv2.weight.zero_()
        assert torch.equal(unit(x), x)  # the shortcut is the identity, not an activation of it
    assert torch.equal(x, before)


def test_where_the_size_changes_the_shortcut_is_a_strided_1x1_convolution():
    unit = ResidualUnit(2, 3, stride=2)
    assert unit(torch.randn(1, 2, 7, 8)).shape == (1, 3, 4, 4)
    assert (unit.shortcut.kernel_size, unit.shortcut.stride, unit.shortcut.bias) == (
        (1, 1),
        (2, 2),
        None,
    )


@pytest.mark.parametrize("size", [(4, 6), (3, 5)], ids=str)
def test_the_skip_comes_first_and_the_deep_features_get_its_size(size):
    skip = torch.randn(1, 2, *size)
    joined = upsample_and_concat(torch.full((1, 3, 2, 3), 7.0), skip)
    assert torch.equal(joined[:, :2], skip) and joined.shape == (1, 5, *size)
    torch.testing.assert_close(joined[:, 2:], torch.full((1, 3, *size), 7.0))

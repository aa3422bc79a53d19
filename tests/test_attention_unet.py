"""The attention gates are equations 1 and 2 of the paper, on the three deeper skips of a U-Net."""

import pytest
import torch
import torch.nn.functional as F

from src import AttentionUNet, UNet
from src.attention_unet import AttentionGate


def gate_and_inputs(size=(6, 8)):
    torch.manual_seed(0)
    gate = AttentionGate(skip_channels=3, gating_channels=5, mid_channels=4)
    return gate, torch.randn(2, 3, *size), torch.randn(2, 5, size[0] // 2, size[1] // 2)


def coefficients(gate, x, g):
    """α on the gating signal's grid, pixel by pixel as the equations are written."""
    w_x, w_g, psi = (layer.weight.flatten(1) for layer in (gate.w_x, gate.w_g, gate.psi))
    alpha = torch.empty(len(x), 1, *g.shape[-2:])
    for n in range(len(x)):
        for row in range(g.shape[-2]):
            for column in range(g.shape[-1]):
                inner = (
                    w_x @ x[n, :, 2 * row, 2 * column] + w_g @ g[n, :, row, column] + gate.w_g.bias
                )
                alpha[n, 0, row, column] = torch.sigmoid(psi @ inner.clamp_min(0) + gate.psi.bias)
    return alpha


@torch.no_grad()
@pytest.mark.parametrize("size", [(6, 8), (7, 8), (9, 5)], ids=str)
def test_gate_computes_equations_1_and_2(size):
    gate, x, g = gate_and_inputs(size)
    alpha = F.interpolate(coefficients(gate, x, g), scale_factor=2, mode="bilinear")
    rows, columns = (torch.arange(side).clamp_max(side // 2 * 2 - 1) for side in size)
    alpha = alpha[..., rows, :][..., columns]  # an odd side repeats the last one
    torch.testing.assert_close(gate(x, g), alpha * x)


@torch.no_grad()
@pytest.mark.parametrize("bias, alpha", [(100.0, 1.0), (-100.0, 0.0)])
def test_an_open_gate_passes_the_skip_and_a_closed_one_passes_nothing(bias, alpha):
    gate, x, g = gate_and_inputs()
    gate.psi.bias.fill_(bias)
    torch.testing.assert_close(gate(x, g), alpha * x)


@torch.no_grad()
@pytest.mark.parametrize("bilinear", [True, False])
def test_with_open_gates_it_is_the_unet(bilinear):
    torch.manual_seed(0)
    model = AttentionUNet(3, 2, bilinear, base_c=4)  # in training mode features stay large
    plain = UNet(3, 2, bilinear, base_c=4)
    state = model.state_dict()
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    image = torch.randn(1, 3, 37, 50)
    assert not torch.allclose(model(image)["out"], plain(image)["out"], atol=0.05)
    for gate in (model.gate1, model.gate2, model.gate3):
        gate.psi.bias.fill_(100.0)
    torch.testing.assert_close(model(image)["out"], plain(image)["out"])


@torch.no_grad()
def test_the_first_skip_has_no_gate():
    """As in the paper: with all gates closed the decoder still gets the first skip, no other."""
    torch.manual_seed(0)
    model, largest = AttentionUNet(3, 2, base_c=4).eval(), []
    for gate in (model.gate1, model.gate2, model.gate3):
        gate.psi.bias.fill_(-100.0)
    for up in (model.up1, model.up2, model.up3, model.up4):
        up.register_forward_pre_hook(
            lambda module, args: largest.append(args[1].abs().max().item())
        )
    model(torch.randn(1, 3, 32, 32))
    assert largest[:3] == pytest.approx([0, 0, 0], abs=1e-6) and largest[3] > 0.1


@pytest.mark.parametrize("bilinear", [True, False])
def test_parameter_count(bilinear):
    # Those of UNet at base 16, and for each gate F·C_x + F·C_g + F (b_g) + F (ψ) + 1 (b_ψ), with
    # F = C_x = 128, 64, 32 channels of the skip and C_g = 256, 128, 64 of the level below, half of
    # them with bilinear upsampling.
    factor = 1 if bilinear else 2
    gates = sum(f * f + f * factor * f + 2 * f + 1 for f in (128, 64, 32))
    with torch.device("meta"):
        models = AttentionUNet(3, 2, bilinear), UNet(3, 2, bilinear, base_c=16)
    counts = [sum(parameter.numel() for parameter in model.parameters()) for model in models]
    assert counts[0] - counts[1] == gates
    if not bilinear:
        assert counts[0] == 2_007_557

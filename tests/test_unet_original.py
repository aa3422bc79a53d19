"""The published U-Net: sizes of figure 1 layer by layer, its initialization, and tiles whose seams
do not show."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from src import UNetOriginal
from src.blocks import centre_crop
from src.inference import predict_probs
from src.tiles import overlap_tile, reflected_indices
from src.unet_original import tile_side, valid_input_side

# Side of the feature maps after each convolution, pooling and up-convolution for an input of
# 572 px, as written in figure 1 of the paper, and their channels.
SIDES = [570, 568, 284, 282, 280, 140, 138, 136, 68, 66, 64, 32, 30, 28]
SIDES += [56, 54, 52, 104, 102, 100, 200, 198, 196, 392, 390, 388, 388]
WIDTHS = [64] * 3 + [128] * 3 + [256] * 3 + [512] * 3 + [1024] * 2
WIDTHS += [512] * 3 + [256] * 3 + [128] * 3 + [64] * 3 + [2]


def small(**kwargs):
    torch.manual_seed(0)
    return UNetOriginal(**{"in_channels": 3, "base_c": 2, **kwargs}).eval()


def random_image(*size):
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits_of(model, image):
    return model(image)["out"]


def test_parameter_count():
    # By hand from figure 1: a 3×3 convolution has 9·in·out + out parameters, an up-convolution
    # 4·in·out + out, the 1×1 convolution 64·2 + 2.
    widths = [1, 64, 64, 128, 128, 256, 256, 512, 512, 1024, 1024]  # on the way down
    pairs = list(pairwise(widths))
    for width in (512, 256, 128, 64):  # on the way up, after concatenation
        pairs += [(2 * width, width), (width, width)]
    ups = [(1024, 512), (512, 256), (256, 128), (128, 64)]
    by_hand = sum(9 * a * b + b for a, b in pairs) + sum(4 * a * b + b for a, b in ups) + 64 * 2 + 2
    with torch.device("meta"):
        model = UNetOriginal()
    assert sum(parameter.numel() for parameter in model.parameters()) == by_hand == 31_030_658


def test_sizes_of_figure_1_layer_by_layer():
    with torch.device("meta"):
        model, image = UNetOriginal().train(), torch.empty(1, 1, 572, 572)
    shapes = []
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d)
    layers = [module for module in model.modules() if isinstance(module, kinds)]
    for layer in layers:
        layer.register_forward_hook(
            lambda layer, args, output: shapes.append(tuple(output.shape[1:]))
        )
    assert model(image)["out"].shape == (1, 2, 388, 388)
    assert shapes == [(width, side, side) for width, side in zip(WIDTHS, SIDES, strict=True)]
    convolutions = [layer for layer in layers if not isinstance(layer, nn.MaxPool2d)]
    assert len(convolutions) == 23  # section 2 of the paper


def test_layers_are_convolution_and_relu_and_nothing_else():
    kinds = {type(module) for module in small().modules() if not list(module.children())}
    assert kinds == {nn.Conv2d, nn.ConvTranspose2d, nn.ReLU, nn.MaxPool2d, nn.Dropout}


def test_weights_are_initialized_with_the_standard_deviation_of_he():
    torch.manual_seed(0)
    for module in UNetOriginal(base_c=16).modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            assert module.bias.count_nonzero() == 0
            inputs = module.in_channels
            if module.kernel_size == (3, 3):
                inputs *= 9  # e.g. 9·64 = 576, as in the paper
            if module.weight.numel() > 5000:
                assert module.weight.std().item() == pytest.approx(math.sqrt(2 / inputs), rel=0.05)


def test_dropout_is_active_only_in_training_mode():
    model, image, dropped = small(), random_image(188, 188), []
    model.dropout.register_forward_hook(
        lambda module, args, output: dropped.append(output.shape[1])
    )
    logits_of(model, image[..., :10, :10])
    # Channels of the last two levels of the contracting path at base 2.
    assert model.dropout.p == 0.5 and dropped == [16, 32]
    assert torch.equal(logits_of(model, image), logits_of(model, image))
    model.train()
    assert not torch.equal(logits_of(model, image), logits_of(model, image))


# --- training: the image's centre ---------------------------------------------------------------


@pytest.mark.parametrize(
    "side, valid",
    [(188, 188), (203, 188), (204, 204), (256, 252), (288, 284), (480, 476), (572, 572)],
)
def test_training_crops_to_the_next_valid_size(side, valid):
    assert valid_input_side(side) == valid
    with torch.device("meta"):
        output = small().to("meta").train()(torch.empty(2, 3, side, 204))["out"]
    assert output.shape == (2, 2, valid - 184, 20)


def test_image_too_small_for_training_is_refused_with_the_minimum():
    with pytest.raises(ValueError, match=r"training mode.*188×188.*\(187, 300\)"):
        small().train()(torch.zeros(1, 3, 187, 300))


@pytest.mark.parametrize("side", [188, 189, 199, 203])
def test_the_output_belongs_to_the_centre_of_the_target(side):
    """With the central weights of each filter alone, and only the first skip, an output pixel
    depends on a single pixel of the image: its own."""
    model, image = small(base_c=4).train(), torch.rand(1, 3, side, side, requires_grad=True)
    model.up4.up.weight.data.zero_()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            middle = module.kernel_size[0] // 2
            central = module.weight.data[:, :, middle, middle].abs()
            module.weight.data.zero_()[:, :, middle, middle] = central
    output = model(image)["out"]
    target = centre_crop(torch.arange(side * side).view(side, side), output.shape[-2:])
    for y, x in ((0, 0), (1, 3)):
        (gradient,) = torch.autograd.grad(output[0, 0, y, x], image, retain_graph=True)
        assert gradient.sum((0, 1)).flatten().nonzero().flatten().tolist() == [target[y, x]]


# --- inference: overlap-tile --------------------------------------------------------------------


def test_reflected_indices_by_hand():
    assert reflected_indices(-3, 11, 4).tolist() == [3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]
    assert reflected_indices(-2, 5, 1).tolist() == [0, 0, 0, 0, 0]
    assert reflected_indices(-3, 6, 2).tolist() == [1, 0, 1, 0, 1, 0]


def test_borders_are_mirrored():
    """100 px and two mirrored margins of 92 px are 284 = 16·14 + 60 px: one tile."""
    model, image = small(), random_image(100, 100)
    with torch.no_grad():
        expected = model.valid(F.pad(image, [92] * 4, mode="reflect"))
    torch.testing.assert_close(logits_of(model, image), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(32, 32), (1, 7), (36, 37), (100, 68), (150, 33)], ids=str)
def test_the_result_does_not_depend_on_the_tiles(size):
    model, image = small(), random_image(*size)
    whole = logits_of(model, image)
    assert whole.shape[-2:] == size
    for tile_output in (36, 68, 100):
        model.tile_output = tile_output
        torch.testing.assert_close(logits_of(model, image), whole, atol=1e-4, rtol=1e-4)


def test_memory_is_bounded_by_the_tile():
    model, sizes = small(base_c=1), []
    model.in_conv.register_forward_pre_hook(
        lambda module, args: sizes.append(tuple(args[0].shape[-2:]))
    )
    assert logits_of(model, random_image(900, 700)).shape == (1, 2, 900, 700)
    # 900 px are 3 · 300 and 700 px are 2 · 348 + 4: the smallest valid tiles, no more of them than
    # outputs of 388 px would need.
    assert sizes == [(16 * 19 + 4 + 184, 16 * 22 + 4 + 184)] * 6
    assert max(max(size) for size in sizes) <= 572


@pytest.mark.parametrize("side", [1, 4, 5, 32, 388, 389, 565, 772, 773, 5000])
def test_tiles_are_valid_and_cover_the_image(side):
    tile = tile_side(side, 388)
    output, tiles = tile - 184, max(math.ceil((side - 4) / 384), 1)
    assert 188 <= tile <= 572 and valid_input_side(tile) == tile
    assert (tiles - 1) * (output - 4) + output >= side


def test_each_tile_is_put_in_its_place():
    """A network that only crops returns the image, whatever the tiles."""
    image = random_image(23, 41)
    for tile, stride in (((12, 14), 1), ((12, 14), 4), ((40, 60), 8)):
        result = overlap_tile(lambda part: part[..., 3:-3, 3:-3], image, tile, 3, stride)
        assert torch.equal(result, image)


def test_predict_probs_gives_a_full_size_result():
    probs = predict_probs(small(num_classes=4), random_image(20, 70))
    assert probs.shape == (1, 4, 20, 70)
    torch.testing.assert_close(probs.sum(1), torch.ones(1, 20, 70))

"""The published U-Net: sizes of figure 1 layer by layer, weights as drawn there, tiles that leave no trace."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from src import UNetOriginal
from src.blocks import centre_crop
from src.inference import mirrored, overlap_tile, predict_probs
from src.unet_original import legal_side, tile_side

# Side of the maps after each convolution, pooling and up-convolution for a 572 px input, as written in the paper's figure 1.
FIGURE_1 = [
    570,
    568,
    284,
    282,
    280,
    140,
    138,
    136,
    68,
    66,
    64,
    32,
    30,
    28,
    56,
    54,
    52,
    104,
    102,
    100,
    200,
    198,
    196,
    392,
    390,
    388,
    388,
]
WIDTHS = [
    64,
    64,
    64,
    128,
    128,
    128,
    256,
    256,
    256,
    512,
    512,
    512,
    1024,
    1024,
    512,
    512,
    512,
    256,
    256,
    256,
    128,
    128,
    128,
    64,
    64,
    64,
    2,
]


def small(**kwargs):
    torch.manual_seed(0)
    return UNetOriginal(**{"in_channels": 3, "base_c": 2, **kwargs}).eval()


def random_image(*size):
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits_of(model, image):
    return model(image)["out"]


def test_parameter_count():
    # Counted by hand from figure 1: 3×3 convolutions 9·in·out + out, up-convolutions 4·in·out + out, 1×1 64·2 + 2.
    pairs = [
        (1, 64),
        (64, 64),
        (64, 128),
        (128, 128),
        (128, 256),
        (256, 256),
        (256, 512),
        (512, 512),
        (512, 1024),
        (1024, 1024),
        (1024, 512),
        (512, 512),
        (512, 256),
        (256, 256),
        (256, 128),
        (128, 128),
        (128, 64),
        (64, 64),
    ]
    ups = [(1024, 512), (512, 256), (256, 128), (128, 64)]
    by_hand = sum(9 * a * b + b for a, b in pairs) + sum(4 * a * b + b for a, b in ups) + 64 * 2 + 2
    with torch.device("meta"):
        model = UNetOriginal()
    assert sum(parameter.numel() for parameter in model.parameters()) == by_hand == 31_030_658


def test_sizes_of_figure_1_layer_by_layer():
    with torch.device("meta"):
        model, image = UNetOriginal().train(), torch.empty(1, 1, 572, 572)
    seen = []
    layers = [
        m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d))
    ]
    for layer in layers:
        layer.register_forward_hook(
            lambda layer, args, output: seen.append(tuple(output.shape[1:]))
        )
    assert model(image)["out"].shape == (1, 2, 388, 388)
    assert seen == [(width, side, side) for width, side in zip(WIDTHS, FIGURE_1, strict=True)]
    assert (
        sum(not isinstance(layer, nn.MaxPool2d) for layer in layers) == 23
    )  # as section 2 of the paper counts them


def test_layers_are_convolution_and_relu_and_nothing_else():
    kinds = {type(module) for module in small().modules() if not list(module.children())}
    assert kinds == {nn.Conv2d, nn.ConvTranspose2d, nn.ReLU, nn.MaxPool2d, nn.Dropout}


def test_weights_are_drawn_with_he_s_deviation():
    torch.manual_seed(0)
    for module in UNetOriginal(base_c=16).modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            assert module.bias.count_nonzero() == 0
            inputs = module.in_channels * (
                9 if module.kernel_size == (3, 3) else 1
            )  # e.g. 9·64 = 576, as the paper counts
            if module.weight.numel() > 5000:
                assert module.weight.std().item() == pytest.approx(math.sqrt(2 / inputs), rel=0.05)


def test_dropout_works_in_training_alone():
    model, image, dropped = small(), random_image(188, 188), []
    model.dropout.register_forward_hook(
        lambda module, args, output: dropped.append(output.shape[1])
    )
    logits_of(model, image[..., :10, :10])
    assert model.dropout.p == 0.5 and dropped == [
        16,
        32,
    ]  # the last two levels of the contracting path, base 2
    assert torch.equal(logits_of(model, image), logits_of(model, image))
    model.train()
    assert not torch.equal(logits_of(model, image), logits_of(model, image))


# --- training: the centre of what is there ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "side, legal",
    [(188, 188), (203, 188), (204, 204), (256, 252), (288, 284), (480, 476), (572, 572)],
)
def test_in_training_sizes_are_cropped_to_the_next_legal_one(side, legal):
    assert legal_side(side) == legal
    with torch.device("meta"):
        output = small().to("meta").train()(torch.empty(2, 3, side, 204))["out"]
    assert output.shape == (2, 2, legal - 184, 20)


def test_too_small_for_training_is_refused_with_the_least_size():
    with pytest.raises(ValueError, match="at least 188×188.* 187"):
        small().train()(torch.zeros(1, 3, 187, 300))


@pytest.mark.parametrize("side", [188, 189, 199, 203])
def test_the_centre_of_the_target_is_what_the_output_judges(side):
    """With the central taps alone, and only the uppermost skip, an output pixel sees the one pixel that it judges."""
    model, image = small(base_c=4).train(), torch.rand(1, 3, side, side, requires_grad=True)
    model.up4.up.weight.data.zero_()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            middle = module.kernel_size[0] // 2
            taps = module.weight.data[:, :, middle, middle].abs()
            module.weight.data.zero_()[:, :, middle, middle] = taps
    output = model(image)["out"]
    target = centre_crop(torch.arange(side * side).view(side, side), output.shape[-2:])
    for y, x in ((0, 0), (1, 3)):
        (gradient,) = torch.autograd.grad(output[0, 0, y, x], image, retain_graph=True)
        assert gradient.sum((0, 1)).flatten().nonzero().flatten().tolist() == [target[y, x]]


# --- inference: overlap-tile ------------------------------------------------------------------------------------------


def test_mirrored_positions_by_hand():
    assert mirrored(-3, 11, 4).tolist() == [3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]
    assert mirrored(-2, 5, 1).tolist() == [0, 0, 0, 0, 0]
    assert mirrored(-3, 6, 2).tolist() == [1, 0, 1, 0, 1, 0]


def test_borders_are_mirrored():
    """100 px and 2 · 92 px of mirror image are 284 = 16·14 + 60 px, one tile."""
    model, image = small(), random_image(100, 100)
    with torch.no_grad():
        expected = model.valid(F.pad(image, [92] * 4, mode="reflect"))
    torch.testing.assert_close(logits_of(model, image), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(32, 32), (1, 7), (36, 37), (100, 68), (150, 33)], ids=str)
def test_the_cut_into_tiles_leaves_no_trace(size):
    model, image = small(), random_image(*size)
    whole = logits_of(model, image)
    assert whole.shape[-2:] == size
    for tile_output in (36, 68, 100):
        model.tile_output = tile_output
        torch.testing.assert_close(logits_of(model, image), whole, atol=1e-4, rtol=1e-4)


def test_memory_is_bounded_by_the_tile():
    model, seen = small(base_c=1), []
    model.in_conv.register_forward_pre_hook(
        lambda module, args: seen.append(tuple(args[0].shape[-2:]))
    )
    assert logits_of(model, random_image(900, 700)).shape == (1, 2, 900, 700)
    # 900 px are 3 · 300 and 700 px are 2 · 348 + 4: the least legal tiles with as few of them as 388 px outputs would need
    assert seen == [(16 * 19 + 4 + 184, 16 * 22 + 4 + 184)] * 6
    assert max(max(size) for size in seen) <= 572


@pytest.mark.parametrize("side", [1, 4, 5, 32, 388, 389, 565, 772, 773, 5000])
def test_tiles_are_legal_and_cover_the_image(side):
    tile = tile_side(side, 388)
    output, tiles = tile - 184, max(math.ceil((side - 4) / 384), 1)
    assert 188 <= tile <= 572 and legal_side(tile) == tile
    assert (tiles - 1) * (output - 4) + output >= side


def test_an_image_s_tiles_are_put_where_they_belong():
    """A network that only crops gives the image back, whatever the tiles."""
    image = random_image(23, 41)
    for tile, grid in (((12, 14), 1), ((12, 14), 4), ((40, 60), 8)):
        assert torch.equal(
            overlap_tile(lambda part: part[..., 3:-3, 3:-3], image, tile, 3, grid), image
        )


def test_predict_probs_gives_a_full_size_result():
    probs = predict_probs(small(num_classes=4), random_image(20, 70))
    assert probs.shape == (1, 4, 20, 70)
    torch.testing.assert_close(probs.sum(1), torch.ones(1, 20, 70))

"""The U-Net has the tutorials' parameters and names, takes every size ≥ 16, and can be trained."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from src import MODELS, UNet, build_model
from src.blocks import Up, pad_to
from train_utils import criterion

BOTH = pytest.mark.parametrize("bilinear", [True, False], ids=["bilinear", "transposed"])
SIZES = [(16, 16), (17, 31), (37, 53), (64, 48), (16, 100)]


def small_unet(bilinear=True, **kwargs):
    torch.manual_seed(0)
    return UNet(**{"in_channels": 3, "num_classes": 2, "bilinear": bilinear, "base_c": 8, **kwargs})


def random_batch(num_images=2, size=(32, 32)):
    torch.manual_seed(1)
    return torch.randn(num_images, 3, *size), torch.randint(2, (num_images, *size))


# Parameter counts of the tutorials' code, with 3 channels and 2 classes.
@pytest.mark.parametrize("bilinear, expected", [(False, 31_037_698), (True, 17_263_042)])
def test_parameter_count(bilinear, expected):
    with torch.device("meta"):
        model = UNet(3, 2, bilinear, base_c=64)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_defaults_are_those_of_the_tutorials():
    with torch.device("meta"):
        model = UNet()
    assert model.in_conv[0].weight.shape == (64, 1, 3, 3)
    assert model.out_conv[0].weight.shape == (2, 64, 1, 1)
    assert isinstance(model.up1.up, nn.Upsample)


@BOTH
def test_state_dict_keys_are_those_of_the_tutorials(bilinear):
    blocks = (
        ["in_conv"] + [f"down{i}.1" for i in range(1, 5)] + [f"up{i}.conv" for i in range(1, 5)]
    )
    expected = {"out_conv.0.weight", "out_conv.0.bias"}
    for block in blocks:
        for conv, norm in ((0, 1), (3, 4)):
            expected.add(f"{block}.{conv}.weight")  # and no bias: BatchNorm follows
            expected |= {
                f"{block}.{norm}.{name}"
                for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
            }
    if not bilinear:
        expected |= {f"up{i}.up.{name}" for i in range(1, 5) for name in ("weight", "bias")}
    assert set(small_unet(bilinear).state_dict()) == expected


@BOTH
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_output_has_the_size_of_the_image(bilinear, size):
    model = small_unet(bilinear, in_channels=1, num_classes=5, base_c=4).eval()
    output = model(torch.randn(2, 1, *size))
    assert list(output) == ["out"]
    assert output["out"].shape == (2, 5, *size) and output["out"].dtype == torch.float32


@BOTH
@pytest.mark.parametrize("size", [(15, 16), (16, 15), (15, 200), (1, 1)], ids=str)
def test_image_below_16_pixels_is_refused_with_its_size(bilinear, size):
    with pytest.raises(ValueError, match=rf"16×16.*\({size[0]}, {size[1]}\)"):
        small_unet(bilinear).eval()(torch.randn(1, 3, *size))


@BOTH
def test_every_parameter_gets_a_gradient(bilinear):
    model = small_unet(bilinear)
    image, target = random_batch()
    criterion(model(image), target).backward()
    without = [
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert without == []


@BOTH
def test_a_step_lowers_the_loss(bilinear):
    model = small_unet(bilinear)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    image, target = random_batch()
    losses = []
    for _ in range(2):
        loss = criterion(model(image), target)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[1] < losses[0]


def test_eval_mode_is_deterministic_and_treats_each_image_alone():
    model = small_unet().eval()
    image, _ = random_batch(3)
    with torch.no_grad():
        first, again, alone = model(image)["out"], model(image)["out"], model(image[1:2])["out"]
    assert torch.equal(first, again)
    torch.testing.assert_close(first[1:2], alone, atol=1e-5, rtol=0)


@BOTH
def test_bfloat16_autocast_is_close_to_float32(bilinear):
    model = small_unet(bilinear).eval()
    image, _ = random_batch(1, (33, 48))
    with torch.no_grad():
        exact = model(image)["out"].softmax(1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(image)["out"]
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float().softmax(1), exact, atol=0.02, rtol=0)


@BOTH
def test_without_norm_the_convolutions_have_a_bias(bilinear):
    model = small_unet(bilinear, norm=False)
    convolutions = [
        module
        for module in model.modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
    ]
    assert len(convolutions) == 18 and all(conv.bias is not None for conv in convolutions)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert model.eval()(torch.randn(1, 3, 17, 31))["out"].shape == (1, 2, 17, 31)


# BatchNorm has a scale and a shift per output of a convolution. A bias instead is one parameter
# less per output, a bias in addition one more. Outputs at base 64: 2 · (64 + 128 + 256 + 512) on
# the way down, the same on the way up, and 2 · 1024 at the bottom, which sums to 5,888.
@pytest.mark.parametrize(
    "options, more",
    [
        ({"norm": False}, -5888),
        ({"bias": True}, 5888),
        ({"norm": False, "bias": False}, -11776),
        ({"bias": False}, 0),
    ],
    ids=str,
)
def test_parameter_count_with_other_norm_and_bias(options, more):
    with torch.device("meta"):
        model = UNet(3, 2, bilinear=False, **options)
    assert sum(parameter.numel() for parameter in model.parameters()) == 31_037_698 + more


# Weights trained with the tutorials' code give the same results only if the next two tests pass.
def test_up_puts_the_skip_before_the_upsampled_features():
    up = Up(4, 2)
    up.conv = nn.Identity()
    deep, skip = torch.randn(1, 2, 4, 5), torch.randn(1, 2, 8, 10)
    joined = up(deep, skip)
    assert torch.equal(joined[:, :2], skip)
    assert torch.equal(
        joined[:, 2:], F.interpolate(deep, scale_factor=2, mode="bilinear", align_corners=True)
    )


def test_pixels_are_upsampled_alike_at_any_size_without_align_corners():
    """The tutorials' way, the default, is not: crops and whole images differ."""
    deep = torch.randn(1, 2, 12, 12)
    for align_corners, alike in ((False, True), (True, False)):
        up = Up(4, 2, align_corners=align_corners).up
        part, whole = up(deep[..., :6, :6]), up(deep)
        assert torch.allclose(part[..., :11, :11], whole[..., :11, :11], atol=1e-6) == alike


def test_odd_sizes_are_padded_with_zeros_at_the_lower_right():
    padded = pad_to(torch.ones(1, 1, 2, 2), (3, 3))
    expected = torch.zeros(3, 3)
    expected[:2, :2] = 1
    assert torch.equal(padded[0, 0], expected)


def test_what_is_too_large_is_cropped_at_the_lower_right():
    """Upsampled features exceed a skip of odd size, as in MobileNetV3."""
    features = torch.arange(12.0).view(1, 1, 3, 4)
    assert torch.equal(pad_to(features, (2, 3)), features[..., :2, :3])
    assert torch.equal(pad_to(features, (2, 5))[..., :4], features[..., :2, :])
    assert pad_to(features, (3, 4)) is features  # no copy


def test_build_model_builds_the_class_in_the_table():
    model = build_model("unet", in_channels=3, num_classes=4, bilinear=False, base_c=2)
    assert type(model) is MODELS["unet"] is UNet
    assert model.out_conv[0].out_channels == 4


def test_build_model_lists_the_known_names():
    with pytest.raises(ValueError, match="'resnet'.*unet"):
        build_model("resnet")

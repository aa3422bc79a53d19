"""The encoders are torchvision's, with the tutorials' names; errors in ImageNet weights name the
file."""

import urllib.error
from itertools import pairwise

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import MobileNet_V3_Large_Weights, VGG16_BN_Weights
from torchvision.models.vgg import cfgs, make_layers

from src import MobileV3Unet, VGG16UNet
from src.encoder import IMAGENET_MEAN, IMAGENET_STD, Stages, adapt_first_conv
from src.errors import UserError

BOTH = pytest.mark.parametrize(
    "build, weights",
    [
        (VGG16UNet, VGG16_BN_Weights.IMAGENET1K_V1),
        (MobileV3Unet, MobileNet_V3_Large_Weights.IMAGENET1K_V1),
    ],
    ids=["vgg", "mobile"],
)
NORM = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]


def double_conv(a, m, b):
    """Parameters of two 3×3 convolutions a → m → b, each with BatchNorm's scale and shift."""
    return 9 * a * m + 2 * m + 9 * m * b + 2 * b


def decoder(channels, num_classes):
    """Parameters of four bilinear Ups and of the 1×1 convolution."""
    ups = sum(double_conv(a + b, (a + b) // 2, a) for a, b in pairwise(channels))
    return ups + channels[0] * num_classes + num_classes


def count(build, num_classes=2):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(num_classes).parameters())


def test_parameter_count_of_vgg16_unet():
    # torchvision states 138,365,992 for vgg16_bn. Its classifier has 25088·4096 + 4096·4096 +
    # 4096·1000 weights, and biases.
    classifier = 25088 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 1000 + 1000
    assert VGG16_BN_Weights.IMAGENET1K_V1.meta["num_params"] == 138_365_992
    assert (
        count(VGG16UNet)
        == 138_365_992 - classifier + decoder([64, 128, 256, 512, 512], 2)
        == 26_450_306
    )


def test_parameter_count_of_mobilenetv3_unet():
    # torchvision states 5,483,032. The encoder lacks the classifier (960·1280 and 1280·1000
    # weights, and biases) and the last convolution 160 → 960 with its norm.
    rest = 960 * 1280 + 1280 + 1280 * 1000 + 1000 + 160 * 960 + 2 * 960
    assert MobileNet_V3_Large_Weights.IMAGENET1K_V1.meta["num_params"] == 5_483_032
    assert count(MobileV3Unet) == 5_483_032 - rest + decoder([16, 24, 40, 112, 160], 2) == 3_454_146


@BOTH
def test_names_of_the_weights_are_the_tutorials(build, weights):
    with torch.device("meta"):
        model = build(2)
        classifier = (
            torchvision.models.vgg16_bn()
            if build is VGG16UNet
            else torchvision.models.mobilenet_v3_large()
        )
    last = 42 if build is VGG16UNet else 15
    encoder = {
        f"backbone.{name}"
        for name in classifier.features.state_dict()
        if int(name.split(".")[0]) <= last
    }
    layers = {0: ["weight"], 1: NORM, 3: ["weight"], 4: NORM}
    ups = {
        f"up{i}.conv.{layer}.{name}"
        for i in range(1, 5)
        for layer, names in layers.items()
        for name in names
    }
    assert model.state_dict().keys() == encoder | ups | {"conv.0.weight", "conv.0.bias"}


@pytest.mark.parametrize(
    "build, channels, sides",
    [
        (VGG16UNet, [64, 128, 256, 512, 512], [64, 32, 16, 8, 4]),
        (MobileV3Unet, [16, 24, 40, 112, 160], [32, 16, 8, 4, 2]),
    ],
)
def test_stages_have_the_tutorials_channels(build, channels, sides):
    with torch.device("meta"):
        stages = build(2).eval().backbone(torch.empty(1, 3, 64, 64))
    assert [tuple(stage.shape[1:]) for stage in stages] == [
        (c, side, side) for c, side in zip(channels, sides, strict=True)
    ]


@torch.no_grad()
@pytest.mark.parametrize(
    "build, indices", [(VGG16UNet, [5, 12, 22, 32, 42]), (MobileV3Unet, [1, 3, 6, 12, 15])]
)
def test_the_decoder_gets_the_layers_with_the_tutorials_indices(build, indices):
    model, layers, skips = build(2).eval(), [], []
    for layer in model.backbone:
        layer.register_forward_hook(lambda module, args, output: layers.append(output))
    for up in (model.up1, model.up2, model.up3, model.up4):
        up.register_forward_pre_hook(lambda module, args: skips.append(args[1]))
    model.up1.register_forward_pre_hook(lambda module, args: skips.append(args[0]))
    model(torch.randn(1, 3, 32, 32))
    deepest, skips = skips[1], [skips[0], *skips[2:]]
    assert len(layers) == indices[-1] + 1
    assert all(
        found is layers[index]
        for found, index in zip([deepest, *skips], reversed(indices), strict=True)
    )


def test_stages_are_the_outputs_of_the_numbered_layers():
    class Add(nn.Module):
        def forward(self, x):
            return x + 1

    assert Stages([Add() for _ in range(9)], [0, 3, 5])(0) == [1, 4, 6]


# --- ImageNet weights ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory):
    """A TORCH_HOME with a small file of random weights instead of the 528 MB of vgg16_bn."""
    torch.manual_seed(3)
    return place(
        tmp_path_factory.mktemp("vgg"),
        VGG16_BN_Weights.IMAGENET1K_V1,
        make_layers(cfgs["D"], batch_norm=True),
    )


@pytest.fixture(scope="module")
def mobile_file(tmp_path_factory):
    torch.manual_seed(3)
    return place(
        tmp_path_factory.mktemp("mobile"),
        MobileNet_V3_Large_Weights.IMAGENET1K_V1,
        torchvision.models.mobilenet_v3_large().features,
    )


def place(home, weights, features):
    """Writes the weights where torchvision keeps the downloaded file; returns TORCH_HOME."""
    for name, value in features.state_dict().items():
        if name.endswith("running_mean"):
            value.uniform_(-1, 1)
    folder = home / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    state = {f"features.{name}": value for name, value in features.state_dict().items()}
    torch.save(
        state | {"classifier.0.weight": torch.zeros(1)}, folder / weights.url.rsplit("/")[-1]
    )
    return home


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)


@BOTH
def test_pretrained_weights_come_from_the_file(build, weights, request, monkeypatch):
    home = request.getfixturevalue("vgg_file" if build is VGG16UNet else "mobile_file")
    monkeypatch.setenv("TORCH_HOME", str(home))
    model = build(2, pretrain_backbone=True)
    file = torch.load(home / "hub/checkpoints" / weights.url.rsplit("/")[-1])
    state = model.state_dict()
    loaded = {name for name in state if name.startswith("backbone.")}
    assert len(loaded) > 50
    for name in loaded:
        assert torch.equal(state[name], file[name.replace("backbone.", "features.")])
    name = "backbone.3.weight" if build is VGG16UNet else "backbone.0.0.weight"
    assert not torch.equal(build(2).state_dict()[name], state[name])


def test_for_one_channel_the_rgb_filters_are_summed(mobile_file, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(mobile_file))
    rgb, grey = (
        MobileV3Unet(2, pretrain_backbone=True, in_channels=channels).backbone[0].eval()
        for channels in (3, 1)
    )
    image = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(grey(image), rgb(image.expand(1, 3, 32, 32)))
    with pytest.raises(UserError, match="3 channels or of 1, not of 4"):
        MobileV3Unet(2, pretrain_backbone=True, in_channels=4)


def test_a_bias_is_kept_for_one_channel():
    conv = nn.Conv2d(3, 5, 3, padding=1)
    image = torch.randn(1, 1, 8, 8)
    torch.testing.assert_close(
        adapt_first_conv(conv, 1, pretrained=True)(image), conv(image.expand(1, 3, 8, 8))
    )
    assert adapt_first_conv(conv, 3, pretrained=True) is conv
    assert adapt_first_conv(conv, 7, pretrained=False).weight.shape == (5, 7, 3, 3)


@BOTH
def test_offline_the_message_names_the_file_and_the_folder(build, weights, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError) as error:
        build(2, pretrain_backbone=True)
    message = str(error.value)
    assert (
        weights.url in message
        and str(tmp_path / "hub" / "checkpoints") in message
        and "no network" in message
    )
    assert "\n" not in message


@pytest.mark.parametrize(
    "content, named",
    [
        (b"cut short", "cannot be read as ImageNet weights"),
        (None, "holds the weights of another network"),
    ],
)
def test_a_wrong_file_is_named(content, named, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = (
        tmp_path / "hub/checkpoints" / MobileNet_V3_Large_Weights.IMAGENET1K_V1.url.rsplit("/")[-1]
    )
    path.parent.mkdir(parents=True)
    if content:
        path.write_bytes(content)
    else:
        torch.save({"features.0.weight": torch.zeros(3)}, path)
    with pytest.raises(UserError, match=named) as error:
        MobileV3Unet(2, pretrain_backbone=True)
    assert str(path) in str(error.value)


def test_mean_and_std_are_those_of_torchvision():
    for weights in (VGG16_BN_Weights.IMAGENET1K_V1, MobileNet_V3_Large_Weights.IMAGENET1K_V1):
        preset = weights.transforms()
        assert (preset.mean, preset.std) == (IMAGENET_MEAN, IMAGENET_STD)

"""A model with BatchNorm folded into its convolutions predicts the same, with fewer layers."""

import copy

import pytest
import torch
from torch import nn

from src import MODELS, build_model
from src.fold_batchnorm import fold_batchnorm
from src.inference import Ensemble, Flips

# Each model: options that make it small, and how many BatchNorm remain. These have no convolution
# before them: in resunet those at the start of a residual unit, of all units but the first.
CASES = {
    "attention_unet": ({"base_c": 4}, 0),
    "mobilenetv3_unet": ({}, 0),
    "resunet": ({"base_c": 4}, 6),
    "unet": ({"base_c": 4}, 0),
    "unet_3d": ({"base_c": 2}, 0),
    "unet_original": ({"base_c": 4}, 0),
    "unet_plus_plus": ({"base_c": 4}, 0),
    "vgg16_unet": ({}, 0),
}
BATCH_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)


def trained(model, seed=0):
    """The model in eval mode, with BatchNorm as it could be after training."""
    generator = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, BATCH_NORMS):
            for values in (layer.weight.data, layer.running_var):
                values.copy_(0.5 + torch.rand(values.shape, generator=generator))
            for values in (layer.bias.data, layer.running_mean):
                values.copy_(torch.randn(values.shape, generator=generator))
    return model.eval()


def small(name, seed=0, **options):
    torch.manual_seed(seed)
    kwargs = {"in_channels": 3, "num_classes": 2, **CASES[name][0], **options}
    return trained(build_model(name, **kwargs), seed)


def random_image(*sides):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, 3, *sides, generator=generator)


def count_batchnorm(model):
    return sum(isinstance(layer, BATCH_NORMS) for layer in model.modules())


@torch.no_grad()
def difference_after_folding(model, image):
    """The largest difference of the logits, and that of a model folded wrongly: without BatchNorm.

    Both are relative to the largest logit.
    """
    before = model(image)["out"]
    without = copy.deepcopy(model)
    for layer in without.modules():
        if isinstance(layer, nn.Sequential):
            for index, each in enumerate(layer):
                if isinstance(each, BATCH_NORMS):
                    layer[index] = nn.Identity()
    wrong = without(image)["out"]
    assert fold_batchnorm(model) is model
    after = model(image)["out"]
    largest = before.abs().max()
    return (after - before).abs().max() / largest, (wrong - before).abs().max() / largest


def test_every_model_is_tested():
    assert CASES.keys() == MODELS.keys()


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_folded_model_gives_the_same_logits(name):
    model = small(name)
    number, remaining = count_batchnorm(model), CASES[name][1]
    sides = (16, 17, 18) if model.dims == 3 else (32, 39)
    difference, wrong = difference_after_folding(model, random_image(*sides))
    assert difference < 1e-5
    assert count_batchnorm(model) == remaining
    if name != "unet_original":  # the only one without BatchNorm
        assert number > remaining and wrong > 0.1


@pytest.mark.parametrize("name", ["unet", "unet_3d", "unet_plus_plus", "attention_unet"])
@pytest.mark.parametrize("options", [{"bias": True}, {"norm": False}], ids=str)
def test_convolutions_may_have_a_bias_or_no_batchnorm(name, options):
    model = small(name, **options)
    sides = (16, 16, 16) if model.dims == 3 else (32, 40)
    difference, _ = difference_after_folding(model, random_image(*sides))
    assert difference < 1e-5 and count_batchnorm(model) == 0


@pytest.mark.parametrize("level", [1, 2, 4])
def test_a_pruned_model_may_be_folded(level):
    model = small("unet_plus_plus")
    model.prune(level)
    difference, _ = difference_after_folding(model, random_image(32, 32))
    assert difference < 1e-5


def test_members_of_an_ensemble_and_flips_are_folded_once():
    member = small("unet")
    for model in (Ensemble([member, small("resunet"), member]).eval(), Flips(small("unet"))):
        difference, _ = difference_after_folding(model, random_image(32, 40))
        assert difference < 1e-5
    assert count_batchnorm(member) == 0


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)],
        lambda: [nn.Conv2d(3, 3, 1), nn.ReLU(), nn.BatchNorm2d(3)],
        lambda: [nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()), nn.BatchNorm2d(3)],
        lambda: [nn.ConvTranspose2d(3, 3, 2, stride=2), nn.BatchNorm2d(3)],
    ],
    ids=["before", "after ReLU", "after a block", "after a transposed convolution"],
)
def test_a_batchnorm_without_a_convolution_before_it_stays(layers):
    torch.manual_seed(0)
    model = trained(nn.Sequential(*layers()))
    with torch.no_grad():
        before = model(random_image(8, 8))
        assert torch.equal(fold_batchnorm(model)(random_image(8, 8)), before)
    assert count_batchnorm(model) == 1


@pytest.mark.parametrize("options", [{"groups": 4}, {"stride": 2, "padding": 1}], ids=str)
def test_groups_and_strides_are_kept(options):
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 3, **options), nn.BatchNorm2d(8)
    model, image = trained(nn.Sequential(*layers)), random_image(9, 9)
    with torch.no_grad():
        before = model(image)
        torch.testing.assert_close(fold_batchnorm(model)(image), before)
    assert count_batchnorm(model) == 0


def test_a_model_in_training_mode_is_refused():
    with pytest.raises(AssertionError):
        fold_batchnorm(small("unet").train())

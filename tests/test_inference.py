"""predict_probs gives probabilities at the image's own size, however small; decide gives class ids.

Flips and ensembles are models whose probabilities are means.
"""

import copy
import math

import pytest
import torch
from torch import nn

from src import UNet, UNet3D, UNetOriginal
from src.device import pick_device
from src.inference import (
    MIN_SIDE,
    Ensemble,
    Flips,
    decide,
    optimize_for_inference,
    predict_probs,
)


class Pointwise(nn.Module):
    """Classifies each pixel by its own colour, so the result is known at any size.

    Records the sizes of its inputs.
    """

    def __init__(self, num_classes=2):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, num_classes, 1)
        self.sizes = []

    def forward(self, image):
        self.sizes.append(tuple(image.shape[-2:]))
        return {"out": self.conv(image)}


def random_image(*size, num_images=2):
    torch.manual_seed(1)
    return torch.randn(num_images, 3, *size)


def two_classes(values):
    """Probabilities [1, 2, 1, n] with the given ones for class 1."""
    vessel = torch.tensor(values).view(1, 1, 1, -1)
    return torch.cat([1 - vessel, vessel], dim=1)


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (40, 5), (31, 31), (32, 33), (47, 50)], ids=str)
def test_probabilities_are_those_of_each_pixel(size):
    model, image = Pointwise().eval(), random_image(*size)
    probs = predict_probs(model, image)
    torch.testing.assert_close(probs, model.conv(image).softmax(1).detach())
    assert model.sizes == [(max(size[0], MIN_SIDE), max(size[1], MIN_SIDE))]


@pytest.mark.parametrize("size", [(1, 1), (15, 100), (20, 20), (37, 53)], ids=str)
@pytest.mark.parametrize("num_classes", [2, 5])
def test_unet_probabilities_add_up_to_one_at_every_size(size, num_classes):
    torch.manual_seed(0)
    probs = predict_probs(UNet(3, num_classes, base_c=4).eval(), random_image(*size))
    assert probs.shape == (2, num_classes, *size) and probs.dtype == torch.float32
    torch.testing.assert_close(probs.sum(1), torch.ones(2, *size))
    assert probs.min() >= 0


def test_larger_images_are_not_changed_by_the_padding():
    torch.manual_seed(0)
    model, image = UNet(3, 3, base_c=4).eval(), random_image(37, 53)
    with torch.no_grad():
        expected = model(image)["out"].softmax(1)
    torch.testing.assert_close(predict_probs(model, image), expected, atol=1e-6, rtol=0)


def test_mixed_precision_returns_float32_close_to_full_precision():
    torch.manual_seed(0)
    model, image = UNet(3, 2, base_c=4).eval(), random_image(33, 40)
    probs = predict_probs(model, image, torch.bfloat16)
    assert probs.dtype == torch.float32
    torch.testing.assert_close(probs.sum(1), torch.ones(2, 33, 40))
    torch.testing.assert_close(probs, predict_probs(model, image), atol=0.02, rtol=0)


def test_no_gradient_and_no_change_of_the_model():
    model = UNet(3, 2, base_c=4).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert not predict_probs(model, random_image(20, 20)).requires_grad
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def formats_of_convolutions(model, image):
    """Of the output of each convolution: whether its format is channels_last.

    Without 1×1 ones, whose weights are stored alike in both formats.
    """
    found, last = [], CHANNELS_LAST[image.ndim - 2]

    def note(_layer, _inputs, output):
        found.append(output.is_contiguous(memory_format=last) and not output.is_contiguous())

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d) and layer.kernel_size[0] > 1:
            layer.register_forward_hook(note)
    predict_probs(model, image)
    return found


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("network", [UNet, UNet3D, UNetOriginal])
def test_features_have_the_format_of_the_weights_whatever_that_of_the_image(network, channels):
    torch.manual_seed(0)
    model = network(channels, 2, base_c=4).eval()
    image, last = torch.randn(2, channels, *[32] * model.dims), CHANNELS_LAST[model.dims]
    images = [image, image.contiguous(memory_format=last)]
    expected = predict_probs(model, image)
    for each in images:
        assert not any(formats_of_convolutions(copy.deepcopy(model), each))
    optimize_for_inference(model, torch.device("cpu"))
    for each in images:
        assert all(formats_of_convolutions(copy.deepcopy(model), each))
        torch.testing.assert_close(predict_probs(model, each), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("wrap", [lambda model: Ensemble([model]).eval(), Flips])
def test_ensembles_and_flips_are_optimized_too(wrap):
    torch.manual_seed(0)
    model, image = wrap(UNet(3, 2, base_c=4).eval()), random_image(33, 40)
    expected = predict_probs(model, image)
    optimized = optimize_for_inference(model, torch.device("cpu"))
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in optimized.modules())
    assert all(formats_of_convolutions(copy.deepcopy(optimized), image))
    torch.testing.assert_close(predict_probs(optimized, image), expected, atol=1e-5, rtol=0)


class Positionwise(nn.Module):
    """The logit of class 1 is the pixel's value times the weight [H, W] of its position; that of
    class 0 is 0."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def forward(self, image):
        logits = image[:, :1] * self.weight
        return {"out": torch.cat([torch.zeros_like(logits), logits], dim=1)}


@pytest.mark.parametrize("size", [(1, 1), (31, 32), (37, 53)], ids=str)
@pytest.mark.parametrize("num_classes", [2, 5])
def test_flips_do_not_change_the_result_of_a_pointwise_model(size, num_classes):
    model, image = Pointwise(num_classes).eval(), random_image(*size)
    torch.testing.assert_close(predict_probs(Flips(model), image), predict_probs(model, image))
    assert len(model.sizes) == 4 + 1


def test_flips_average_over_the_four_positions_of_a_pixel():
    # The sigmoids of 0, ln 3, 2 ln 3 and −ln 3 are 1/2, 3/4, 9/10 and 1/4; their mean is 0.6.
    log3 = math.log(3)
    model = Flips(Positionwise(torch.tensor([[0, log3], [2 * log3, -log3]])))
    probs = model(torch.tensor([[[[1.0, 1], [0, -1]]]]))["out"].exp()
    torch.testing.assert_close(probs[0, 1], torch.tensor([[0.6, 0.6], [0.5, 0.4]]))
    torch.testing.assert_close(probs.sum(1), torch.ones(1, 2, 2))


def test_flips_are_flipped_back():
    image, weight = torch.tensor([[[[1.0, 0, -1]]]]), torch.tensor([[0, math.log(3), math.log(9)]])
    across = Flips(Positionwise(weight))(image)["out"].softmax(1)[0, 1]
    down = Flips(Positionwise(weight.T))(image.mT)["out"].softmax(1)[0, 1]
    # (1/2 + 9/10) / 2, 1/2 and (1/2 + 1/10) / 2.
    torch.testing.assert_close(across, torch.tensor([[0.7, 0.5, 0.3]]))
    torch.testing.assert_close(down, across.T)


@pytest.mark.parametrize("size", [(20, 20), (37, 53)], ids=str)
def test_probabilities_of_a_flipped_image_are_the_flipped_probabilities(size):
    torch.manual_seed(0)
    model = Flips(UNet(3, 2, base_c=4).eval())
    # At least MIN_SIDE: padding on one side only would break the symmetry.
    image = random_image(max(size[0], MIN_SIDE), max(size[1], MIN_SIDE))
    for axes in ((-1,), (-2,), (-1, -2)):
        torch.testing.assert_close(
            predict_probs(model, image.flip(axes)), predict_probs(model, image).flip(axes)
        )


def test_an_ensemble_averages_probabilities_not_logits():
    image = torch.ones(1, 1, 1, 1)
    models = [
        Positionwise(torch.full((1, 1), weight)) for weight in (0.0, math.log(3), math.log(9))
    ]
    assert Ensemble(models)(image)["out"].exp()[0, 1].item() == pytest.approx(
        (1 / 2 + 3 / 4 + 9 / 10) / 3
    )


@pytest.mark.parametrize("times", [1, 2])
def test_an_ensemble_of_one_is_the_model(times):
    torch.manual_seed(0)
    model, image = UNet(3, 2, base_c=4), random_image(33, 47)
    ensemble = Ensemble([model] * times).eval()
    assert not model.training  # BatchNorm uses its running statistics, as in the single model
    torch.testing.assert_close(predict_probs(ensemble, image), predict_probs(model, image))
    assert ensemble.in_channels == Flips(model).in_channels == 3


def test_probabilities_of_exactly_0_and_1_keep_the_mean_finite():
    certain, even = Positionwise(torch.full((1, 1), 1000.0)), Positionwise(torch.zeros(1, 1))
    for models, expected in (([certain, certain], [0.0, 1.0]), ([certain, even], [0.25, 0.75])):
        probs = predict_probs(Ensemble(models), torch.ones(1, 1, 1, 1))
        assert probs.flatten().tolist() == pytest.approx(expected)


def test_a_pixel_at_the_threshold_is_background():
    probs = two_classes([0.0, 0.25, 0.5, 0.5000001, 1.0])
    assert decide(probs).tolist() == [[[0, 0, 0, 1, 1]]]
    assert decide(probs, threshold=0.25).tolist() == [[[0, 0, 1, 1, 1]]]
    assert decide(probs, threshold=0.0).tolist() == [[[0, 1, 1, 1, 1]]]
    assert decide(probs).dtype == torch.uint8


def test_with_more_classes_the_most_probable_wins_whatever_the_threshold():
    probs = torch.tensor([[0.4, 0.35, 0.25], [0.2, 0.2, 0.6], [0.3, 0.4, 0.3]]).T.reshape(
        1, 3, 1, 3
    )
    assert decide(probs).tolist() == decide(probs, threshold=0.9).tolist() == [[[0, 2, 1]]]


def test_class_ids_up_to_254_fit():
    probs = torch.zeros(1, 255, 1, 1)
    probs[0, 254] = 1
    assert decide(probs).item() == 254


@pytest.mark.parametrize("name", ["tpu", "cuda:", "cpu:x", "mps:"])
def test_an_unknown_device_is_a_value_error(name):
    with pytest.raises(ValueError, match="auto, cpu, mps, cuda"):
        pick_device(name)

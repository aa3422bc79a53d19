"""Class weights: of the flag, the preset and the plan, and from pixels, computed by hand."""

import pytest
import torch

from train_utils.class_weights import (
    LARGEST_WEIGHT,
    PRESET_CLASS_WEIGHTS,
    SMALLEST_WEIGHT,
    make_class_weights,
    median_frequency_weights,
    plan_class_weights,
    plan_volume_class_weights,
    resolve_class_weights,
)
from train_utils.cli.presets import PRESETS


def test_class_weights_are_chosen_by_the_flag():
    pixels = torch.tensor([90, 10])
    assert make_class_weights("none", pixels) is None
    assert make_class_weights([1.0, 3.0], pixels).tolist() == [1, 3]
    weights = make_class_weights("auto", pixels)
    assert weights.dtype == torch.float32
    assert weights.tolist() == pytest.approx(median_frequency_weights([90, 10]))


def test_a_class_that_a_sample_of_the_images_lacks_has_the_largest_weight():
    pixels = torch.tensor([6, 0, 3, 1])
    assert make_class_weights("auto", pixels).tolist() == [0.5, 0, 1, 3]
    assert make_class_weights("auto", pixels, sampled=True).tolist() == [0.5, 3, 1, 3]
    assert make_class_weights([1.0] * 4, pixels, sampled=True).tolist() == [1] * 4


@pytest.mark.parametrize(
    "pixels, expected",
    [
        ([6, 3, 1], [0.5, 1, 3]),
        ([90, 10], [50 / 90, 5]),
        ([6, 0, 3, 1], [0.5, 0, 1, 3]),
        ([7, 0], [1, 0]),
        ([0, 0], [1, 1]),
        ([10**6, 10**4, 1], [SMALLEST_WEIGHT, 1, LARGEST_WEIGHT]),
    ],
)
def test_median_frequency_weights_by_hand(pixels, expected):
    assert median_frequency_weights(pixels) == pytest.approx(expected)


def test_every_preset_has_class_weights_for_two_classes_and_none_for_more():
    assert PRESET_CLASS_WEIGHTS.keys() == PRESETS.keys()
    assert resolve_class_weights("preset", "classic", 2) == [1.0, 2.0]
    assert resolve_class_weights("preset", "fast", 2) == [1.0, 1.25]
    assert resolve_class_weights("preset", "original", 2) == "none"
    assert resolve_class_weights("preset", "classic", 3) == "none"


def test_the_flag_replaces_the_weights_of_the_preset():
    assert resolve_class_weights("auto", "classic", 2) == "auto"
    assert resolve_class_weights([3.0, 1.0], "classic", 2) == [3.0, 1.0]


def test_the_weights_of_the_plan():
    assert plan_class_weights([99, 1]) == plan_volume_class_weights(2) == (1.0, 1.25)
    assert plan_class_weights([6, 3, 1]) == (0.7071, 1.0, 1.7321)
    assert plan_class_weights([6, 0, 3, 1], sampled=True) == (0.7071, 1.7321, 1.0, 1.7321)
    assert plan_volume_class_weights(3) == (1.0, 1.0, 1.0)

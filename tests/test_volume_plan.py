"""The plan for volumes: crops that show a volume, as far as memory and the time of a step allow."""

import math

import pytest
import torch

from src import UNet3D
from src.unet_3d import min_sides, strides
from tests.tiny import parse
from train_utils.cli.recipe import model_needs
from train_utils.plan import EPOCHS, summarize_data
from train_utils.training_memory import ModelNeeds, activation_limit, pixel_bytes, step_bytes
from train_utils.volume_plan import LARGEST_CUBE, make_volume_plan

UNIT = (1.0, 1.0, 1.0)


def needs(spacing=UNIT, padded=True, base_c=16):
    with torch.device("meta"):
        model = UNet3D(1, 2, base_c, padded=padded, spacing=spacing)
    least = min_sides(model.poolings, padded)
    steps = strides(model.poolings)
    return ModelNeeds(model.training_bytes, base_c, least, steps, model.margins)


def summary(size, volumes=20, classes=3, spacing=UNIT):
    return summarize_data([size] * volumes, volumes, 1, [9] * classes, spacing)


def crop_of(size, spacing=UNIT, memory="small", padded=True, crop_size=None):
    data = summary(size, spacing=spacing)
    return make_volume_plan(data, needs(spacing, padded), memory, crop_size).crop_size


def test_the_plan_of_the_hippocampus():
    """A fold of Task04: 208 volumes of about 35×50×36 voxels of 1 mm, three classes."""
    plan = make_volume_plan(summary((35, 50, 36), 208), needs())
    assert (plan.crop_size, plan.batch_size, plan.base_c) == ((32, 48, 32), 2, 16)
    assert (plan.scale, plan.rotate, plan.mirror) == ((0.85, 1.15), 15.0, "none")
    assert plan.steps == 6280 and plan.steps % EPOCHS == 0
    assert plan.class_weights == (1, 1, 1)
    assert plan.reasons["crop_size"] == "crop 32×48×32 voxels: the volumes' median size is 35×50×36"
    assert plan.reasons["steps"] == "steps 6,280: 208 volumes, 3 classes"
    assert make_volume_plan(summary((35, 50, 36), classes=2), needs()).class_weights == (1, 1.25)


def test_the_median_is_of_each_axis():
    sizes = [(10, 90, 30), (20, 40, 31), (30, 41, 80), (40, 60, 32)]
    found = summarize_data(sizes, 4, 1, [1, 1], UNIT)
    assert found.median == (25, 50.5, 31.5) and found.spacing == UNIT
    plan = make_volume_plan(found, needs())
    assert plan.crop_size == (24, 48, 32)
    assert "median size is 25×50.5×31.5" in plan.reasons["crop_size"]


def test_sides_are_the_nearest_multiples_of_8_and_never_below_what_the_model_needs():
    assert crop_of((36, 37, 3)) == (32, 40, 8)
    assert crop_of((12, 12.5, 20)) == (8, 16, 16)


@pytest.mark.parametrize(
    "size, crop",
    [
        ((155, 240, 240), (64, 64, 64)),  # a head
        ((128, 128, 128), (64, 64, 64)),
        ((64, 64, 64), (64, 64, 64)),
        ((40, 400, 400), (40, 80, 80)),
        ((20, 512, 512), (16, 128, 128)),
        ((24, 48, 1000), (24, 48, 224)),
    ],
)
def test_large_volumes_are_cut_at_their_longest_sides(size, crop):
    assert crop_of(size) == crop


@pytest.mark.parametrize("memory", LARGEST_CUBE)
@pytest.mark.parametrize("spacing", [UNIT, (2.5, 1.0, 1.0), (9.0, 1.0, 1.0)])
@pytest.mark.parametrize("padded", [True, False])
def test_no_plan_exceeds_its_memory_class(memory, spacing, padded):
    model = needs(spacing, padded)
    bytes_each = pixel_bytes(model, 16, 1, 2)
    for size in [(5, 5, 5), (30, 500, 500), (300, 300, 300), (20, 20, 2000), (999, 40, 60)]:
        plan = make_volume_plan(summary(size, spacing=spacing), model, memory)
        crop = plan.crop_size
        assert step_bytes(crop, plan.batch_size, bytes_each) <= activation_limit(memory)
        sides = [side - 2 * margin for side, margin in zip(crop, model.margins, strict=True)]
        assert math.prod(sides) <= LARGEST_CUBE[memory] ** 3 and plan.batch_size == 2 - (not padded)
        with torch.device("meta"):
            UNet3D(1, 2, 16, padded=padded, spacing=spacing).check_sides(crop)
        for side, least, stride in zip(crop, model.least, model.strides, strict=True):
            assert (side - least) % stride == 0


def test_more_memory_means_larger_crops_of_large_volumes():
    voxels = [math.prod(crop_of((200, 300, 250), memory=name)) for name in LARGEST_CUBE]
    assert voxels == sorted(set(voxels))
    assert crop_of((35, 50, 36)) == crop_of((35, 50, 36), memory="large")


def test_an_axis_of_long_voxels_keeps_its_size():
    """It is not pooled, or not by 8, so its sides are no multiples of 8 either."""
    assert crop_of((17, 400, 400), (9.0, 1.0, 1.0)) == (17, 120, 128)
    assert crop_of((17, 400, 400), (5.0, 1.0, 1.0)) == (16, 128, 128)
    assert crop_of((17, 400, 400), (2.0, 1.0, 1.0)) == (16, 128, 128)
    assert crop_of((1, 64, 64), (5.0, 1.0, 1.0)) == (2, 64, 64)
    assert crop_of((400, 400, 17), (1.0, 1.0, 9.0)) == (120, 128, 17)
    assert crop_of((90, 90, 90), (9.0, 1.0, 1.0)) == (64, 64, 64)


def test_valid_convolutions_have_their_margins_around_the_volume():
    """A volume of 36 voxels and 44 at each border are 124, which the poolings divide."""
    assert crop_of((36, 36, 36), padded=False, memory="medium") == (124, 124, 124)
    assert crop_of((36, 36, 36), padded=False) == (108, 116, 116)
    assert crop_of((3, 3, 3), padded=False) == (92, 92, 92)
    plan = make_volume_plan(summary((36, 36, 36)), needs(padded=False), "medium")
    assert "valid convolutions remove 44×44×44 at each border" in plan.reasons["crop_size"]


def test_a_given_crop_size_is_kept_and_a_single_number_cut_to_the_volumes():
    assert crop_of((36, 50, 90), crop_size=[8, 64, 100]) == (8, 64, 100)
    assert crop_of((36, 50, 90), crop_size=64) == (40, 56, 64)
    assert crop_of((20, 90, 90), padded=False, crop_size=132) == (112, 132, 132)
    plan = make_volume_plan(summary((36, 50, 90)), needs(), crop_size=64)
    assert (
        "crop 40×56×64 voxels (64 as given, cut to the volumes)" in plan.reasons["crop_size"]
        and plan.batch_size == 2
    )
    assert make_volume_plan(summary((300,) * 3), needs(), crop_size=128).batch_size == 1


def test_a_given_width_is_used_when_the_crop_is_planned():
    wide, narrow = (
        make_volume_plan(summary((90, 90, 90)), needs(base_c=base_c)) for base_c in (64, 4)
    )
    assert narrow.crop_size == (64, 64, 64) and wide.crop_size == (40, 48, 48)
    assert "base_c 64" in wide.reasons["base_c"]


def test_the_needs_of_the_model_of_the_flags():
    data = summary((30, 50, 50), spacing=(4.0, 1.0, 1.0))
    found = model_needs(parse("--model", "unet_3d", "--base-c", 8), data, planned_width=False)
    assert found == ModelNeeds(190, 8, least=(2, 8, 8), strides=(2, 8, 8), margins=(0, 0, 0))
    found = model_needs(parse("--model", "unet_3d", "--no-padded"), summary((9, 9, 9)), False)
    assert found == ModelNeeds(75, 16, (92,) * 3, strides=(8,) * 3, margins=(44,) * 3)

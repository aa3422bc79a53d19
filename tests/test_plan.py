"""The plan: two measured recipes, and simple rules between them that never leave their bounds."""

import itertools

import pytest
import torch

from src import MODELS
from train_utils.plan import (
    AUGMENTATIONS,
    EPOCHS,
    GRID,
    DataSummary,
    make_plan,
    reason_lines,
    summarize_data,
)
from train_utils.training_memory import (
    MEMORY,
    PLAIN_UNET,
    ModelNeeds,
    activation_limit,
    pixel_bytes,
    step_bytes,
)

SIDES = (64, 65, 96, 130, 256, 257, 360, 565, 1024, 2000, 4000)
CLASSES = (2, 3, 11, 30)
IMAGES = (1, 2, 16, 20, 367, 10_000)


def summary(size, images=20, classes=2, channels=3, pixels=None):
    pixels = pixels or [1000 // (index + 1) for index in range(classes)]
    return summarize_data([size] * images, images, channels, pixels)


def bytes_of(plan, model=PLAIN_UNET, channels=3):
    """The estimated memory of a step of this plan."""
    classes = len(plan.class_weights)
    bytes_each = pixel_bytes(model, plan.base_c, channels, classes)
    return step_bytes(plan.crop_size, plan.batch_size, bytes_each)


def every_summary():
    for height, width, classes, images, channels in itertools.product(
        SIDES, SIDES[::3], CLASSES, IMAGES, (1, 3)
    ):
        pixels = tuple(1000 // (index + 1) for index in range(classes))
        size = (height, width)
        yield DataSummary(images, images, size, channels, pixels)


# --- the two recipes that were measured -----------------------------------------------------------


def test_the_plan_of_drive_is_its_recipe():
    """Twenty images of 584×565 px: the recipe of commit d1c9183, whose F1 is published."""
    plan = make_plan(summary((584, 565)))
    assert (plan.crop_size, plan.batch_size, plan.base_c) == (288, 2, 16)
    assert (plan.scale, plan.rotate, plan.mirror) == ((0.85, 1.2), 180.0, "both")
    assert plan.class_weights == (1.0, 1.25)
    assert (plan.steps, EPOCHS) == (6000, 40)
    assert plan.steps * plan.batch_size == 40 * 15 * 20  # 15 crops of each image in an epoch


@pytest.mark.parametrize("images", [16, 18, 20])
def test_fewer_images_take_as_many_crops_of_each(images):
    plan = make_plan(summary((584, 565), images))
    assert plan.steps * plan.batch_size == 40 * 15 * images


def test_the_plan_of_camvid():
    """367 images of 480×360 px, eleven classes."""
    plan = make_plan(summary((360, 480), 367, 11), orientation="upright")
    assert (plan.crop_size, plan.batch_size, plan.base_c) == (256, 8, 32)
    assert (plan.scale, plan.rotate, plan.mirror) == ((0.5, 1.5), 10.0, "horizontal")
    assert plan.steps == 8280
    median = 1000 // 6
    assert plan.class_weights[0] == pytest.approx((median / 1000) ** 0.5, abs=1e-4)
    assert plan.class_weights[5] == 1
    assert plan.class_weights[10] == pytest.approx((median / 90) ** 0.5, abs=1e-4)


# --- bounds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("orientation", AUGMENTATIONS)
def test_no_plan_exceeds_its_memory_class_or_has_no_steps(orientation, memory):
    limit = MEMORY[memory][1]
    for data in every_summary():
        plan = make_plan(data, memory=memory, orientation=orientation)
        assert GRID <= plan.crop_size <= limit and plan.crop_size % GRID == 0, data
        needed = bytes_of(plan, channels=data.channels)
        assert needed <= activation_limit(memory), data
        assert plan.crop_size <= max(GRID, min(data.median) + GRID / 2), data
        assert plan.batch_size >= 2
        assert 2_000 <= plan.steps <= 20_000 and plan.steps % EPOCHS == 0
        assert len(plan.class_weights) == len(data.pixels) and min(plan.class_weights) > 0
        assert len(reason_lines(plan.reasons)) == 5 and all(plan.reasons.values())
        assert plan == make_plan(data, memory=memory, orientation=orientation)


def test_the_rules_are_monotone():
    for orientation, classes in itertools.product(AUGMENTATIONS, CLASSES):
        crops = [
            make_plan(summary((side, side), 1, classes), orientation=orientation).crop_size
            for side in SIDES
        ]
        assert crops == sorted(crops)
        steps = [make_plan(summary((64, 64), images, classes)).steps for images in IMAGES]
        assert steps == sorted(steps)
    for memory in ("small", "medium"):
        smaller = make_plan(summary((4000, 4000)), memory=memory).crop_size
        assert smaller < make_plan(summary((4000, 4000)), memory="large").crop_size
    steps = [make_plan(summary((64, 64), 367, classes)).steps for classes in CLASSES]
    assert steps == sorted(steps) and len(set(steps)) > 2


def test_large_sets_cost_no_more_than_small_ones():
    assert make_plan(summary((500, 500), 20)).steps == make_plan(summary((500, 500), 10_000)).steps


def test_a_model_may_need_larger_crops():
    model = ModelNeeds(least=(188, 188))
    assert make_plan(summary((96, 96)), model=model).crop_size == 192
    assert make_plan(summary((584, 565)), model=model).crop_size == 288


# --- what is given --------------------------------------------------------------------------------


@pytest.mark.parametrize("crop, batch", [(32, 16), (96, 16), (160, 6), (288, 2), (500, 2)])
def test_a_given_crop_size_is_used_when_the_batch_is_planned(crop, batch):
    """About as many pixels in a step as on DRIVE, 2 × 288²."""
    plan = make_plan(summary((584, 565)), crop_size=crop)
    assert (plan.crop_size, plan.batch_size) == (crop, batch)
    assert (
        f"crop {crop} px (given, not planned)" in plan.reasons["crop_size"]
        and "exceed" not in plan.reasons["crop_size"]
    )
    assert f"batch {batch}: {batch * crop**2:,} px" in plan.reasons["batch_size"]


def test_a_given_width_is_used_when_crop_and_batch_are_planned():
    """The memory class limits the batch: at four times the width it is a quarter."""
    streets = summary((360, 480), 367, 11)
    planned, wide = make_plan(streets), make_plan(streets, model=ModelNeeds(base_c=128))
    assert (planned.base_c, planned.crop_size, planned.batch_size) == (32, 256, 8)
    assert (wide.base_c, wide.crop_size, wide.batch_size) == (128, 256, 2)
    assert bytes_of(wide) <= activation_limit("small") < 2 * bytes_of(wide)
    assert make_plan(summary((4000, 4000)), model=ModelNeeds(base_c=64)).crop_size == 384


def test_a_batch_may_be_a_single_crop_where_more_of_the_given_crops_do_not_fit():
    plan = make_plan(summary((4000, 4000)), model=ModelNeeds(base_c=64), crop_size=512)
    assert (plan.crop_size, plan.batch_size) == (512, 1)


@pytest.mark.parametrize("name", sorted(name for name in MODELS if MODELS[name].dims == 2))
def test_drives_plan_fits_every_model(name):
    """At its own width; so the commands of the results page keep their crops and batches."""
    with torch.device("meta"):  # without its weights
        model = MODELS[name](in_channels=3, num_classes=2)
    least = (model.min_training_side, model.min_training_side)
    needs = ModelNeeds(model.training_bytes, model.base_c, least)
    plan = make_plan(summary((584, 565)), model=needs)
    assert (plan.crop_size, plan.batch_size, plan.base_c) == (288, 2, model.base_c)
    assert bytes_of(plan, needs) <= activation_limit("small")


def test_a_model_that_needs_more_memory_gets_smaller_batches():
    streets = summary((360, 480), 367, 11)
    batches = [
        make_plan(
            streets, ModelNeeds(each, base_c=32), crop_size=352, orientation="upright"
        ).batch_size
        for each in (50, 100, 200, 400)
    ]
    assert batches == [4, 4, 2, 1]


def test_sizes_count_by_the_median_of_the_shorter_sides():
    sizes = [(4000, 50), (100, 300), (200, 200), (700, 900), (120, 140)]
    found = summarize_data(sizes, 5, 3, [1, 1])
    assert found.median == (120, 140)
    assert found == summarize_data(sizes[::-1], 5, 3, [1, 1])
    assert (found.images, found.read) == (5, 5)


def test_a_class_that_is_absent_has_no_weight_unless_images_were_left_out():
    pixels = [1000, 0, 100, 10]
    whole = summarize_data([(64, 64)] * 4, 4, 3, pixels)
    assert make_plan(whole).class_weights == (0.3162, 0, 1, 3.1623)
    part = summarize_data([(64, 64)] * 4, 5000, 3, pixels)
    assert make_plan(part).class_weights == (0.3162, 3.1623, 1, 3.1623)
    assert "of 4 of 5,000 images" in make_plan(part).reasons["crop_size"]


def test_a_rare_class_has_a_limited_weight():
    data = summarize_data([(64, 64)] * 4, 4, 3, [1_000_000, 100_000, 10])
    assert make_plan(data).class_weights == (0.3162, 1, 4.4721)  # √0.1, 1, √20
    data = summarize_data([(64, 64)] * 4, 4, 3, [200_000_000, 4_000, 3_000])
    assert make_plan(data).class_weights == (0.2236, 1, 1.1547)  # √0.05, 1, √(4/3)


def test_the_weights_of_camvid_are_below_the_limit():
    """Its training pixels, counted in the 367 labels of the SegNet tutorial's split."""
    pixels = [10682767, 14750079, 623349, 20076880, 2845085, 6166762]
    pixels += [743859, 714595, 3719877, 405385, 184967]
    weights = make_plan(
        summary((360, 480), 367, 11, pixels=pixels), orientation="upright"
    ).class_weights
    expected = [0.5161, 0.4392, 2.1364, 0.3764, 1, 0.6792, 1.9557, 1.9953, 0.8745, 2.6492, 3.9219]
    assert list(weights) == expected

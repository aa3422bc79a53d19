"""The plan: two measured recipes, and simple rules between them that never leave their bounds."""

import itertools

import pytest
import torch

from src import UNet
from src.memory import LiveBytes
from train_utils.plan import (
    CHANNEL_BYTES,
    EPOCHS,
    GRID,
    KINDS,
    MEMORY,
    DataSummary,
    make_plan,
    pixel_bytes,
    summarize_data,
    training_bytes,
)

SIDES = (64, 65, 96, 130, 256, 257, 360, 565, 1024, 2000, 4000)
CLASSES = (2, 3, 11, 30)
IMAGES = (1, 2, 16, 20, 367, 10_000)


def summary(size, images=20, classes=2, channels=3, pixels=None):
    pixels = pixels or [1000 // (index + 1) for index in range(classes)]
    return summarize_data([size] * images, images, channels, pixels)


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
    assert (plan.crop_size, plan.batch_size, plan.accumulate, plan.base_c) == (288, 2, 1, 16)
    assert (plan.scale, plan.rotate, plan.mirror) == ((0.85, 1.2), 180.0, "both")
    assert plan.class_weights == (1.0, 1.25)
    assert (plan.steps, plan.epochs) == (6000, 40)
    assert plan.steps * plan.batch_size == 40 * 15 * 20  # 15 crops of each image in an epoch


@pytest.mark.parametrize("images", [16, 18, 20])
def test_fewer_images_take_as_many_crops_of_each(images):
    plan = make_plan(summary((584, 565), images))
    assert plan.steps * plan.batch_size == 40 * 15 * images


def test_the_plan_of_camvid():
    """367 images of 480×360 px, eleven classes."""
    plan = make_plan(summary((360, 480), 367, 11), "scenes")
    assert (plan.crop_size, plan.batch_size, plan.accumulate, plan.base_c) == (352, 4, 1, 32)
    assert (plan.scale, plan.rotate, plan.mirror) == ((0.5, 1.5), 10.0, "horizontal")
    assert plan.steps == 8280 and plan.epochs == 40
    median = 1000 // 6
    assert plan.class_weights[0] == pytest.approx(median / 1000, abs=1e-4)
    assert plan.class_weights[5] == 1 and plan.class_weights[10] == pytest.approx(
        166 / 90, abs=1e-4
    )


# --- bounds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("kind", KINDS)
def test_no_plan_exceeds_its_memory_class_or_has_no_steps(kind, memory):
    size, limit = MEMORY[memory]
    for data in every_summary():
        plan = make_plan(data, kind, memory)
        assert GRID <= plan.crop_size <= limit and plan.crop_size % GRID == 0, data
        needed = training_bytes(plan.crop_size, plan.batch_size, plan.base_c, data.channels)
        assert needed <= size / 2, data
        assert plan.crop_size <= max(GRID, min(data.median) + GRID / 2), data
        assert plan.batch_size >= 2 and plan.accumulate == 1
        assert 2_000 <= plan.steps <= 20_000 and plan.steps % EPOCHS == 0
        assert len(plan.class_weights) == len(data.pixels) and min(plan.class_weights) > 0
        assert len(plan.reasons) == 5 and all(plan.reasons)
        assert plan == make_plan(data, kind, memory)


def test_the_rules_are_monotone():
    for kind, classes in itertools.product(KINDS, CLASSES):
        crops = [make_plan(summary((side, side), 1, classes), kind).crop_size for side in SIDES]
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
    assert make_plan(summary((96, 96)), least_crop=188).crop_size == 192
    assert make_plan(summary((584, 565)), least_crop=188).crop_size == 288


def test_sizes_count_by_the_median_of_the_shorter_sides():
    sizes = [(4000, 50), (100, 300), (200, 200), (700, 900), (120, 140)]
    found = summarize_data(sizes, 5, 3, [1, 1])
    assert found.median == (120, 140)
    assert found == summarize_data(sizes[::-1], 5, 3, [1, 1])
    assert (found.images, found.read) == (5, 5)


def test_a_class_that_is_absent_has_no_weight_unless_images_were_left_out():
    pixels = [1000, 0, 100, 10]
    whole = summarize_data([(64, 64)] * 4, 4, 3, pixels)
    assert make_plan(whole).class_weights == (0.1, 0, 1, 10)
    part = summarize_data([(64, 64)] * 4, 5000, 3, pixels)
    assert make_plan(part).class_weights == (0.1, 10, 1, 10)
    assert "of 4 of 5,000 images" in make_plan(part).reasons[0]


@pytest.mark.parametrize("base_c", [16, 32])
def test_the_estimate_of_the_memory_is_that_of_a_training_step(base_c):
    """Counted on the meta device, without computing: activations, gradients, image and target."""
    side = 288
    with torch.device("meta"):
        model = UNet(3, 2, bilinear=False, base_c=base_c)
        images, targets = torch.empty(2, 3, side, side), torch.zeros(2, side, side).long()
    with LiveBytes() as live:
        torch.nn.functional.cross_entropy(model(images)["out"], targets).backward()
    found = live.peak / (2 * side**2)
    assert 0.75 * CHANNEL_BYTES * base_c < found < pixel_bytes(base_c, 3)

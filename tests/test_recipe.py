"""The recipe of a run: the plan's values, each replaced by its flag, and kept in the checkpoint."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import train
from my_dataset import DATASETS
from tests.made import write_three_classes
from tests.tiny import parse
from train_utils.class_weights import PRESET_CLASS_WEIGHTS
from train_utils.cli import presets, values
from train_utils.cli import recipe as recipe_module
from train_utils.cli.recipe import (
    least_free_memory,
    lower_batch,
    make_recipe,
    recipe_of_flags,
)
from train_utils.data.public_datasets import CAMVID
from train_utils.plan import make_plan, reason_lines, summarize_data
from train_utils.training_memory import step_bytes

CPU = torch.device("cpu")
DRIVE = summarize_data([(584, 565)] * 20, 20, 3, [875, 125])
VOLUMES = summarize_data([(35, 50, 36)] * 208, 208, 1, [95, 3, 2], (1.0, 1.0, 1.0))
STREETS = summarize_data([(360, 480)] * 367, 367, 3, range(100, 1200, 100))


def recipe_of(*argv, summary=DRIVE):
    return make_recipe(parse(*argv), summary, CPU)


# --- plan and flags -------------------------------------------------------------------------------


def test_by_default_all_is_planned():
    recipe, plan = recipe_of(), make_plan(DRIVE)
    assert (recipe.crop_size, recipe.batch_size, recipe.base_c) == (288, 2, 16)
    assert (recipe.scale, recipe.rotate, recipe.mirror) == ([0.85, 1.2], 180.0, "both")
    assert (recipe.class_weights, recipe.accumulate) == ([1.0, 1.25], 1)
    assert (recipe.steps, recipe.planned_steps, recipe.crops) == (6000, True, None)
    assert recipe.reasons == reason_lines(plan.reasons)


def test_the_preset_gives_the_orientation_of_the_images():
    recipe = recipe_of("--preset", "scenes", summary=STREETS)
    assert (recipe.crop_size, recipe.batch_size, recipe.base_c) == (256, 8, 32)
    assert (recipe.scale, recipe.rotate, recipe.mirror) == ([0.5, 1.5], 10.0, "horizontal")
    assert recipe.class_weights == list(make_plan(STREETS, orientation="upright").class_weights)
    assert recipe_of("--dataset", "camvid", summary=STREETS) == recipe


@pytest.mark.parametrize(
    "argv, gone, kept",
    [
        (
            ("--rotate", 0),
            "rotation up to",
            ["scale 0.5 to 1.5, mirror horizontal: upright images"],
        ),
        (("--scale", 1, 1), "scale 0.5", ["rotation up to 10°, mirror horizontal: upright images"]),
        (
            ("--mirror", "none"),
            "mirror h",
            ["scale 0.5 to 1.5, rotation up to 10°: upright images"],
        ),
        (("--class-weights", "none"), "class weights", ["base_c 32", "steps 8,280"]),
        (("--scale", 1, 1, "--rotate", 0, "--mirror", "none"), "upright", ["base_c 32"]),
    ],
)
def test_the_plan_tells_no_value_that_a_flag_replaced(argv, gone, kept):
    reasons = recipe_of("--preset", "scenes", *argv, summary=STREETS).reasons
    assert not any(gone in line for line in reasons[:-1])
    for words in kept:
        assert any(line.startswith(words) for line in reasons)


@pytest.mark.parametrize(
    "argv, name, value",
    [
        (("--accumulate", 3), "accumulate", 3),
        (("--class-weights", "none"), "class_weights", "none"),
        (("--class-weights", "1,2"), "class_weights", [1.0, 2.0]),
        (("--scale", 1, 1), "scale", [1.0, 1.0]),
        (("--rotate", 0), "rotate", 0.0),
        (("--mirror", "none"), "mirror", "none"),
        (("--steps", 77), "steps", 77),
        (("--crops", 4), "crops", 4),
    ],
)
def test_a_flag_replaces_its_planned_value_and_no_other(capsys, argv, name, value):
    recipe, planned = vars(recipe_of(*argv)), vars(recipe_of())
    assert recipe[name] == value
    follow = {name, "reasons"}
    if name in ("steps", "crops"):
        follow |= {"steps", "planned_steps", "warmup_epochs"}
    assert {key for key in planned if recipe[key] != planned[key]} <= follow
    assert f"set by flags, not planned: {name} {value}" in capsys.readouterr().out


def test_a_given_crop_size_changes_the_batch_and_no_more():
    recipe, planned = vars(recipe_of("--crop-size", 96)), vars(recipe_of())
    assert (recipe["crop_size"], recipe["batch_size"]) == (96, 16)
    changed = {name for name in planned if recipe[name] != planned[name]}
    assert changed == {"crop_size", "batch_size", "reasons"}
    assert "crop 96 px (given, not planned)" in recipe["reasons"][0] and len(recipe["reasons"]) == 5


def test_a_given_batch_is_planned_for():
    """The crop is smaller where so many larger ones would exceed the memory class."""
    recipe, planned = vars(recipe_of("--batch-size", 5)), vars(recipe_of())
    changed = {name for name in planned if recipe[name] != planned[name]}
    assert recipe["batch_size"] == 5 and changed == {"batch_size", "reasons"}
    reason = "batch 5 (given, not planned): 414,720 px a step; training takes about 0.7 GB"
    assert recipe["reasons"][1] == reason and len(recipe["reasons"]) == 5
    large = summarize_data([(4000, 4000)] * 20, 20, 3, range(100, 600, 100))
    sizes = {}
    for batch in (2, 8, 5000):
        recipe = recipe_of("--batch-size", batch, "--preset", "scenes", summary=large)
        sizes[batch] = recipe.crop_size
        over = "more than the memory class small is for" in recipe.reasons[1]
        assert recipe.batch_size == batch and over == (batch == 5000)
    assert sizes == {2: 512, 8: 256, 5000: 32}


def test_a_given_batch_of_volumes_is_planned_for():
    options, large = ("--model", "unet_3d"), [(200, 200, 200)] * 20
    summary = summarize_data(large, 20, 1, [95, 3, 2], (1.0, 1.0, 1.0))
    many = recipe_of(*options, "--batch-size", 8, summary=summary)
    one, two = (recipe_of(*options, "-b", each, summary=summary) for each in (1, 2))
    assert two.crop_size == recipe_of(*options, summary=summary).crop_size == one.crop_size
    assert many.batch_size == 8 and max(many.crop_size) < min(two.crop_size) == 64
    assert "batch 8 (given, not planned)" in many.reasons[1]


def test_other_numbers_of_epochs_say_their_steps():
    recipe = recipe_of("--epochs", 4)
    assert recipe.steps == 6000 and recipe.planned_steps
    assert recipe.reasons[-1].endswith("not planned: epochs 4 of 40, which are 600 steps")


def test_a_given_width_is_planned_for():
    recipe = recipe_of("--base-c", 128, "--preset", "scenes", summary=STREETS)
    assert (recipe.base_c, recipe.crop_size, recipe.batch_size) == (128, 256, 2)
    assert "base_c 128 (of the flag or the model)" in recipe.reasons[2]
    assert recipe_of("--base-c", 8).base_c == 8 and recipe_of("--base-c", 8).crop_size == 288


def test_other_models_have_their_own_width_memory_and_smallest_crop():
    small = summarize_data([(96, 96)] * 20, 20, 3, [875, 125])
    assert recipe_of("--model", "resunet").base_c is None
    assert "base_c 64 (of the flag or the model)" in recipe_of("--model", "resunet").reasons[2]
    nested = recipe_of("--model", "unet_plus_plus", "--preset", "scenes", summary=STREETS)
    assert (nested.crop_size, nested.batch_size) == (256, 3)
    assert recipe_of("--model", "unet_original", summary=small).crop_size == 192
    assert recipe_of(summary=small).crop_size == 96


def test_more_memory_means_larger_crops_of_large_images():
    large = summarize_data([(3000, 4000)] * 20, 20, 3, [875, 125])
    sides = [recipe_of("--memory", name, summary=large).crop_size for name in ("small", "medium")]
    assert sides == [512, 768]


@pytest.mark.parametrize("preset", ["classic", "fast"])
def test_fixed_presets_have_no_plan(preset, capsys):
    recipe = recipe_of("--preset", preset)
    expected = presets.PRESETS[preset]
    for name in ("crop_size", "batch_size", "base_c", "scale", "rotate", "crops", "warmup_epochs"):
        assert getattr(recipe, name) == expected[name]
    assert recipe.class_weights == PRESET_CLASS_WEIGHTS[preset]
    assert (recipe.mirror, recipe.accumulate, recipe.reasons) == ("both", 1, [])
    assert "plan" not in capsys.readouterr().out
    assert recipe_of("--preset", preset, summary=STREETS).class_weights == "none"


def test_volumes_are_planned_too():
    recipe = recipe_of("--model", "unet_3d", summary=VOLUMES)
    assert (recipe.crop_size, recipe.batch_size, recipe.base_c) == ([32, 48, 32], 2, 16)
    assert (recipe.scale, recipe.rotate, recipe.mirror) == ([0.85, 1.15], 15.0, "none")
    assert (recipe.steps, recipe.planned_steps, recipe.crops) == (6280, True, None)
    assert (recipe.class_weights, recipe.accumulate) == ([1.0, 1.0, 1.0], 1)
    assert len(recipe.reasons) == 5


@pytest.mark.parametrize(
    "argv, name, value",
    [
        (("--crop-size", 40), "crop_size", [40, 40, 40]),
        (("--crop-size", 64), "crop_size", [40, 56, 40]),
        (("--crop-size", 16, 64, 20), "crop_size", [16, 64, 20]),
        (("--base-c", 8), "base_c", 8),
        (("--batch-size", 5), "batch_size", 5),
        (("--scale", 1, 1), "scale", [1.0, 1.0]),
        (("--rotate", 0), "rotate", 0.0),
        (("--mirror", "both"), "mirror", "both"),
        (("--class-weights", "auto"), "class_weights", "auto"),
        (("--steps", 77), "steps", 77),
        (("--crops", 4), "crops", 4),
        (("--minutes", 4), "steps", None),
    ],
)
def test_a_flag_replaces_the_planned_value_of_volumes(argv, name, value):
    recipe, planned = (
        vars(recipe_of("--model", "unet_3d", *flags, summary=VOLUMES)) for flags in (argv, ())
    )
    assert recipe[name] == value
    follow = {name, "reasons", "steps", "planned_steps", "warmup_epochs"}
    assert {key for key in planned if recipe[key] != planned[key]} <= follow


def test_the_warm_up_is_four_epochs_with_crops_as_it_always_was():
    assert recipe_of("--crops", 15).warmup_epochs == 4.0
    assert recipe_of().warmup_epochs is None
    assert recipe_of("--warmup-epochs", 2).warmup_epochs == 2.0


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "crops_that_fit, batch, accumulate",
    [(100, 12, 1), (12, 12, 1), (11, 6, 2), (5, 4, 3), (0, 1, 12)],
)
def test_too_little_memory_divides_the_batch_and_accumulates(crops_that_fit, batch, accumulate):
    recipe = recipe_of_flags(parse("--crop-size", 64, "-b", 12, "--accumulate", 1), 2)
    lowered = lower_batch(recipe, 1620, crops_that_fit * step_bytes(64, 1, 1620))
    assert (lowered.batch_size, lowered.accumulate) == (batch, accumulate)
    assert lower_batch(recipe, 1620, None) == recipe


@pytest.mark.parametrize("device, least", [("cpu", 25), ("meta", 50)])
def test_the_free_memory_is_that_of_the_rank_with_least(device, least, monkeypatch):
    """Two processes on this machine share what is free on its CPU."""
    monkeypatch.setattr(recipe_module, "free_memory", lambda device: 70)
    monkeypatch.setattr(recipe_module, "local_world_size", lambda: 2)
    others = [None, 50 // (1 + (device == "cpu"))]
    monkeypatch.setattr(recipe_module, "all_gather_objects", lambda own: [*others, own])
    assert least_free_memory(torch.device(device)) == least
    monkeypatch.setattr(recipe_module, "free_memory", lambda device: None)
    others.pop()
    assert least_free_memory(torch.device(device)) is None


def test_too_little_memory_divides_a_batch_of_volumes():
    flags = ("--model", "unet_3d", "--crop-size", 8, 16, 16, "-b", 2)
    lowered = lower_batch(recipe_of_flags(parse(*flags), 2), 1620, 3 * 1024 * 1620)
    assert (lowered.batch_size, lowered.accumulate) == (1, 2)


# --- flags that do not go together ----------------------------------------------------------------


@pytest.mark.parametrize(
    "argv, words",
    [
        (("--steps", 9, "--crops", 2), "--steps and --crops both say how long a run is"),
        (("--steps", 9, "--minutes", 2), "--steps and --minutes both say how long a run is"),
        (("--minutes", 1, "--crops", 2), "--minutes and --crops both say"),
        (("--minutes", 1, "--start-epoch", 2), "omit --start-epoch"),
        (("--memory", "large", "--preset", "classic"), "--preset classic is a fixed recipe"),
        (("--memory", "huge"), "--memory"),
        (("--steps", 0), "--steps: must be at least 1"),
        (("--minutes", 0), "--minutes: must be above 0"),
        (("--augment", "resize", "--base-size", 90), "--rotate 0 --jitter 0"),
        (("--preset", "scenes", "--model", "unet_3d"), "volumes have one recipe"),
    ],
)
def test_flags_that_contradict_each_other(capsys, argv, words):
    with pytest.raises(SystemExit) as stop:
        parse(*argv)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and words in error and error.count("\n") == 1


# --- the same data, the same plan -----------------------------------------------------------------


def logged_plan(capsys, *argv):
    """The lines of the plan that train.py logs for these data, and their mean and std."""
    args = parse(*argv)
    classes = values.find_classes(args, DATASETS[args.dataset]["classes"])
    data = train.read_data(args, classes)
    capsys.readouterr()
    make_recipe(args, train.summarize_training(data), CPU)
    return capsys.readouterr().out.splitlines(), data.mean, data.std


def write_streets(root, count=6):
    """Made-up photographs with class ids in the layout of CamVid; returns the folder."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(count):
            ids = np.repeat(np.arange(12, dtype=np.uint8), 10)[:, None].repeat(160, 1)
            ids[:, : rng.integers(1, 80)] = rng.integers(0, 12)
            image = rng.integers(0, 256, (*ids.shape, 3), dtype=np.uint8)
            for folder, picture in ((split, image), (f"{split}annot", ids)):
                (root / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(root / folder / f"{split}{number}.png")
    return root


def test_streets_of_ones_own_have_the_plan_of_camvid_line_for_line(tmp_path, capsys):
    streets = write_streets(tmp_path / "CamVid")
    own = tmp_path / "mine"
    for split in ("train", "val"):
        shutil.copytree(streets / split, own / "images" / split)
        shutil.copytree(streets / f"{split}annot", own / "masks" / split)
    rows = [f"{index},{name},," for index, name in enumerate(CAMVID.names)]
    (own / "classes.csv").write_text("\n".join(["id,name,colour,ignore", *rows, "11,void,,1"]))
    named = logged_plan(capsys, "--dataset", "camvid", "--data-path", tmp_path)
    copied = logged_plan(capsys, "--dataset", "folder", "--data-path", own, "--preset", "scenes")
    assert named == copied
    assert len(named[0]) == 6 and "11 classes" in named[0][3] and "scenes" in named[0][0]


def test_the_names_and_the_order_of_the_files_change_no_plan(tmp_path, capsys):
    first = write_three_classes(tmp_path / "first", count=8)
    second = shutil.copytree(first, tmp_path / "second")
    for kind, ending in (("images", ""), ("masks", "_mask")):
        for number, path in enumerate(sorted((second / kind).iterdir(), reverse=True)):
            path.rename(path.with_name(f"z{number}{ending}.png"))
    options = ("--dataset", "folder", "--val", "none", "--test-fraction", 0, "--data-path")
    assert logged_plan(capsys, *options, first)[0] == logged_plan(capsys, *options, second)[0]

"""The recipe of a run: what the flags leave open is planned from the data."""

import argparse
from dataclasses import asdict, dataclass, replace

import torch

from src import MODELS
from src.free_memory import free_memory
from src.unet_3d import min_sides, strides
from src.unet_original import valid_input_side
from train_utils.budget import Budget
from train_utils.class_weights import resolve_class_weights
from train_utils.cli.model_flags import model_without_weights
from train_utils.cli.presets import (
    PLANNED,
    PLANNED_PRESETS,
    WARMUP_WITH_CROPS,
    preset_defaults,
)
from train_utils.data.volumes import choose_crop
from train_utils.distributed_utils import all_gather_objects, local_world_size, log
from train_utils.plan import EPOCHS, DataSummary, Plan, make_plan, reason_lines
from train_utils.training_memory import ModelNeeds, pixel_bytes, step_bytes
from train_utils.volume_plan import make_volume_plan


@dataclass(frozen=True)
class Recipe:
    """The settings that a plan may make, each from its flag, the preset, or else the plan.

    crop_size: side in px, or sides (D, H, W) of crops of volumes.
    crops: number of crops of each image in an epoch; None where an epoch is a share of the steps.
    warmup_epochs: number of epochs; None: a tenth of the run.
    steps: optimizer steps of the run, from --steps or the plan; None: the epochs say it.
    planned_steps: whether `steps` is the plan's.
    reasons: lines that explain the plan, and the flags that changed it; empty without a plan.
    """

    crop_size: int | list[int]
    batch_size: int
    accumulate: int
    base_c: int | None
    class_weights: str | list[float]
    scale: list[float]
    rotate: float
    mirror: str
    crops: int | None
    steps: int | None
    warmup_epochs: float | None
    planned_steps: bool
    reasons: list[str]


def make_recipe(args: argparse.Namespace, summary: DataSummary, device: torch.device) -> Recipe:
    """The recipe of a run on these data. Logs the plan, if there is one, and its reasons.

    A planned batch that exceeds the free memory of the device is divided, and its gradients are
    accumulated.
    """
    recipe = recipe_of_flags(args, len(summary.pixels))
    left_open = open_flags(args)
    if not left_open:
        return with_sides(args, recipe, summary)
    model = model_needs(args, summary, planned_width="base_c" in left_open)
    plan = plan_of(args, summary, model)
    planned = left_open & asdict(plan).keys()
    values = {name: plain(getattr(plan, name)) for name in planned}
    values["crop_size"] = plain(plan.crop_size)  # of volumes a single number became three
    planned_steps = not (args.steps or args.crops or args.minutes)
    if planned_steps:
        values["steps"] = plan.steps
    recipe = replace(
        recipe, **values, planned_steps=planned_steps, reasons=describe_plan(args, plan, values)
    )
    log("\n  ".join([f"plan of --preset {args.preset}, --memory {args.memory}:", *recipe.reasons]))
    if {"batch_size", "accumulate"} <= left_open:
        free = least_free_memory(device)
        classes = len(summary.pixels)
        bytes_each = pixel_bytes(model, plan.base_c, summary.channels, classes)
        recipe = lower_batch(recipe, bytes_each, free)
    return recipe


def with_sides(args: argparse.Namespace, recipe: Recipe, summary: DataSummary) -> Recipe:
    """The recipe in which the crop size of volumes is three sides, if it was a single number."""
    if MODELS[args.model].dims == 2 or not isinstance(recipe.crop_size, int):
        return recipe
    model = model_without_weights(args, len(summary.pixels), summary.spacing)
    return replace(recipe, crop_size=choose_crop(recipe.crop_size, [summary.median], model.margins))


def model_needs(args: argparse.Namespace, summary: DataSummary, planned_width: bool) -> ModelNeeds:
    """What the plan has to know of the model. planned_width: whether the plan chooses base_c."""
    model = model_without_weights(args, len(summary.pixels), summary.spacing)
    base_c = None if planned_width else model.base_c
    if model.dims == 2:
        least = model.min_training_side, model.min_training_side
        outputs = getattr(model, "outputs", 1)
        return ModelNeeds(model.training_bytes, base_c, least, outputs=outputs)
    return ModelNeeds(
        model.training_bytes,
        base_c,
        least=tuple(min_sides(model.poolings, model.padded)),
        strides=tuple(strides(model.poolings)),
        margins=tuple(model.margins),
    )


def plan_of(args: argparse.Namespace, summary: DataSummary, model: ModelNeeds) -> Plan:
    """The plan for images or volumes, with the crop size and the batch of flags that are given."""
    given = args.memory, args.crop_size, args.batch_size
    if MODELS[args.model].dims == 3:
        return make_volume_plan(summary, model, *given)
    return make_plan(summary, model, *given, PLANNED_PRESETS[args.preset])


def recipe_of_flags(args: argparse.Namespace, num_classes: int) -> Recipe:
    """The values that flags, preset or checkpoint give; None for those still to be planned."""
    warmup_epochs = args.warmup_epochs
    if warmup_epochs is None and args.crops and MODELS[args.model].dims == 2:
        warmup_epochs = WARMUP_WITH_CROPS
    return Recipe(
        crop_size=args.crop_size,
        batch_size=args.batch_size,
        accumulate=args.accumulate or 1,
        base_c=args.base_c,
        class_weights=resolve_class_weights(args.class_weights, args.preset, num_classes),
        scale=args.scale,
        rotate=args.rotate,
        mirror=args.mirror,
        crops=args.crops,
        steps=args.steps,
        warmup_epochs=warmup_epochs,
        planned_steps=False,
        reasons=[],
    )


def open_flags(args: argparse.Namespace) -> set[str]:
    """The names of the settings to be planned: neither flag, preset nor checkpoint gives them."""
    if args.preset not in PLANNED_PRESETS:
        return set()
    names = {name for name in PLANNED if name in preset_defaults(args.preset, args.model)}
    left_open = {name for name in names if getattr(args, name) is None}
    if args.class_weights == "preset":
        left_open.add("class_weights")
    return left_open


def saved_recipe(recipe: Recipe, budget: Budget, earlier: dict) -> dict:
    """The recipe and the length of the run as a checkpoint holds them.

    earlier: recipe of the checkpoint that is resumed, whose reasons stay; {} for a new run.
    """
    reasons = recipe.reasons or earlier.get("reasons", [])
    return asdict(recipe) | asdict(budget) | {"reasons": reasons}


def budget_of(saved: dict) -> Budget | None:
    """The length of the run in a checkpoint's recipe; None in one of an earlier version."""
    if "epoch_steps" not in saved:
        return None
    return Budget(saved["steps"], saved["epochs"], saved["epoch_steps"])


def plain(value: object) -> object:
    """The value, a tuple as the list that a flag would be."""
    return list(value) if isinstance(value, tuple) else value


def describe_plan(args: argparse.Namespace, plan: Plan, values: dict) -> list[str]:
    """The lines that explain the plan, and one that names the flags that changed it.

    values: the planned values that are used. The lines of crop, batch and width say themselves
    whether a flag gives them.
    """
    names = [name for name in PLANNED if name not in ("crop_size", "batch_size", "base_c")]
    given = {
        name: getattr(args, name)
        for name in (*names, "class_weights", "steps", "crops", "minutes")
        if name not in values and getattr(args, name) not in (None, "preset")
    }
    left_out = set(given)
    if "steps" not in values:
        left_out.add("steps")
    elif args.epochs != EPOCHS:
        steps = args.epochs * (plan.steps // EPOCHS)
        given["epochs"] = f"{args.epochs} of {EPOCHS}, which are {steps:,} steps"
    reasons = reason_lines(plan.reasons, left_out)
    if given:
        text = ", ".join(f"{name} {value}" for name, value in given.items())
        reasons.append(f"set by flags, not planned: {text}")
    return reasons


def least_free_memory(device: torch.device) -> int | None:
    """The bytes of memory that every rank has for itself; None where no system says it.

    The processes of a machine that train on its CPU share its memory.
    """
    free = free_memory(device)
    if free is not None and device.type == "cpu":
        free //= local_world_size()
    return min((each for each in all_gather_objects(free) if each is not None), default=None)


def lower_batch(recipe: Recipe, bytes_each: int, free: int | None) -> Recipe:
    """The recipe with a smaller batch and as much more accumulation, if `free` bytes need it.

    An optimizer step then takes the same crops. bytes_each: bytes for each pixel, see
    pixel_bytes(). free: free bytes of the device; None if they are not known.
    """
    batch = recipe.batch_size
    while batch > 1 and free is not None:
        if step_bytes(recipe.crop_size, batch, bytes_each) <= free:
            break
        batch -= 1
        while recipe.batch_size % batch:
            batch -= 1
    if batch == recipe.batch_size:
        return recipe
    accumulate = recipe.accumulate * (recipe.batch_size // batch)
    log(
        f"{free / 1e9:.1f} GB of memory are free: batch {batch}, with --accumulate {accumulate}, "
        f"in place of batch {recipe.batch_size}"
    )
    return replace(recipe, batch_size=batch, accumulate=accumulate)


def describe_recipe(
    args: argparse.Namespace, model_kwargs: dict, recipe: Recipe, length: dict
) -> str:
    """Two lines for the log: the model, and the settings as plan, preset and flags left them.

    length: `epochs` and `warmup_epochs` of the run, without what is not known yet.
    """
    model = ", ".join(f"{name} {value}" for name, value in model_kwargs.items())
    names = [*preset_defaults(args.preset, args.model), "class_weights"]
    values = vars(args) | asdict(recipe) | {"epochs": None, "warmup_epochs": None} | length
    settings = [f"{name} {values[name]}" for name in names if has_effect(name, values)]
    margin = MODELS[args.model].margin
    if margin:
        centre = valid_input_side(recipe.crop_size) - 2 * margin
        model += f"; it trains on the central {centre} px of each crop"
    return f"model {args.model}: {model}\nrecipe {args.preset}: {', '.join(settings)}"


def has_effect(name: str, values: dict) -> bool:
    """Whether a setting changes the training; width and upsampling are said of the model."""
    if name in ("base_c", "bilinear"):
        return False
    if name == "momentum" and values["optimizer"] != "sgd":
        return False
    if name == "batch_dice" and not values["dice"]:
        return False
    value = values[name]
    return value is not None and (value != 0 or isinstance(value, bool))

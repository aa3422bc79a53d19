"""From flags to values: what the scripts hand to functions that know no flags."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch.utils.data import Dataset

from src.errors import UserError
from src.image_io import MANY_CLASSES
from train_utils.checkpoint import ModelDescription
from train_utils.cli.model_flags import model_kwargs, model_without_weights
from train_utils.cli.recipe import Recipe
from train_utils.data import splits
from train_utils.data.border_weights import border_weights
from train_utils.data.class_table import ClassTable, find_table
from train_utils.data.samples import Sample
from train_utils.distributed_utils import broadcast_from_rank_zero, log
from train_utils.volume_crops import RandomVolumeCrops

Splits = dict[str, list[Sample]]


def find_classes(args: argparse.Namespace, default: ClassTable) -> ClassTable:
    """The class table of the data: that of a file, or `default` if there is none.

    UserError if --num-classes or --class-weights contradict it.
    """
    classes = find_table(args.data_path, args.classes, default)
    count = len(classes.names)
    if args.num_classes not in (None, count):
        raise UserError(
            f"--num-classes {args.num_classes}: {args.dataset} has {count} classes, the background "
            f"included; {MANY_CLASSES}"
        )
    weights = args.class_weights
    if isinstance(weights, list) and len(weights) != count and not args.test_only:
        whose = " (or the resumed run)" if args.resume else ""
        raise UserError(f"--class-weights{whose} has {len(weights)} weights for {count} classes")
    return classes


def choose_splits(args: argparse.Namespace, layout: Splits, ordered: bool) -> tuple:
    """The samples for training, for the choice of the epoch, and for the final evaluation.

    layout: the splits of the dataset's files. ordered: whether the last samples are held out.
    UserError if the splits have images in common; but with --val test, which selects on them.
    """
    train, val, test = split_by_flags(args, layout, ordered)
    splits.check_disjoint(train, [] if args.val == "test" else val, test)
    return train, val, test


def split_by_flags(args: argparse.Namespace, layout: Splits, ordered: bool) -> tuple:
    """choose_splits() without its check."""
    if not args.split_file or args.folds:
        return splits.split_samples(
            layout,
            ordered,
            val=args.val,
            folds=args.folds,
            k=args.fold,
            val_fraction=args.val_fraction,
            test_fraction=args.test_fraction,
            seed=args.split_seed,
        )
    names = broadcast_from_rank_zero(lambda: splits.read_split(args.split_file, args.fold))
    train, val, test = splits.samples_by_name(layout, names)
    test = splits.labelled(test)
    if args.val == "test":
        if not test:
            raise UserError(f"--val test: {args.split_file} has no test images with labels")
        return train, test, test
    if args.val == "none":
        return train, [], test or splits.labelled(val)
    if not val:
        raise UserError(f"{args.split_file}: lists no validation images; give --val none")
    return train, val, test


def choose_test_samples(args: argparse.Namespace, layout: Splits) -> list[Sample]:
    """The test samples with labels of a finished run."""
    names = None
    if args.split_file:
        names = broadcast_from_rank_zero(lambda: splits.read_split(args.split_file, args.fold))
    if "all" in layout and args.test_fraction == 1:
        log("--test-fraction 1: all images are test images")
    elif args.split_file:
        log(f"the test images are those of {args.split_file}")
    elif "all" in layout and args.test_fraction:
        log_unused_split(args)
    return splits.test_samples(layout, names, args.val, args.test_fraction, args.split_seed)


def log_unused_split(args: argparse.Namespace) -> None:
    """Names the split.json beside the weights, which is not used for another --data-path."""
    split_file = Path((args.weights or [args.resume])[0]).parent / "split.json"
    if not split_file.is_file():
        return
    has_test = broadcast_from_rank_zero(lambda: bool(splits.read_split(split_file)["test"]))
    remedy = f"give --split-file {split_file}" if has_test else "--held-out scores the fold's own"
    log(
        f"note: {split_file} is of another --data-path, and test images are drawn anew; if these "
        f"are the same images, {remedy}"
    )


def reading_options(
    args: argparse.Namespace,
    classes: ClassTable,
    label_kind: str = "classes",
    spacing: list[float] | None = None,
) -> dict:
    """How SegmentationDataset reads the files, or with `spacing` VolumeDataset: its arguments.

    label_kind: of choose_label_kind(). UserError if it does not fit to the classes.
    """
    options = {
        "classes": classes,
        "cache": args.cache_limit * 1e9 * args.cache,
        "channels": args.in_channels,
    }
    if spacing:
        return options | {"spacing": spacing}
    check_two_classes(args, classes, label_kind)
    maps = ["instances"] if label_kind == "instances" else []
    options |= {"size": args.resize, "max_pixels": args.max_pixels}
    return options | {"label_kind": label_kind, "maps": maps}


def pixel_weight_options(args: argparse.Namespace, samples: Sequence[Sample]) -> dict:
    """The weights of pixels, for training: arguments that replace those of reading_options()."""
    border = None
    if args.border_weight:
        border = partial(border_weights, w0=args.border_weight, sigma=args.border_sigma)
    has_weights = border is not None or any(sample.weight for sample in samples)
    return {"border": border, "maps": ["weight"] if has_weights else []}


def log_pixel_weights(
    args: argparse.Namespace, samples: list[Sample], weights: dict, label_kind: str
) -> None:
    """Logs what weighs the pixels of the cross entropy, if anything does."""
    if not weights.get("maps"):
        return
    parts = []
    if any(sample.weight for sample in samples):
        parts.append("maps in weights/")
    if args.border_weight:
        objects = "of the ids" if label_kind == "instances" else "that are the regions of class 1"
        width = f"{args.border_weight:g}, sigma {args.border_sigma:g} px"
        parts.append(f"border weight {width}, between the objects {objects}")
    log(f"weights of the pixels in the cross entropy: {'; '.join(parts)}")
    if args.border_weight and label_kind == "classes" and samples[0].instances:
        log("  instances/ is not read; --label-kind instances separates the objects in it")


def check_two_classes(args: argparse.Namespace, classes: ClassTable, label_kind: str) -> None:
    """UserError if objects, which are of class 1, are asked for with more than two classes."""
    if len(classes.names) == 2:
        return
    if label_kind == "instances":
        raise UserError(
            f"--label-kind instances: objects are of class 1, but the class table has "
            f"{len(classes.names)} classes; leave the table out, or give --label-kind classes"
        )
    if args.border_weight:
        raise UserError(
            f"--border-weight {args.border_weight:g}: separates the objects of class 1, but the "
            f"class table has {len(classes.names)} classes; give --border-weight 0"
        )


def describe_model(
    args: argparse.Namespace,
    classes: ClassTable,
    mean: list[float] | None,
    std: list[float] | None,
    spacing: list[float] | None,
) -> ModelDescription:
    """The model of the flags, and how its images are read. mean, std, spacing: of the data."""
    kwargs = model_kwargs(args, len(classes.names), spacing)
    return ModelDescription(args.model, kwargs, classes, mean, std, args.resize, spacing)


def loading_options(args: argparse.Namespace) -> dict:
    """How data_loader.make_loader loads: its keyword arguments."""
    return {
        "workers": args.workers,
        "prefetch": args.prefetch,
        "pin_memory": args.pin_memory,
    }


def log_uncached(args: argparse.Namespace, dataset: Dataset) -> None:
    """Logs what reading the training images from files means, if they exceed --cache-limit."""
    if not args.cache or dataset.fits_in_memory() or dataset.examined:
        return
    text = "they are read from files"
    if dataset.spacing:
        text = "a whole volume is read for each crop, unless it is in memory; raise the limit"
    elif dataset.border:
        text += ", and their border weights are computed each time"
    log(f"the training images exceed --cache-limit {args.cache_limit:g} GB: {text}")


def crop_options(args: argparse.Namespace, recipe: Recipe) -> dict:
    """How random crops are cut from images: keyword arguments of both training transforms."""
    return {
        "crop_size": recipe.crop_size,
        "base_size": args.base_size,
        "scale": recipe.scale,
        "elastic": args.elastic,
        "flip_probs": flip_probs(recipe.mirror, dims=2),
    }


def flip_probs(mirror: str, dims: int) -> list[float]:
    """--mirror as the probability of a flip of each axis: (H, W), or (D, H, W) of volumes."""
    if mirror == "both":
        return [0.5] * dims
    if mirror == "horizontal":
        return [0.0] * (dims - 1) + [0.5]
    return [0.0] * dims


def make_volume_crops(
    args: argparse.Namespace,
    recipe: Recipe,
    num_classes: int,
    spacing: list[float],
) -> RandomVolumeCrops:
    """The crops of volumes. spacing: size (D, H, W) of a voxel.

    UserError if the model cannot be trained on crops of that size.
    """
    model = model_without_weights(args, num_classes, spacing)
    try:
        model.check_sides(recipe.crop_size)
    except ValueError as error:
        raise UserError(f"--crop-size: {error}") from None
    return RandomVolumeCrops(
        recipe.crop_size,
        spacing,
        recipe.scale,
        recipe.rotate,
        args.jitter,
        flip_probs(recipe.mirror, dims=3),
        margins=model.margins,
    )

"""Flags that images and volumes do not share: one sentence before anything starts."""

import argparse

from src import MODELS
from train_utils.cli.parser import Parser

MIN_CROP = 32  # px, of an image
# Flags that say nothing about volumes, and why.
IMAGE_FLAGS = {
    "resize": "volumes are resampled to --spacing",
    "max_pixels": "volumes have no such limit",
    "mean": "each volume is normalized by its own mean",
    "std": "each volume is normalized by its own standard deviation",
    "base_size": "volumes are scaled relative to their own size",
    "label_kind": "labels of volumes hold classes",
    "border_weight": "it is for images",
    "elastic": "it is for images",
}


def check_dimensions(parser: Parser, args: argparse.Namespace, given: dict, data_dims: int) -> None:
    """Ends the script where a model of images meets volumes, or the reverse, and their flags.

    data_dims: 2 if the dataset is of images, 3 if it is of volumes.
    """
    dims = MODELS[args.model].dims
    if dims != data_dims and "model" not in given and (args.resume or args.weights):
        refuse_dataset(parser, args, dims)
    if dims < data_dims:
        parser.error(
            f"--model {args.model} is for images, but --dataset {args.dataset} holds volumes; "
            "give --model unet_3d"
        )
    if dims > data_dims:
        parser.error(
            f"--model {args.model} is for volumes, but --dataset {args.dataset} holds images; "
            "give another --model, or --dataset volumes"
        )
    if dims == 3:
        check_volume_flags(parser, args, given)
    elif isinstance(args.crop_size, list):
        parser.error("--crop-size takes one number for images, the side of a square")
    elif args.crop_size is not None and args.crop_size < MIN_CROP:
        parser.error(f"--crop-size: must be at least {MIN_CROP}, got {args.crop_size}")


def refuse_dataset(parser: Parser, args: argparse.Namespace, dims: int) -> None:
    """Ends the script because the model of a checkpoint does not fit --dataset."""
    path = args.resume or args.weights[0]
    if dims == 3:
        parser.error(f"the model of {path} is for volumes; give --dataset volumes")
    parser.error(f"the model of {path} is for images; give a --dataset of images, such as folder")


def check_volume_flags(parser: Parser, args: argparse.Namespace, given: dict) -> None:
    """Flags that cannot be met with volumes."""
    for name, reason in IMAGE_FLAGS.items():
        if given.get(name):
            parser.error(f"--{name.replace('_', '-')}: {reason}; omit it")
    if args.preset != "best" or args.augment != "affine":
        parser.error("volumes have one recipe: --preset best with --augment affine")

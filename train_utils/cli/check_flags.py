"""Flags that contradict each other or the machine: one sentence before anything starts."""

import argparse
import math

import torch

from src import MODELS
from src.device import pick_device
from src.free_memory import free_memory
from train_utils import checkpoint as checkpoints
from train_utils.checkpoint_flags import changed_flags
from train_utils.cli.parser import Parser
from train_utils.cli.presets import PLANNED_PRESETS
from train_utils.data_loader import cores
from train_utils.distributed_utils import broadcast_from_rank_zero, world_size
from train_utils.plan import BATCH_RANGE, GRID

WORKERS_PER_CORE = 4  # more loader processes than this only take memory


def check_flags(parser: Parser, args: argparse.Namespace, given: dict) -> None:
    """Ends the script with exit code 2 where flags cannot be met together."""
    check_demo(parser, args, given)
    check_data_flags(parser, args, given)
    check_length_flags(parser, args, given)
    check_crop_flags(parser, args)
    check_evaluation_flags(parser, args, given)
    device = check_device(parser, args)
    if not args.test_only:
        check_memory(parser, args, device)


def check_demo(parser: Parser, args: argparse.Namespace, given: dict) -> None:
    """--demo trains on data of its own."""
    own = "volumes" if MODELS[args.model].dims == 3 else "drive"
    if args.demo and given.get("dataset", own) != own:
        parser.error("--demo makes its own data; leave out --dataset")


def check_channels(parser: Parser, args: argparse.Namespace, given: dict) -> None:
    """Mean and std have a value for each channel."""
    for name in ("mean", "std"):
        values = getattr(args, name)
        if not values or len(values) == args.in_channels:
            continue
        if name in given:
            parser.error(f"--{name} has {len(values)} values for --in-channels {args.in_channels}")
        path = args.resume or args.weights[0]
        parser.error(
            f"--in-channels {args.in_channels}: {path} was trained with {len(values)} channels; "
            "leave out --in-channels"
        )


def check_data_flags(parser: Parser, args: argparse.Namespace, given: dict) -> None:
    """Channels, splits and workers."""
    check_channels(parser, args, given)
    if args.test_fraction == 1 and not args.test_only:
        parser.error("--test-fraction 1 leaves nothing to train on; it is for --test-only")
    if args.folds and args.fold is None:
        parser.error("--folds K and --fold k belong together")
    if not args.folds and args.fold is not None and not (args.split_file or args.test_only):
        parser.error(
            "--folds K and --fold k belong together, unless --split-file names a list of folds"
        )
    if args.folds and given.get("split_file") and not args.test_only:
        parser.error("--split-file and --folds both say how to split; give one of them")
    if given.get("split_file") and not args.test_only:
        check_unused_split_flags(parser, args, given)
    if args.folds and (args.fold >= args.folds or args.val != "holdout"):
        parser.error(f"--fold is 0 to {args.folds - 1}, and cannot be combined with --val")
    most = WORKERS_PER_CORE * cores()
    if args.workers is not None and args.workers > most:
        parser.error(
            f"--workers {args.workers}: this machine has {cores()} cores; use at most {most}"
        )


def check_unused_split_flags(parser: Parser, args: argparse.Namespace, given: dict) -> None:
    """Exits if a flag says how to split at random, but a file lists the images of the splits."""
    unused = [name for name in ("split_seed", "val_fraction", "test_fraction") if name in given]
    if unused:
        parser.error(
            f"--{unused[0].replace('_', '-')}: the images of the splits are those of "
            f"{args.split_file}; omit it"
        )


def check_length_flags(parser: Parser, args: argparse.Namespace, given: dict) -> None:
    """The length of the run, and what belongs to planning it."""
    lengths = [name for name in ("steps", "minutes", "crops") if given.get(name)]
    if len(lengths) > 1:
        first, second = lengths[:2]
        parser.error(f"--{first} and --{second} both say how long a run is; give one of them")
    if args.minutes and args.start_epoch is not None:
        parser.error("--minutes plans the run from its first epoch; omit --start-epoch")
    if args.resume:
        check_resumed_length(parser, args, given)
    if given.get("memory") and args.preset not in PLANNED_PRESETS:
        parser.error(
            f"--memory: --preset {args.preset} is a fixed recipe; lower --batch-size or --crop-size"
        )


def check_resumed_length(parser: Parser, args: argparse.Namespace, given: dict) -> None:
    """What changes the length of a resumed run. The command that started it changes nothing."""
    names = given.keys() & {"steps", "epochs", "minutes", "memory"}
    if not names:
        return
    flags = {name: given[name] for name in names}
    changed = broadcast_from_rank_zero(lambda: changed_flags(checkpoints.load(args.resume), flags))
    if {"steps", "epochs"} <= changed:
        parser.error("--steps and --epochs both extend a resumed run; give one of them")
    for name in ("minutes", "memory"):
        if name in changed:
            parser.error(
                f"--{name} plans a new run, and --resume keeps the plan of its own; "
                "--steps makes it longer"
            )


def check_crop_flags(parser: Parser, args: argparse.Namespace) -> None:
    """Crops, augmentation and epochs."""
    smallest, largest = args.scale or (1.0, 1.0)
    if smallest > largest:
        parser.error(f"--scale {smallest} {largest}: the first number must be the smaller one")
    if args.augment == "resize":
        if int(smallest * args.base_size) < 1:
            parser.error(
                f"--scale {smallest} of --base-size {args.base_size} leaves no pixel; "
                "--augment resize needs both"
            )
        if args.rotate is None or args.rotate or args.jitter:
            parser.error(
                "--rotate and --jitter belong to --augment affine; give --rotate 0 --jitter 0"
            )
    # A resumed run may be extended by --steps; its end is known later.
    if not args.resume and (args.start_epoch or 0) >= args.epochs:
        parser.error(f"--start-epoch {args.start_epoch} leaves no epoch of --epochs {args.epochs}")


def check_evaluation_flags(parser: Parser, args: argparse.Namespace, given: dict) -> None:
    """--test-only and what belongs to it."""
    if args.test_only:
        if not (args.weights or args.resume):
            parser.error("--test-only needs --weights FILE")
        if args.held_out and args.report:
            parser.error("--report and --held-out cannot be combined")
        if args.held_out and given.get("split_file"):
            parser.error("--split-file: --held-out uses the splits in the checkpoints")
        if args.report and world_size() > 1:
            parser.error("--report needs a single process; run train.py without torchrun")
        if args.profile:
            parser.error("--profile is about training; omit --test-only")
        return
    if args.prune:
        parser.error("--prune belongs to --test-only: training always uses the whole network")
    if len(args.weights) > 1:
        parser.error(
            f"--weights {' '.join(args.weights)}: a run starts from one file; several are "
            "evaluated with --test-only"
        )
    if args.flips or args.held_out or args.report or args.threshold is not None:
        parser.error("--flips, --held-out, --report and --threshold belong to --test-only")


def check_device(parser: Parser, args: argparse.Namespace) -> torch.device:
    """The device; it must exist, and support what is asked of it."""
    try:
        device = pick_device(args.device)
    except ValueError as error:
        parser.error(f"--device: {error}")
    if args.sync_bn and device.type != "cuda" and not args.test_only:
        # A run on GPUs may be evaluated anywhere.
        parser.error(
            f"--sync-bn: PyTorch's SyncBatchNorm works on CUDA only, not on {device}; "
            "give --no-sync-bn"
        )
    return device


def check_memory(parser: Parser, args: argparse.Namespace, device: torch.device) -> None:
    """A batch of crops must fit into the free memory, before anything is computed from it.

    What is planned later is taken to be as small as it can be.
    """
    free = free_memory(device)
    batch_size, crop_size = args.batch_size or BATCH_RANGE[0], args.crop_size or GRID
    sides = crop_sides(crop_size, MODELS[args.model].dims)
    needed = crop_batch_bytes(batch_size, sides, args.in_channels)
    if free is not None and needed > free:
        parser.error(
            f"--batch-size {batch_size} of --crop-size {crop_size}: the crops alone take "
            f"{needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free on {device}; "
            "lower one of them"
        )


def crop_sides(crop_size: int | list[int], dims: int) -> list[int]:
    """The side of a crop on each of its axes."""
    if isinstance(crop_size, list):
        return crop_size
    return [crop_size] * dims


def crop_batch_bytes(batch_size: int, sides: list[int], in_channels: int) -> int:
    """Least memory of a batch: float32 images, int64 targets, float32 sampling grid (x, y, …)."""
    return batch_size * math.prod(sides) * (4 * in_channels + 8 + 4 * len(sides))

"""Our way, for the benchmarks: the pieces of train.py, with the settings of its flags."""

import argparse
import shlex
from collections.abc import Iterable
from functools import partial

import torch

import train
from my_dataset import DATASETS
from src.device import benchmark_convolutions
from src.image_io import IGNORE
from train_utils import create_lr_scheduler, criterion, train_one_epoch
from train_utils.checkpoint import ModelDescription
from train_utils.cli import model_flags
from train_utils.cli.defaults import parse_args


def settings(
    options: argparse.Namespace, device: torch.device, *flags: object
) -> argparse.Namespace:
    """The settings of train.py for the benchmark's options, then `flags`, then those of --ours."""
    argv = ["--preset", "classic", "--device", device, "--output-dir", f"{options.scratch}/output"]
    argv += ["--base-c", options.base_c, "--bilinear" if options.bilinear else "--no-bilinear"]
    argv += [*flags, *shlex.split(options.ours)]
    return parse_args([str(each) for each in argv], "train.py", "", DATASETS)


def data_flags(options: argparse.Namespace) -> list:
    """The flags for the data and its crops."""
    return [
        *("--data-path", options.data_path, "--val", options.val),
        *("--batch-size", options.batch_size, "--crop-size", options.size),
        *("--base-size", base_size(options)),
    ]


def base_size(options: argparse.Namespace) -> int:
    """The shorter side that random scales are relative to: 565 for crops of 480, as in DRIVE."""
    return round(options.size * 565 / 480)


class Trainer:
    """The model, optimizer and schedule as train.main makes them; trains an epoch for each call."""

    def __init__(self, args: argparse.Namespace, steps: int, num_classes: int = 2) -> None:
        self.device, self.amp_dtype = train.prepare_device(args)
        self.args, self.num_classes = args, num_classes
        kwargs = model_flags.model_kwargs(args, num_classes)
        classes = DATASETS["drive"]["classes"]
        description = ModelDescription(args.model, kwargs, classes, args.mean, args.std, None)
        self.model, _ = train.make_model(args, description, self.device)
        self.optimizer = train.make_optimizer(args, self.model)
        self.scheduler = create_lr_scheduler(self.optimizer, steps, epochs=200)
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.amp_dtype is torch.float16
        )
        self.weight = None
        if num_classes == 2:
            self.weight = torch.tensor([1.0, 2.0], device=self.device)

    def __call__(self, loader: Iterable) -> float:
        """One epoch; returns the mean of the losses."""
        with benchmark_convolutions(self.device):  # as train.train_epoch does
            loss, _ = train_one_epoch(
                self.model,
                self.optimizer,
                loader,
                self.device,
                0,
                self.num_classes,
                self.scheduler,
                scaler=self.scaler,
                loss=partial(criterion, loss_weight=self.weight, batch_dice=self.args.batch_dice),
                amp_dtype=self.amp_dtype,
                clip_grad=self.args.clip_grad or None,
                ignore_index=IGNORE,
            )
        return loss

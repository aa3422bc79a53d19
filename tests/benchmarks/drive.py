"""DRIVE, or the demo's images at DRIVE's size, for the benchmarks that read files."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import train
from my_dataset import DATASETS, list_drive
from tests.benchmarks import ours, tutorial
from train_utils.cli import values
from train_utils.cli.recipe import make_recipe
from train_utils.data.demo_drive import write_demo_drive
from train_utils.data_loader import EpochBatches, make_evaluation_loader

SIZE = (584, 565)


@contextmanager
def scratch_folder(options: argparse.Namespace) -> Iterator[None]:
    """Sets options.scratch, a folder for what the benchmark writes; without --data-path the demo's
    images are written there, as many for training as for the test."""
    with TemporaryDirectory() as folder:
        options.scratch = folder
        if not options.data_path:
            count = options.images
            write_demo_drive(folder, num_training=count, num_test=count, size=SIZE)
            options.data_path = folder
        yield


def image_folder(options: argparse.Namespace) -> Path:
    """The folder of the test images."""
    return Path(options.data_path) / "DRIVE" / "test" / "images"


def splits(options: argparse.Namespace) -> tuple[list[tutorial.Files], list[tutorial.Files]]:
    """The files of (training, evaluation) that train.py --val holdout or test takes."""
    train_files = files_of(options, is_train=True)
    if options.val == "test":
        return train_files, files_of(options, is_train=False)
    held_out = max(round(0.2 * len(train_files)), 1)  # DRIVE: 37–40
    return train_files[:-held_out], train_files[-held_out:]


def files_of(options: argparse.Namespace, is_train: bool) -> list[tutorial.Files]:
    """(image, label, ROI mask) of every sample."""
    samples = list_drive(options.data_path, is_train)
    return [(sample.image, sample.label, sample.roi) for sample in samples]


class OurData:
    """Loaders of the training crops and of the whole evaluation images, as train.main makes them.

    args: the settings of train.py.
    """

    def __init__(self, args: argparse.Namespace, device: torch.device) -> None:
        self.data = train.read_data(args, DATASETS["drive"]["classes"])
        recipe = make_recipe(args, train.summarize_training(self.data), device)
        self.batches = EpochBatches(
            len(self.data.train), recipe.batch_size, args.seed, repeats=recipe.crops or 1
        )
        self.train_loader = train.make_train_loader(args, recipe, self.data, self.batches, device)
        loader_of = partial(make_evaluation_loader, device=device, **values.loading_options(args))
        self.val_loader = loader_of(self.data.val)
        self.epoch = 0

    def next_epoch(self) -> None:
        """Chooses the random order of another epoch."""
        self.batches.set_epoch(self.epoch)
        self.epoch += 1


def tutorial_train_loader(options: argparse.Namespace, device: torch.device) -> Callable:
    """The tutorials' loader of training crops."""
    transforms = tutorial.TrainTransforms(ours.base_size(options), options.size)
    return tutorial.make_loader(
        splits(options)[0], device, options.batch_size, transforms, True, options.batch_size
    )


def tutorial_val_loader(options: argparse.Namespace, device: torch.device) -> Callable:
    """The tutorials' loader of whole images, with as many workers as for training."""
    return tutorial.make_loader(splits(options)[1], device, 1, workers=options.batch_size)

"""Loading and random crops alone, in images a second, until the crops are on the device.

ours: images in memory, crops cut on the device. ours_files: the same crops, images read from files
by workers. ours_resize: the tutorials' transforms on images in memory (--augment resize).
"""

import argparse
from functools import partial

import torch

from src.device import synchronize
from tests.benchmarks import drive, ours
from tests.benchmarks.compare import Task


def tutorial_task(options: argparse.Namespace, device: torch.device) -> Task:
    """PIL transforms in workers, which are started in every epoch."""
    loader = drive.tutorial_train_loader(options, device)

    def run() -> int:
        count = 0
        for _ in range(options.steps):
            count += sum(len(image.to(device)) for image, _ in loader)
        return count

    return Task(run, options.steps * len(loader.dataset))


def our_task(flags: list[str], options: argparse.Namespace, device: torch.device) -> Task:
    """The loader of train.py with these flags."""
    args = ours.settings(options, device, *ours.data_flags(options), *flags)
    data = drive.OurData(args, device)

    def run() -> int:
        count = 0
        for _ in range(options.steps):
            data.next_epoch()
            count += sum(len(image.to(device)) for image, _ in data.train_loader)
        synchronize(device)
        return count

    return Task(run, options.steps * len(data.data.train))


WAYS = {
    "tutorial": tutorial_task,
    "ours": partial(our_task, ["--augment", "affine"]),
    "ours_files": partial(our_task, ["--augment", "affine", "--no-cache"]),
    "ours_resize": partial(our_task, ["--augment", "resize"]),
}

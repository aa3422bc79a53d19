"""One training step of a U-Net: forward, criterion, backward, SGD, on a synthetic batch."""

import argparse

import torch
from torch import Tensor

from tests.benchmarks import ours, tutorial
from tests.benchmarks.compare import Task


def batches(options: argparse.Namespace) -> list[tuple[Tensor, Tensor]]:
    """The same batch for every step of a round; a tenth of its pixels is ignored."""
    count, side = options.batch_size, options.size
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(count, 3, side, side, generator=generator)
    target = torch.randint(0, options.classes, (count, side, side), generator=generator)
    target[:, : side // 10] = 255
    return [(image, target)] * options.steps


def tutorial_task(options: argparse.Namespace, device: torch.device) -> Task:
    """The tutorials' loop."""
    unet = {"base_c": options.base_c, "bilinear": options.bilinear}
    trainer = tutorial.Trainer(device, options.steps, options.classes, **unet)
    loader = batches(options)
    return Task(lambda: trainer(loader), options.steps * options.batch_size)


def our_task(options: argparse.Namespace, device: torch.device) -> Task:
    """train_one_epoch with what train.py makes."""
    trainer = ours.Trainer(ours.settings(options, device), options.steps, options.classes)
    loader = batches(options)
    return Task(lambda: trainer(loader), options.steps * options.batch_size)


WAYS = {"tutorial": tutorial_task, "ours": our_task}

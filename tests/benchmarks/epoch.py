"""A whole epoch of --preset classic on DRIVE: training crops, then the evaluation images."""

import argparse

import torch

from tests.benchmarks import drive, ours, tutorial
from tests.benchmarks.compare import Task
from train_utils import evaluate


def tutorial_task(options: argparse.Namespace, device: torch.device) -> Task:
    """Everything from files, in every epoch."""
    train_loader = drive.tutorial_train_loader(options, device)
    val_loader = drive.tutorial_val_loader(options, device)
    unet = {"base_c": options.base_c, "bilinear": options.bilinear}
    trainer = tutorial.Trainer(device, len(train_loader), **unet)

    def run() -> float:
        loss = trainer(train_loader)
        tutorial.evaluate(trainer.model, val_loader, device)
        return loss

    return Task(run, len(train_loader.dataset))


def our_task(options: argparse.Namespace, device: torch.device) -> Task:
    """What train.main does in an epoch, but for the checkpoint."""
    args = ours.settings(options, device, *ours.data_flags(options))
    data = drive.OurData(args, device)
    trainer = ours.Trainer(args, len(data.batches))

    def run() -> float:
        data.next_epoch()
        loss = trainer(data.train_loader)
        evaluate(trainer.model, data.val_loader, device, 2, amp_dtype=trainer.amp_dtype)
        return loss

    return Task(run, len(data.data.train))


WAYS = {"tutorial": tutorial_task, "ours": our_task}

"""The evaluation of the test images alone, with the scores that each way computes."""

import argparse

import torch

from tests.benchmarks import drive, ours, tutorial
from tests.benchmarks.compare import Task
from train_utils import evaluate


def tutorial_task(options: argparse.Namespace, device: torch.device) -> Task:
    """Image by image, float32."""
    loader = drive.tutorial_val_loader(options, device)
    unet = {"base_c": options.base_c, "bilinear": options.bilinear}
    trainer = tutorial.Trainer(device, 1, **unet)
    return Task(lambda: tutorial.evaluate(trainer.model, loader, device)[1], len(loader.dataset))


def our_task(options: argparse.Namespace, device: torch.device) -> Task:
    """train_utils.evaluate, with the histograms of the threshold and the AUC."""
    args = ours.settings(options, device, *ours.data_flags(options))
    data = drive.OurData(args, device)
    trainer = ours.Trainer(args, 1)

    def run() -> float:
        model, amp_dtype = trainer.model, trainer.amp_dtype
        return evaluate(model, data.val_loader, device, 2, amp_dtype=amp_dtype)[1]

    return Task(run, len(data.data.val))


WAYS = {"tutorial": tutorial_task, "ours": our_task}

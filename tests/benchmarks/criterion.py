"""Forward and backward of the criterion, of random logits and targets."""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from src.device import reuse_freed_memory
from tests.benchmarks import tutorial
from tests.benchmarks.compare import Task
from train_utils import criterion


def make_task(
    loss_of: Callable[[Tensor, Tensor, Tensor], Tensor],
    options: argparse.Namespace,
    device: torch.device,
) -> Task:
    """loss_of: function of (logits, target, weight)."""
    count, classes, side = options.batch_size, options.classes, options.size
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(count, classes, side, side, generator=generator).to(device)
    target = torch.randint(0, classes, (count, side, side), generator=generator)
    target[:, : side // 10] = 255
    target = target.to(device)
    weight = (torch.rand(classes, generator=generator) + 0.5).to(device)
    logits.requires_grad_()

    def run() -> Tensor:
        logits.grad = None
        loss = loss_of(logits, target, weight)
        loss.backward()
        return loss

    def result(loss: Tensor) -> float:
        return loss.item()

    return Task(run, count, result)


def tutorial_task(options: argparse.Namespace, device: torch.device) -> Task:
    """Loops over images and classes."""
    return make_task(
        lambda logits, target, weight: tutorial.criterion(logits, target, weight, options.classes),
        options,
        device,
    )


def our_task(options: argparse.Namespace, device: torch.device) -> Task:
    """train_utils.criterion."""
    reuse_freed_memory(device)
    return make_task(
        lambda logits, target, weight: criterion(
            {"out": logits}, target, weight, options.classes, ignore_index=255
        ),
        options,
        device,
    )


WAYS = {"tutorial": tutorial_task, "ours": our_task}

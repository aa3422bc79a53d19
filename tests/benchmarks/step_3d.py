"""One training step of a 3D U-Net, against a plain PyTorch loop, on a synthetic batch.

The plain loop is what one writes without this repository: float32, contiguous NCDHW, convolutions
with a bias before BatchNorm, Dice in a loop over classes, AdamW as it is by default, `.item()` of
the loss in every step. Only src.UNet3D and the schedule are shared, so that both train the same
network.
"""

import argparse
import shlex
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from my_dataset import DATASETS
from src import UNet3D
from tests.benchmarks import ours, tutorial
from tests.benchmarks.compare import Task
from train_utils.cli.defaults import parse_args

IGNORE = 255


def batches(options: argparse.Namespace) -> list[tuple[Tensor, Tensor]]:
    """The same batch for every step of a round; a tenth of its voxels is ignored."""
    count, side = options.batch_size, options.size
    generator = torch.Generator().manual_seed(0)
    volume = torch.randn(count, 1, side, side, side, generator=generator)
    target = torch.randint(0, options.classes, (count, side, side, side), generator=generator)
    target[:, : side // 10] = IGNORE
    return [(volume, target)] * options.steps


class PlainTrainer:
    """A 3D U-Net and AdamW; trains an epoch for each call. steps: batches in an epoch."""

    def __init__(
        self, device: torch.device, steps: int, num_classes: int, base_c: int, lr: float = 2e-3
    ) -> None:
        torch.manual_seed(0)
        self.device, self.num_classes = device, num_classes
        self.model = UNet3D(1, num_classes, base_c, bias=True).to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=lr, weight_decay=1e-2)
        self.scheduler = tutorial.make_scheduler(self.optimizer, steps, epochs=200)

    def __call__(self, loader: Iterable) -> float:
        """One epoch; returns the mean of the losses."""
        self.model.train()
        losses = []
        for volume, target in loader:
            volume, target = volume.to(self.device), target.to(self.device)
            logits = self.model(volume)["out"]
            loss = F.cross_entropy(logits, target, ignore_index=IGNORE)
            loss = loss + plain_dice_loss(logits, target, self.num_classes)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
            losses.append(loss.item())
        return sum(losses) / len(losses)


def plain_dice_loss(logits: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """1 − mean Dice of the foreground classes over the batch. [N, K, D, H, W], [N, D, H, W]."""
    probs, valid = F.softmax(logits, dim=1), target != IGNORE
    dice = 0.0
    for c in range(1, num_classes):
        p, t = probs[:, c][valid], (target == c)[valid].float()
        dice = dice + (2 * (p * t).sum() + 1e-6) / (p.sum() + t.sum() + 1e-6)
    return 1 - dice / (num_classes - 1)


def plain_task(options: argparse.Namespace, device: torch.device) -> Task:
    """The plain loop."""
    trainer = PlainTrainer(device, options.steps, options.classes, options.base_c)
    loader = batches(options)
    return Task(lambda: trainer(loader), options.steps * options.batch_size)


def our_task(options: argparse.Namespace, device: torch.device) -> Task:
    """train_one_epoch with what train.py makes for volumes."""
    argv = ["--model", "unet_3d", "--device", device, "--output-dir", f"{options.scratch}/output"]
    argv += ["--base-c", options.base_c, "--spacing", 1, 1, 1, *shlex.split(options.ours)]
    args = parse_args([str(each) for each in argv], "train.py", "", DATASETS)
    trainer = ours.Trainer(args, options.steps, options.classes)
    trainer.weight = None
    loader = batches(options)
    return Task(lambda: trainer(loader), options.steps * options.batch_size)


WAYS = {"plain": plain_task, "ours": our_task}

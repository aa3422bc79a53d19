"""Time of criterion() forward and backward against the tutorials' loops, and how far the two differ.

    python -m tests.benchmarks.criterion [--device cpu|cuda] [--rounds 5]

Logits of 8 images of 480² and 11 classes; both take turns in one process.
"""

import argparse
import statistics
import time

import torch

from src.device import pick_device, synchronize
from tests.benchmarks.tutorial_loss import tutorial_criterion
from train_utils import criterion
from train_utils.reporting.text_files import machine_name


def timed(loss_of, logits, device):
    """(seconds, loss, gradient) of one forward and backward pass."""
    logits = logits.clone().requires_grad_()
    synchronize(device)
    start = time.perf_counter()
    loss = loss_of(logits)
    loss.backward()
    synchronize(device)
    return time.perf_counter() - start, loss.item(), logits.grad


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    device = pick_device(args.device)
    torch.manual_seed(0)
    logits = torch.randn(8, 11, 480, 480, device=device)
    target = torch.randint(0, 11, (8, 480, 480), device=device)
    target[:, :48] = 255
    weight = torch.rand(11, device=device) + 0.5
    ways = {
        "loops": lambda x: tutorial_criterion(x, target, weight, 11, 255),
        "criterion": lambda x: criterion({"out": x}, target, weight, 11, ignore_index=255),
    }
    for way in ways.values():  # warm-up
        timed(way, logits, device)
    rounds = [
        {name: timed(way, logits, device) for name, way in ways.items()} for _ in range(args.rounds)
    ]
    print(f"{machine_name(device)}, torch {torch.__version__}, logits {list(logits.shape)}")
    for name in ways:
        print(f"{name:<10}{statistics.median(r[name][0] for r in rounds):8.3f} s")
    print(f"ratio     {statistics.median(r['loops'][0] / r['criterion'][0] for r in rounds):8.2f}")
    (_, a, grad_a), (_, b, grad_b) = rounds[0].values()
    print(
        f"difference of the losses {abs(a - b):.1e}, of the gradients {(grad_a - grad_b).abs().max():.1e} "
        f"(largest gradient {grad_a.abs().max():.1e})"
    )


if __name__ == "__main__":
    main()

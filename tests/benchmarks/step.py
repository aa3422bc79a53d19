"""Images a second and peak memory of one training step, the tutorials' way and this project's.

    python -m tests.benchmarks.step [--device cpu|cuda] [--rounds 3]

The step: forward, criterion, backward, SGD, of UNet(3, 2, base_c=32) on 480² crops. The tutorials' way: float32, NCHW,
Dice in loops, loss read back every step. Ours: what train.py does by default. Both take turns in fresh processes, so
that a machine whose speed drifts is fair to both and each has a peak memory of its own; medians are printed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import torch

from src import UNet
from src.device import pick_amp_dtype, pick_device, reuse_freed_memory, synchronize
from tests.benchmarks.tutorial_loss import tutorial_criterion
from train_utils import create_lr_scheduler, train_one_epoch
from train_utils.reporting.text_files import machine_name, peak_memory_mb


def batches(count, batch_size, size):
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(batch_size, 3, size, size, generator=generator)
    target = torch.randint(0, 2, (batch_size, size, size), generator=generator)
    target[:, : size // 10] = 255
    return [(image, target)] * count


def tutorial_steps(model, optimizer, loader, device):
    weight = torch.tensor([1.0, 2.0], device=device)
    for image, target in loader:
        image, target = image.to(device), target.to(device)
        loss = tutorial_criterion(model(image)["out"], target, weight, 2, 255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()


def our_steps(model, optimizer, loader, device):
    train_one_epoch(
        model,
        optimizer,
        loader,
        device,
        0,
        2,
        create_lr_scheduler(optimizer, len(loader), 1),
        print_freq=10**9,
        loss_weight=torch.tensor([1.0, 2.0], device=device),
        amp_dtype=pick_amp_dtype(device),
    )


def measure(variant, device, batch_size, size, steps):
    """{"images_per_second", "memory_mb"} of one variant in this process."""
    torch.manual_seed(0)
    model = UNet(3, 2, base_c=32).to(device)
    if variant == "ours":
        reuse_freed_memory(device)
        model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    run = {"tutorial": tutorial_steps, "ours": our_steps}[variant]
    run(model, optimizer, batches(2, batch_size, size), device)  # warm-up
    synchronize(device)
    start = time.perf_counter()
    run(model, optimizer, batches(steps, batch_size, size), device)
    synchronize(device)
    return {
        "images_per_second": steps * batch_size / (time.perf_counter() - start),
        "memory_mb": peak_memory_mb(device),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--size", type=int, default=480)
    parser.add_argument(
        "--steps", type=int, help="timed steps a round (default: 5 on a CPU, 50 on a GPU)"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--variant", choices=["tutorial", "ours"], help="measure one in this process, print JSON"
    )
    args = parser.parse_args()
    device = pick_device(args.device)
    steps = args.steps or (5 if device.type == "cpu" else 50)
    if args.variant:
        print(json.dumps(measure(args.variant, device, args.batch_size, args.size, steps)))
        return
    print(
        f"{machine_name(device)}, torch {torch.__version__}, batch {args.batch_size}, {args.size}²"
    )
    found = {"tutorial": [], "ours": []}
    for _ in range(args.rounds):
        for variant, rows in found.items():
            flags = [
                "--device",
                args.device,
                "--batch-size",
                args.batch_size,
                "--size",
                args.size,
                "--steps",
                steps,
            ]
            child = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "tests.benchmarks.step",
                    "--variant",
                    variant,
                    *map(str, flags),
                ],
                capture_output=True,
                text=True,
                check=True,
            )
            rows.append(json.loads(child.stdout.splitlines()[-1]))
    for variant, rows in found.items():
        speed, memory = (
            statistics.median(row[key] for row in rows)
            for key in ("images_per_second", "memory_mb")
        )
        print(f"{variant:<10}{speed:8.2f} images/s   peak memory {memory:6.0f} MB")
    ratios = [
        ours["images_per_second"] / theirs["images_per_second"]
        for theirs, ours in zip(*found.values())
    ]
    print(
        f"ratio     {statistics.median(ratios):8.2f}   (rounds: {', '.join(f'{r:.2f}' for r in ratios)})"
    )


if __name__ == "__main__":
    main()

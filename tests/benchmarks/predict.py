"""A folder of images, the whole process: predict.py against one image after the other."""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from my_dataset import DATASETS
from src import build_model
from tests.benchmarks import drive
from tests.benchmarks.compare import Task
from train_utils import checkpoint as checkpoints
from train_utils.checkpoint import ModelDescription

ROOT = Path(__file__).parents[2]


def make_task(script: list[str], options: argparse.Namespace, device: torch.device) -> Task:
    """Runs `python SCRIPT --weights --input --output --device`."""
    folder = Path(options.scratch)
    output = folder / script[-1]
    images = drive.image_folder(options)
    command = [sys.executable, *script, "--weights", save_weights(folder, options)]
    command += ["--input", images, "--output", output, "--device", device]
    command = [str(each) for each in command]

    def run() -> Path:
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return output

    def memory() -> float | None:
        return child_memory_mb() if device.type == "cpu" else None

    return Task(run, len(list(images.iterdir())), share_of_foreground, memory)


def save_weights(folder: Path, options: argparse.Namespace) -> Path:
    """A checkpoint of a U-Net with random weights, the same whoever writes it."""
    row = DATASETS["drive"]
    kwargs = {"in_channels": 3, "num_classes": 2}
    kwargs |= {"bilinear": options.bilinear, "base_c": options.base_c}
    description = ModelDescription("unet", kwargs, row["classes"], row["mean"], row["std"], None)
    torch.manual_seed(0)
    model = build_model("unet", **kwargs)
    path = folder / "model.pth"
    content = {**description.entries(), "model": model.state_dict(), "threshold": 0.5}
    checkpoints.save(path, content)
    return path


def share_of_foreground(folder: Path) -> float:
    """Of all masks in the folder."""
    masks = [np.asarray(Image.open(path)) for path in sorted(folder.glob("*_mask.png"))]
    return float(np.mean([(mask > 0).mean() for mask in masks]))


def child_memory_mb() -> float | None:
    """Peak memory of the largest process that was started and has ended; None on Windows."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def tutorial_task(options: argparse.Namespace, device: torch.device) -> Task:
    """The tutorials' script."""
    return make_task(["-m", "tests.benchmarks.tutorial"], options, device)


def our_task(options: argparse.Namespace, device: torch.device) -> Task:
    """predict.py."""
    return make_task(["predict.py"], options, device)


WAYS = {"tutorial": tutorial_task, "ours": our_task}

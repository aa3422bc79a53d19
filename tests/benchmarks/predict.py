"""A folder of images, the whole process: predict.py against one image after the other.

The ratios are to milesial/Pytorch-UNet's way. ONNX Runtime is measured too where it is installed
and PyTorch computes on the CPU.
"""

import argparse
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from my_dataset import DATASETS
from src import build_model
from src.export import ONNX_PACKAGES, export_model
from tests.benchmarks import drive
from tests.benchmarks.compare import Task
from train_utils import checkpoint as checkpoints
from train_utils.checkpoint import ModelDescription
from train_utils.model_loading import load_model

ROOT = Path(__file__).parents[2]


def make_task(
    script: list[str], options: argparse.Namespace, device: torch.device, suffix: str = ".pth"
) -> Task:
    """Runs `python SCRIPT --weights --input --output --device`.

    suffix: of the file of weights, ".pth" or ".onnx".
    """
    folder = Path(options.scratch)
    output = folder / script[-1]
    images = drive.image_folder(options)
    weights = save_weights(folder, options)
    if suffix == ".onnx":
        weights = folder / "model.onnx"
        export_model(*load_model(folder / "model.pth"), weights)
    command = [sys.executable, *script, "--weights", weights]
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


def milesial_task(options: argparse.Namespace, device: torch.device) -> Task:
    """The script of milesial/Pytorch-UNet."""
    return make_task(["-m", "tests.benchmarks.milesial"], options, device)


def tutorial_task(options: argparse.Namespace, device: torch.device) -> Task:
    """The tutorials' script."""
    return make_task(["-m", "tests.benchmarks.tutorial"], options, device)


def our_task(options: argparse.Namespace, device: torch.device) -> Task:
    """predict.py."""
    return make_task(["predict.py"], options, device)


def onnx_task(options: argparse.Namespace, device: torch.device) -> Task:
    """ONNX Runtime on the file of predict.py --export, on the CPU."""
    return make_task(["-m", "tests.benchmarks.onnx_runtime"], options, device, ".onnx")


WAYS = {"milesial": milesial_task, "tutorial": tutorial_task, "ours": our_task}
if all(find_spec(name) for name in ONNX_PACKAGES) and not torch.cuda.is_available():
    WAYS["onnxruntime"] = onnx_task

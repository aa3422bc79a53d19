"""How a number was obtained: command, commit, versions, machine, time and memory."""

import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torchvision

from train_utils.plurals import counted

# What --val means for the choice of the epoch and of the threshold. It is in every run's output.
SELECTION = {
    "holdout": "validation images, which are not trained on",
    "none": "nothing: the last weights, threshold 0.5",
    "test": "the TEST images themselves, as the tutorials do: the test scores below are optimistic",
}


def provenance(device: torch.device, amp_dtype: torch.dtype | None, seconds: float) -> dict:
    """Command, commit, versions, machine, precision, wall time in seconds, peak memory in MB.

    For JSON. amp_dtype: dtype of autocast, None for full precision.
    """
    return {
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "commit": source_commit(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "numpy": np.__version__,
        },
        "machine": machine_name(device),
        "precision": precision_name(amp_dtype),
        "seconds": round(seconds, 1),
        "peak_memory_mb": round(peak_memory_mb(device)),
    }


def describe_origin(
    checkpoints: Sequence[dict], paths: Sequence[str | Path], flips: bool = False
) -> dict:
    """What the score files say of the evaluated weights, read from `paths`.

    Files, flips, what chose the epoch, and for each file its model, epoch, split, recipe, flags and
    the seconds of training up to its epoch, those before it was resumed included.
    """
    choices = []
    for checkpoint in checkpoints:
        if "training" in checkpoint:
            choices.append(SELECTION[checkpoint["training"]["val"]])
        else:
            choices.append("unknown: weights without metadata")
    origin = {
        "weights": [str(path) for path in paths],
        "flips": flips,
        "selection": "; ".join(dict.fromkeys(choices)),
    }
    for name in ("model_name", "model_kwargs", "epoch", "split", "recipe", "args"):
        values = [checkpoint.get(name) for checkpoint in checkpoints]
        origin[name] = values[0] if len(values) == 1 else values
    times = [training_seconds(checkpoint) for checkpoint in checkpoints]
    origin["training_seconds"] = times[0] if len(times) == 1 else times
    return origin


def training_seconds(checkpoint: dict) -> float | None:
    """The time of all its epochs, without evaluations; None for weights without a history."""
    if "history" not in checkpoint:
        return None
    return round(sum(row["seconds"] for row in checkpoint["history"]), 1)


def source_commit() -> str | None:
    """The git commit of this code, with "+changes" if tracked files were edited since.

    None outside of a git repository.
    """
    try:
        commit = _git("rev-parse", "HEAD").strip()
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    if changed:
        return f"{commit}+changes"
    return commit


def _git(*arguments: str) -> str:
    """What git prints when it is run in the folder of this file."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def machine_name(device: torch.device) -> str:
    """The name of the GPU, or the processor and the number of threads that PyTorch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor_name()}, {counted(torch.get_num_threads(), 'threads')}"


def processor_name(cpu_info: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's model where the system tells it, else its architecture.

    cpu_info: Linux's description of the processors.
    """
    try:
        model = re.search(r"^model name[ \t]*:[ \t]*(\S.*)$", cpu_info.read_text(), re.MULTILINE)
    except OSError:
        model = None
    return model[1] if model else platform.processor() or platform.machine()


def precision_name(amp_dtype: torch.dtype | None) -> str:
    """ "bfloat16", "float16", or "float32" for full precision."""
    return str(amp_dtype or torch.float32).removeprefix("torch.")


def peak_memory_mb(device: torch.device) -> float:
    """The largest memory so far in MB: allocated by PyTorch on a GPU, else held by the process.

    0 on Windows, where Python's standard library does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if sys.platform == "darwin":  # bytes; Linux counts in kB
        return peak / 1e6
    return peak / 1e3

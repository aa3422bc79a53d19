"""Trains a U-Net on several GPUs and machines: `torchrun --nproc_per_node=N train_multi_GPU.py`.

The flags are those of train.py. The run is train.main inside a process group, one process for each
GPU (or, without CUDA, processes on the CPU). --batch-size is per process. Without torchrun it is a
single process.
"""

import os
import sys

import torch

import train
from my_dataset import DATASETS
from src.device import pick_device
from train_utils.cli.defaults import CommandLine
from train_utils.cli.script import run_script
from train_utils.distributed_utils import process_group

PROG = "train_multi_GPU.py"


def own_device(name: str) -> str:
    """The device of this process: cuda:LOCAL_RANK under torchrun with CUDA, else `name`.

    ValueError if `name` is one specific device under torchrun, which all processes would share.
    """
    local_rank = os.environ.get("LOCAL_RANK")
    if local_rank is None or name == "cpu":
        return name
    if name not in ("auto", "cuda"):
        raise ValueError(f"all processes would share {name}; use auto, cuda or cpu under torchrun")
    if name == "cuda" or torch.cuda.is_available():
        return f"cuda:{local_rank}"
    return "cpu"


def main(argv: list[str]) -> None:
    """Parses the flags, joins the process group on this process's device, and runs train.main."""
    command_line = CommandLine(PROG, __doc__, DATASETS)
    given = command_line.parse(argv)
    flags = command_line.base | given  # --device and --dist-timeout are never inherited
    try:
        name = own_device(flags["device"])
        device = pick_device(name)
    except ValueError as error:
        hint = ""
        if "LOCAL_RANK" in os.environ:
            hint = "; torchrun's --nproc_per_node is at most the number of GPUs"
        command_line.parser(command_line.base).error(f"--device: {error}{hint}")
    with process_group(device, flags["dist_timeout"]):
        train.main(command_line.resolve(given | {"device": name}))


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]), PROG)

"""Trains a U-Net on several GPUs and machines: `torchrun --nproc_per_node=N train_multi_GPU.py` with train.py's flags.

The run is train.main inside a process group, one process a GPU (or, without CUDA, processes on the CPU). --batch-size
is per process. Without torchrun it is a single process.
"""

import os
import sys

import torch

import train
from my_dataset import DATASETS
from src import MODELS
from src.device import pick_device
from train_utils.cli.flags import get_parser, parse_args
from train_utils.cli.parser import run_script
from train_utils.distributed_utils import process_group

PROG = "train_multi_GPU.py"


def own_device(name):
    """--device for this process: of several GPUs each process takes the one of its number on the machine."""
    local_rank = os.environ.get("LOCAL_RANK")
    if local_rank is None or name == "cpu":
        return name
    if name not in ("auto", "cuda"):
        raise ValueError(
            f"{name} would be shared by all processes; use auto, cuda or cpu under torchrun"
        )
    return f"cuda:{local_rank}" if name == "cuda" or torch.cuda.is_available() else "cpu"


def main(argv):
    parser = get_parser(PROG, __doc__, DATASETS, MODELS)
    early = parser.parse_args(argv)
    try:
        device = own_device(early.device)
        pick_device(device)
    except ValueError as error:
        parser.error(
            f"--device: {error}; torchrun's --nproc_per_node is at most the number of GPUs"
        )
    with process_group("nccl" if device.startswith("cuda") else "gloo", early.dist_timeout):
        train.main(parse_args([*argv, "--device", device], PROG, __doc__, DATASETS, MODELS))


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]), PROG)

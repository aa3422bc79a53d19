"""Trains a U-Net on several GPUs and machines: `torchrun --nproc_per_node=N train_multi_GPU.py` with train.py's flags.

The run is train.main inside a process group, one process a GPU (or, without CUDA, processes on the CPU). --batch-size
is per process. Without torchrun it is a single process.
"""

import os
import sys

import torch

import train
from my_dataset import DATASETS, DataError
from src import MODELS
from train_utils.cli import run_script
from train_utils.distributed_utils import process_group
from train_utils.flags import get_parser, parse_args

PROG = "train_multi_GPU.py"


def own_device(name):
    """--device for this process: of several GPUs each process takes the one of its number on the machine."""
    local_rank = os.environ.get("LOCAL_RANK")
    if local_rank is None or name not in ("auto", "cuda"):
        return name
    return f"cuda:{local_rank}" if name == "cuda" or torch.cuda.is_available() else "cpu"


def main(argv):
    early = get_parser(PROG, __doc__, DATASETS, MODELS).parse_args(argv)
    device = own_device(early.device)
    if device.startswith("cuda") and torch.cuda.is_available():
        torch.cuda.set_device(device)
    with process_group("nccl" if device.startswith("cuda") else "gloo", early.dist_timeout):
        train.main(parse_args([*argv, "--device", device], PROG, __doc__, DATASETS, MODELS))


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]), PROG, (DataError,))

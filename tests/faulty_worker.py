"""train_multi_GPU.py with a planted fault, to be run by torchrun.

FAULT = "kill|raise|wait RANK EPOCH": the fault comes in the second step of the epoch on that rank,
once: not if FAULT_FILE says that it came before. wait: outside Python, as for another GPU.
"""

import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

import torch

import train_multi_GPU
from train_utils.cli.script import run_script

kind, rank, epoch = os.environ["FAULT"].split()
done = Path(os.environ["FAULT_FILE"])
steps_before = 2 * int(epoch) + 1  # the tests' runs have two steps an epoch
original, steps = torch.Tensor.backward, []


def backward(*args, **kwargs):
    """A training step of this rank, with the fault in one of them."""
    steps.append(0)
    if os.environ["RANK"] == rank and len(steps) > steps_before and not done.exists():
        done.write_text("done")
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "wait":
            torch.distributed.HashStore().wait(["never"], timedelta(minutes=10))
        raise RuntimeError(f"planted on rank {rank}")
    return original(*args, **kwargs)


torch.Tensor.backward = backward
run_script(lambda: train_multi_GPU.main(sys.argv[1:]), "train_multi_GPU.py")

"""train_multi_GPU.py with a planted fault, to be run by torchrun: FAULT = "kill|raise RANK EPOCH", once a FAULT_FILE.

The fault comes in the second step of the epoch on that rank, unless the file says that it came before.
"""

import os
import signal
import sys
from pathlib import Path

import train_multi_GPU
from train_utils import train_and_eval
from train_utils.cli.parser import run_script

kind, rank, epoch = os.environ["FAULT"].split()
done = Path(os.environ["FAULT_FILE"])
steps_before = 2 * int(epoch) + 1  # the tests' runs have two steps an epoch
original, calls = train_and_eval.criterion, []


def criterion(*args, **kwargs):
    calls.append(0)
    if os.environ["RANK"] == rank and len(calls) > steps_before and not done.exists():
        done.write_text("done")
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError(f"planted on rank {rank}")
    return original(*args, **kwargs)


train_and_eval.criterion = criterion
run_script(lambda: train_multi_GPU.main(sys.argv[1:]), "train_multi_GPU.py")

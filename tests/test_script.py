"""How a script ends: by a signal, on a full GPU."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from train_utils.cli.script import run_script

ROOT = Path(__file__).parent.parent
PRELUDE = """
import sys, time
from datetime import timedelta
import torch.distributed as dist
from train_utils.cli import script
script.STUCK_SECONDS = 1
"""
WAITING = f"""{PRELUDE}
def main():
    print("waiting", flush=True)
    dist.HashStore().wait(["never"], timedelta(seconds=40))  # outside Python, like NCCL
script.run_script(main, "script.py")
"""
SAVING = f"""{PRELUDE}
def main():
    try:
        print("waiting", flush=True)
        time.sleep(40)
    finally:
        time.sleep(3)
        print("saved", file=sys.stderr, flush=True)
script.run_script(main, "script.py")
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_rank_that_waits_for_another_ends_at_once(name):
    code, message = stopped_by(name, WAITING, RANK="1", WORLD_SIZE="2")
    assert code == -getattr(signal, name) and not message


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_rank_zero_that_waits_for_another_says_how_to_resume(name):
    code, message = stopped_by(name, WAITING, RANK="0", WORLD_SIZE="2")
    assert code == 128 + getattr(signal, name) and message.count("\n") == 1
    assert message.startswith("script.py: stopped while it waited") and "--resume auto" in message


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_rank_zero_that_does_not_wait_for_another_ends_in_its_own_time(name):
    code, message = stopped_by(name, SAVING, RANK="0", WORLD_SIZE="2")
    assert (code, message) == (128 + getattr(signal, name), "saved\n")


def stopped_by(name, program, **env):
    """The exit code and stderr of a program that gets the signal when it says that it waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "waiting\n"
    time.sleep(1)  # it prints before it waits
    process.send_signal(getattr(signal, name))
    _, message = process.communicate(timeout=30)
    return process.returncode, message


@pytest.fixture
def own_handlers():
    """The signal handlers, restored after the test."""
    handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    yield
    for each, handler in handlers.items():
        signal.signal(each, handler)


CUDA_FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB"


@pytest.mark.parametrize(
    "error, named",
    [
        (torch.OutOfMemoryError(CUDA_FULL), "(CUDA out of memory. Tried to allocate 2.00 GiB)"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)."), "MPS allocated: 5 GB"),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors"), "error: out of memory)"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "CUDNN_STATUS_ALLOC_FAILED"),
        (
            RuntimeError("GET was unable to find an engine to execute this computation"),
            "unable to find an engine",
        ),
    ],
    ids=["CUDA", "MPS", "pinned memory", "cuDNN", "workspace"],
)
def test_a_full_gpu_is_one_sentence_with_what_to_lower(error, named, own_handlers, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as stop:
        run_script(main, "train.py")
    message = capsys.readouterr().err
    assert stop.value.code == 2 and message.count("\n") == 1
    assert message.startswith("train.py: error: the GPU is out of memory (") and named in message
    assert "--batch-size" in message and "--cache-limit" in message


def test_a_script_names_its_own_remedy_for_a_full_gpu(own_handlers, capsys):
    def main():
        raise torch.OutOfMemoryError(CUDA_FULL)

    with pytest.raises(SystemExit):
        run_script(main, "predict.py", "give --tile 512")
    message = capsys.readouterr().err
    assert message.endswith("; give --tile 512\n") and "--batch-size" not in message


def test_full_memory_without_a_gpu_is_one_sentence(own_handlers, capsys):
    with pytest.raises(SystemExit) as stop:
        run_script(lambda: torch.empty(2**46), "predict.py", "give --tile 512")
    message = capsys.readouterr().err
    assert stop.value.code == 2 and message.count("\n") == 1
    assert message.startswith("predict.py: error: the memory is full (")
    assert message.endswith("; give --tile 512\n")


@pytest.mark.parametrize(
    "allocate, named",
    [
        (lambda: np.empty(2**60, np.uint8), "Unable to allocate 1.00 EiB for an array"),
        (lambda: bytearray(2**62), "MemoryError"),
    ],
    ids=["NumPy", "Python"],
)
def test_full_memory_outside_pytorch_is_one_sentence(allocate, named, own_handlers, capsys):
    with pytest.raises(SystemExit) as stop:
        run_script(allocate, "predict.py", "give --tile 512")
    message = capsys.readouterr().err
    assert stop.value.code == 2 and message.count("\n") == 1
    assert message.startswith(f"predict.py: error: the memory is full ({named}")
    assert message.endswith("; give --tile 512\n")


def test_names_that_the_output_cannot_encode_are_printed():
    program = "from train_utils.cli.script import run_script\n"
    program += "run_script(lambda: print('caf\\udce9.png'), 'script.py')"
    env = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=env, capture_output=True)
    assert done.returncode == 0 and done.stdout == b"caf\\udce9.png\n"


def test_other_errors_keep_their_traceback(own_handlers):
    def main():
        raise RuntimeError("a mistake")

    with pytest.raises(RuntimeError, match="a mistake"):
        run_script(main, "train.py")

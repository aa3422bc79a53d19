"""Processes that start in a tenth of a second: scripts, and the ranks that torchrun would start.

A new Python needs seconds to import torch. These are forked from one that has imported it and our
modules, and that has done nothing else. Tests of torchrun itself and of what is imported at the
start need a new Python.
"""

import multiprocessing
import os
import runpy
import sys
import time
from multiprocessing.context import BaseContext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from torch.distributed import TCPStore

ROOT = Path(__file__).parent.parent
PRELOADED = ["train_multi_GPU", "predict", "compute_mean_std", "tests.processes"]


class Finished(NamedTuple):
    """A process that has ended: its exit code, -N after signal N, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


class Call(NamedTuple):
    """A function and what it is called with, and what is added to the environment before."""

    function: object
    arguments: tuple
    environment: dict


def python(*arguments, **environment):
    """What `python SCRIPT ...`, `python -m MODULE ...` or `python -c CODE ...` does here."""
    call = Call(execute, tuple(map(str, arguments)), environment)
    return run_together([call], torch.get_num_threads())[0]


def torchrun(ranks, *arguments, **environment):
    """What `python ARGUMENTS` does in each of the ranks that torchrun would start on a machine."""
    return run_ranks(execute, [tuple(map(str, arguments))] * ranks, **environment)


def run_ranks(function, arguments_of_ranks, **environment):
    """Calls function(*arguments) in one process for each entry, with one thread as torchrun does.

    Unlike torchrun it stops no rank when another fails: each has to end by itself.
    """
    ranks = len(arguments_of_ranks)
    store = serve_store()
    calls = [
        Call(function, arguments, rank_environment(rank, ranks, store) | environment)
        for rank, arguments in enumerate(arguments_of_ranks)
    ]
    return run_together(calls, threads=1)


def serve_store():
    """A store in which ranks meet, on a port that the system chooses; torchrun has one as well."""
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def rank_environment(rank, ranks, store):
    """What torchrun sets for a process, where there is no GPU."""
    values = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": ranks,
        "LOCAL_WORLD_SIZE": ranks,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": store.port,
        "TORCHELASTIC_USE_AGENT_STORE": True,
        "CUDA_VISIBLE_DEVICES": "",
    }
    return {name: str(value) for name, value in values.items()}


def run_together(calls, threads, timeout=240):
    """Makes the calls at the same time, each in a process of its own; list of Finished."""
    with TemporaryDirectory() as folder:
        folders = [Path(folder, str(number)) for number in range(len(calls))]
        for own in folders:
            own.mkdir()
            for name in ("out", "err"):
                (own / name).touch()
        processes = [
            context().Process(target=make_call, args=(call, own, threads))
            for call, own in zip(calls, folders, strict=True)
        ]
        for process in processes:
            process.start()
        deadline = time.monotonic() + timeout
        for process in processes:
            process.join(max(0, deadline - time.monotonic()))
        waiting = [process for process in processes if process.is_alive()]
        for process in waiting:
            process.kill()
        printed = [tuple((own / name).read_text() for name in ("out", "err")) for own in folders]
    assert not waiting, printed
    return [Finished(p.exitcode, *text) for p, text in zip(processes, printed, strict=True)]


def context() -> BaseContext:
    """How processes are started; without fork each one is a new Python."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(PRELOADED)
    return found


def make_call(call, folder, threads):
    """Runs in the new process."""
    for descriptor, name in ((1, "out"), (2, "err")):
        file = os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(file, descriptor)
    os.environ.update(call.environment)
    torch.set_num_threads(threads)
    call.function(*call.arguments)


def execute(first, *rest):
    """Runs a script, a module (-m) or code (-c) as Python's command line does."""
    os.chdir(ROOT)
    if first == "-m":
        sys.argv = list(rest)
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(rest[0], {"__name__": "__main__"})
    else:
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")

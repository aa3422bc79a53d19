"""Runs the ways of a benchmark in turns, and prints and saves what they took.

Each way has a process of its own, which waits while another runs. How a process allocates memory,
the autotuning of convolutions and the peak memory belong to the whole process, so two ways in one
process would change each other. The order is reversed in every second round.
"""

import argparse
import importlib
import io
import multiprocessing
import shlex
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch

from src.device import pick_amp_dtype, pick_device, synchronize
from train_utils.reporting.provenance import machine_name, peak_memory_mb, provenance


@dataclass
class Task:
    """One way to do the work of a benchmark.

    run: does the work once.
    images: how many images that takes.
    result: a number made of what run() returned, which shows that all ways did the same work. It
        is computed outside the measured time.
    memory: peak memory in MB so far; None: that of the process, without its DataLoader workers.
    """

    run: Callable[[], object]
    images: int
    result: Callable[[object], float] = float
    memory: Callable[[], float | None] | None = None


def serve(
    connection: Connection,
    module: str,
    way: str,
    options: argparse.Namespace,
    device_name: str,
    start_method: str,
) -> None:
    """The process of one way: prepares it, and runs it as often as the connection asks for it.

    start_method: how DataLoader workers start. In a spawned process they would be spawned too,
    which takes seconds; in a user's run they start as the system does by default.
    """
    multiprocessing.set_start_method(start_method, force=True)
    try:
        with redirect_stdout(io.StringIO()):
            device = pick_device(device_name)
            make_task = ways_of(module)[way]
            imports = peak_memory_mb(device)
            start = time.perf_counter()
            task = make_task(options, device)
            synchronize(device)
            seconds = time.perf_counter() - start
            connection.send(
                {"prepare_seconds": seconds, "images": task.images, "imports_mb": imports}
            )
            while connection.recv() == "run":
                start = time.perf_counter()
                value = task.run()
                synchronize(device)
                seconds = time.perf_counter() - start
                connection.send({"seconds": seconds, "result": task.result(value)})
            memory = task.memory() if task.memory else peak_memory_mb(device)
            connection.send({"memory_mb": memory})
    except Exception:
        connection.send({"error": traceback.format_exc()})


def ways_of(module: str) -> dict[str, Callable]:
    """WAYS of a benchmark's module: functions of (options, device) that return a Task."""
    return importlib.import_module(module).WAYS


class Way:
    """A way of a benchmark in its own process, and what was measured of it."""

    def __init__(self, module: str, name: str, options: argparse.Namespace, device: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.name, self.seconds = name, []
        self.connection, theirs = context.Pipe()
        arguments = theirs, module, name, options, device, multiprocessing.get_start_method()
        self.process = context.Process(target=serve, args=arguments)
        self.process.start()
        theirs.close()
        self.row = self.receive()

    def receive(self) -> dict:
        """The process's answer; RuntimeError with its traceback if it failed."""
        try:
            answer = self.connection.recv()
        except EOFError:
            raise RuntimeError(
                f"the process of {self.name!r} ended: see above, or out of memory"
            ) from None
        if "error" in answer:
            raise RuntimeError(f"{self.name}: {answer['error']}")
        return answer

    def run(self) -> float:
        """Runs once; returns the seconds that it took."""
        self.connection.send("run")
        answer = self.receive()
        self.row["result"] = answer["result"]
        return answer["seconds"]

    def finish(self) -> dict:
        """Ends the process; returns all that was measured."""
        self.connection.send("stop")
        self.row |= self.receive()
        self.process.join(timeout=30)
        seconds = statistics.median(self.seconds)
        return self.row | {
            "seconds": self.seconds,
            "median_seconds": seconds,
            "images_per_second": self.row["images"] / seconds,
        }

    def close(self) -> None:
        """Ends the process, whatever it does."""
        self.process.terminate()
        self.process.join()


def compare(
    module: str, names: list[str], options: argparse.Namespace, device: str, rounds: int
) -> dict[str, dict]:
    """{way: measurements} of `rounds` rounds, after one run of each as a warm-up."""
    ways = []
    try:
        for name in names:
            ways.append(Way(module, name, options, device))
        for way in ways:
            way.run()
        for number in range(rounds):
            order = ways[::-1] if number % 2 else ways
            for way in order:
                way.seconds.append(way.run())
        return {way.name: way.finish() for way in ways}
    finally:
        for way in ways:
            way.close()


def ratios(found: dict[str, dict]) -> dict[str, dict]:
    """How many times faster each way is than the first: of the medians, and in every round."""
    first, *others = found.values()
    rows = {}
    for name, row in zip(list(found)[1:], others, strict=True):
        pairs = zip(first["seconds"], row["seconds"], strict=True)
        rows[name] = {
            "of_medians": first["median_seconds"] / row["median_seconds"],
            "by_round": [slow / fast for slow, fast in pairs],
        }
        if first["memory_mb"] and row["memory_mb"]:
            rows[name]["memory"] = row["memory_mb"] / first["memory_mb"]
    return rows


HEADER = (
    f"{'':<16}{'median s':>10}{'min – max':>20}{'images/s':>10}"
    f"{'peak MB':>9}{'imports':>9}{'start s':>9}{'result':>12}"
)


def table(found: dict[str, dict]) -> str:
    """The measurements as lines of text, and the ratios to the first way.

    "peak MB" includes "imports", the memory before the way was prepared; "start s" is the time to
    prepare it, such as reading images into memory.
    """
    lines = [HEADER]
    for name, row in found.items():
        spread = f"{min(row['seconds']):.4f} – {max(row['seconds']):.4f}"
        memory = f"{row['memory_mb']:.0f}" if row["memory_mb"] else "–"
        lines.append(
            f"{name:<16}{row['median_seconds']:>10.4f}{spread:>20}{row['images_per_second']:>10.2f}"
            f"{memory:>9}{row['imports_mb']:>9.0f}{row['prepare_seconds']:>9.2f}{row['result']:>12.6g}"
        )
    first = next(iter(found))
    for name, row in ratios(found).items():
        rounds = ", ".join(f"{value:.2f}" for value in row["by_round"])
        line = f"{name}: {row['of_medians']:.2f} × as fast as {first} (rounds: {rounds})"
        if "memory" in row:
            line += f", {row['memory']:.2f} × the memory"
        lines.append(line)
    return "\n".join(lines)


def describe_machine(device: torch.device) -> str:
    """The machine and the version of PyTorch, for the first line of the output."""
    return f"{machine_name(device)}, torch {torch.__version__}"


def content(device: torch.device, options: dict, benchmarks: list[dict], seconds: float) -> dict:
    """What the JSON file holds: how the figures were obtained, and all of them."""
    origin = provenance(device, pick_amp_dtype(device), seconds)
    origin["command"] = shlex.join(["python", "-m", "tests.benchmarks", *sys.argv[1:]])
    del origin["peak_memory_mb"]  # of this process, which computes nothing
    return {
        **origin,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "options": options,
        "benchmarks": benchmarks,
    }

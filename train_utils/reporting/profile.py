"""`--profile`: how long the stages of a training step take, and a trace of some steps."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from src.device import benchmark_convolutions, synchronize
from train_utils.atomic import prepare_folder
from train_utils.distributed_utils import is_main_process, log

WARM_UP = 5  # steps; the first ones choose algorithms and ask for memory
MEASURED = 20  # steps in the trace, and as many in the table
STAGES = ("data", "copies", "forward", "loss", "backward", "optimizer")


class Stages:
    """What train_one_epoch() takes as `stage`: names each stage in the trace, and times it.

    wait: wait for the device at the end of each stage, so that its time is all of its work.
    """

    def __init__(self, device: torch.device, wait: bool) -> None:
        self.device, self.wait = device, wait
        self.seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        with torch.profiler.record_function(name):
            yield
            if self.wait:
                synchronize(self.device)
        self.seconds[name] += time.perf_counter() - start


class FixedSteps:
    """The given number of batches from a loader, which starts again where it ends."""

    def __init__(self, loader: Iterable, steps: int, stage: Stages) -> None:
        self.loader, self.steps, self.stage = loader, steps, stage

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        batches = iter(self.loader)
        for _ in range(self.steps):
            with self.stage("data"):
                batch = next(batches, None)
                if batch is None:
                    batches = iter(self.loader)
                    batch = next(batches)
            yield batch


def profile_training(
    train: Callable[..., object],
    loader: Iterable,
    evaluate: Callable[[], object] | None,
    device: torch.device,
    folder: str | Path,
) -> None:
    """Trains some steps, evaluates, prints a table and writes trace.json to the folder.

    The trace is of steps as they always are. The table is of other steps, which wait for the device
    after each stage: on a GPU, where stages overlap, their sum is more than a step takes.

    train: train_one_epoch() with all arguments but data_loader, epoch, stage and after_batch.
    evaluate: evaluates the validation images; None without them.
    """

    def run(steps: int, wait: bool = False) -> dict[str, float]:
        stages = Stages(device, wait)
        batches = FixedSteps(loader, steps, stages)
        with benchmark_convolutions(device):
            train(data_loader=batches, epoch=0, stage=stages, after_batch=None)
        synchronize(device)
        return stages.seconds

    run(WARM_UP)
    with torch.profiler.profile(activities=activities(device), acc_events=True) as profiler:
        run(MEASURED)
    if is_main_process():
        prepare_folder(folder)
        profiler.export_chrome_trace(str(Path(folder) / "trace.json"))
    log(table(run(MEASURED, wait=True), MEASURED))
    if evaluate:
        evaluate()  # the first time is slower, as the first steps are
        start = time.perf_counter()
        evaluate()
        log(f"evaluation of the validation images: {time.perf_counter() - start:.2f} s")
    log(
        f"{Path(folder) / 'trace.json'} shows {MEASURED} steps; open it in chrome://tracing or "
        "https://ui.perfetto.dev. No weights were saved"
    )


def activities(device: torch.device) -> list[torch.profiler.ProfilerActivity]:
    """What the trace shows: the CPU's work, and that of a GPU if it is the device."""
    kinds = torch.profiler.ProfilerActivity
    if device.type == "cuda":
        return [kinds.CPU, kinds.CUDA]
    return [kinds.CPU]


def table(seconds: dict[str, float], steps: int) -> str:
    """Milliseconds a step and share of each stage. seconds: {stage: over all steps}.

    data: until a batch is there; where crops are cut on the device, that is included.
    """
    total = sum(seconds.values())
    lines = ["stage       ms a step   share"]
    for name, value in (seconds | {"all": total}).items():
        lines.append(f"{name:<11} {1000 * value / steps:9.2f}   {100 * value / total:4.0f} %")
    return "\n".join(lines)

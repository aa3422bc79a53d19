"""The speed of a run's first steps: when the run will end, and how long --minutes can make it."""

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

from src.device import benchmark_convolutions
from train_utils.budget import TRIAL_STEPS
from train_utils.distributed_utils import is_main_process, log, world_size

TIMED_IMAGES = 4  # whose evaluation is timed
LONG_SECONDS = 2 * 3600  # of a run whose length the user may not have expected
PICTURES_SECONDS = 4.0  # to draw the curves and predictions of a run
DRAWN_IMAGES = 4  # in predictions.png


class StepTimer:
    """Measures the speed of the first optimizer steps and logs when the run will end.

    The first step is left out, since it is slower, and so are those whose batches were loaded
    meanwhile, and what is done between epochs.

    Args:
        steps: number of optimizer steps in the whole run.
        epochs: number of epochs that are left.
        val_images, test_images: numbers of images that are evaluated after each epoch and at the
            end of the run.
        image_seconds: measures the times of evaluating and of reading an image. It is called at
            most once, after the first steps, on all ranks.
        saving_seconds: measures the time of writing a checkpoint. It is called at most once.
        wait: waits until the device has done its work.
        now: the clock, in seconds; None: time.perf_counter.
        first_step: number of steps that the resumed run has done before.
        accumulate: number of batches in an optimizer step.
        silent: logs nothing, where the length of the run is not known yet.
        trial: number of steps after which the speed is known, see trial_steps().
        val_in_memory: whether the validation images need not be read again.

    Attribute: `step_seconds`, the time of an optimizer step, 0 until it is known.
    """

    def __init__(
        self,
        steps: int,
        epochs: int,
        val_images: int,
        test_images: int,
        image_seconds: Callable[[], tuple[float, float]],
        saving_seconds: Callable[[], float],
        wait: Callable[[], object] = bool,
        now: Callable[[], float] | None = None,
        first_step: int = 0,
        accumulate: int = 1,
        silent: bool = False,
        trial: int = TRIAL_STEPS,
        val_in_memory: bool = True,
    ) -> None:
        self.steps, self.epochs, self.now = steps, epochs, now or time.perf_counter
        self.val_images, self.test_images = val_images, test_images
        self.image_seconds, self.wait = lru_cache(image_seconds), wait
        self.saving_seconds = lru_cache(saving_seconds)
        self.left, self.accumulate, self.silent = steps - first_step, accumulate, silent
        self.resumed = first_step > 0
        self.trial, self.first = trial, trial - TRIAL_STEPS + 1  # the last step that is left out
        self.val_in_memory = val_in_memory
        self.batches, self.seconds, self.step_seconds = 0, 0.0, 0.0
        self.start = None  # of the clock, while it runs

    @contextmanager
    def epoch(self) -> Iterator[None]:
        """Around the batches of an epoch."""
        if self.batches >= self.first * self.accumulate and not self.step_seconds:
            self._start()
        yield
        self._stop()
        self.epochs -= 1

    def _start(self) -> None:
        self.wait()
        self.start = self.now()

    def _stop(self) -> None:
        if self.start is not None:
            self.wait()
            self.seconds += self.now() - self.start
            self.start = None

    def count_batch(self) -> None:
        """To be called after every batch."""
        self.batches += 1
        done, rest = divmod(self.batches, self.accumulate)
        if rest or done not in (self.first, self.trial):
            return
        if done == self.first:
            self._start()
            return
        self._stop()
        self.step_seconds = self.seconds / (TRIAL_STEPS - 1)
        if self.left > self.trial and not self.silent:
            seconds = self.step_seconds * (self.left - self.trial) + self.end_seconds()
            seconds += self.epochs * self.evaluation_seconds()
            log(self.text(seconds, datetime.now()))

    def evaluation_seconds(self) -> float:
        """The time of the evaluation after an epoch, and of saving."""
        if not self.val_images:
            return self.saving_seconds()
        evaluating, reading = self.image_seconds()
        each = evaluating if self.val_in_memory else max(evaluating, reading)
        return math.ceil(self.val_images / world_size()) * each + self.saving_seconds()

    def end_seconds(self) -> float:
        """The time of the evaluation at the end of the run, and of its pictures.

        Every rank reads all test images first, and rank 0 predicts the drawn ones once more.
        """
        evaluating, reading = self.image_seconds()
        images = math.ceil(self.test_images / world_size()) + DRAWN_IMAGES
        return images * evaluating + self.test_images * reading + PICTURES_SECONDS

    def text(self, seconds: float, now: datetime) -> str:
        """The line: steps of the run, time left, clock time of its end, how to make it shorter."""
        end = now + timedelta(seconds=seconds)
        day = "" if end.date() == now.date() else f"{end:%Y-%m-%d} "
        left = timedelta(seconds=round(seconds))
        what = "with evaluations" if self.val_images or self.test_images else "with saving"
        hint = ""
        if seconds > LONG_SECONDS and not self.resumed:
            hint = "; --minutes 60 makes a shorter run, of one hour"
        return (
            f"{self.steps:,} steps in all: about {left} left, until {day}{end:%H:%M} ({what}){hint}"
        )


def image_seconds(
    evaluate: Callable[[nn.Module, Dataset], object], model: nn.Module, dataset: Dataset
) -> tuple[float, float]:
    """The times in which this process evaluates an image and reads one, of a few of the dataset.

    Where their sizes are known, these are small and large ones. evaluate: evaluates a model on a
    dataset, on all ranks together. The model is in training mode again afterwards.
    """
    stride = math.ceil(len(dataset) / TIMED_IMAGES)
    by_size = sorted(range(len(dataset)), key=lambda index: math.prod(dataset.sizes.get(index, ())))
    chosen = [dataset.samples[index] for index in by_size[(stride - 1) // 2 :: stride]]
    timed = dataset.with_samples(chosen, dataset.transforms)
    timed.cache_limit = math.inf
    start = time.perf_counter()
    timed.count_pixels()  # now they are in memory
    reading = (time.perf_counter() - start) / len(timed)
    with benchmark_convolutions(next(model.parameters()).device, wanted=False):
        evaluate(model, timed)  # the first time is slower
        start = time.perf_counter()
        evaluate(model, timed)
        evaluating = (time.perf_counter() - start) / math.ceil(len(timed) / world_size())
    model.train()
    return evaluating, reading


def saving_seconds(folder: str | Path, model: nn.Module) -> float:
    """The time of writing a checkpoint of the model to the folder; 0 on ranks that write none.

    The weights are written once, to a file that is deleted. With AdamW's two moments a checkpoint
    is three times as large, which is also taken for SGD.
    """
    if not is_main_process():
        return 0.0
    start = time.perf_counter()
    with tempfile.TemporaryFile(dir=folder) as file:
        torch.save(model.state_dict(), file)
        file.flush()
        os.fsync(file.fileno())
    return 3 * (time.perf_counter() - start)

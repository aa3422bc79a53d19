"""How long a run takes, said once its speed is known."""

import time
from datetime import datetime, timedelta

from train_utils.distributed_utils import log

FIRST_STEPS = 10  # the speed is measured over these, without the first one, which is slower


class TotalTime:
    """Logs, after the first ten steps of a run, when it will end. `steps`: of the whole run."""

    def __init__(self, steps: int) -> None:
        self.steps, self.done, self.start = steps, 0, 0.0

    def step(self) -> None:
        """To be called after every step."""
        self.done += 1
        now = time.perf_counter()
        if self.done == 1:
            self.start = now
        if self.done == FIRST_STEPS and self.steps > FIRST_STEPS:
            seconds = (now - self.start) / (FIRST_STEPS - 1) * (self.steps - self.done)
            log(self.text(seconds, datetime.now()))

    def text(self, seconds: float, now: datetime) -> str:
        """The line: steps of the run, time left, and the clock time of its end."""
        end = now + timedelta(seconds=seconds)
        day = "" if end.date() == now.date() else f"{end:%Y-%m-%d} "
        left = timedelta(seconds=round(seconds))
        return (
            f"{self.steps:,} steps in all: about {left} of training left, until {day}{end:%H:%M} "
            "(evaluations not included)"
        )

"""How long a run is, in optimizer steps, and how they are divided into epochs.

After each epoch the run is evaluated and saved. With `--crops` an epoch takes that many crops of
each image, else it is a share of the steps of the run.
"""

import math
from dataclasses import dataclass

from train_utils.checkpoint import TrainingState
from train_utils.data_loader import EpochBatches
from train_utils.plan import EPOCHS
from train_utils.plurals import counted

TRIAL_STEPS = 10  # whose speed is measured, at the start of a run; see trial_steps()
EVALUATION_SHARE = 0.2  # the largest share of a run of --minutes that evaluations may take
WARMUP_SHARE = 0.1  # the warm-up's share of a run whose length is in steps


@dataclass(frozen=True)
class Budget:
    """The length of a run.

    steps: number of optimizer steps in the whole run. A step takes batches of all processes.
    epochs: number of epochs in the whole run.
    epoch_steps: number of steps in an epoch. The last epoch takes what is left; the first one of
    --minutes takes trial_steps().
    """

    steps: int
    epochs: int
    epoch_steps: int

    def warmup_epochs(self, wanted: float | None) -> float:
        """Length of the warm-up in epochs: `wanted`, or WARMUP_SHARE of the run if that is None."""
        return WARMUP_SHARE * self.epochs if wanted is None else wanted

    def __str__(self) -> str:
        return f"{counted(self.steps, 'steps')} in {counted(self.epochs, 'epochs')}"


def trial_steps(ahead: int, accumulate: int) -> int:
    """Number of first steps after which the speed is known. They are --minutes' first epoch.

    ahead: number of batches that the workers of the loader keep ready. Those of the first steps
    were loaded while the slow first step was computed: the speed is measured after them.
    accumulate: number of batches in a step.
    """
    return TRIAL_STEPS + math.ceil(ahead / accumulate)


def divide(steps: int, epochs: int) -> Budget:
    """A run of exactly these steps, in at most `epochs` epochs of equal length."""
    epoch_steps = math.ceil(steps / epochs)
    return Budget(steps, math.ceil(steps / epoch_steps), epoch_steps)


def repeat(epoch_steps: int, epochs: int) -> Budget:
    """A run of whole epochs."""
    return Budget(epochs * epoch_steps, epochs, epoch_steps)


def extend(budget: Budget, epoch: int, step: int, steps: int) -> Budget:
    """The run that continues at `epoch` and `step` to a total of `steps`, in equal epochs."""
    left = max(steps - step, 0)
    epochs = epoch + math.ceil(left / budget.epoch_steps)
    return Budget(step + left, epochs, budget.epoch_steps)


def new_budget(
    batches: EpochBatches,
    accumulate: int,
    epochs: int,
    crops: int | None,
    steps: int | None,
    planned: bool,
    trial: int,
) -> Budget:
    """The length of a new run.

    Args:
        epochs: number of epochs in the run, at most.
        crops: number of crops of each image in an epoch, or None.
        steps: number of steps in the run, or None.
        planned: whether `steps` is the plan's, for EPOCHS epochs. With more or fewer epochs the run
            is longer or shorter, and an epoch stays as long as it is.
        trial: result of trial_steps().

    With neither crops nor steps the run is one of --minutes: it has one epoch of `trial` steps,
    after which plan_minutes() gives the length.
    """
    if crops:
        return repeat(math.ceil(len(batches) / accumulate), epochs)
    if steps and planned:
        return repeat(math.ceil(steps / EPOCHS), epochs)
    if steps:
        return divide(steps, epochs)
    return Budget(trial, 1, trial)


def resumed_budget(
    saved: Budget | None,
    epoch_steps: int,
    epoch: int,
    step: int,
    epochs: int,
    steps: int | None,
) -> Budget:
    """The length of a run that continues at `epoch` and `step`.

    Args:
        saved: the length in its checkpoint; None for a checkpoint of an earlier version.
        epoch_steps: number of steps in an epoch from now on.
        epochs, steps: numbers that the flags ask for. Where they differ from the saved ones, the
            run gets that length. steps: None if no flag gives it.
    """
    now = Budget(saved.steps if saved else 0, epochs, epoch_steps)
    if steps not in (None, now.steps):
        return extend(now, epoch, step, steps)
    if now == saved:
        return extend(now, epoch, step, saved.steps)
    return extend(now, epoch, step, step + (epochs - epoch) * epoch_steps)


def set_sampler_epoch(
    batches: EpochBatches, budget: Budget, state: TrainingState, accumulate: int, crops: int | None
) -> None:
    """Sets the batch sampler to the epoch that begins.

    accumulate: number of batches of an optimizer step. crops: number of crops of each image in an
    epoch, with --crops. Else the images are taken in permutations that continue from epoch to
    epoch, since an epoch need not take each image equally often.
    """
    epoch, step = state.epoch, state.step
    steps = min(budget.epoch_steps, budget.steps - step)
    if crops and steps == budget.epoch_steps:
        batches.set_epoch(epoch)
    else:
        items = batches.batch_size * batches.ranks * accumulate
        batches.set_epoch(epoch, step * items, steps * items)


def plan_minutes(
    minutes: float,
    elapsed: float,
    step_seconds: float,
    epoch_seconds: float,
    end_seconds: float,
    epochs: int,
    trial: int,
) -> Budget:
    """The length of a run that takes `minutes` in all, from the speed of its first steps.

    Args:
        elapsed: seconds since the start of the script.
        step_seconds: seconds of an optimizer step.
        epoch_seconds: seconds of the evaluation and the saving after an epoch.
        end_seconds: seconds of the evaluation at the end of the run.
        epochs: largest number of epochs, the first one included; at least two are planned. There
            are fewer where the evaluations would take more than EVALUATION_SHARE of the time.
        trial: number of steps in the first epoch, see trial_steps().

    At least TRIAL_STEPS more steps are planned, even if the time is over.
    """
    left = 60 * minutes - elapsed - end_seconds
    others = max(epochs - 1, 1)
    if epoch_seconds > 0:
        others = min(others, max(1, int(EVALUATION_SHARE * left / epoch_seconds)))
    steps = max(int((left - others * epoch_seconds) / step_seconds), TRIAL_STEPS)
    rest = divide(steps, others)
    return Budget(trial + steps, 1 + rest.epochs, rest.epoch_steps)

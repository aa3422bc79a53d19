"""How long a run is, in optimizer steps, and how they are divided into epochs.

An epoch is what is evaluated and saved. With `--crops` it is a number of crops of each image, else
a share of the steps of the run.
"""

import math
from dataclasses import dataclass

from train_utils.checkpoint import TrainingState
from train_utils.data_loader import EpochBatches
from train_utils.lr_scheduler import plan_after_trial, plan_schedule
from train_utils.plan import EPOCHS

# The speed is measured over the first steps of a run. They are the first epoch of --minutes.
TRIAL_STEPS = 10
EVALUATION_SHARE = 0.2  # of such a run, at most
WARMUP_SHARE = 0.1  # of a run whose length is in steps
LENGTH_FLAGS = ("steps", "epochs", "minutes")


@dataclass(frozen=True)
class Budget:
    """The length of a run.

    steps: optimizer steps of the whole run, each of the batches of all processes.
    epochs: of the whole run.
    epoch_steps: of each epoch; the last one takes what is left, and with --minutes the first one
    takes TRIAL_STEPS.
    """

    steps: int
    epochs: int
    epoch_steps: int


def divide(steps: int, epochs: int) -> Budget:
    """A run of exactly these steps, in at most `epochs` epochs of equal length."""
    epoch_steps = math.ceil(steps / epochs)
    return Budget(steps, math.ceil(steps / epoch_steps), epoch_steps)


def repeat(epoch_steps: int, epochs: int) -> Budget:
    """A run of whole epochs."""
    return Budget(epochs * epoch_steps, epochs, epoch_steps)


def extend(budget: Budget, epoch: int, step: int, steps: int) -> Budget:
    """The run from `epoch` and `step` on to a total of `steps`, in epochs of the same length."""
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
) -> Budget:
    """The length of a new run.

    crops: of each image in an epoch. steps: of --steps, or if `planned` of the plan, for EPOCHS
    epochs: with more or fewer of them the run is longer or shorter. Neither crops nor steps: of
    --minutes, which is planned after its first epoch.
    """
    if crops:
        return repeat(math.ceil(len(batches) / accumulate), epochs)
    if steps and planned:
        return repeat(math.ceil(steps / EPOCHS), epochs)
    if steps:
        return divide(steps, epochs)
    return Budget(TRIAL_STEPS, 1, TRIAL_STEPS)


def resumed_budget(
    saved: Budget | None,
    epoch_steps: int,
    epoch: int,
    step: int,
    epochs: int,
    steps: int | None,
) -> Budget:
    """The length of a run that continues at `epoch` and `step`.

    saved: the length that its checkpoint holds; None for one of an earlier version. epoch_steps: of
    an epoch from now on. epochs, steps: of the flags, which extend the run where they differ from
    what is saved; steps may be None.
    """
    now = Budget(saved.steps if saved else 0, epochs, epoch_steps)
    if steps not in (None, now.steps):
        return extend(now, epoch, step, steps)
    if now == saved:
        return extend(now, epoch, step, saved.steps)
    return extend(now, epoch, step, step + (epochs - epoch) * epoch_steps)


def changed_flags(checkpoint: dict, flags: dict) -> set[str]:
    """The names of the flags whose value is new to the run of a checkpoint.

    It knows the value that was given to it, and the one in its recipe: --steps 20 --epochs 40 are
    20 epochs. None is not new.
    """
    given, recipe = given_flags(checkpoint), checkpoint.get("recipe", {})
    return {
        name
        for name, value in flags.items()
        if value not in (None, given.get(name), recipe.get(name))
    }


def record_of_flags(flags: dict, checkpoint: dict) -> dict:
    """The flags as the next checkpoint keeps them.

    checkpoint: the one that is resumed, {} for a new run. The flags of the length that do not
    change it stay those that were given first. So the first command still continues the run.
    """
    earlier = given_flags(checkpoint)
    lengths = {name: flags[name] for name in LENGTH_FLAGS if name in earlier}
    kept = lengths.keys() - changed_flags(checkpoint, lengths)
    return flags | {name: earlier[name] for name in kept}


def given_flags(checkpoint: dict) -> dict:
    """The flags in a checkpoint; {} in the tutorials' files, which hold other ones."""
    flags = checkpoint.get("args")
    return flags if isinstance(flags, dict) else {}


def schedule(budget: Budget, warmup_epochs: float | None, trial: bool = False) -> dict:
    """The plan of the learning rate, see lr_scheduler.plan_schedule.

    warmup_epochs: None for WARMUP_SHARE of the run. trial: the first TRIAL_STEPS steps, in which
    the length was measured, have the lowest rate.
    """
    if warmup_epochs is None:
        warmup_epochs = WARMUP_SHARE * budget.epochs
    if trial:
        warmup_steps = round(warmup_epochs * budget.epoch_steps)
        return plan_after_trial(TRIAL_STEPS, max(budget.steps, TRIAL_STEPS + 1), warmup_steps)
    return plan_schedule(
        budget.epoch_steps,
        budget.epochs,
        warmup_epochs > 0,
        warmup_epochs,
        total_steps=budget.steps,
    )


def choose_epoch_crops(
    batches: EpochBatches, budget: Budget, state: TrainingState, accumulate: int, crops: int | None
) -> None:
    """Chooses the crops of the epoch that begins.

    crops: of each image in an epoch, with --crops. Else the images are taken in permutations that
    continue from epoch to epoch, where an epoch does not take each image equally often.
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
) -> Budget:
    """The length of a run that takes `minutes` in all, from the speed of its first TRIAL_STEPS.

    Args:
        elapsed: seconds since the start of the script.
        step_seconds: of an optimizer step.
        epoch_seconds: of the evaluation and the saving after each epoch.
        end_seconds: of the evaluation at the end of the run.
        epochs: their largest number, the first one included, but never less than two: the first
            one has only TRIAL_STEPS. There are fewer where the evaluations would take more than
            EVALUATION_SHARE of the time.

    At least TRIAL_STEPS more steps are planned, even if the time is over.
    """
    left = 60 * minutes - elapsed - end_seconds
    others = max(epochs - 1, 1)
    if epoch_seconds > 0:
        others = min(others, max(1, int(EVALUATION_SHARE * left / epoch_seconds)))
    steps = max(int((left - others * epoch_seconds) / step_seconds), TRIAL_STEPS)
    rest = divide(steps, others)
    return Budget(TRIAL_STEPS + steps, 1 + rest.epochs, rest.epoch_steps)

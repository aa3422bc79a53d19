"""How long a run is, from the flags: a new one, a resumed one, and one of --minutes."""

import argparse
import math
import time

from torch.optim import Optimizer

from src.errors import UserError
from train_utils import resume
from train_utils.budget import TRIAL_STEPS, Budget, new_budget, plan_minutes, resumed_budget
from train_utils.checkpoint import TrainingState
from train_utils.checkpoint_flags import changed_flags
from train_utils.cli.recipe import Recipe, budget_of
from train_utils.data_loader import EpochBatches
from train_utils.distributed_utils import broadcast_from_rank_zero, log
from train_utils.lr_scheduler import WarmupPolyLR
from train_utils.plurals import counted
from train_utils.step_timer import StepTimer


def start_state(
    args: argparse.Namespace,
    recipe: Recipe,
    resumed: dict,
    split: dict,
    batches: EpochBatches,
    optimizer: Optimizer,
    trial: int,
) -> tuple[TrainingState, Budget]:
    """Where the run starts, and its length. UserError if --start-epoch is past its end.

    resumed: the checkpoint of --resume, {} for a new run, whose state has no schedule yet.
    trial: result of trial_steps().
    """
    if resumed:
        state, budget = resumed_state(args, recipe, resumed, batches, optimizer)
    else:
        lengths = recipe.crops, recipe.steps, recipe.planned_steps
        budget = new_budget(batches, recipe.accumulate, args.epochs, *lengths, trial)
        state = resume.new_state(budget.epoch_steps, split, args.start_epoch)
    if state.epoch >= budget.epochs:
        if args.start_epoch is not None:
            raise UserError(
                f"--start-epoch {args.start_epoch} leaves no epoch to train; "
                "give a smaller number, or more --steps"
            )
        done = counted(state.step, "steps")
        log(f"nothing left to train: {done} done; more --steps continue the run")
    if not is_trial(args, state):
        log(str(budget))
    return state, budget


def resumed_state(
    args: argparse.Namespace,
    recipe: Recipe,
    checkpoint: dict,
    batches: EpochBatches,
    optimizer: Optimizer,
) -> tuple[TrainingState, Budget]:
    """The state and the length of the run in --resume.

    New values of --steps or --epochs extend it. UserError if the checkpoint does not say how long
    an epoch is.
    """
    saved = budget_of(checkpoint["recipe"])
    if recipe.crops:
        epoch_steps = math.ceil(len(batches) / recipe.accumulate)
    elif saved:
        epoch_steps = saved.epoch_steps
    else:
        raise UserError(
            f"{args.resume}: does not say how many crops of each image an epoch takes; "
            "give --crops N"
        )
    state = resume.saved_state(checkpoint, epoch_steps, args.start_epoch)
    log(resume.describe_state(checkpoint, state, recipe.batch_size, args.resume))
    changed = changed_flags(checkpoint, {"epochs": args.epochs, "steps": args.steps})
    epochs = saved.epochs if saved and "epochs" not in changed else args.epochs
    steps = args.steps if "steps" in changed else None
    budget = resumed_budget(saved, epoch_steps, state.epoch, state.step, epochs, steps)
    lr = optimizer.param_groups[0]["lr"]
    new_rate = checkpoint["training"]["lr"] not in (None, args.lr)
    state.lr_schedule = resume.resumed_schedule(state, budget, lr, new_rate)
    return state, budget


def is_trial(args: argparse.Namespace, state: TrainingState) -> bool:
    """Whether the next epoch measures the speed, from which --minutes plans the length."""
    return args.minutes is not None and state.epoch == 0


def known_length(
    args: argparse.Namespace, state: TrainingState, budget: Budget, schedule: dict
) -> dict:
    """The epochs of the run and of its warm-up, named like their flags; {} before a trial."""
    if is_trial(args, state):
        return {}
    warmup_epochs = round(schedule["warmup_steps"] / budget.epoch_steps, 2)
    return {"epochs": budget.epochs, "warmup_epochs": warmup_epochs}


def plan_by_speed(
    args: argparse.Namespace,
    recipe: Recipe,
    step_timer: StepTimer,
    lr_scheduler: WarmupPolyLR,
    start: float,
) -> Budget:
    """--minutes: the length of the run, by the speed of its first steps on rank 0.

    From now on the scheduler follows it. start: time.perf_counter() at the start of the script.
    """
    speed = step_timer.step_seconds, step_timer.evaluation_seconds(), step_timer.end_seconds()
    elapsed = time.perf_counter() - start + step_timer.saving_seconds()  # of this epoch
    trial = step_timer.trial
    budget = broadcast_from_rank_zero(
        lambda: plan_minutes(args.minutes, elapsed, *speed, args.epochs, trial)
    )
    warmup_epochs = budget.warmup_epochs(recipe.warmup_epochs)
    lr_scheduler.set_length(budget.epoch_steps, warmup_epochs, budget.steps)
    text = (
        f"--minutes {args.minutes:g}: {budget}, at {speed[0]:.3f} s a step and "
        f"{speed[1]:.1f} s to {'evaluate and save' if step_timer.val_images else 'save'}"
    )
    if budget.steps == trial + TRIAL_STEPS:
        text += "; that is the least, and may take longer"
    log(text)
    return budget

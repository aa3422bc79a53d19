"""Where a run starts and how long it is, from its flags: new, resumed, or measured."""

import time
from types import SimpleNamespace

import torch

from tests.small import error_of
from tests.tiny import parse
from train_utils.budget import TRIAL_STEPS, Budget
from train_utils.cli.run_length import is_trial, known_length, plan_by_speed, start_state
from train_utils.data_loader import EpochBatches
from train_utils.lr_scheduler import create_lr_scheduler, make_lr_schedule

SPLIT = {"train": ["a", "b", "c"], "val": []}


def recipe_of(args):
    """What is read of a Recipe."""
    return SimpleNamespace(
        crops=args.crops,
        steps=args.steps,
        planned_steps=False,
        accumulate=1,
        batch_size=1,
        warmup_epochs=1,
    )


def make_optimizer():
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.001)


def start(*argv, resumed=None):
    """(state, budget) of a run on three images, in batches of one."""
    args = parse(*argv)
    recipe, optimizer = recipe_of(args), make_optimizer()
    batches = EpochBatches(3, 1, seed=0, repeats=recipe.crops or 1)
    return start_state(args, recipe, resumed or {}, SPLIT, batches, optimizer, TRIAL_STEPS)


def checkpoint_of(state, budget, **changes):
    """What a resumed run reads of a checkpoint that was written after the epoch state.epoch."""
    saved = {**vars(state), "step": (state.epoch + 1) * budget.epoch_steps}
    saved["plan"] = make_lr_schedule(budget.epoch_steps, budget.epochs)
    saved |= {"class_names": ["no", "yes"], "ranks": 1, "training": {"lr": 0.001}}
    return {**saved, "recipe": vars(budget), "args": {}, **changes}


def test_a_new_run_starts_at_the_beginning(capsys):
    state, budget = start("--crops", 2, "--epochs", 4)
    assert (state.epoch, state.step, state.split) == (0, 0, SPLIT)
    assert budget == Budget(steps=24, epochs=4, epoch_steps=6)
    assert state.lr_schedule is None  # create_lr_scheduler() makes it
    assert "24 steps in 4 epochs" in capsys.readouterr().out


def test_a_resumed_run_continues_after_its_last_epoch(capsys):
    state, budget = start("--crops", 2, "--epochs", 4)
    resumed = checkpoint_of(state, budget)
    state, again = start("--crops", 2, "--epochs", 4, resumed=resumed)
    assert (state.epoch, state.step) == (1, 6) and again == budget
    state, longer = start("--crops", 2, "--epochs", 6, resumed=resumed)
    assert longer == Budget(steps=36, epochs=6, epoch_steps=6)
    assert state.lr_schedule["total_steps"] == 36
    assert "the schedule is extended" in capsys.readouterr().out


def test_a_file_that_does_not_say_how_long_an_epoch_is_needs_crops():
    resumed = checkpoint_of(*start("--crops", 2), recipe={})
    assert "give --crops N" in error_of(start, resumed=resumed)


def test_an_epoch_past_the_end_is_refused():
    argv = ("--steps", 5, "--epochs", 4)  # which are three epochs, of 2, 2 and 1
    assert start(*argv, "--start-epoch", 2)[0].step == 4
    assert "--start-epoch 3 leaves no epoch" in error_of(start, *argv, "--start-epoch", 3)


def test_a_run_that_is_finished_says_so(capsys):
    state, budget = start("--crops", 2, "--epochs", 1)
    start("--crops", 2, "--epochs", 1, resumed=checkpoint_of(state, budget))
    assert "nothing left to train: 6 steps done" in capsys.readouterr().out


class Timer:
    """The speed that a StepTimer has measured."""

    step_seconds, trial, val_images = 0.5, TRIAL_STEPS, 4

    def evaluation_seconds(self):
        return 2.0

    def end_seconds(self):
        return 4.0

    def saving_seconds(self):
        return 1.0


def test_minutes_are_planned_after_the_first_epoch(monkeypatch, capsys):
    state, budget = start("--minutes", 2, "--epochs", 3)
    assert budget == Budget(TRIAL_STEPS, 1, TRIAL_STEPS)
    assert "steps in" not in capsys.readouterr().out  # the length is not known yet
    args = parse("--minutes", 2, "--epochs", 3)
    assert is_trial(args, state) and not is_trial(parse(), state)
    monkeypatch.setattr(time, "perf_counter", lambda: 110.0)
    # 120 s less the 10 s that have passed, 1 s to save this epoch, 4 s at the end and 2 evaluations
    # of 2 s: 202 steps.
    scheduler = create_lr_scheduler(make_optimizer(), TRIAL_STEPS, 1, hold_steps=TRIAL_STEPS)
    assert known_length(args, state, budget, scheduler.schedule) == {}
    planned = plan_by_speed(args, recipe_of(args), Timer(), scheduler, 100.0)
    assert planned == Budget(TRIAL_STEPS + 202, 3, 101)
    assert "212 steps in 3 epochs, at 0.500 s a step" in capsys.readouterr().out
    assert scheduler.schedule["total_steps"] == 212
    assert scheduler.schedule["warmup_steps"] == TRIAL_STEPS + 101  # recipe_of(): one epoch
    state.epoch = 1
    assert not is_trial(args, state)


def test_the_length_that_is_said_is_the_runs_own():
    args = parse("--steps", 3, "--epochs", 40)
    state, budget = start("--steps", 3, "--epochs", 40)
    schedule = make_lr_schedule(1, 3, warmup_epochs=40)  # at most half of the run
    expected = {"epochs": 3, "warmup_epochs": 1.0}
    assert known_length(args, state, budget, schedule) == expected

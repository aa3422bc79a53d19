"""The length of a run in steps, its division into epochs, and which images they take."""

from collections import Counter

import pytest
import torch

from train_utils import resume
from train_utils.budget import (
    TRIAL_STEPS,
    Budget,
    divide,
    extend,
    new_budget,
    plan_minutes,
    resumed_budget,
    set_sampler_epoch,
)
from train_utils.data_loader import EpochBatches, epoch_seed
from train_utils.lr_scheduler import make_lr_schedule, poly_factor


def epochs_of(batches, budget, accumulate=1, crops=None, epoch=0, step=0):
    """The batches of each epoch of a run."""
    state = resume.new_state(budget.epoch_steps, {})
    state.epoch, state.step = epoch, step
    found = []
    while state.epoch < budget.epochs:
        set_sampler_epoch(batches, budget, state, accumulate, crops)
        found.append(batches.batches())
        state.epoch += 1
        state.step += -(-len(found[-1]) // accumulate)
    return found, state.step


def schedule_of(budget, hold_steps=0):
    """The learning rate of a new run, with the default warm-up."""
    warmup_epochs = budget.warmup_epochs(None)
    return make_lr_schedule(
        budget.epoch_steps,
        budget.epochs,
        warmup_epochs=warmup_epochs,
        total_steps=budget.steps,
        hold_steps=hold_steps,
    )


def counts(epochs):
    """How often each item occurs."""
    return Counter(item for batches in epochs for batch in batches for item in batch)


# --- division -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "steps, epochs, expected",
    [
        (6000, 40, Budget(6000, 40, 150)),
        (4140, 40, Budget(4140, 40, 104)),
        (20, 40, Budget(20, 20, 1)),
        (41, 40, Budget(41, 21, 2)),
        (1, 40, Budget(1, 1, 1)),
        (7, 1, Budget(7, 1, 7)),
    ],
)
def test_a_run_has_exactly_its_steps(steps, epochs, expected):
    budget = divide(steps, epochs)
    assert budget == expected
    found, last = epochs_of(EpochBatches(9, 2, 0), budget)
    assert last == sum(map(len, found)) == steps and len(found) <= epochs


def test_more_epochs_of_a_planned_run_make_it_longer():
    batches = EpochBatches(20, 2, 0)
    assert new_budget(batches, 1, 40, None, 6000, True, 10) == Budget(6000, 40, 150)
    assert new_budget(batches, 1, 4, None, 6000, True, 10) == Budget(600, 4, 150)
    assert new_budget(batches, 1, 4, None, 6000, False, 10) == Budget(6000, 4, 1500)


def test_crops_of_each_image_are_counted_in_whole_epochs():
    fifteen, three = EpochBatches(20, 2, 0, repeats=15), EpochBatches(5, 2, 0, repeats=3)
    assert new_budget(fifteen, 1, 40, 15, None, False, 10).steps == 6000
    assert new_budget(three, 3, 4, 3, None, False, 10) == Budget(12, 4, 3)


# --- order ----------------------------------------------------------------------------------------


def test_whole_passes_have_the_order_that_they_always_had():
    """randperm(size · repeats) % size, seeded by the epoch: the order of commit d1c9183."""
    budget = divide(6000, 40)
    found, _ = epochs_of(EpochBatches(20, 2, seed=3), budget)
    repeated, _ = epochs_of(EpochBatches(20, 2, seed=3, repeats=15), budget, crops=15)
    assert found == repeated
    for epoch in (0, 1, 39):
        generator = torch.Generator().manual_seed(epoch_seed(3, epoch))
        order = (torch.randperm(300, generator=generator) % 20).tolist()
        assert found[epoch] == [order[i : i + 2] for i in range(0, 300, 2)]


@pytest.mark.parametrize("size, batch, ranks", [(7, 2, 1), (367, 4, 2), (20, 3, 8), (5000, 16, 3)])
@pytest.mark.parametrize("steps, accumulate", [(100, 1), (41, 2)])
def test_other_runs_take_every_image_equally_often(size, batch, ranks, steps, accumulate):
    budget = divide(steps, 10)
    each = [
        epochs_of(EpochBatches(size, batch, 1, r, ranks), budget, accumulate) for r in range(ranks)
    ]
    assert {last for _, last in each} == {steps}
    shapes = {tuple(len(batches) for batches in epochs) for epochs, _ in each}
    assert len(shapes) == 1
    assert all(len(one) == batch for epochs, _ in each for batches in epochs for one in batches)
    total = sum((counts(epochs) for epochs, _ in each), Counter())
    assert sum(total.values()) == steps * accumulate * batch * ranks
    often = [total[item] for item in range(size)]
    assert max(often) - min(often) <= 1


def test_a_resumed_run_takes_the_same_batches():
    budget = divide(100, 7)
    whole, _ = epochs_of(EpochBatches(9, 2, 4), budget)
    for epoch in range(1, budget.epochs):
        step = epoch * budget.epoch_steps
        rest, last = epochs_of(EpochBatches(9, 2, 4), budget, epoch=epoch, step=step)
        assert rest == whole[epoch:] and last == 100


def test_an_extended_run_continues_the_permutations():
    first, second = divide(50, 7), extend(divide(50, 7), 7, 50, 93)
    done, step = epochs_of(EpochBatches(9, 2, 4), first)
    more, last = epochs_of(EpochBatches(9, 2, 4), second, epoch=7, step=step)
    assert last == 93
    often = counts(done + more)
    assert max(often.values()) - min(often.values()) <= 1 and len(often) == 9


def test_consecutive_epochs_differ():
    found, _ = epochs_of(EpochBatches(9, 2, 0), divide(90, 10))
    assert len({str(batches) for batches in found}) == 10


# --- resuming -------------------------------------------------------------------------------------


def test_a_resumed_run_has_its_own_length_unless_flags_extend_it():
    saved = Budget(4140, 40, 104)
    assert resumed_budget(saved, 104, 20, 2080, 40, 4140) == saved
    assert resumed_budget(saved, 104, 40, 4140, 40, 4140) == saved
    assert resumed_budget(saved, 104, 20, 2080, 40, 5000) == Budget(5000, 49, 104)
    assert resumed_budget(saved, 104, 40, 4140, 42, 4140) == Budget(4140 + 208, 42, 104)
    assert resumed_budget(None, 150, 20, 3000, 40, None) == Budget(6000, 40, 150)
    # With twice the processes an epoch of --crops has half the steps.
    assert resumed_budget(Budget(6000, 40, 150), 75, 20, 3000, 40, 6000) == Budget(4500, 40, 75)


def test_a_shorter_length_ends_the_run():
    budget = resumed_budget(Budget(100, 10, 10), 10, 6, 60, 10, 30)
    assert budget.epochs == 6 and budget.steps == 60


def test_steps_extend_a_run_of_an_earlier_version():
    assert resumed_budget(None, 150, 20, 3000, 40, 7000) == Budget(7000, 47, 150)


def checkpoint_with(steps):
    """A checkpoint whose epochs ended at these steps; None: of an earlier version."""
    rows = [{"epoch": epoch} | ({"step": step} if step else {}) for epoch, step in enumerate(steps)]
    state = {"epoch": len(steps) - 1, "step": steps[-1], "history": rows, "best_score": 0.5}
    return state | {"results_name": "", "plan": {}, "split": {}}


@pytest.mark.parametrize("epoch, step", [(0, 0), (1, TRIAL_STEPS), (3, TRIAL_STEPS + 2 * 25)])
def test_going_back_in_a_run_of_minutes_the_first_epoch_is_shorter(epoch, step):
    run = Budget(TRIAL_STEPS + 100, 5, 25)
    state = resume.saved_state(checkpoint_with([10, 35, 60, 85]), run.epoch_steps, epoch)
    assert (state.epoch, state.step, len(state.history)) == (epoch, step, epoch)
    assert resumed_budget(run, 25, epoch, step, 5, None) == run


@pytest.mark.parametrize("epoch, step", [(3, 9), (4, 11), (5, 14), (6, 17)])
def test_going_back_in_an_extended_run_the_steps_are_those_of_its_epochs(epoch, step):
    """Eleven steps in epochs of three, then more: the fourth epoch had two."""
    checkpoint = checkpoint_with([3, 6, 9, 11, 14])
    assert resume.saved_state(checkpoint, 3, epoch).step == step


def test_epochs_of_an_earlier_version_are_counted_as_equal():
    checkpoint = checkpoint_with([None, None, None])
    assert [resume.saved_state(checkpoint, 25, epoch).step for epoch in (0, 2, 4)] == [0, 50, 100]


# --- minutes --------------------------------------------------------------------------------------


def test_minutes_are_divided_into_steps_and_evaluations():
    budget = plan_minutes(10, 30.0, 0.1, 2.0, 20.0, 40, TRIAL_STEPS)
    assert budget.epochs == 40 and budget.steps == TRIAL_STEPS + (600 - 30 - 20 - 39 * 2) * 10
    assert budget.epoch_steps == -(-(budget.steps - TRIAL_STEPS) // 39)


def test_slow_evaluations_make_fewer_epochs():
    budget = plan_minutes(10, 0.0, 0.1, 30.0, 0.0, 40, TRIAL_STEPS)
    assert budget.epochs == 1 + 4  # a fifth of ten minutes
    assert budget.steps == TRIAL_STEPS + (600 - 120) * 10


@pytest.mark.parametrize("minutes, epochs", [(0.01, 40), (1e-9, 1), (0.1, 1)])
def test_a_run_whose_time_is_over_still_trains(minutes, epochs):
    budget = plan_minutes(minutes, 60.0, 0.5, 1.0, 5.0, epochs, TRIAL_STEPS)
    assert budget.steps == 2 * TRIAL_STEPS and budget.epochs == 2


@pytest.mark.parametrize("minutes", [0.5, 3, 60])
@pytest.mark.parametrize("step_seconds, epoch_seconds", [(0.01, 0.3), (0.3, 2.0), (1.0, 60.0)])
def test_the_planned_run_takes_the_minutes(minutes, step_seconds, epoch_seconds):
    elapsed, end = 5 + TRIAL_STEPS * step_seconds, 1.0
    budget = plan_minutes(minutes, elapsed, step_seconds, epoch_seconds, end, 40, TRIAL_STEPS)
    steps, epochs = budget.steps - TRIAL_STEPS, budget.epochs - 1
    seconds = elapsed + steps * step_seconds + epochs * epoch_seconds + end
    if steps > TRIAL_STEPS:
        assert seconds == pytest.approx(60 * minutes, rel=0.01, abs=2 * step_seconds)


# --- the learning rate ----------------------------------------------------------------------------


def factors(budget, **options):
    schedule = schedule_of(budget, **options)
    return [poly_factor(step, **schedule) for step in range(budget.steps + 1)]


def test_the_warm_up_is_a_tenth_of_the_run():
    drive = schedule_of(Budget(6000, 40, 150))
    assert Budget(6000, 40, 150).warmup_epochs(None) == 4.0  # the recipe of DRIVE
    assert Budget(6000, 40, 150).warmup_epochs(0.0) == 0.0
    assert (drive["total_steps"], drive["warmup_steps"]) == (6000, 600)
    for steps in (20, 100, 4140):
        rates = factors(divide(steps, 40))
        assert rates.index(max(rates)) == pytest.approx(steps / 10, abs=2 + steps / 100)
        assert rates[-1] == 0 < rates[-2]


def test_the_rate_waits_at_its_lowest_until_the_length_is_known():
    budget = plan_minutes(1, 5.0, 0.1, 0.5, 1.0, 10, TRIAL_STEPS)
    before, after = (
        factors(Budget(TRIAL_STEPS, 1, TRIAL_STEPS), hold_steps=TRIAL_STEPS),
        factors(budget, hold_steps=TRIAL_STEPS),
    )
    assert before[:TRIAL_STEPS] == after[:TRIAL_STEPS] == [1e-3] * TRIAL_STEPS
    top = after.index(1.0)
    assert after[: top + 1] == sorted(after[: top + 1])
    assert after[top:] == sorted(after[top:], reverse=True)
    assert top == pytest.approx(budget.steps / 10 + TRIAL_STEPS, abs=5 + TRIAL_STEPS)
    assert after[-1] == 0 < after[-2]


def test_a_length_is_said_in_words():
    assert str(Budget(6000, 40, 150)) == "6,000 steps in 40 epochs"
    assert str(Budget(1, 1, 1)) == "1 step in 1 epoch"

"""The schedule: warm-up to 1, polynomial decay to 0, and no jump when a run is extended."""

from itertools import pairwise

import pytest
import torch

from train_utils import create_lr_scheduler
from train_utils.lr_scheduler import (
    WarmupPolyLR,
    extend_schedule,
    make_lr_schedule,
    poly_factor,
)

BASE_LR = 0.5


def make_optimizer():
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=BASE_LR)


def rates(num_steps, *args, **kwargs):
    """The rates that create_lr_scheduler gives to the first num_steps optimizer steps."""
    optimizer = make_optimizer()
    scheduler = create_lr_scheduler(optimizer, *args, **kwargs)
    seen = []
    for _ in range(num_steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def factors(schedule, steps):
    return [poly_factor(step, **schedule) for step in steps]


def test_warm_up_is_linear_from_a_thousandth_to_one():
    seen = rates(12, num_step=10, epochs=5)
    assert seen[0] == pytest.approx(BASE_LR * 1e-3)
    assert seen[5] == pytest.approx(BASE_LR * (1e-3 + 0.999 * 0.5))
    assert seen[10] == pytest.approx(BASE_LR)
    differences = [b - a for a, b in pairwise(seen[:11])]
    assert differences == pytest.approx([BASE_LR * 0.0999] * 10)
    assert seen[11] < BASE_LR


@pytest.mark.parametrize(
    "step, progress", [(10, 0), (11, 1 / 40), (30, 0.5), (40, 0.75), (49, 39 / 40)]
)
def test_decay_has_the_power_of_nine_tenths(step, progress):
    assert rates(50, num_step=10, epochs=5)[step] == pytest.approx(BASE_LR * (1 - progress) ** 0.9)


# (1 − 1/2)^0.9 and (1 − 3/4)^0.9 by a pocket calculator
@pytest.mark.parametrize("step, expected", [(0, 1.0), (50, 0.535887), (75, 0.287175), (100, 0.0)])
def test_without_warm_up_the_decay_begins_at_once(step, expected):
    factor = poly_factor(step, **make_lr_schedule(10, 10, warmup=False))
    assert factor == pytest.approx(expected, abs=1e-6)


def test_warm_up_takes_the_given_epochs_and_factor():
    schedule = make_lr_schedule(10, 10, warmup_epochs=3, warmup_factor=0.1)
    assert factors(schedule, [0, 15, 30, 65]) == pytest.approx([0.1, 0.55, 1.0, 0.5**0.9])


@pytest.mark.parametrize("past", [0, 1, 7, 1000])
@pytest.mark.parametrize("options", [{}, {"warmup": False}, {"warmup_epochs": 2}], ids=str)
def test_past_the_end_the_rate_is_zero_and_real(past, options):
    factor = poly_factor(40 + past, **make_lr_schedule(10, 4, **options))
    assert isinstance(factor, float) and factor == 0.0


@pytest.mark.parametrize("num_step, epochs", [(1, 1), (2, 1), (7, 1), (1, 2), (3, 2), (10, 30)])
@pytest.mark.parametrize("warmup", [True, False])
def test_rates_of_any_run_are_real_numbers_between_zero_and_the_base(num_step, epochs, warmup):
    seen = rates(2 * num_step * epochs + 3, num_step, epochs, warmup)
    assert all(isinstance(rate, float) and 0 <= rate <= BASE_LR for rate in seen)
    assert all(rate > 0 for rate in seen[: num_step * epochs])
    assert max(seen) > BASE_LR / 2


def test_one_epoch_warms_up_for_half_of_it():
    seen = rates(10, num_step=10, epochs=1)
    assert seen.index(max(seen)) == 5 and seen[5] == pytest.approx(BASE_LR)


@pytest.mark.parametrize("num_step, epochs", [(0, 5), (5, 0), (0, 0)])
def test_a_run_without_steps_is_refused(num_step, epochs):
    with pytest.raises(ValueError, match=f"{epochs} epochs of {num_step} steps"):
        create_lr_scheduler(make_optimizer(), num_step, epochs)


@pytest.mark.parametrize("start", [1, 4, 10, 25, 39])
def test_a_schedule_that_starts_in_the_middle_continues_as_the_whole_does(start):
    whole = rates(40, num_step=10, epochs=4)
    optimizer = make_optimizer()
    scheduler = WarmupPolyLR(optimizer, make_lr_schedule(10, 4), start)
    for step in range(start, 40):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(whole[step], rel=1e-12)
        optimizer.step()
        scheduler.step()
    assert scheduler.last_epoch == 40


@pytest.mark.parametrize("start", [1, 25])
def test_a_saved_schedule_replaces_the_other_arguments_and_the_scheduler_keeps_it(start):
    schedule = extend_schedule(make_lr_schedule(10, 4), start, 80)
    optimizer = make_optimizer()
    scheduler = create_lr_scheduler(
        optimizer, 7, 3, warmup=False, saved_schedule=schedule, step=start
    )
    assert scheduler.schedule == schedule and scheduler.last_epoch == start
    assert optimizer.param_groups[0]["lr"] == pytest.approx(
        BASE_LR * poly_factor(start, **schedule)
    )
    assert create_lr_scheduler(make_optimizer(), 10, 4).schedule == make_lr_schedule(10, 4)


PLANS = [
    (10, 4, {}),
    (10, 4, {"warmup": False}),
    (10, 1, {}),
    (1, 6, {}),
    (7, 5, {"warmup_epochs": 2}),
]


@pytest.mark.parametrize("num_step, epochs, options", PLANS, ids=str)
@pytest.mark.parametrize("change", [-5, -1, 0, 1, 20, 500])
def test_extending_never_makes_the_rate_jump_up(num_step, epochs, options, change):
    schedule = make_lr_schedule(num_step, epochs, **options)
    total = num_step * epochs
    for step in range(schedule["warmup_steps"] + 1, total + 1):
        end = max(total + change, step + 1)
        extended = extend_schedule(schedule, step, end)
        after = factors(extended, range(step, end + 3))
        assert after[0] <= poly_factor(step - 1, **schedule), step
        assert after == sorted(after, reverse=True), step
        assert after[0] > 0 and after[-1] == 0, step


@pytest.mark.parametrize("step", [1, 3, 9, 10])
def test_extending_during_warm_up_continues_the_warm_up(step):
    schedule = make_lr_schedule(10, 4)
    extended = extend_schedule(schedule, step, 100)
    assert factors(extended, range(11)) == factors(schedule, range(11))
    assert poly_factor(55, **extended) == pytest.approx(0.5**0.9)
    assert poly_factor(100, **extended) == 0


def test_extending_a_finished_run_continues_with_the_last_rate_used():
    schedule = make_lr_schedule(10, 4)
    extended = extend_schedule(schedule, 40, 80)
    last_used = poly_factor(39, **schedule)
    assert factors(extended, [40, 60, 80]) == pytest.approx([last_used, last_used * 0.5**0.9, 0])


def test_extending_twice_neither_jumps_up_nor_stops():
    twice = extend_schedule(extend_schedule(make_lr_schedule(10, 4), 40, 80), 80, 120)
    before = poly_factor(79, **extend_schedule(make_lr_schedule(10, 4), 40, 80))
    assert 0 < poly_factor(80, **twice) <= before
    assert 0 < poly_factor(119, **twice) < poly_factor(100, **twice) < before


@pytest.mark.parametrize("step", [15, 40])
def test_restart_falls_from_the_base_rate_again(step):
    schedule = extend_schedule(make_lr_schedule(10, 4), step, 100, restart=True)
    middle = (step + 100) / 2
    assert factors(schedule, [step, middle, 100]) == pytest.approx([1.0, 0.5**0.9, 0.0])


def test_shortening_to_before_the_end_of_the_warm_up_leaves_no_rate_after_the_end():
    shortened = extend_schedule(make_lr_schedule(10, 10, warmup_epochs=4), 5, 20)
    assert factors(shortened, [20, 30]) == [0, 0]


def test_a_scheduler_whose_length_is_set_later_is_one_that_began_with_it():
    """So a run whose length is planned after its first steps is resumed exactly."""
    optimizer = make_optimizer()
    scheduler = create_lr_scheduler(optimizer, 5, 1, hold_steps=5)
    seen = []
    for step in range(50):
        if step == 5:
            scheduler.set_length(num_step=9, warmup_epochs=8 / 9, total_steps=50)
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    whole = make_lr_schedule(9, 6, warmup_epochs=8 / 9, total_steps=50, hold_steps=5)
    assert scheduler.schedule == whole
    assert seen == rates(50, 50, 1, saved_schedule=whole)
    assert seen[:6] == [BASE_LR * 1e-3] * 6 and seen.index(max(seen)) == 13
    assert max(seen) == BASE_LR and 0 < seen[-1] < seen[14]

"""What a resumed run takes from its checkpoint, and what it refuses."""

import pytest
import torch

from tests.small import KWARGS, error_of
from train_utils import resume
from train_utils.budget import Budget
from train_utils.checkpoint import ModelDescription
from train_utils.data.class_table import BINARY
from train_utils.lr_scheduler import make_lr_schedule, poly_factor

NO_SCALER = torch.amp.GradScaler("cpu", enabled=False)


def make_optimizer(kind):
    weight = torch.ones(3, requires_grad=True)
    if kind == "adamw":
        return torch.optim.AdamW([weight], lr=0.1)
    return torch.optim.SGD([weight], lr=0.1, momentum=0.9)


def take_step(optimizer):
    (weight,) = optimizer.param_groups[0]["params"]
    weight.grad = torch.ones(3)
    optimizer.step()


def saved_state(kind):
    """What a checkpoint holds of an optimizer after a step."""
    optimizer = make_optimizer(kind)
    take_step(optimizer)
    return {"optimizer": optimizer.state_dict(), "scaler": {}}


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_the_moments_are_restored(kind, capsys):
    optimizer = make_optimizer(kind)
    resume.restore_optimizer(saved_state(kind), optimizer, NO_SCALER)
    assert len(optimizer.state_dict()["state"]) == 1
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("old, new", [("sgd", "adamw"), ("adamw", "sgd")])
def test_another_optimizer_begins_without_moments_and_says_so(old, new, capsys):
    optimizer = make_optimizer(new)
    resume.restore_optimizer(saved_state(old), optimizer, NO_SCALER)
    assert optimizer.state_dict()["state"] == {}
    assert f"trained with {old}: {new} begins without its moments" in capsys.readouterr().out
    take_step(optimizer)


@pytest.mark.parametrize("name, value", [("resize", [32, 48]), ("mean", [0.4]), ("std", [0.3])])
def test_other_inputs_are_refused(name, value):
    inputs = {"resize": None, "mean": [0.5], "std": [0.2]}
    checkpoint = {**inputs, name: value}
    description = ModelDescription("unet", KWARGS, BINARY, **inputs)
    resume.check_inputs(inputs, description, "last_model.pth")
    message = error_of(resume.check_inputs, checkpoint, description, "last_model.pth")
    assert "last_model.pth" in message and f"omit --{name}" in message and str(value) in message


def resumed(step, lr, new_rate):
    """The schedule of a run of ten epochs of ten steps, continued at `step`."""
    state = resume.new_state(10, {})
    state.epoch, state.step, state.lr_schedule = step // 10, step, make_lr_schedule(10, 10)
    return resume.resumed_schedule(state, Budget(100, 10, 10), lr, new_rate)


def test_a_new_rate_restarts_the_schedule_of_an_unfinished_run(capsys):
    schedule = resumed(50, 0.2, True)
    assert poly_factor(50, **schedule) == 1 and poly_factor(100, **schedule) == 0
    line = capsys.readouterr().out
    assert "the schedule is restarted: from epoch 5 on" in line and "falls from 0.200000" in line
    assert resumed(50, 0.2, False) == make_lr_schedule(10, 10)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("new_rate, warned", [(False, True), (True, False)])
def test_a_run_that_has_ended_is_extended_at_a_rate_of_almost_0(new_rate, warned, capsys):
    state = resume.new_state(10, {})
    state.epoch, state.step, state.lr_schedule = 10, 100, make_lr_schedule(10, 10)
    schedule = resume.resumed_schedule(state, Budget(200, 20, 10), 0.2, new_rate)
    assert (poly_factor(100, **schedule) < 0.02) == warned
    text = "warning: the run had ended, at a learning rate of almost 0"
    printed = capsys.readouterr().out
    assert (
        (text in printed) == ("Another --lr, such as 0.1, starts from there" in printed) == warned
    )


def test_a_run_that_is_extended_before_its_end_has_no_warning(capsys):
    state = resume.new_state(10, {})
    state.epoch, state.step, state.lr_schedule = 9, 90, make_lr_schedule(10, 10)
    resume.resumed_schedule(state, Budget(200, 20, 10), 0.2, False)
    assert "is extended" in (printed := capsys.readouterr().out) and "warning" not in printed


def test_a_new_rate_during_the_warm_up_is_where_it_rises_to(capsys):
    assert resumed(0, 0.2, True) == make_lr_schedule(10, 10)
    assert "rises to 0.200000, then falls to 0" in capsys.readouterr().out

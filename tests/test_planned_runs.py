"""Whole runs whose length is in steps or in minutes: what they train, save, resume and extend."""

import time

import pytest
import torch

from src.errors import UserError
from tests.tiny import EXACT, parse, run_train
from tests.watch import stop_after
from train_utils.checkpoint import load, save

SMALL = ("--base-c", 4, "--crop-size", 48, "--batch-size", 2, *EXACT)


def last(folder):
    return load(folder / "last_model.pth")


def same(first, second):
    first, second = first["model"], second["model"]
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.fixture(scope="module")
def stepped(tiny_root, tmp_path_factory):
    """A run of 11 steps in four epochs of 3, 3, 3 and 2; it has four training images."""
    options = ("--steps", 11, "--epochs", 4)
    return run_train(tiny_root, tmp_path_factory.mktemp("steps"), *options, settings=SMALL)


@pytest.fixture
def fake_clock(monkeypatch):
    """time.perf_counter advances by a tenth of a second with each training step alone."""
    now, original = [100.0], torch.Tensor.backward

    def backward(*args, **kwargs):
        now[0] += 0.1
        return original(*args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])


@pytest.fixture
def convolution_clock(monkeypatch):
    """time.perf_counter advances by 10 ms with each convolution alone, also in evaluations."""
    now, original = [100.0], torch.nn.Conv2d.forward

    def forward(*args, **kwargs):
        now[0] += 0.01
        return original(*args, **kwargs)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", forward)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])


# --- steps ----------------------------------------------------------------------------------------


def test_a_run_trains_its_steps_and_says_its_recipe(stepped):
    checkpoint = last(stepped)
    recipe = checkpoint["recipe"]
    assert checkpoint["step"] == checkpoint["plan"]["total_steps"] == 11
    assert (recipe["steps"], recipe["epochs"], recipe["epoch_steps"]) == (11, 4, 3)
    assert (recipe["crop_size"], recipe["batch_size"], recipe["base_c"]) == (48, 2, 4)
    assert (recipe["rotate"], recipe["mirror"], recipe["class_weights"]) == (180, "both", [1, 1.25])
    assert "crop 48 px (given, not planned)" in recipe["reasons"][0]
    assert recipe["reasons"][1].startswith("batch 2 (given, not planned): 4,608 px a step; ")
    assert recipe["reasons"][-1] == "set by flags, not planned: steps 11"
    assert not any(line.startswith("steps") for line in recipe["reasons"])
    assert checkpoint["training"]["epochs"] == 4 and len(checkpoint["history"]) == 4
    assert checkpoint["args"]["crop_size"] == 48 and checkpoint["args"]["rotate"] is None


def test_a_resumed_run_keeps_the_plan_bit_for_bit(
    stepped, tiny_root, tmp_path, monkeypatch, capsys
):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, tmp_path, 2)
        run_train(tiny_root, tmp_path, "--steps", 11, "--epochs", 4, settings=SMALL)
    capsys.readouterr()
    run_train(tiny_root, tmp_path, "--resume", "auto", "--device", "cpu", settings=())
    assert "plan of" not in capsys.readouterr().out
    assert (
        same(last(stepped), last(tmp_path)) and last(tmp_path)["recipe"] == last(stepped)["recipe"]
    )


def test_more_steps_extend_the_run(stepped, tiny_root, tmp_path, capsys):
    file = stepped / "last_model.pth"
    options = ("--resume", file, "--device", "cpu", "--output-dir", tmp_path)
    run_train(tiny_root, tmp_path, *options, "--steps", 15, settings=())
    checkpoint = last(tmp_path)
    assert "the schedule is extended" in capsys.readouterr().out
    assert checkpoint["step"] == checkpoint["recipe"]["steps"] == 15
    assert len(checkpoint["history"]) == checkpoint["recipe"]["epochs"] == 6
    run_train(
        tiny_root, tmp_path, "--resume", "auto", "--device", "cpu", "--epochs", 7, settings=()
    )
    assert last(tmp_path)["step"] == 18 and last(tmp_path)["recipe"]["steps"] == 18


def test_a_stepped_run_is_evaluated_and_fine_tuned_with_the_planned_model(
    stepped, tiny_root, tmp_path
):
    weights = ("--weights", stepped / "best_model.pth")
    args = parse("--test-only", *weights, "--data-path", tiny_root)
    assert (args.crop_size, args.base_c, args.steps, args.minutes) == (48, 4, 11, None)
    tuned = parse(*weights, "--data-path", tiny_root)
    assert (tuned.base_c, tuned.crop_size, tuned.steps) == (4, None, None)


@pytest.mark.parametrize(
    "argv, words",
    [
        (("--minutes", 3), "--minutes plans a new run"),
        (("--memory", "large"), "--memory plans a new run"),
        (("--crops", 3), "--crops: the length of this run is in steps"),
        (("--steps", 20, "--epochs", 9), "--steps and --epochs both extend"),
    ],
)
def test_a_resumed_run_is_not_planned_again(stepped, capsys, argv, words):
    with pytest.raises(SystemExit):
        parse("--resume", stepped / "last_model.pth", *argv)
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        ("--steps", 11, "--epochs", 4),
        ("--minutes", 3, "--epochs", 40),
        ("--memory", "small", "--steps", 11),
        ("--steps", 15, "--epochs", 4),
        ("--steps", 15, "--start-epoch", 4),
    ],
)
def test_the_flags_that_a_run_has_may_be_given_again(stepped, tmp_path, argv):
    checkpoint = last(stepped)
    if "--minutes" in argv:
        checkpoint["args"] |= {"minutes": 3.0, "epochs": 40}
    save(tmp_path / "last_model.pth", checkpoint)
    args = parse("--resume", "auto", "--output-dir", tmp_path, *argv)
    assert args.resume and vars(args)[argv[0].strip("-")] == argv[1]


def test_the_same_command_continues_its_run(tiny_root, tmp_path, monkeypatch, capsys):
    """Also after it was resumed without its flags. Of 40 epochs there are 4, of one step."""
    command = ("--resume", "auto", "--steps", 4, "--epochs", 40, "--memory", "small")
    plain = ("--resume", "auto", "--device", "cpu")
    for epochs, options, settings in ((1, command, SMALL), (2, plain, ()), (3, command, SMALL)):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            stop_after(patch, tmp_path, epochs)
            run_train(tiny_root, tmp_path, *options, settings=settings)
    run_train(tiny_root, tmp_path, *command, settings=SMALL)
    assert last(tmp_path)["step"] == len(last(tmp_path)["history"]) == 4
    assert "extended" not in capsys.readouterr().out


def test_fewer_steps_than_are_done_leave_nothing_to_train(stepped, tiny_root, tmp_path, capsys):
    options = ("--resume", stepped / "last_model.pth", "--device", "cpu", "--steps", 5)
    run_train(tiny_root, tmp_path, *options, settings=())
    assert capsys.readouterr().out.count("nothing left to train: 11 steps done") == 1


def test_a_start_past_the_end_is_refused(stepped, tiny_root, tmp_path):
    """Of 40 epochs there are 4, of one step."""
    options = ("--steps", 4, "--epochs", 40, "--start-epoch", 4)
    with pytest.raises(UserError, match="--start-epoch 4 leaves no epoch"):
        run_train(tiny_root, tmp_path, *options, settings=SMALL)
    options = ("--resume", stepped / "last_model.pth", "--device", "cpu", "--start-epoch", 4)
    with pytest.raises(UserError, match="--start-epoch 4 leaves no epoch"):
        run_train(tiny_root, tmp_path, *options, settings=())


def test_a_run_that_does_not_say_its_crops_is_refused_unless_they_are_given(
    stepped, tiny_root, tmp_path
):
    checkpoint = last(stepped)
    for name in ("crops", "steps"):
        del checkpoint["args"][name]
    checkpoint["args"] |= {"mirror": "both", "scale": [1, 1], "rotate": 0, "accumulate": 1}
    del checkpoint["recipe"]
    save(tmp_path / "old.pth", checkpoint)
    options = ("--resume", tmp_path / "old.pth", "--device", "cpu")
    with pytest.raises(UserError, match="old.pth: does not say how many crops.*give --crops N"):
        run_train(tiny_root, tmp_path, *options, settings=())
    options += ("--crops", 1, "--epochs", 5)
    folder = run_train(tiny_root, tmp_path / "run", *options, settings=())
    assert last(folder)["step"] == 13 and last(folder)["recipe"]["crops"] == 1


def test_without_any_flag_the_length_is_the_plans(tiny_root, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, tmp_path, 1)
        run_train(tiny_root, tmp_path, settings=("--base-c", 2, "--crop-size", 32, "-b", 1, *EXACT))
    recipe = last(tmp_path)["recipe"]
    assert (recipe["steps"], recipe["epochs"], last(tmp_path)["step"]) == (2000, 40, 50)


# --- minutes --------------------------------------------------------------------------------------


def test_minutes_are_planned_once_and_resumed_exactly(
    fake_clock, tiny_root, tmp_path, monkeypatch, capsys
):
    """By the fake clock ten steps take 1 s, evaluations and saving nothing: 4 s are left for 40."""
    options = ("--minutes", 0.15, "--epochs", 4)  # 9 s
    whole = run_train(tiny_root, tmp_path / "whole", *options, settings=SMALL)
    checkpoint = last(whole)
    recipe = checkpoint["recipe"]
    assert "--minutes 0.15:" in capsys.readouterr().out
    assert checkpoint["step"] == recipe["steps"] == checkpoint["plan"]["total_steps"]
    assert 40 < recipe["steps"] < 60 and recipe["epochs"] == len(checkpoint["history"]) == 4
    rates = [row["lr"] for row in checkpoint["history"]]
    assert rates[0] == pytest.approx(1e-6) and max(rates) > 1e-4
    for stop in (1, 2):
        folder = tmp_path / f"stopped{stop}"
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            stop_after(patch, folder, stop)
            run_train(tiny_root, folder, *options, settings=SMALL)
        assert last(folder)["recipe"] == recipe
        capsys.readouterr()
        run_train(tiny_root, folder, "--resume", "auto", "--device", "cpu", settings=())
        assert "--minutes" not in capsys.readouterr().out
        assert same(last(folder), checkpoint) and last(folder)["recipe"] == recipe


def test_before_minutes_are_planned_no_length_is_logged(tiny_root, tmp_path, capsys):
    options = ("--minutes", 0.01, "--accumulate", 2)
    run_train(tiny_root, tmp_path, *options, settings=SMALL)
    out = capsys.readouterr().out
    assert last(tmp_path)["step"] == 20 and "--minutes 0.01: 20 steps in 2 epochs" in out
    assert "steps in all" not in out and "10 steps in 1" not in out


def test_a_run_takes_about_its_minutes(convolution_clock, tiny_root, tmp_path):
    start = time.perf_counter()
    run_train(tiny_root, tmp_path, "--minutes", 0.25, settings=SMALL)
    assert 7 < time.perf_counter() - start < 16
    assert last(tmp_path)["step"] == last(tmp_path)["recipe"]["steps"] > 30

"""Killed in the middle: files on disk are whole, and --resume auto continues after the last whole
epoch."""

import signal

import pytest
import torch

from tests.made_volumes import write_decathlon
from tests.processes import python
from tests.tiny import EXACT, TINY, run_train
from train_utils.checkpoint import load
from train_utils.model_loading import load_model

VOLUMES = ("--model", "unet_3d", "--base-c", "2", "--crop-size", "16", "--test-fraction", "0")
VOLUMES += ("--crops", "1", *EXACT)

# Runs train.py in a process of its own, after a patch that sends a signal to it in epoch 2.
PRELUDE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's children ignore it
import torch, train
from my_dataset import DATASETS
from train_utils.cli.defaults import parse_args
from train_utils.cli.script import run_script
"""
IN_EPOCH = """
steps = []
original = torch.Tensor.backward
def backward(*args, **kwargs):
    steps.append(0)
    if len(steps) == {step}:  # there are three an epoch
        os.kill(os.getpid(), signal.{signal})
    return original(*args, **kwargs)
torch.Tensor.backward = backward
"""
IN_SAVE = """
original = torch.save
def save(content, path):
    original(content, path)
    if content["epoch"] == 2 and {name!r} in str(path):
        with open(path, "rb+") as file:
            file.truncate(file.seek(0, 2) // 2)
        os.kill(os.getpid(), signal.{signal})
torch.save = save
"""
IN_LINK = """
links = []
original = os.link
def link(source, target):
    original(source, target)
    links.append(0)
    if len(links) == 3:  # in every epoch best_model.pth gets the second name last_model.pth
        os.kill(os.getpid(), signal.{signal})
os.link = link
"""
MAIN = """
run_script(lambda: train.main(parse_args(sys.argv[1:], "train.py", "", DATASETS)), "train.py")
"""


def run_patched(patch, data, output, settings=TINY):
    """The finished process. Without validation every epoch writes both checkpoints."""
    argv = ["--data-path", data, "--output-dir", output, "--epochs", "4", "--val", "none"]
    argv += settings
    return python("-c", PRELUDE + patch + MAIN, *argv)


@pytest.fixture(scope="module")
def straight(tiny_root, tmp_path_factory):
    return run_train(tiny_root, tmp_path_factory.mktemp("straight"), "--epochs", 4, "--val", "none")


@pytest.mark.parametrize(
    "patch",
    [
        pytest.param(IN_EPOCH.format(signal="SIGKILL", step=8), id="in the middle of an epoch"),
        pytest.param(IN_LINK.format(signal="SIGKILL"), id="saving the last"),
        pytest.param(IN_SAVE.format(signal="SIGKILL", name="best_model"), id="saving the best"),
    ],
)
def test_killed_and_resumed_equals_uninterrupted(patch, straight, tiny_root, tmp_path):
    killed = run_patched(patch, tiny_root, tmp_path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert load(tmp_path / "last_model.pth")["epoch"] == 1
    load_model(tmp_path / "best_model.pth")
    run_train(tiny_root, tmp_path, "--resume", "auto", "--device", "cpu", settings=())
    assert_equal_weights(straight, tmp_path)
    assert not list(tmp_path.glob(".*.tmp"))  # the next save replaced what the kill had left


def assert_equal_weights(first, second):
    """That last_model.pth of both folders holds the same weights, bit for bit."""
    expected, found = (load(folder / "last_model.pth")["model"] for folder in (first, second))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_killed_and_resumed_on_volumes_equals_uninterrupted(tmp_path):
    data = write_decathlon(tmp_path / "data", count=5, test=0)  # three steps an epoch
    options = ("--epochs", 4, "--val", "none")
    straight = run_train(data, tmp_path / "straight", *options, settings=VOLUMES)
    patch, output = IN_EPOCH.format(signal="SIGKILL", step=8), tmp_path / "killed"
    killed = run_patched(patch, data, output, VOLUMES)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert load(output / "last_model.pth")["epoch"] == 1
    run_train(data, output, "--resume", "auto", "--device", "cpu", settings=())
    assert_equal_weights(straight, output)


@pytest.mark.parametrize("name, code", [("SIGINT", 130), ("SIGTERM", 143)])
def test_stopped_by_a_signal_says_how_to_resume(name, code, tiny_root, tmp_path):
    stopped = run_patched(IN_EPOCH.format(signal=name, step=8), tiny_root, tmp_path)
    assert stopped.returncode == code, stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert (
        f"--resume {tmp_path / 'last_model.pth'}" in stopped.stdout
        and "up to the end of epoch 1" in stopped.stdout
    )
    assert load(tmp_path / "last_model.pth")["epoch"] == 1 and (tmp_path / "curves.png").exists()


def test_a_new_run_that_has_no_checkpoint_yet_leaves_the_old_one_whole(tiny_root, tmp_path):
    run_train(tiny_root, tmp_path, "--epochs", 1)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.json")}
    assert set(before) == {"split.json", "test_scores.json"}
    stopped = run_patched(IN_EPOCH.format(step=2, signal="SIGINT"), tiny_root, tmp_path)
    assert stopped.returncode == 130
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.json")} == before
    run_train(tiny_root, tmp_path, "--resume", "auto", "--epochs", 2, settings=())


def test_scores_of_the_run_that_is_replaced_are_removed(tiny_root, tmp_path):
    run_train(tiny_root, tmp_path, "--epochs", 1)
    run_train(tiny_root, tmp_path, "--epochs", 1, "--folds", 2, "--fold", 0)  # has no test images
    assert not (tmp_path / "test_scores.json").exists()
    assert "22_training" in (tmp_path / "split.json").read_text()


def test_a_run_that_goes_on_in_another_folder_takes_its_split_along(tiny_root, tmp_path):
    first = run_train(tiny_root, tmp_path / "first", "--epochs", 1, "--val", "none")
    other = run_train(tiny_root, tmp_path / "other", "--epochs", 1, "--folds", 2, "--fold", 0)
    (other / "test_scores.json").write_text("{}")
    split = (first / "split.json").read_text()
    moved = ("--resume", first / "last_model.pth", "--epochs", 2)
    run_train(tiny_root, other, *moved, settings=())
    assert (other / "split.json").read_text() == split
    assert (other / "test_scores.json").read_text() != "{}"


def test_a_new_run_that_starts_at_a_later_epoch_writes_its_split(tiny_root, tmp_path):
    run_train(tiny_root, tmp_path, "--epochs", 2, "--start-epoch", 1)
    assert "01_test" in (tmp_path / "split.json").read_text()


def test_stopped_in_the_first_epoch_says_so(tiny_root, tmp_path):
    stopped = run_patched(IN_EPOCH.format(signal="SIGTERM", step=1), tiny_root, tmp_path)
    assert stopped.returncode == 143 and "there is nothing to resume" in stopped.stdout
    assert not (tmp_path / "last_model.pth").exists()


def test_a_resumed_run_stopped_in_its_first_epoch_says_where_it_starts_again(tiny_root, tmp_path):
    run_train(tiny_root, tmp_path, "--epochs", 2, "--val", "none")
    before = (tmp_path / "last_model.pth").read_bytes()
    patch = PRELUDE + IN_EPOCH.format(signal="SIGTERM", step=2) + MAIN
    stopped = python("-c", patch, "--resume", tmp_path / "last_model.pth", "--epochs", 4)
    assert stopped.returncode == 143, stopped.stderr
    assert "stopped in epoch 2: nothing new" in stopped.stdout
    assert (tmp_path / "last_model.pth").read_bytes() == before

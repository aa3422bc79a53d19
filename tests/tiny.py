"""The smallest run of train.py that still has everything: for tests of whole runs."""

import shutil

import pytest

import train
from my_dataset import DATASETS
from src import MODELS
from train_utils.demo_data import write_demo_drive
from train_utils.flags import parse_args

TINY = ("--base-c", "4", "--crop-size", "64", "--base-size", "96", "--batch-size", "2", "--no-amp", "--device", "cpu")


def run_train(data, output, *options, settings=TINY):
    """Runs train.main in this process on the data folder and returns the output folder."""
    argv = ["--data-path", data, "--output-dir", output, *settings, *options]
    train.main(parse_args([str(arg) for arg in argv], "train.py", "", DATASETS, MODELS))
    return output


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory):
    """A --data-path with a demo set of 5 training and 2 test images of 96×104 px. Not to be changed."""
    return write_demo_drive(tmp_path_factory.mktemp("tiny"), num_training=5, num_test=2, size=(96, 104))


@pytest.fixture
def tiny_copy(tiny_root, tmp_path_factory):
    """A copy of tiny_root to spoil."""
    return shutil.copytree(tiny_root, tmp_path_factory.mktemp("copy"), dirs_exist_ok=True)

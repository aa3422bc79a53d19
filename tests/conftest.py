"""Fixtures that several test files share."""

import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from train_utils.data.demo_drive import write_demo_drive


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Random numbers of a test do not depend on the tests before it."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory):
    """A --data-path with a synthetic DRIVE: 5 training and 2 test images of 96×104 px.

    Tests must not change it.
    """
    return write_demo_drive(
        tmp_path_factory.mktemp("tiny"), num_training=5, num_test=2, size=(96, 104)
    )


@pytest.fixture
def tiny_copy(tiny_root, tmp_path_factory):
    """A copy of tiny_root that a test may change."""
    return shutil.copytree(tiny_root, tmp_path_factory.mktemp("copy"), dirs_exist_ok=True)


@pytest.fixture(scope="session")
def drive_root():
    """The --data-path that holds the real DRIVE, from the environment variable SEG_DATA."""
    if not os.environ.get("SEG_DATA"):
        pytest.skip("SEG_DATA does not name a folder that holds the real DRIVE")
    return Path(os.environ["SEG_DATA"]).resolve()


@pytest.fixture(scope="session")
def camvid_root(drive_root):
    """The --data-path that holds the real CamVid, beside DRIVE."""
    if not (drive_root / "CamVid").is_dir():
        pytest.skip("SEG_DATA holds no CamVid")
    return drive_root

"""The states of all random generators are saved, and a run continues with the same numbers."""

import random

import numpy as np
import pytest
import torch

from train_utils.checkpoint import load, save
from train_utils.random_state import random_state, restore_random_state, seeded


def random_numbers():
    """The next numbers of PyTorch's, Python's and NumPy's generators."""
    return (
        torch.rand(3).tolist(),
        random.random(),
        random.gauss(0, 1),
        np.random.rand(),
        np.random.randn(),
    )


def test_all_generators_continue_where_the_file_left_them(tmp_path):
    random_numbers()  # so that both gauss() and randn() hold a second number back
    save(tmp_path / "state.pth", {"random_states": [random_state()]})
    expected = [random_numbers() for _ in range(3)]
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)
    assert random_numbers() != expected[0]
    restore_random_state(load(tmp_path / "state.pth")["random_states"][0])
    assert [random_numbers() for _ in range(3)] == expected


def test_reading_the_state_does_not_change_it():
    first = random_state()
    expected = random_numbers()
    restore_random_state(first)
    random_state()
    assert random_numbers() == expected


def test_seeded_numbers_depend_on_the_seed_alone_and_leave_no_trace():
    start = random_state()
    expected = [random_numbers() for _ in range(2)]
    restore_random_state(start)
    found = []
    for seed in (5, 2**63 - 1, 5):
        with seeded(seed):
            found.append(random_numbers())
    assert found[0] == found[2] != found[1]
    assert random_numbers() == expected[0]
    with pytest.raises(ValueError), seeded(5):
        random_numbers()
        raise ValueError
    assert random_numbers() == expected[1]

"""Held-out samples and folds: every sample is in one split, and validation has its share."""

import pytest

from tests.small import error_of
from train_utils.data.splits import fold, hold_out


def test_of_21_to_40_the_last_four_validate():
    training, validation = hold_out(list(range(21, 41)))
    assert training == list(range(21, 37)) and validation == [37, 38, 39, 40]


@pytest.mark.parametrize("count, held_out", [(2, 1), (5, 1), (8, 2), (118, 24)])
def test_hold_out_leaves_something_to_both_splits(count, held_out):
    training, validation = hold_out(list(range(count)))
    assert training + validation == list(range(count)) and len(validation) == held_out


def test_a_single_sample_cannot_be_split():
    message = error_of(hold_out, [1])
    assert "takes 1 of 1 image for validation" in message and "--val none" in message


@pytest.mark.parametrize("count, folds", [(20, 5), (20, 2), (7, 3), (4, 4)])
def test_folds_validate_on_every_sample_once(count, folds):
    samples = list(range(count))
    validated = []
    for k in range(folds):
        training, validation = fold(samples, folds, k)
        assert sorted(training + validation) == samples and training == sorted(training)
        assert count // folds <= len(validation) <= count // folds + 1
        validated += validation
    assert sorted(validated) == samples


@pytest.mark.parametrize("folds, k", [(1, 0), (6, 0), (5, 5), (5, -1)])
def test_impossible_folds_are_refused(folds, k):
    assert f"fold {k} of {folds}" in error_of(fold, list(range(5)), folds, k)

"""Scores within a tolerance are those counted by hand; pixels that are ignored take no part."""

import math

import pytest
import torch

from tests.counts import probs_of
from train_utils import SegmentationCounts, summarize
from train_utils.tolerant_metrics import near_counts

LINE = torch.zeros(7, 9, dtype=torch.int64)
LINE[3, 1:7] = 1  # six pixels


def shifted(down, right=0):
    return torch.roll(LINE, (down, right), (0, 1))


@pytest.mark.parametrize(
    "pred, tolerance, expected",
    [
        (LINE, 1, [6, 6, 6, 6]),
        (shifted(1), 1, [6, 6, 6, 6]),  # one pixel beside the truth all along
        (shifted(1, 1), 1, [6, 6, 6, 6]),  # and diagonally
        (shifted(2), 1, [0, 6, 0, 6]),
        (shifted(2), 2, [6, 6, 6, 6]),
        # Columns 3–8 against 1–6: within a pixel are the predicted 3–7 and the true 2–6.
        (shifted(0, 2), 1, [5, 6, 5, 6]),
        (torch.zeros_like(LINE), 1, [0, 0, 0, 6]),
        (torch.ones_like(LINE), 1, [24, 63, 6, 6]),  # the line and its border: 3 × 8 pixels
    ],
)
def test_near_counts_by_hand(pred, tolerance, expected):
    assert near_counts(LINE, pred, 1, tolerance).tolist() == expected


def test_ignored_pixels_are_neither_true_nor_predicted():
    target = LINE.clone()
    target[:, :4] = 255  # columns 4–6 of the line remain
    assert near_counts(target, shifted(1), 1, 1).tolist() == [3, 3, 3, 3]


def number_near(points, others, tolerance):
    """Pixels of `points` within the tolerance of `others`, by the chessboard distance."""
    differences = points.nonzero()[:, None] - others.nonzero()[None]
    return int((differences.abs().amax(2).amin(1) <= tolerance).sum())


@pytest.mark.parametrize("tolerance", [1, 3])
def test_near_counts_are_those_of_brute_force(tolerance):
    generator = torch.Generator().manual_seed(0)
    target, pred = (torch.rand(2, 20, 24, generator=generator) < 0.06).long()
    assert near_counts(target, pred, 1, tolerance).tolist() == [
        number_near(pred, target, tolerance),
        int(pred.sum()),
        number_near(target, pred, tolerance),
        int(target.sum()),
    ]


def test_the_summary_pools_them_over_images():
    counts = SegmentationCounts(2, tolerance=1)
    for pred in (shifted(0, 2), torch.ones_like(LINE)):
        counts.add_image(LINE, pred, probs_of(pred.float()))
    scores = summarize(counts)
    precision, recall = (5 + 24) / (6 + 63), (5 + 6) / 12
    assert scores["precision_tolerant"] == pytest.approx(precision)
    assert scores["recall_tolerant"] == pytest.approx(recall)
    f1 = 2 * precision * recall / (precision + recall)
    assert scores["f1_tolerant"] == pytest.approx(f1) and scores["tolerance"] == 1
    without = SegmentationCounts(2)
    without.add_image(LINE, LINE, probs_of(LINE.float()))
    assert "f1_tolerant" not in summarize(without)


def test_the_sum_of_two_counts_is_that_of_one_evaluation():
    first, second, both = (SegmentationCounts(2, ignore_index=7, tolerance=1) for _ in range(3))
    ignored = torch.where(torch.arange(LINE.shape[1]) < 2, 7, LINE)
    updates = (first, ignored, shifted(0, 2)), (second, LINE, torch.ones_like(LINE))
    for part, target, pred in updates:
        for counts in (part, both):
            counts.add_image(target, pred, probs_of(pred.float()))
    total = first + second
    assert summarize(total, 0.3) == summarize(both, 0.3) and summarize(total)["tolerance"] == 1
    assert total.ignore_index == 7 and torch.equal(total.image_mats, both.image_mats)


@pytest.mark.parametrize(
    "target, pred, f1",
    [(LINE, 0 * LINE, 0.0), (0 * LINE, LINE, 0.0), (0 * LINE, 0 * LINE, math.nan)],
)
def test_nothing_true_or_nothing_predicted(target, pred, f1):
    counts = SegmentationCounts(2, tolerance=1)
    counts.add_image(target, pred, probs_of(pred.float()))
    assert summarize(counts)["f1_tolerant"] == pytest.approx(f1, nan_ok=True)

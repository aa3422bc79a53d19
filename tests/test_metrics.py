"""Metrics are those counted by hand; classes that cannot be scored are left out and named."""

import math

import numpy as np
import pytest
import torch

from src.errors import UserError
from tests.counts import count, probs_of, random_image
from train_utils import ConfusionMatrix, SegmentationCounts, summarize
from train_utils.metrics import confusion_counts, dice_from_confusion

TARGET = torch.tensor([[0, 0, 0, 1], [1, 1, 255, 255]])
PRED = torch.tensor([[0, 1, 0, 1], [1, 0, 0, 1]])
# True class 0: two right, one taken for 1. True class 1: two right, one taken for 0. Two ignored.


# --- the confusion matrix ------------------------------------------------------------------------


def test_confusion_matrix_by_hand():
    matrix = ConfusionMatrix(2)
    matrix.update(TARGET, PRED)
    assert matrix.mat.tolist() == [[2, 1], [1, 2]]
    accuracy, recall, iou = matrix.compute()
    assert accuracy.item() == pytest.approx(4 / 6)
    assert recall.tolist() == pytest.approx([2 / 3, 2 / 3])
    assert iou.tolist() == pytest.approx([2 / 4, 2 / 4])


def test_rows_are_the_true_classes():
    matrix = confusion_counts(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 2, 2, 1]), 3)
    assert matrix.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 1]]


def test_updates_add_up_and_reset_starts_again():
    matrix = ConfusionMatrix(2)
    for _ in range(3):
        matrix.update(TARGET.flatten(), PRED.flatten())
    assert matrix.mat.tolist() == [[6, 3], [3, 6]]
    matrix.reset()
    assert matrix.mat.sum() == 0
    matrix.update(TARGET, PRED.to(torch.uint8))
    assert matrix.mat.tolist() == [[2, 1], [1, 2]]


def test_text_is_the_block_of_the_results_file():
    matrix = ConfusionMatrix(2)
    matrix.update(TARGET, PRED)
    assert str(matrix) == (
        "global correct: 66.7\n"
        "average row correct: ['66.7', '66.7']\n"
        "IoU: ['50.0', '50.0']\n"
        "mean IoU: 50.0"
    )


def test_a_perfect_prediction_scores_one_hundred():
    matrix = ConfusionMatrix(3)
    matrix.update(torch.arange(3), torch.arange(3))
    assert str(matrix).endswith("IoU: ['100.0', '100.0', '100.0']\nmean IoU: 100.0")


def test_an_absent_class_is_left_out_of_the_mean_and_named():
    matrix = ConfusionMatrix(4)
    matrix.update(torch.tensor([0, 0, 0, 2]), torch.tensor([0, 0, 2, 2]))
    _, recall, iou = matrix.compute()
    assert iou[[0, 2]].tolist() == pytest.approx([2 / 3, 1 / 2])
    assert iou[[1, 3]].isnan().all() and recall[[1, 3]].isnan().all()
    last = str(matrix).splitlines()[-1]
    assert last.startswith(f"mean IoU: {100 * (2 / 3 + 1 / 2) / 2:.1f}")
    assert "absent classes 1, 3" in last


def test_a_class_that_is_only_predicted_has_an_iou_of_zero_and_no_recall():
    matrix = ConfusionMatrix(2)
    matrix.update(torch.zeros(4, dtype=torch.int64), torch.tensor([0, 0, 0, 1]))
    _, recall, iou = matrix.compute()
    assert iou.tolist() == [0.75, 0] and recall[0] == 0.75 and recall[1].isnan()
    assert "absent" not in str(matrix)


def test_without_valid_pixels_every_score_is_nan():
    matrix = ConfusionMatrix(2)
    matrix.update(torch.full((3,), 255), torch.zeros(3, dtype=torch.int64))
    accuracy, recall, iou = matrix.compute()
    assert accuracy.isnan() and recall.isnan().all() and iou.isnan().all()
    assert "mean IoU: nan" in str(matrix)


@pytest.mark.parametrize(
    "target, pred, what",
    [
        ([0, 1, 2], [0, 1, 1], "target holds class ids [2]"),
        ([0, -1, 1], [0, 1, 1], "target holds class ids [-1]"),
        ([0, 1, 254], [0, 1, 1], "target holds class ids [254]"),
        ([0, 1, 1], [0, 1, 7], "prediction holds class ids [7]"),
    ],
)
@pytest.mark.parametrize("counter", ["matrix", "counts"])
def test_labels_out_of_range_are_refused_and_named(target, pred, what, counter):
    target, pred = torch.tensor([target]), torch.tensor([pred])
    with pytest.raises(ValueError) as caught:
        if counter == "matrix":
            ConfusionMatrix(2).update(target, pred)
        else:
            SegmentationCounts(2).add_image(target, pred, torch.full((2, 1, 3), 0.5))
    assert what in str(caught.value) and "2 classes" in str(caught.value)


def test_predictions_on_ignored_pixels_do_not_matter():
    assert torch.equal(
        confusion_counts(TARGET, torch.where(TARGET == 255, 99, PRED), 2),
        confusion_counts(TARGET, PRED, 2),
    )


def test_another_id_can_be_ignored():
    matrix = ConfusionMatrix(3, ignore_index=1)
    matrix.update(torch.tensor([0, 1, 2, 1]), torch.tensor([0, 0, 2, 2]))
    assert matrix.mat.diag().tolist() == [1, 0, 1] and matrix.mat.sum() == 2


def test_dice_by_hand():
    dice = dice_from_confusion(torch.tensor([[[5, 1], [2, 3]], [[4, 0], [0, 0]]]))
    assert dice[0].tolist() == pytest.approx([10 / 13, 6 / 9])
    assert dice[1, 0] == 1 and dice[1, 1].isnan()


# --- the counts of several images ---------------------------------------------------------------


def test_dice_is_the_mean_over_images_and_f1_is_pooled():
    ones = torch.ones(1, 4)
    half = torch.tensor([[1.0, 1, 0, 0]])
    counts = count((ones.long(), ones), (half.long(), ones), (half.long(), 1 - half))
    assert counts.dice_per_image().tolist() == pytest.approx([1, 4 / 6, 0])
    assert counts.mean_dice() == pytest.approx((1 + 2 / 3) / 3)
    scores = summarize(counts)
    assert scores["dice"] == pytest.approx(counts.mean_dice())
    assert scores["dice_sd"] == pytest.approx(np.std([1, 2 / 3, 0]))
    assert scores["f1"] == pytest.approx(2 * 6 / (8 + 10))


def test_an_image_without_the_class_is_left_out():
    truth = torch.tensor([[0, 0, 1, 1]])
    good, empty = torch.tensor([[0.0, 0, 1, 0]]), torch.zeros(1, 4)
    counts = count(
        (truth, good), (torch.zeros_like(truth), empty), (torch.full_like(truth, 255), empty)
    )
    assert counts.dice_per_image()[0] == pytest.approx(2 / 3)
    assert counts.dice_per_image()[1:].isnan().all()
    assert counts.mean_dice() == pytest.approx(2 / 3)
    scores = summarize(counts)
    assert (scores["images"], scores["images_without_foreground"]) == (3, 2)


def test_a_class_predicted_where_there_is_none_scores_zero():
    counts = count((torch.zeros(1, 4, dtype=torch.int64), torch.tensor([[0.0, 0, 0, 1]])))
    assert counts.mean_dice() == 0


def test_without_foreground_anywhere_there_is_no_dice():
    empty = torch.zeros(2, 2)
    counts = count((empty.long(), empty))
    scores = summarize(counts)
    assert math.isnan(counts.mean_dice())
    assert math.isnan(scores["dice"]) and math.isnan(scores["auc"])
    assert scores["best_threshold"] == 0.5 and math.isnan(scores["best_f1"])


def test_dice_of_several_classes_is_the_mean_of_those_that_occur_in_the_image():
    counts = SegmentationCounts(4)
    target, pred = torch.tensor([[0, 1, 1, 2]]), torch.tensor([[0, 1, 2, 2]])
    counts.add_image(target, pred, torch.full((4, 1, 4), 0.25))
    assert counts.mean_dice() == pytest.approx((2 / 3 + 2 / 3) / 2)  # class 3 does not occur


def test_summary_of_two_classes_by_hand():
    target = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 255]])
    vessel = torch.tensor([[0.1, 0.2, 0.3, 0.8, 0.9, 0.7, 0.4, 1]])
    scores = summarize(count((target, vessel)), threshold=0.25)  # TP 2, FP 1, FN 1, TN 3
    expected = {
        "pixels": 7,
        "images": 1,
        "f1": 4 / 6,
        "accuracy": 5 / 7,
        "sensitivity": 2 / 3,
        "specificity": 3 / 4,
        "precision": 2 / 3,
        "mean_iou": (3 / 5 + 2 / 4) / 2,
        "f1_at_threshold": 6 / 8,
        "auc": 10 / 12,
        "average_precision": (1 / 1 + 2 / 3 + 3 / 4) / 3,
    }
    assert {name: scores[name] for name in expected} == pytest.approx(expected)
    assert scores["recall_per_class"] == pytest.approx([3 / 4, 2 / 3])
    assert scores["precision_per_class"] == pytest.approx([3 / 4, 2 / 3])
    assert scores["iou_per_class"] == pytest.approx([3 / 5, 2 / 4])
    assert scores["dice_per_class"] == pytest.approx([6 / 8, 4 / 6])


def test_counts_of_two_halves_add_up_to_those_of_the_whole():
    images = [random_image(seed) for seed in range(6)]
    whole, first, second = count(*images), count(*images[:2]), count(*images[2:])
    total = first + second
    assert summarize(total, 0.4) == summarize(whole, 0.4)
    assert torch.equal(total.image_mats, whole.image_mats)
    assert torch.equal(total.histograms, whole.histograms)


def test_the_counts_of_images_are_their_confusion_matrix():
    images = [random_image(seed) for seed in range(3)]
    counts, matrix = count(*images), ConfusionMatrix(2)
    for target, vessel in images:
        matrix.update(target, (vessel > 0.5).long())
    assert isinstance(counts, ConfusionMatrix)
    assert torch.equal(counts.mat, matrix.mat) and torch.equal(counts.mat, counts.image_mats.sum(0))
    for own, wanted in zip(counts.compute(), matrix.compute(), strict=True):
        assert torch.equal(own, wanted)
    assert str(counts) == str(matrix)
    counts.reset()
    assert len(counts.image_mats) == 0 and counts.mat.sum() == 0 and counts.histograms.sum() == 0


def test_pooled_scores_do_not_depend_on_how_the_pixels_are_cut_into_images():
    target, vessel = random_image(0)
    strips = zip(target.split(4), vessel.split(4), strict=True)
    whole, parts = count((target, vessel)), count(*strips)
    assert torch.equal(whole.histograms, parts.histograms)
    assert torch.equal(whole.mat, parts.mat)


@pytest.mark.parametrize("cuts", [(3,), (1, 2, 9)])
def test_an_image_in_strips_counts_as_the_whole_one(cuts):
    """Also within a tolerance, where a match may be on the other side of a cut."""
    target, vessel = random_image(4, (12, 9))
    probs, pred = probs_of(vessel), (vessel > 0.5).long()
    whole, strips = (SegmentationCounts(2, tolerance=2) for _ in range(2))
    whole.add_image(target, pred, probs)
    for start, stop in zip((0, *cuts), (*cuts, 12), strict=True):
        rows = slice(start, stop)
        strips.add_strip(target[rows], pred[rows], probs[:, rows])
    strips.end_image()
    assert summarize(strips) == summarize(whole)
    assert torch.equal(strips.image_mats, whole.image_mats)
    assert torch.equal(strips.near, whole.near) and whole.near.sum() > 0


def test_probabilities_that_are_not_finite_are_refused():
    target = torch.zeros(2, 2, dtype=torch.int64)
    with pytest.raises(UserError, match="not finite.*lower --lr"):
        SegmentationCounts(2).add_image(target, target, torch.full((2, 2, 2), float("nan")))

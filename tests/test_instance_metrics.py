"""Scores of objects on arrays small enough to count by hand."""

import math

import numpy as np
import pytest
import torch

from train_utils.instance_metrics import COLUMNS, image_object_rows, object_counts, object_scores

# Three objects of 4 × 6 px: rows 1–4, columns 1–6, 7–12 and 15–20.
TRUTH = np.zeros((8, 24), np.int32)
TRUTH[1:5, 1:7], TRUTH[1:5, 7:13], TRUTH[1:5, 15:21] = 1, 2, 3


def scores_of(predicted, truth=TRUTH):
    """object_scores() of one image."""
    return object_scores(object_counts(truth, predicted)[None])


def edited(*changes):
    """TRUTH after "merge" of 1 and 2, "split" of 3, "miss" of 3, or an "extra" object."""
    ids = TRUTH.copy()
    if "merge" in changes:
        ids[ids == 2] = 1
    if "split" in changes:
        ids[1:5, 18:21] = 4
    if "miss" in changes:
        ids[ids == 3] = 0
    if "extra" in changes:
        ids[6:8, 0:4] = 9
    return ids


def test_a_perfect_prediction_has_full_scores_whatever_its_ids():
    renumbered = np.array([0, 70, 5, 11])[TRUTH]
    expected = {
        "object_ap": 1.0,
        "object_ap_50": 1.0,
        "object_ap_75": 1.0,
        "aji": 1.0,
        "objects": 3,
        "objects_predicted": 3,
        "objects_found": 3,
        "objects_merged": 0,
        "objects_split": 0,
    }
    scores = scores_of(renumbered)
    assert scores == expected
    assert all(type(value) is type(expected[name]) for name, value in scores.items())


# By hand, areas of 24 px. Merge: IoU 24/48 is not above 0.5, so TP = 1 (object 3), FP = 1, FN = 2.
# Split: both halves have IoU 12/24; TP = 2, FP = 2, FN = 1. AJI: intersection / union.
HAND_COUNTED = {
    "merge": (1 / 4, (24 + 24 + 24) / (48 + 48 + 24), 1, 2, 0),
    "split": (2 / 5, (24 + 24 + 12) / (24 + 24 + 24 + 12), 2, 0, 1),
    "miss": (2 / 3, 48 / 72, 2, 0, 0),
    "extra": (3 / 4, 72 / (72 + 8), 3, 0, 0),
}


@pytest.mark.parametrize("kind", HAND_COUNTED)
def test_one_mistake_is_counted_as_by_hand(kind):
    precision, aji, found, merged, split = HAND_COUNTED[kind]
    scores = scores_of(edited(kind))
    assert scores["object_ap"] == pytest.approx(precision)
    assert scores["aji"] == pytest.approx(aji)
    assert scores["objects_found"] == found
    assert (scores["objects_merged"], scores["objects_split"]) == (merged, split)
    assert scores["object_ap"] < 1 and scores["aji"] < 1


def test_average_precision_falls_with_the_overlap():
    predicted = TRUTH.copy()
    predicted[1:5, 1] = 0  # object 1 has IoU 20/24 = 0.83: found at 0.5 to 0.8, 7 thresholds of 10
    predicted[1:5, 15:18] = 0  # object 3 has IoU 12/24: found at none, since 0.5 is not above 0.5
    counts = object_counts(TRUTH, predicted)
    assert counts[:12].tolist() == [3, 3] + [2] * 7 + [1] * 3
    scores = object_scores(counts[None])
    # TP / (TP + FP + FN) = 2 / (2 + 1 + 1), and 1 / (1 + 2 + 2)
    assert scores["object_ap"] == pytest.approx((7 * 2 / 4 + 3 * 1 / 5) / 10)
    assert scores["object_ap_75"] == 0.5
    assert scores["aji"] == pytest.approx((20 + 24 + 12) / 72)


def test_only_a_prediction_over_more_than_half_of_each_object_merges_them():
    predicted = edited()
    predicted[1:5, 7:10] = 1  # half of object 2
    assert scores_of(predicted)["objects_merged"] == 0
    predicted[1, 10] = 1  # one px more
    assert scores_of(predicted)["objects_merged"] == 2


@pytest.mark.parametrize("outside, split", [(9, 1), (12, 0), (15, 0)])
def test_only_predictions_with_more_than_half_of_their_area_in_an_object_split_it(outside, split):
    truth, predicted = np.zeros((2, 40), int), np.zeros((2, 40), int)
    truth[:, :12] = 1
    predicted[0, : 12 + outside], predicted[1, : 12 + outside] = 1, 2
    assert scores_of(predicted, truth)["objects_split"] == split


def test_aji_compares_with_the_object_of_the_highest_iou():
    truth, predicted = np.zeros((1, 20), int), np.zeros((1, 20), int)
    truth[0, :5], predicted[0, :2], predicted[0, 2:] = 1, 1, 2  # IoU 2/5 and 3/20
    counts = dict(zip(COLUMNS, object_counts(truth, predicted).tolist(), strict=True))
    assert (counts["aji_intersection"], counts["aji_union"]) == (2, 5 + 18)


def test_aji_takes_a_predicted_object_for_several_true_ones():
    """Kumar et al. 2017, algorithm 1: only those that belong to no true object are surplus."""
    truth, predicted = np.array([[1, 1, 2, 2, 0, 0]]), np.array([[8, 8, 8, 0, 0, 4]])
    counts = dict(zip(COLUMNS, object_counts(truth, predicted).tolist(), strict=True))
    assert counts["aji_intersection"] == 2 + 1
    assert counts["aji_union"] == 3 + 4 + 1


def test_counts_equal_those_of_a_loop_over_all_pairs():
    rng = np.random.default_rng(3)
    truth, predicted = (np.kron(rng.integers(0, 9, (12, 12)), np.ones((3, 3), int)) for _ in "ab")
    truth[:, 20:] = predicted[:, 20:]
    counts = dict(zip(COLUMNS, object_counts(truth, predicted).tolist(), strict=True))
    intersection = union = 0
    used, found = set(), 0
    for i in range(1, 9):
        ious = {}
        for j in range(1, 9):
            both = ((truth == i) & (predicted == j)).sum()
            ious[j] = both / ((truth == i) | (predicted == j)).sum()
        best = max(ious, key=ious.get)
        found += ious[best] > 0.5
        used.add(best)
        intersection += ((truth == i) & (predicted == best)).sum()
        union += ((truth == i) | (predicted == best)).sum()
    union += sum((predicted == j).sum() for j in range(1, 9) if j not in used)
    assert counts["found_50"] == found
    assert (counts["aji_intersection"], counts["aji_union"]) == (intersection, union)


def test_images_are_averaged_and_rows_can_come_in_any_order():
    rows = [object_counts(TRUTH, edited(kind)) for kind in HAND_COUNTED]
    together = object_scores(torch.stack(rows))
    assert together == object_scores(torch.stack(rows[::-1]))
    expected = sum(values[0] for values in HAND_COUNTED.values()) / 4
    assert together["object_ap"] == pytest.approx(expected)
    assert together["objects"] == 12 and together["objects_found"] == 8
    sums = [torch.stack(rows).sum(0)[COLUMNS.index(name)] for name in COLUMNS[-2:]]
    assert together["aji"] == pytest.approx((sums[0] / sums[1]).item())


def test_an_image_without_objects_has_no_score():
    empty = np.zeros_like(TRUTH)
    scores = scores_of(empty, empty)
    assert math.isnan(scores["object_ap"]) and math.isnan(scores["aji"])
    rows = torch.stack([object_counts(empty, empty), object_counts(TRUTH, TRUTH)])
    assert object_scores(rows)["object_ap"] == 1
    assert scores_of(TRUTH, empty)["object_ap"] == 0  # objects where there are none
    assert scores_of(empty)["object_ap"] == scores_of(empty)["aji"] == 0


def test_no_images_have_no_score():
    scores = object_scores(torch.zeros(0, len(COLUMNS), dtype=torch.int64))
    assert math.isnan(scores["object_ap"]) and scores["objects"] == 0


def test_the_row_of_each_image():
    counts = torch.stack([object_counts(TRUTH, TRUTH), object_counts(TRUTH, edited("merge"))])
    assert counts.dtype == torch.int64 and counts.shape == (2, len(COLUMNS))
    rows = image_object_rows(counts)
    assert rows[1] == {
        "objects": 3,
        "objects_predicted": 2,
        "object_ap": pytest.approx(0.25),
        "objects_found": 1,
        "objects_merged": 2,
        "objects_split": 0,
    }
    assert rows[0]["object_ap"] == 1


def test_tensors_and_arrays_count_alike():
    predicted = edited("split", "extra")
    expected = object_counts(TRUTH, predicted)
    tensors = torch.from_numpy(TRUTH), torch.from_numpy(predicted).short()
    assert torch.equal(object_counts(*tensors), expected)


def test_ids_of_two_images_are_refused():
    with pytest.raises(ValueError, match="not of one image"):
        object_counts(TRUTH, TRUTH[1:])

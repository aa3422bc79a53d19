"""Additive counts of how predicted objects agree with true ones, and the scores that follow.

Each image has one row of integers. Rows can be put together in any order, over any batches and
processes, with the same scores at the end.
"""

import math

import numpy as np
import torch
from torch import Tensor

IOU_PERCENT = tuple(range(50, 100, 5))  # thresholds of the Data Science Bowl 2018
COLUMNS = (
    "objects",
    "objects_predicted",
    *(f"found_{percent}" for percent in IOU_PERCENT),  # matched at IoU > threshold
    "merged",
    "split",
    "aji_intersection",
    "aji_union",
)
FOUND = slice(COLUMNS.index("found_50"), COLUMNS.index("found_95") + 1)


def object_counts(truth: np.ndarray | Tensor, predicted: np.ndarray | Tensor) -> Tensor:
    """int64 [M], named by COLUMNS: the counts of one image.

    truth, predicted: ids, int [H, W], 0 for background. ValueError for different shapes.
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if truth.shape != predicted.shape:
        raise ValueError(f"ids of shape {truth.shape} and {predicted.shape} are not of one image")
    true_areas = np.bincount(truth.ravel())
    predicted_areas = np.bincount(predicted.ravel())
    true_areas[0] = predicted_areas[0] = 0
    true_ids, predicted_ids, shared = overlaps(truth, predicted)
    true_area, predicted_area = true_areas[true_ids], predicted_areas[predicted_ids]
    union = true_area + predicted_area - shared
    counts = [np.count_nonzero(true_areas), np.count_nonzero(predicted_areas)]
    counts += [np.count_nonzero(100 * shared > percent * union) for percent in IOU_PERCENT]
    counts.append(count_in_groups(predicted_ids[2 * shared > true_area]))
    counts.append(count_shared_ids(true_ids[2 * shared > predicted_area]))
    counts += aji_sums(true_areas, predicted_areas, true_ids, predicted_ids, shared)
    return torch.tensor([int(count) for count in counts])


def overlaps(truth: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(true ids, predicted ids, pixels that they share) of the pairs of objects that overlap.

    int64 [pairs] each, sorted by the true ids.
    """
    both = (truth > 0) & (predicted > 0)
    size = int(predicted.max()) + 1
    codes = truth[both].astype(np.int64) * size + predicted[both]
    pairs, shared = np.unique(codes, return_counts=True)
    return pairs // size, pairs % size, shared


def count_in_groups(ids: np.ndarray) -> int:
    """How many elements occur at least twice, all of them counted."""
    numbers = np.bincount(ids)
    return int(numbers[numbers > 1].sum())


def count_shared_ids(ids: np.ndarray) -> int:
    """How many different ids occur at least twice."""
    return int((np.bincount(ids) > 1).sum())


def aji_sums(
    true_areas: np.ndarray,
    predicted_areas: np.ndarray,
    true_ids: np.ndarray,
    predicted_ids: np.ndarray,
    shared: np.ndarray,
) -> tuple[int, int]:
    """(intersection, union) of the aggregated Jaccard index, Kumar et al. 2017, algorithm 1.

    Each true object is compared with the predicted one of the highest IoU; predicted objects that
    belong to no true one are added to the union. The areas are by id, the rest is overlaps().
    """
    union = true_areas[true_ids] + predicted_areas[predicted_ids] - shared
    order = np.lexsort((-shared / union, true_ids))  # the best pair of each true object comes first
    _, first = np.unique(true_ids[order], return_index=True)
    best = order[first]
    alone = true_areas.sum() - true_areas[true_ids[best]].sum()
    used = np.unique(predicted_ids[best])
    surplus = predicted_areas.sum() - predicted_areas[used].sum()
    return int(shared[best].sum()), int(union[best].sum() + alone + surplus)


def object_scores(counts: Tensor) -> dict:
    """Scores of objects over all images: a dict of floats and integers.

    counts: int64 [images, M], rows of object_counts().

    "object_ap" is the mean over the images of the mean over the thresholds of TP / (TP + FP + FN),
    as in the Data Science Bowl 2018; "object_ap_50" and "object_ap_75" that at one threshold. An
    image without any object, true or predicted, is left out; NaN if all are. "aji" is of the sums
    over all images. "objects_found": matched at IoU > 0.5. "objects_merged": true objects that
    share a predicted one, which covers more than half of each. "objects_split": true objects in
    which two or more predicted ones lie, each with more than half of its area.
    """
    precision = precision_by_threshold(counts)
    by_threshold = precision.nanmean(0)
    total = dict(zip(COLUMNS, counts.sum(0).tolist(), strict=True))
    aji = math.nan
    if total["aji_union"]:
        aji = total["aji_intersection"] / total["aji_union"]
    return {
        "object_ap": precision.mean(1).nanmean().item(),
        "object_ap_50": by_threshold[IOU_PERCENT.index(50)].item(),
        "object_ap_75": by_threshold[IOU_PERCENT.index(75)].item(),
        "aji": aji,
        "objects": total["objects"],
        "objects_predicted": total["objects_predicted"],
        "objects_found": total["found_50"],
        "objects_merged": total["merged"],
        "objects_split": total["split"],
    }


def precision_by_threshold(counts: Tensor) -> Tensor:
    """float64 [images, 10]: TP / (TP + FP + FN) at each threshold; NaN without any object."""
    counts = counts.double()
    found = counts[:, FOUND]
    objects = counts[:, :2].sum(1, keepdim=True)  # true and predicted: 2 TP + FP + FN
    return found / (objects - found)


def image_object_rows(counts: Tensor) -> list[dict]:
    """For each image {"objects", "objects_predicted", "object_ap", "objects_found", …}.

    counts: int64 [images, M]. "object_ap" is NaN for an image without any object.
    """
    names = ("objects_predicted", "object_ap", "objects_found", "objects_merged", "objects_split")
    rows = []
    for row in counts:
        scores = object_scores(row[None])
        rows.append({name: scores[name] for name in ("objects", *names)})
    return rows

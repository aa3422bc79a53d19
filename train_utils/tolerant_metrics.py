"""Scores that accept predicted pixels within some pixels of a true one, and the other way round.

They are for thin structures, whose labels are uncertain by a pixel.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def near_counts(
    target: Tensor, pred: Tensor, class_id: int, tolerance: int, ignore_index: int = 255
) -> Tensor:
    """int64 [4]: the counts of a class from which its tolerant scores follow.

    [predicted pixels of the class within `tolerance` px of a true one, all predicted pixels,
    true pixels within `tolerance` px of a predicted one, all true pixels].

    target, pred: [H, W]. A diagonal step has length one. Ignored pixels are left out.
    """
    valid = target != ignore_index
    truth, predicted = (target == class_id) & valid, (pred == class_id) & valid
    near_truth = dilate(truth, tolerance)
    near_predicted = dilate(predicted, tolerance)
    parts = (predicted & near_truth, predicted, truth & near_predicted, truth)
    return torch.stack([part.sum() for part in parts])


def dilate(mask: Tensor, radius: int) -> Tensor:
    """bool [H, W] or [D, H, W]: pixels within `radius` px of the mask, along axes and diagonals."""
    pool = F.max_pool3d if mask.ndim == 3 else F.max_pool2d
    return pool(mask[None].float(), 2 * radius + 1, 1, radius)[0] > 0


def tolerant_scores(near: Tensor, tolerance: int) -> dict:
    """Precision, recall and F1 at the tolerance, as means over the foreground classes.

    near: near_counts() of each foreground class [K−1, 4].
    """
    near_truth, predicted, near_predicted, truth = near.double().unbind(1)
    precision, recall = near_truth / predicted, near_predicted / truth
    f1 = torch.where(precision + recall > 0, 2 * precision * recall / (precision + recall), 0.0)
    f1 = torch.where((predicted == 0) ^ (truth == 0), 0.0, f1)  # only one of the two exists
    f1[(predicted == 0) & (truth == 0)] = math.nan
    return {
        "tolerance": tolerance,
        "f1_tolerant": f1.nanmean(),
        "precision_tolerant": precision.nanmean(),
        "recall_tolerant": recall.nanmean(),
    }

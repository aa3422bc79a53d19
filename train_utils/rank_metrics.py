"""Scores over all thresholds: AUC, average precision, and the threshold of the highest F1.

They are computed from histograms of the probabilities, int64 [BINS], of the pixels that are not of
a class (negatives) and that are (positives).
"""

import math

import numpy as np
from torch import Tensor

# 2^16 bins over probabilities 0–1 keep AUC within 1e-5 of the exact rank statistic, unless many
# probabilities are within 2^-16 of 0 or 1, and of both classes: these are ties then.
BINS = 65536


def rank_scores(negatives: Tensor, positives: Tensor) -> tuple[float, float]:
    """(AUC-ROC, average precision) from two histograms [BINS].

    AUC is the probability that a positive pixel is ranked above a negative one; a tie, that is one
    bin, counts half. AP is Σ (gain of recall) · precision, as scikit-learn defines it. Both are NaN
    if there are no positives or no negatives.
    """
    # numpy adds in one order whatever the number of threads: the last digit never changes.
    gains = positives.flip(0).double().numpy()
    losses = negatives.flip(0).double().numpy()
    true_pos, false_pos = gains.cumsum(), losses.cumsum()  # at falling thresholds
    if true_pos[-1] == 0 or false_pos[-1] == 0:
        return math.nan, math.nan
    ranked_below = false_pos[-1] - false_pos + losses / 2
    auc = (gains * ranked_below).sum() / (true_pos[-1] * false_pos[-1])
    precision = true_pos / np.maximum(true_pos + false_pos, 1)
    return float(auc), float((gains * precision).sum() / true_pos[-1])


def f1_curve(negatives: Tensor, positives: Tensor) -> Tensor:
    """float64 [BINS]: pooled F1 if class 1 is predicted above probability i / BINS, for each i.

    NaN where class 1 is neither in the truth nor predicted.
    """
    true_pos = positives.flip(0).cumsum(0).flip(0).double()
    false_pos = negatives.flip(0).cumsum(0).flip(0).double()
    return 2 * true_pos / (true_pos + false_pos + positives.sum())


def f1_at(threshold: float, negatives: Tensor, positives: Tensor) -> Tensor:
    """Pooled F1, a float64 scalar, if class 1 is predicted above the threshold."""
    return f1_curve(negatives, positives)[min(round(threshold * BINS), BINS - 1)]


def best_threshold(negatives: Tensor, positives: Tensor) -> tuple[float, float]:
    """(threshold, its pooled F1). Of equally good thresholds the middle one.

    (0.5, NaN) without positives.
    """
    if positives.sum() == 0:
        return 0.5, math.nan
    curve = f1_curve(negatives, positives)
    ties = (curve == curve.max()).nonzero().flatten()
    return ties[len(ties) // 2].item() / BINS, curve.max().item()

"""Scores over all thresholds are the exact ones, by brute force over the single pixels."""

import math

import numpy as np
import pytest
import torch

from src.inference import decide
from tests.counts import count, probs_of, random_image
from train_utils import ConfusionMatrix, SegmentationCounts, summarize
from train_utils.metrics import dice_from_confusion
from train_utils.rank_metrics import BINS, best_threshold, f1_at, f1_curve, rank_scores


def exact_auc(labels, scores):
    """The rank statistic: (sum of the positives' ranks − its least value) / number of pairs.

    Equal scores have their mean rank.
    """
    _, index, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = counts.cumsum() - (counts - 1) / 2
    positives = int(labels.sum())
    least = positives * (positives + 1) / 2
    return (mean_rank[index][labels].sum() - least) / (positives * (len(labels) - positives))


def exact_average_precision(labels, scores):
    """Σ recall gain · precision over the distinct scores from the highest down."""
    order = np.argsort(-scores, kind="stable")
    labels, scores = labels[order], scores[order]
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    hits, called = labels.cumsum()[ends], ends + 1
    return (np.diff(hits, prepend=0) * hits / called).sum() / labels.sum()


def valid_pixels(images):
    """(labels bool [n], scores [n]) of the valid pixels."""
    target, vessel = (torch.cat([image[i].flatten() for image in images]) for i in (0, 1))
    return (target == 1)[target != 255].numpy(), vessel[target != 255].double().numpy()


@pytest.mark.parametrize("levels, tolerance", [(4, 1e-12), (64, 1e-12), (None, 1e-4)])
def test_auc_and_average_precision_are_the_exact_ones(levels, tolerance):
    images = [random_image(seed, (40, 50), levels) for seed in range(3)]
    labels, scores = valid_pixels(images)
    summary = summarize(count(*images))
    assert summary["auc"] == pytest.approx(exact_auc(labels, scores), abs=tolerance)
    assert summary["average_precision"] == pytest.approx(
        exact_average_precision(labels, scores), abs=tolerance
    )


def test_auc_of_perfect_reversed_and_constant_scores():
    target = torch.tensor([[0, 0, 0, 1, 1]])
    rising, flat = torch.tensor([[0.0, 0.1, 0.2, 0.3, 1.0]]), torch.full((1, 5), 0.3)
    found = [summarize(count((target, vessel)))["auc"] for vessel in (rising, 1 - rising, flat)]
    assert found == [1, 0, 0.5]
    assert summarize(count((target, rising)))["average_precision"] == 1
    assert summarize(count((target, flat)))["average_precision"] == pytest.approx(0.4)


@pytest.mark.parametrize("missing", [0, 1])
def test_with_one_kind_of_pixel_there_are_no_rank_scores(missing):
    histograms = torch.ones(2, BINS, dtype=torch.int64)
    histograms[missing] = 0
    assert all(math.isnan(score) for score in rank_scores(*histograms))


def f1_above(labels, scores, threshold):
    called = scores > threshold
    return 2 * (labels & called).sum() / max(labels.sum() + called.sum(), 1)


@pytest.mark.parametrize("levels", [8, 256, None])
def test_f1_curve_is_that_of_brute_force(levels):
    images = [random_image(seed, levels=levels) for seed in range(2)]
    labels, scores = valid_pixels(images)
    curve = f1_curve(*count(*images).histograms[0])
    random_bins = np.random.default_rng(0).integers(1, BINS, 200).tolist()
    for i in random_bins + [BINS // 8 * eighth for eighth in range(1, 8)]:
        assert curve[i].item() == pytest.approx(f1_above(labels, scores, i / BINS), abs=1e-12)


@pytest.mark.parametrize("threshold", [0.125, 0.25, 0.5, 1 - 1e-9])
def test_f1_at_a_threshold_is_that_of_brute_force(threshold):
    image = random_image(0, levels=8)
    histograms = count(image).histograms[0]
    found = f1_at(threshold, *histograms).item()
    assert found == pytest.approx(f1_above(*valid_pixels([image]), threshold), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("levels", [8, 256])
def test_the_best_threshold_has_the_highest_f1_of_all(seed, levels):
    target, vessel = random_image(seed, levels=levels)
    counts = count((target, vessel))
    labels, scores = valid_pixels([(target, vessel)])
    threshold, f1 = best_threshold(*counts.histograms[0])
    assert f1 == pytest.approx(
        max(f1_above(labels, scores, t) for t in np.unique(scores)), abs=1e-12
    )
    called = decide(probs_of(vessel)[None], threshold)[0]
    decided = ConfusionMatrix(2)
    decided.update(target, called)
    assert dice_from_confusion(decided.mat)[1].item() == pytest.approx(f1, abs=1e-12)
    assert summarize(counts, threshold)["f1_at_threshold"] == pytest.approx(f1, abs=1e-12)


def test_of_equally_good_thresholds_the_middle_one_is_chosen():
    counts = count((torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0.1, 0.2, 0.6, 0.9]])))
    threshold, f1 = best_threshold(*counts.histograms[0])
    assert f1 == 1 and threshold == pytest.approx(0.4, abs=1e-3)


def test_without_pixels_of_the_class_there_is_an_f1_only_where_it_is_predicted():
    histograms = count((torch.zeros(1, 2).long(), torch.tensor([[0.2, 0.7]]))).histograms[0]
    assert f1_at(0.5, *histograms) == 0 and f1_at(0.8, *histograms).isnan()


def test_without_positives_the_threshold_is_one_half():
    histograms = count((torch.zeros(1, 2).long(), torch.tensor([[0.2, 0.7]]))).histograms[0]
    threshold, f1 = best_threshold(*histograms)
    assert threshold == 0.5 and math.isnan(f1)


def test_each_of_several_classes_has_its_own_rank_scores():
    torch.manual_seed(0)
    probs = torch.rand(3, 30, 40).softmax(0)
    target = torch.randint(3, (30, 40))
    counts = SegmentationCounts(3)
    counts.add_image(target, probs.argmax(0), probs)
    expected = [
        exact_auc((target == c).flatten().numpy(), probs[c].flatten().numpy()) for c in (1, 2)
    ]
    assert summarize(counts)["auc"] == pytest.approx(np.mean(expected), abs=1e-4)
    assert "best_threshold" not in summarize(counts)

"""Counts of small images of two classes, for tests of metrics."""

import torch

from src.inference import decide
from train_utils.metrics import SegmentationCounts


def probs_of(vessel):
    """Probabilities [2, H, W] from those of class 1."""
    return torch.stack([1 - vessel, vessel])


def count(*images):
    """SegmentationCounts of (target, probabilities of class 1) pairs."""
    counts = SegmentationCounts(2)
    for target, vessel in images:
        probs = probs_of(vessel)
        counts.add_image(target, decide(probs[None])[0], probs)
    return counts


def random_image(seed, size=(20, 30), levels=None):
    """(target, probabilities of class 1) that agree to some degree; a tenth is ignored.

    levels: round the probabilities to multiples of 1 / levels, so that many are equal.
    """
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(2, size, generator=generator)
    vessel = (0.3 * target + 0.7 * torch.rand(size, generator=generator)).clamp(0, 1)
    target[torch.rand(size, generator=generator) < 0.1] = 255
    if levels is not None:
        vessel = (vessel * levels).round() / levels
    return target, vessel

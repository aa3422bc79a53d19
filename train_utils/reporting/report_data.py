"""What a report shows beyond the scores: both conventions, single images, thin and thick vessels, a second observer.

All of it is counted while judge() goes over the images once; nothing here reads or writes files.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

from src.inference import decide
from train_utils.metrics import SegmentationCounts, dice_from_confusion, summarize

THICK = 3  # px, from which on a vessel is thick


class ScoredImages:
    """Counts over a set of images (`counts`), and the scores of each image alone (`images`, dicts of summarize())."""

    def __init__(self, num_classes):
        self.counts, self.images = SegmentationCounts(num_classes), []

    def update(self, target, probs):
        """One more image: target [H, W] with its ignored pixels, probs [K, H, W]."""
        alone = SegmentationCounts(self.counts.num_classes, self.counts.ignore_index)
        alone.update(target, decide(probs[None])[0], probs)
        self.counts.confusion = torch.cat([self.counts.confusion, alone.confusion])
        self.counts.histograms += alone.histograms
        self.images.append(summarize(alone))

    def mean_and_sd(self, name):
        """Mean and standard deviation of a score over the images that have it (not NaN); (NaN, NaN) if none has."""
        values = [image[name] for image in self.images if not math.isnan(image[name])]
        return (float(np.mean(values)), float(np.std(values))) if values else (math.nan, math.nan)


class ReportData:
    """Handed to judge() as `observe`: called with the probabilities of the images, one after the other.

    Args:
        num_classes: classes, the background included.
        targets: list of uint8 [H, W] as they are judged, ignored pixels outside the ROI.
        frames: the same without any ROI: the labels of the whole frame, as the files have them.
        seconds: for two classes, a list of a second observer's labels [H, W], with None for images without; or None.

    After the last image:
        roi: ScoredImages inside the ROI.
        frame: ScoredImages over the whole frame, where what lies outside the ROI is predicted as background: the prediction of
            someone who has the ROI mask, and the convention of papers that score the whole frame.
        raw: ScoredImages over the whole frame with the model's own output outside the ROI, which it never learned.
        observer: ScoredImages inside the ROI, the second observer's label being the prediction; its AUC means nothing.
        found, observer_found: int64 [2, 2], row 0 for thin and row 1 for thick vessels: pixels found, pixels in all.
        predictions: list of uint8 [H, W].
    """

    def __init__(self, num_classes, targets, frames, seconds=None, ignore_index=255):
        self.targets, self.frames, self.seconds = targets, frames, seconds or [None] * len(targets)
        self.ignore_index, self.binary = ignore_index, num_classes == 2
        self.roi, self.frame, self.raw, self.observer = (
            ScoredImages(num_classes) for _ in range(4)
        )
        self.found, self.observer_found = (torch.zeros(2, 2, dtype=torch.int64) for _ in range(2))
        self.predictions = []

    def __call__(self, probs):
        index = len(self.predictions)
        target, frame, second = self.targets[index], self.frames[index], self.seconds[index]
        height, width = (
            frame.shape
        )  # a loader may have taken black rows at the rim for padding and cut them off
        probs = F.pad(probs.cpu(), (0, width - probs.shape[-1], 0, height - probs.shape[-2]))
        self.roi.update(target, probs)
        self.frame.update(frame, probs * (target != self.ignore_index))
        self.raw.update(frame, probs)
        self.predictions.append(decide(probs[None])[0])
        if self.binary:
            thick = thick_pixels(frame == 1)
            self.found += count_found(target, self.predictions[-1] == 1, thick)
            if second is not None:
                drawn = second == 1
                self.observer.update(target, torch.stack([~drawn, drawn]).float())
                self.observer_found += count_found(target, drawn, thick)

    def has_outside(self):
        """Whether any pixel lies outside the ROI; if not, `roi`, `frame` and `raw` are the same."""
        return bool(self.frame.counts.confusion.sum() > self.roi.counts.confusion.sum())


def thick_pixels(label, size=THICK):
    """Which pixels of a label belong to thick vessels: bool [H, W] → bool [H, W].

    A label pixel is thick if some size × size square of label pixels holds it (the morphological opening with that
    square), thin if none does. A horizontal or vertical vessel is thick from a width of `size` px on, a diagonal one from
    (2 · size − 1) / √2 px on (3.5 px for 3); a pixel that sticks out of a thick vessel's edge is thin.
    """
    if min(label.shape) < size:
        return torch.zeros_like(label)
    hollow = F.max_pool2d(
        (~label).float()[None], size, stride=1
    )  # 1 where a square has a pixel that is not label
    return F.max_pool2d(F.pad(1 - hollow, [size - 1] * 4), size, stride=1)[0] > 0


def count_found(target, predicted, thick):
    """int64 [2, 2]: of the pixels of class 1 in the target, thin (row 0) and thick (row 1), those predicted and all."""
    return torch.tensor(
        [
            [int((kind & predicted).sum()), int(kind.sum())]
            for kind in ((target == 1) & ~thick, (target == 1) & thick)
        ]
    )


def bootstrap(confusion, resamples=2000, level=0.95, seed=0):
    """Percentile bootstrap over images (Efron 1979): {"f1": (low, high), "dice": (low, high)}.

    confusion: [images, K, K] counts. Each resample draws as many images, with replacement, and scores them as the set is
    scored: F1 from the added counts, Dice as mean over the images that have one. NaN where no resample has a score.
    """
    images = len(confusion)
    draws = np.random.default_rng(seed).multinomial(
        images, np.full(images, 1 / images), size=resamples
    )
    draws = torch.from_numpy(draws).double()  # how often each image was drawn: [resamples, images]
    pooled = (draws @ confusion.double().flatten(1)).unflatten(1, confusion.shape[1:])
    dice = dice_from_confusion(confusion)[:, 1:].nanmean(1)
    scores = {
        "f1": dice_from_confusion(pooled)[:, 1:].nanmean(1),
        "dice": draws @ dice.nan_to_num() / (draws @ (~dice.isnan()).double()),
    }
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    return {name: tuple(values.nanquantile(tails).tolist()) for name, values in scores.items()}


def rank_curves(negatives, positives):
    """(false positive rate, true positive rate, precision) at falling thresholds, numpy [points], from histograms [BINS].

    Begins at the highest probability that occurs; None if one of the two kinds of pixels is missing.
    """
    gains, losses = (histogram.flip(0).double().numpy() for histogram in (positives, negatives))
    true_pos, false_pos = gains.cumsum(), losses.cumsum()
    if true_pos[-1] == 0 or false_pos[-1] == 0:
        return None
    used = gains + losses > 0
    true_pos, false_pos = true_pos[used], false_pos[used]
    return false_pos / false_pos[-1], true_pos / true_pos[-1], true_pos / (true_pos + false_pos)

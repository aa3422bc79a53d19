"""What a report shows beyond the scores, collected in the evaluation's one pass over the images.

That is: the whole frame beside the ROI, the scores of single images, recall on thin and thick
structures, and a second observer. Nothing here reads or writes files.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from src.image_io import IGNORE
from src.inference import decide
from train_utils.metrics import SegmentationCounts, dice_from_confusion, summarize

THICK = 3  # px; structures of at least this width are thick


class ScoredImages:
    """The counts over images, and the scores of each image alone.

    Attributes:
        counts: SegmentationCounts over all images.
        images: list of dicts of summarize(), one for each image.
    """

    def __init__(self, num_classes: int) -> None:
        self.counts = SegmentationCounts(num_classes)
        self.images = []

    def add_image(self, target: torch.Tensor, probs: torch.Tensor) -> None:
        """Add one image: target [H, W] with its ignored pixels, probs [K, H, W]."""
        alone = SegmentationCounts(self.counts.num_classes, self.counts.ignore_index)
        alone.add_image(target, decide(probs[None])[0], probs)
        self.counts.image_mats = torch.cat([self.counts.image_mats, alone.image_mats])
        self.counts.histograms += alone.histograms
        self.images.append(summarize(alone))

    def mean_and_sd(self, name: str) -> tuple[float, float]:
        """Mean and standard deviation of a score over the images that have it; NaN if none has."""
        values = [image[name] for image in self.images if not math.isnan(image[name])]
        if not values:
            return math.nan, math.nan
        return float(np.mean(values)), float(np.std(values))


class ReportData:
    """A callback for evaluate(): called with the probabilities of each image, in order.

    Args:
        num_classes: number of classes, the background included.
        targets: uint8 [H, W] of each image, with the pixels outside the ROI ignored.
        frames: uint8 [H, W] of each image, its label without any ROI.
        second_labels: uint8 [H, W] of a second observer for each image, or None where there is
            none. None for no second observer at all. Used with two classes only.
        ignore_index: value of ignored pixels.
        spacing: size (D, H, W) of a voxel, for volumes: everything [H, W] is [D, H, W] then, and
            thin and thick structures are left out.

    Attributes, complete after the last image:
        roi: ScoredImages inside the ROI.
        frame: ScoredImages over the whole frame, with background predicted outside the ROI. It is
            the prediction of someone who has the ROI mask, and the convention of papers that score
            the whole frame.
        raw: ScoredImages over the whole frame, with the model's own output outside the ROI, where
            it was never trained.
        observer: ScoredImages inside the ROI of the second observer's labels as predictions. They
            have no ranking, so its AUC means nothing.
        found, observer_found: int64 [2, 2] of count_found(), added over the images.
        predictions: uint8 [H, W] of each image.
    """

    def __init__(
        self,
        num_classes: int,
        targets: list[torch.Tensor],
        frames: list[torch.Tensor],
        second_labels: list[torch.Tensor | None] | None = None,
        ignore_index: int = IGNORE,
        spacing: Sequence[float] | None = None,
    ) -> None:
        self.targets = targets
        self.frames = frames
        self.second_labels = second_labels or [None] * len(targets)
        self.ignore_index = ignore_index
        self.binary = num_classes == 2
        self.spacing = spacing
        self.has_structures = self.binary and spacing is None
        self.roi = ScoredImages(num_classes)
        self.frame = ScoredImages(num_classes)
        self.raw = ScoredImages(num_classes)
        self.observer = ScoredImages(num_classes)
        self.found = torch.zeros(2, 2, dtype=torch.int64)
        self.observer_found = torch.zeros(2, 2, dtype=torch.int64)
        self.predictions = []

    def __call__(self, probs: torch.Tensor) -> None:
        """Add the next image: probs [K, H, W]."""
        index = len(self.predictions)
        target, frame = self.targets[index], self.frames[index]
        # The loader may have cut off black rows and columns at the edges as padding.
        padding = []
        for side, found in zip(reversed(frame.shape), reversed(probs.shape), strict=False):
            padding += [0, side - found]
        probs = F.pad(probs.cpu(), padding)
        prediction = decide(probs[None])[0]
        self.predictions.append(prediction)
        self.roi.add_image(target, probs)
        self.frame.add_image(frame, probs * (target != self.ignore_index))
        self.raw.add_image(frame, probs)
        if self.has_structures:
            thick = thick_pixels(frame == 1)
            self.found += count_found(target, prediction == 1, thick)
            self._add_second_label(target, self.second_labels[index], thick)

    def _add_second_label(
        self, target: torch.Tensor, second_label: torch.Tensor | None, thick: torch.Tensor
    ) -> None:
        if second_label is None:
            return
        foreground = second_label == 1
        self.observer.add_image(target, torch.stack([~foreground, foreground]).float())
        self.observer_found += count_found(target, foreground, thick)

    def has_outside(self) -> bool:
        """Whether any pixel lies outside the ROI. If not, `roi`, `frame` and `raw` are the same."""
        return bool(self.frame.counts.image_mats.sum() > self.roi.counts.image_mats.sum())


def thick_pixels(label: torch.Tensor, size: int = THICK) -> torch.Tensor:
    """The pixels of thick structures in a label: bool [H, W] → bool [H, W].

    A label pixel is thick if some size × size square of label pixels contains it (the morphological
    opening with that square). A horizontal or vertical bar is thick from a width of `size` px on, a
    diagonal one from (2 · size − 1) / √2 px on (3.5 px for 3). A pixel that sticks out of the edge
    of a thick structure is thin.
    """
    if min(label.shape) < size:
        return torch.zeros_like(label)
    # 1 for each square in which some pixel is not label, at its top left corner
    incomplete = F.max_pool2d((~label).float()[None], size, stride=1)
    return F.max_pool2d(F.pad(1 - incomplete, [size - 1] * 4), size, stride=1)[0] > 0


def count_found(target: torch.Tensor, predicted: torch.Tensor, thick: torch.Tensor) -> torch.Tensor:
    """How many pixels of class 1 in the target were predicted: int64 [2, 2].

    target: [H, W] class ids; predicted, thick: bool [H, W]. Row 0 is for thin, row 1 for thick
    pixels; column 0 for those found, column 1 for all.
    """
    thin_target = (target == 1) & ~thick
    thick_target = (target == 1) & thick
    return torch.tensor(
        [
            [int((thin_target & predicted).sum()), int(thin_target.sum())],
            [int((thick_target & predicted).sum()), int(thick_target.sum())],
        ]
    )


def bootstrap(
    confusion: torch.Tensor, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap over images (Efron 1979): {"f1": (low, high), "dice": (low, high)}.

    confusion: integers [images, K, K]. Each resample has as many images, chosen with replacement,
    and is scored as all images are: F1 from the added counts, Dice as the mean over the images that
    have one. NaN if no resample has a score.
    """
    images = len(confusion)
    times = np.random.default_rng(seed).multinomial(
        images, np.full(images, 1 / images), size=resamples
    )
    times = torch.from_numpy(times).double()  # [resamples, images]: how often each was chosen
    pooled = (times @ confusion.double().flatten(1)).unflatten(1, confusion.shape[1:])
    dice = dice_from_confusion(confusion)[:, 1:].nanmean(1)
    scores = {
        "f1": dice_from_confusion(pooled)[:, 1:].nanmean(1),
        "dice": times @ dice.nan_to_num() / (times @ (~dice.isnan()).double()),
    }
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    return {name: tuple(values.nanquantile(tails).tolist()) for name, values in scores.items()}


def rank_curves(
    negatives: torch.Tensor, positives: torch.Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """False positive rate, true positive rate and precision at falling thresholds, each [points].

    negatives, positives: histograms [BINS] of SegmentationCounts. The first point is at the highest
    probability that occurs. None if one of the two kinds of pixels is missing.
    """
    positive_bins = positives.flip(0).double().numpy()
    negative_bins = negatives.flip(0).double().numpy()
    true_pos, false_pos = positive_bins.cumsum(), negative_bins.cumsum()
    if true_pos[-1] == 0 or false_pos[-1] == 0:
        return None
    used = positive_bins + negative_bins > 0
    true_pos, false_pos = true_pos[used], false_pos[used]
    return false_pos / false_pos[-1], true_pos / true_pos[-1], true_pos / (true_pos + false_pos)

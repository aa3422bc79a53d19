"""Additive counts of how predictions agree with targets, and the scores that follow from them.

Every score derives from integers: one confusion matrix for each image, and histograms of the
probabilities. They can be added in any order, over any batches and processes, with the same scores
at the end. A class that is neither in the target nor in the prediction has no score: it is NaN,
left out of means, and named as absent.
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from src.errors import UserError
from train_utils.instance_metrics import COLUMNS, object_counts, object_scores
from train_utils.rank_metrics import BINS, best_threshold, f1_at, rank_scores
from train_utils.tolerant_metrics import near_counts, tolerant_scores

NOT_FINITE = (
    "the model's probabilities are not finite: its features overflow, or its weights hold NaN; "
    "try --no-amp, use earlier weights, or train again with a lower --lr"
)


class NonFiniteProbsError(UserError):
    """Some probabilities of an image are NaN or infinite."""


def check_finite(probs: Tensor, path: str | Path) -> None:
    """NonFiniteProbsError if a probability of the image `path` is not finite.

    Compared with a threshold, NaN would be background.
    """
    if not probs.isfinite().all():
        raise NonFiniteProbsError(f"{path}: {NOT_FINITE}")


def count_values(values: Tensor, bins: int) -> Tensor:
    """int64 [bins]: how often each of 0 … bins−1 occurs in an int64 tensor.

    On CUDA not by bincount, which waits for the device to find the largest value. With
    deterministic algorithms scatter_add_ would sort all values first, which takes longer.
    """
    if values.device.type == "cpu" or torch.are_deterministic_algorithms_enabled():
        return torch.bincount(values.flatten(), minlength=bins)
    counts = torch.zeros(bins, dtype=torch.int64, device=values.device)
    return counts.scatter_add_(0, values.flatten(), torch.ones_like(values).flatten())


def pair_counts(
    target: Tensor, pred: Tensor, num_classes: int, ignore_index: int
) -> tuple[Tensor, Tensor]:
    """(int64 [K · K]: pixels of each pair of true and predicted class, bool: any wrong id).

    Both are on the device of the arguments; nothing waits for it.
    """
    valid = target != ignore_index
    known = (target < num_classes) & (pred < num_classes) & (target >= 0) & (pred >= 0)
    pairs = target.long() * num_classes + pred.long()
    rest = num_classes**2  # ignored pixels, and wrong ids
    counts = count_values(torch.where(valid & known, pairs, rest), rest + 1)[:rest]
    return counts, (valid & ~known).any()


def check_ids(target: Tensor, pred: Tensor, num_classes: int, ignore_index: int) -> None:
    """ValueError that names the ids outside 0 … num_classes−1, which would vanish from scores."""
    valid = target != ignore_index
    for what, ids in (("target", target[valid]), ("prediction", pred[valid])):
        wrong = ids[(ids < 0) | (ids >= num_classes)].unique().tolist()
        if wrong:
            raise ValueError(
                f"{what} holds class ids {wrong[:10]}, but there are {num_classes} classes "
                f"(0 to {num_classes - 1}) and {ignore_index} for ignored pixels; "
                "check the labels or --num-classes"
            )


def confusion_counts(
    target: Tensor, pred: Tensor, num_classes: int, ignore_index: int = 255
) -> Tensor:
    """int64 [num_classes, num_classes]: pixels of true class (row) by predicted class (column).

    target, pred: integer tensors of equal shape. Pixels whose target is `ignore_index` are ignored.
    ValueError for any other id outside 0 … num_classes−1.
    """
    counts, wrong = pair_counts(target, pred, num_classes, ignore_index)
    if wrong:
        check_ids(target, pred, num_classes, ignore_index)
    return counts.view(num_classes, num_classes)


class ConfusionMatrix:
    """Counts pixels by true and predicted class; scores follow from the counts.

    Pixels whose target is `ignore_index` are ignored. `mat`: int64 [num_classes, num_classes].
    """

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.reset()

    def reset(self) -> None:
        """Sets all counts to 0."""
        self.mat = torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64)

    def update(self, target: Tensor, pred: Tensor) -> None:
        """Adds integer tensors of equal shape; ValueError for ids outside 0 … num_classes−1."""
        self.mat += confusion_counts(target, pred, self.num_classes, self.ignore_index).cpu()

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """(global accuracy, recall of each class [K], IoU of each class [K]) in float64.

        NaN for what is undefined: the recall of a class that is not in the target, the IoU of one
        that is not predicted either.
        """
        mat = self.mat.double()
        hits = mat.diag()
        return hits.sum() / mat.sum(), hits / mat.sum(1), hits / (mat.sum(1) + mat.sum(0) - hits)

    def __str__(self) -> str:
        accuracy, recall, iou = self.compute()
        return score_lines(accuracy.item(), recall.tolist(), iou.tolist())


def score_lines(accuracy: float, recall: list[float], iou: list[float]) -> str:
    """The tutorials' four lines, in percent."""
    present = [value for value in iou if not math.isnan(value)] or [math.nan]
    absent = [str(index) for index, value in enumerate(iou) if math.isnan(value)]
    note = f" (without the absent classes {', '.join(absent)})" if absent else ""
    return (
        f"global correct: {100 * accuracy:.1f}\n"
        f"average row correct: {[f'{100 * value:.1f}' for value in recall]}\n"
        f"IoU: {[f'{100 * value:.1f}' for value in iou]}\n"
        f"mean IoU: {100 * sum(present) / len(present):.1f}{note}"
    )


class SegmentationCounts(ConfusionMatrix):
    """A confusion matrix of each image, and what other scores need, of one evaluation.

    Images are added by add_image(), in place of update(), since their probabilities count, too.

    mat: int64 [K, K], the confusion matrix over all images.
    image_mats: int64 [images, K, K], the confusion matrix of each image, in their order.
    histograms: int64 [K−1, 2, BINS], for each foreground class how often each probability occurs,
        over pixels that are not of the class (0) and that are (1). Bin i holds the probabilities in
        (i / BINS, (i + 1) / BINS].
    near: int64 [K−1, 4], near_counts() of each foreground class at `tolerance` px, else zeros.
    objects: int64 [images, M], object_counts() of each image; without rows if none were added.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255, tolerance: int = 0) -> None:
        self.tolerance = tolerance
        super().__init__(num_classes, ignore_index)

    def reset(self) -> None:
        """Forgets all images."""
        classes = self.num_classes
        self.image_mats = torch.zeros(0, classes, classes, dtype=torch.int64)
        self.objects = torch.zeros(0, len(COLUMNS), dtype=torch.int64)
        self._histograms = self._near = None  # created on the device of the first image
        self._start_image()

    @property
    def mat(self) -> Tensor:
        """int64 [K, K]: the confusion matrix over all images."""
        return self.image_mats.sum(0)

    def add_image(self, target: Tensor, pred: Tensor, probs: Tensor) -> None:
        """Adds one image: target and pred [H, W] class ids, probs float [K, H, W].

        UserError if a probability is not finite.
        """
        self.add_strip(target, pred, probs)
        self.end_image()

    def add_strip(self, target: Tensor, pred: Tensor, probs: Tensor) -> None:
        """Adds some rows of an image, from top to bottom, with the arguments of add_image().

        end_image() must follow the last ones.
        """
        if probs.device.type == "mps":  # it counts in many bins very slowly
            target, pred, probs = target.cpu(), pred.cpu(), probs.cpu()
        self._image += self._checked_pairs(target, pred, probs)
        self._add_histograms(target, probs)
        if self.tolerance:
            self._masks.append((target, pred))

    def end_image(self) -> None:
        """Makes one image of the rows since the last one."""
        self.image_mats = torch.cat([self.image_mats, self._image[None]])
        if self.tolerance:
            self._add_near(*(torch.cat(parts) for parts in zip(*self._masks, strict=True)))
        self._start_image()

    def add_objects(self, truth: np.ndarray, predicted: np.ndarray) -> None:
        """Adds the objects of the last image: ids [H, W], 0 for none."""
        self.objects = torch.cat([self.objects, object_counts(truth, predicted)[None]])

    def _start_image(self) -> None:
        self._image = torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64)
        self._masks = []

    def _checked_pairs(self, target: Tensor, pred: Tensor, probs: Tensor) -> Tensor:
        """int64 [K, K] on the CPU: pixels of each pair of true and predicted class."""
        classes = self.num_classes
        pairs, wrong = pair_counts(target, pred, classes, self.ignore_index)
        numbers = [pairs, wrong[None].long(), probs.isfinite().all()[None].long()]
        numbers = torch.cat(numbers).cpu()  # the only wait for the device
        pairs, (wrong, finite) = numbers.split([classes**2, 2])
        if not finite:
            raise UserError(NOT_FINITE)
        if wrong:
            check_ids(target, pred, classes, self.ignore_index)
        return pairs.view(classes, classes)

    def _add_histograms(self, target: Tensor, probs: Tensor) -> None:
        ignored, shape = target == self.ignore_index, self.histograms_shape
        if self._histograms is None:
            self._histograms = torch.zeros(shape, dtype=torch.int64, device=probs.device)
        self._histograms = self._histograms.to(probs.device)
        for index in range(1, self.num_classes):
            bins = (probs[index] * BINS).ceil().long().sub_(1).clamp_(0, BINS - 1)
            codes = torch.where(target == index, bins + BINS, bins).masked_fill_(ignored, 2 * BINS)
            counts = count_values(codes, 2 * BINS + 1)[:-1]
            self._histograms[index - 1] += counts.view(2, BINS)

    def _add_near(self, target: Tensor, pred: Tensor) -> None:
        near = [
            near_counts(target, pred, index, self.tolerance, self.ignore_index)
            for index in range(1, self.num_classes)
        ]
        total = torch.stack(near)
        if self._near is not None:
            total += self._near.to(total.device)
        self._near = total

    @property
    def histograms_shape(self) -> tuple[int, int, int]:
        """(K−1, 2, BINS)."""
        return self.num_classes - 1, 2, BINS

    @property
    def near(self) -> Tensor:
        """int64 [K−1, 4] on the CPU."""
        if self._near is None:
            return torch.zeros(self.num_classes - 1, 4, dtype=torch.int64)
        return self._near.cpu()

    @near.setter
    def near(self, counts: Tensor) -> None:
        self._near = counts

    @property
    def histograms(self) -> Tensor:
        """int64 [K−1, 2, BINS] on the CPU."""
        if self._histograms is None:
            return torch.zeros(self.histograms_shape, dtype=torch.int64)
        return self._histograms.cpu()

    @histograms.setter
    def histograms(self, counts: Tensor) -> None:
        self._histograms = counts

    def __add__(self, other: "SegmentationCounts") -> "SegmentationCounts":
        """The counts of these images and then the other's, of the same classes."""
        total = SegmentationCounts(self.num_classes, self.ignore_index, self.tolerance)
        total.image_mats = torch.cat([self.image_mats, other.image_mats])
        total._histograms = sum_of(self._histograms, other._histograms)
        total._near = sum_of(self._near, other._near)
        total.objects = torch.cat([self.objects, other.objects])
        return total

    def dice_per_image(self) -> Tensor:
        """float64 [images]: Dice, averaged over the foreground classes that occur in the image.

        A class occurs if it is in the target or the prediction. NaN for an image without any.
        """
        return dice_from_confusion(self.image_mats)[:, 1:].nanmean(1)

    def mean_dice(self) -> float:
        """Mean of dice_per_image(), without the images that have no foreground."""
        return self.dice_per_image().nanmean().item()


def sum_of(counts: Tensor | None, more: Tensor | None) -> Tensor | None:
    """The sum, a new tensor on the device of `more`. None stands for zeros."""
    if counts is None or more is None:
        only = more if counts is None else counts
        return None if only is None else only.clone()
    return counts.to(more.device) + more


def dice_from_confusion(confusion: Tensor) -> Tensor:
    """Dice = 2·TP / (|P| + |T|) of each class: [..., K, K] counts → float64 [..., K].

    NaN for absent classes.
    """
    confusion = confusion.double()
    hits = confusion.diagonal(dim1=-2, dim2=-1)
    return 2 * hits / (confusion.sum(-1) + confusion.sum(-2))


def mean_and_sd(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [K] of scores [images, K] over the images, without NaN."""
    mean = scores.nanmean(0)
    return mean, (scores - mean).square().nanmean(0).sqrt()


def summarize(
    counts: SegmentationCounts, threshold: float | None = None, choose_threshold: bool = True
) -> dict:
    """All scores of an evaluation: a dict of floats, lists of floats by class, and integers.

    With two classes: Dice = F1, sensitivity, specificity and precision of class 1. With more: their
    means over the foreground classes. With two classes and a `threshold`, also `f1_at_threshold`.
    With two classes and `choose_threshold`, also the threshold of the highest F1 on these images.
    Of test images it is no score: it would be chosen on them.
    `dice_per_class` is of all images' pixels together, `image_dice_per_class` the mean over the
    images in which the class occurs.
    """
    accuracy, recall, iou = counts.compute()
    mat = counts.mat.double()
    precision = mat.diag() / mat.sum(0)
    true_negatives = mat.sum() - mat.sum(0) - mat.sum(1) + mat.diag()
    specificity = true_negatives / (mat.sum() - mat.sum(1))
    dice, per_image = dice_from_confusion(counts.mat), counts.dice_per_image()
    class_dice, class_sd = mean_and_sd(dice_from_confusion(counts.image_mats))
    scored = per_image[~per_image.isnan()]
    rank_metrics = [rank_scores(*histogram) for histogram in counts.histograms]
    auc, average_precision = torch.tensor(rank_metrics, dtype=torch.float64).unbind(1)
    scores = {
        "pixels": int(mat.sum()),
        "images": len(per_image),
        "images_without_foreground": int(per_image.isnan().sum()),
        "f1": dice[1:].nanmean(),
        "dice": scored.mean(),
        "dice_sd": (scored - scored.mean()).square().mean().sqrt(),
        "accuracy": accuracy,
        "sensitivity": recall[1:].nanmean(),
        "specificity": specificity[1:].nanmean(),
        "precision": precision[1:].nanmean(),
        "mean_iou": iou.nanmean(),
        "auc": auc.nanmean(),
        "average_precision": average_precision.nanmean(),
        "recall_per_class": recall,
        "precision_per_class": precision,
        "iou_per_class": iou,
        "dice_per_class": dice,
        "image_dice_per_class": class_dice,
        "image_dice_sd_per_class": class_sd,
    }
    if counts.tolerance:
        scores |= tolerant_scores(counts.near, counts.tolerance)
    if len(counts.objects):
        scores |= object_scores(counts.objects)
    if counts.num_classes == 2 and choose_threshold:
        scores["best_threshold"], scores["best_f1"] = best_threshold(*counts.histograms[0])
    if counts.num_classes == 2 and threshold is not None:
        scores["f1_at_threshold"] = f1_at(threshold, *counts.histograms[0])
    return {
        name: value.tolist() if isinstance(value, Tensor) else value
        for name, value in scores.items()
    }

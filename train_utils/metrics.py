"""Additive counts of how predictions agree with targets, and the scores that follow from them.

Everything that a run reports derives from two tables of integers: one confusion matrix an image, and histograms of the
probabilities. They can be added up in any order, over any batches and processes, with the same scores at the end.
A class that occurs neither in the truth nor in the prediction has no score: it is NaN, left out of means, and said so.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

from src.errors import UserError

BINS = 65536  # histogram bins over probabilities 0–1; 2^16 keeps AUC within 1e-5 of the exact rank statistic


def check_finite(probs):
    """UserError if a probability is not finite."""
    if not probs.isfinite().all():
        raise UserError(
            "the model's probabilities are not finite: its weights hold NaN or infinite values; go "
            "back to earlier weights, or train anew with a lower --lr"
        )


def confusion_counts(target, pred, num_classes, ignore_index=255):
    """int64 [num_classes, num_classes]: pixels of true class (row) by predicted class (column).

    target, pred: integer tensors of equal shape. Pixels whose target is `ignore_index` are left out. ValueError for any
    other id outside 0 … num_classes−1, which would otherwise vanish from the scores.
    """
    valid = target != ignore_index
    target, pred = target[valid].long(), pred[valid].long()
    for what, ids in (("target", target), ("prediction", pred)):
        if ids.numel() and (ids.min() < 0 or ids.max() >= num_classes):
            wrong = ids[(ids < 0) | (ids >= num_classes)].unique().tolist()
            raise ValueError(
                f"{what} holds class ids {wrong[:10]}, but there are {num_classes} classes (0 to "
                f"{num_classes - 1}) and {ignore_index} for ignored pixels; check the labels or --num-classes"
            )
    return torch.bincount(target * num_classes + pred, minlength=num_classes**2).view(
        num_classes, num_classes
    )


class ConfusionMatrix:
    """Counts pixels by true and predicted class; scores follow from the counts.

    `update(target, pred)` takes integer tensors of equal shape; target 255 is not counted, other ids outside
    0 … num_classes−1 raise ValueError.
    """

    def __init__(self, num_classes, ignore_index=255):
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.reset()

    def reset(self):
        self.mat = torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64)

    def update(self, target, pred):
        self.mat += confusion_counts(target, pred, self.num_classes, self.ignore_index).cpu()

    def compute(self):
        """(global accuracy, recall a class [K], IoU a class [K]) as float64 fractions; NaN for what cannot be known:
        the recall of a class that is absent from the truth, the IoU of one that was not predicted either."""
        mat = self.mat.double()
        hits = mat.diag()
        return hits.sum() / mat.sum(), hits / mat.sum(1), hits / (mat.sum(1) + mat.sum(0) - hits)

    def __str__(self):
        accuracy, recall, iou = self.compute()
        return score_lines(accuracy.item(), recall.tolist(), iou.tolist())


def score_lines(accuracy, recall, iou):
    """The tutorials' four lines, in percent, from the global accuracy and lists of recall and IoU by class."""
    present = [i for i in iou if not math.isnan(i)] or [math.nan]
    absent = [str(c) for c, i in enumerate(iou) if math.isnan(i)]
    return (
        f"global correct: {100 * accuracy:.1f}\n"
        f"average row correct: {[f'{100 * r:.1f}' for r in recall]}\n"
        f"IoU: {[f'{100 * i:.1f}' for i in iou]}\n"
        f"mean IoU: {100 * sum(present) / len(present):.1f}"
        + (f" (without the absent classes {', '.join(absent)})" if absent else "")
    )


class SegmentationCounts:
    """Counts of one judgement of a set of images.

    confusion: int64 [images, K, K], a confusion matrix for each image in the order of the updates.
    histograms: int64 [K−1, 2, BINS], for each foreground class how often each probability occurred, over pixels that
        are not of the class (0) and that are (1). Bin i holds the probabilities in (i / BINS, (i + 1) / BINS].
    near: int64 [K−1, 4], near_counts() of each foreground class at `tolerance` px; zeros for tolerance 0.
    """

    def __init__(self, num_classes, ignore_index=255, tolerance=0):
        self.num_classes, self.ignore_index, self.tolerance = num_classes, ignore_index, tolerance
        self.near = torch.zeros(num_classes - 1, 4, dtype=torch.int64)
        self.confusion = torch.zeros(0, num_classes, num_classes, dtype=torch.int64)
        self.histograms = torch.zeros(num_classes - 1, 2, BINS, dtype=torch.int64)

    def update(self, target, pred, probs):
        """Counts one more image: target and pred [H, W] class ids, probs float [K, H, W].

        UserError if a probability is not finite.
        """
        check_finite(probs)
        matrix = confusion_counts(target, pred, self.num_classes, self.ignore_index).cpu()
        self.confusion = torch.cat([self.confusion, matrix[None]])
        if self.tolerance:
            self.near += torch.stack(
                [
                    near_counts(target, pred, c, self.tolerance, self.ignore_index)
                    for c in range(1, self.num_classes)
                ]
            ).cpu()
        valid = target != self.ignore_index
        target = target[valid]
        for c in range(1, self.num_classes):
            bins = (probs[c][valid] * BINS).ceil().long().sub_(1).clamp_(0, BINS - 1)
            codes = bins + BINS * (target == c)
            self.histograms[c - 1] += torch.bincount(codes, minlength=2 * BINS).view(2, BINS).cpu()

    def __add__(self, other):
        """The counts of these images and then the other's, of the same classes, as of one judgement."""
        total = SegmentationCounts(self.num_classes, self.ignore_index, self.tolerance)
        total.confusion = torch.cat([self.confusion, other.confusion])
        total.histograms, total.near = self.histograms + other.histograms, self.near + other.near
        return total

    def confmat(self):
        """The ConfusionMatrix over all images."""
        matrix = ConfusionMatrix(self.num_classes, self.ignore_index)
        matrix.mat = self.confusion.sum(0)
        return matrix

    def dice_per_image(self):
        """float64 [num_images]: foreground Dice, averaged over the foreground classes that occur in the image's truth or
        prediction; NaN for an image in which none does."""
        return dice_from_confusion(self.confusion)[:, 1:].nanmean(1)

    def mean_dice(self):
        """Mean over images of the foreground Dice, as a float; images without foreground are left out."""
        return self.dice_per_image().nanmean().item()


def near_counts(target, pred, class_id, tolerance, ignore_index=255):
    """int64 [4]: predicted pixels of the class within `tolerance` px of a true one, all predicted; true pixels within
    `tolerance` px of a predicted one, all true.

    target, pred: [H, W]. Distance counts diagonal steps as one (8-neighbourhood). Ignored pixels are neither predicted nor
    true. For thin structures, whose labels are uncertain by a pixel.
    """
    judged = target != ignore_index
    truth, predicted = (target == class_id) & judged, (pred == class_id) & judged
    near_truth, near_predicted = (
        F.max_pool2d(mask[None].float(), 2 * tolerance + 1, 1, tolerance)[0] > 0
        for mask in (truth, predicted)
    )
    return torch.stack(
        [
            (predicted & near_truth).sum(),
            predicted.sum(),
            (truth & near_predicted).sum(),
            truth.sum(),
        ]
    )


def tolerant_scores(near, tolerance):
    """Precision, recall and F1 at the tolerance from near_counts() [K−1, 4], as means over the foreground classes."""
    near_truth, predicted, near_predicted, truth = near.double().unbind(1)
    precision, recall = near_truth / predicted, near_predicted / truth
    f1 = torch.where(precision + recall > 0, 2 * precision * recall / (precision + recall), 0.0)
    f1 = torch.where(
        (predicted == 0) ^ (truth == 0), 0.0, f1
    )  # one of the two is there, the other is not
    f1[(predicted == 0) & (truth == 0)] = math.nan
    return {
        "tolerance": tolerance,
        "f1_tolerant": f1.nanmean(),
        "precision_tolerant": precision.nanmean(),
        "recall_tolerant": recall.nanmean(),
    }


def dice_from_confusion(confusion):
    """Dice = 2·TP / (|P| + |T|) for each class: [..., K, K] counts → float64 [..., K], NaN for absent classes."""
    confusion = confusion.double()
    return 2 * confusion.diagonal(dim1=-2, dim2=-1) / (confusion.sum(-1) + confusion.sum(-2))


def summarize(counts, threshold=None):
    """All scores of a judgement as a dict of floats, lists of floats by class, and counts.

    With two classes: Dice = F1, sensitivity, specificity and precision of class 1; with more, their means over the
    foreground classes. With two classes and a `threshold`, also `f1_at_threshold`.
    """
    confmat = counts.confmat()
    accuracy, recall, iou = confmat.compute()
    mat = confmat.mat.double()
    precision = mat.diag() / mat.sum(0)
    specificity = (mat.sum() - mat.sum(0) - mat.sum(1) + mat.diag()) / (mat.sum() - mat.sum(1))
    dice, per_image = dice_from_confusion(confmat.mat), counts.dice_per_image()
    judged = per_image[~per_image.isnan()]
    curves = [rank_scores(*histogram) for histogram in counts.histograms]
    scores = {
        "pixels": int(mat.sum()),
        "images": len(per_image),
        "images_without_foreground": int(per_image.isnan().sum()),
        "f1": dice[1:].nanmean(),
        "dice": judged.mean(),
        "dice_sd": (judged - judged.mean()).square().mean().sqrt(),
        "accuracy": accuracy,
        "sensitivity": recall[1:].nanmean(),
        "specificity": specificity[1:].nanmean(),
        "precision": precision[1:].nanmean(),
        "mean_iou": iou.nanmean(),
        "auc": torch.tensor([auc for auc, _ in curves], dtype=torch.float64).nanmean(),
        "average_precision": torch.tensor([ap for _, ap in curves], dtype=torch.float64).nanmean(),
        "recall_per_class": recall,
        "precision_per_class": precision,
        "iou_per_class": iou,
        "dice_per_class": dice,
    }
    if counts.tolerance:
        scores |= tolerant_scores(counts.near, counts.tolerance)
    if counts.num_classes == 2:
        scores["best_threshold"], scores["best_f1"] = best_threshold(*counts.histograms[0])
        if threshold is not None:
            scores["f1_at_threshold"] = f1_curve(*counts.histograms[0])[
                min(round(threshold * BINS), BINS - 1)
            ]
    return {
        name: value.tolist() if isinstance(value, torch.Tensor) else value
        for name, value in scores.items()
    }


def rank_scores(negatives, positives):
    """(AUC-ROC, average precision) from histograms [BINS] of the probabilities of negatives and positives.

    AUC is the chance that a positive pixel gets the higher probability, a tie (one bin) counting half; AP is
    Σ (recall gain) · precision, as scikit-learn defines it. Both NaN if one of the two kinds is missing.
    """
    # numpy adds up in one order whatever the number of threads, so the last digit is the same on every machine.
    gains, losses = (histogram.flip(0).double().numpy() for histogram in (positives, negatives))
    true_pos, false_pos = gains.cumsum(), losses.cumsum()  # at falling thresholds
    if true_pos[-1] == 0 or false_pos[-1] == 0:
        return math.nan, math.nan
    ranked_below = false_pos[-1] - false_pos + losses / 2
    auc = (gains * ranked_below).sum() / (true_pos[-1] * false_pos[-1])
    precision = true_pos / np.maximum(true_pos + false_pos, 1)
    return float(auc), float((gains * precision).sum() / true_pos[-1])


def f1_curve(negatives, positives):
    """float64 [BINS]: pooled F1 if class 1 is what has a probability above i / BINS, for each bin i."""
    true_pos, false_pos = (h.flip(0).cumsum(0).flip(0).double() for h in (positives, negatives))
    return 2 * true_pos / (true_pos + false_pos + positives.sum()).clamp_min(1)


def best_threshold(negatives, positives):
    """(threshold, its pooled F1); of equally good thresholds the middle one. (0.5, NaN) without positives."""
    if positives.sum() == 0:
        return 0.5, math.nan
    curve = f1_curve(negatives, positives)
    ties = (curve == curve.max()).nonzero().flatten()
    return ties[len(ties) // 2].item() / BINS, curve.max().item()

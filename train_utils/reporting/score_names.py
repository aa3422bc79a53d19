"""The names of the scores in all that a run prints and plots, by their keys in summarize()."""

from typing import NamedTuple


class ScoreName(NamedTuple):
    """`full` is for tables, curves and reports, `short` for the console line of an epoch.

    Scores without a short name are left out of that line.
    """

    full: str
    short: str = ""


# In the order of the console's lines and of the report.
SCORE_NAMES = {
    "dice": ScoreName("Dice", "dice"),
    "f1": ScoreName("F1", "f1"),
    "sensitivity": ScoreName("sensitivity", "sens"),
    "specificity": ScoreName("specificity", "spec"),
    "precision": ScoreName("precision", "prec"),
    "f1_tolerant": ScoreName("F1 within the tolerance", "F1 near"),
    "accuracy": ScoreName("accuracy"),
    "mean_iou": ScoreName("mean IoU", "mIoU"),
    "auc": ScoreName("AUC", "auc"),
    "average_precision": ScoreName("average precision"),
    "object_ap": ScoreName("AP of objects", "obj AP"),
    "object_ap_50": ScoreName("AP of objects at IoU 0.5"),
    "object_ap_75": ScoreName("AP of objects at IoU 0.75"),
    "aji": ScoreName("AJI of objects"),
    "recall": ScoreName("recall"),
    "iou": ScoreName("IoU"),
}
PER_CLASS = ("precision", "recall", "dice", "iou")  # columns of the tables with one row a class

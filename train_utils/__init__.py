"""Training and judging: what is not needed to use a model."""

from .dice_coefficient_loss import criterion, dice_loss
from .lr_scheduler import create_lr_scheduler
from .metrics import ConfusionMatrix, SegmentationCounts, summarize
from .train_and_eval import NonFiniteLossError, evaluate, judge, train_one_epoch

__all__ = [
    "ConfusionMatrix",
    "NonFiniteLossError",
    "SegmentationCounts",
    "create_lr_scheduler",
    "criterion",
    "dice_loss",
    "evaluate",
    "judge",
    "summarize",
    "train_one_epoch",
]

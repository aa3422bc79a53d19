"""Training and evaluation: what is not needed to use a model."""

from train_utils.dice_coefficient_loss import criterion, dice_loss
from train_utils.lr_scheduler import create_lr_scheduler
from train_utils.metrics import ConfusionMatrix, SegmentationCounts, summarize
from train_utils.train_and_eval import NonFiniteLossError, evaluate, train_one_epoch

__all__ = [
    "ConfusionMatrix",
    "NonFiniteLossError",
    "SegmentationCounts",
    "create_lr_scheduler",
    "criterion",
    "dice_loss",
    "evaluate",
    "summarize",
    "train_one_epoch",
]

"""What a run writes while it trains: its split, and a checkpoint after each epoch."""

import argparse
from pathlib import Path

from torch import nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from train_utils import checkpoint as checkpoints
from train_utils.budget import Budget
from train_utils.checkpoint import ModelDescription, RunRecord, TrainingSettings, TrainingState
from train_utils.checkpoint_flags import record_of_flags
from train_utils.cli.recipe import Recipe, saved_recipe
from train_utils.data.samples import Sample
from train_utils.data.splits import split_names
from train_utils.distributed_utils import all_gather_objects, is_main_process
from train_utils.random_state import random_state
from train_utils.reporting import text_files


def write_split(args: argparse.Namespace, split: dict, test_samples: list[Sample]) -> None:
    """split.json: the images for training, for validation and for the test.

    It belongs to the checkpoints beside it, and so do the scores of the test images: those of
    another run are removed. split: that of TrainingState.
    """
    if is_main_process():
        folder = Path(args.output_dir)
        if not args.resume or Path(args.resume).resolve().parent != folder.resolve():
            (folder / "test_scores.json").unlink(missing_ok=True)
        content = {"dataset": args.dataset, "split_seed": args.split_seed}
        content |= split | split_names(test=test_samples)
        text_files.write_json(folder / "split.json", content)


def describe_run(
    args: argparse.Namespace, recipe: Recipe, label_kind: str, budget: Budget, resumed: dict
) -> RunRecord:
    """What a checkpoint says of the run. resumed: the checkpoint of --resume, {} for a new run."""
    return RunRecord(
        TrainingSettings(args.val, args.folds, budget.epochs, args.lr, args.weights),
        saved_recipe(recipe, budget, resumed.get("recipe", {})),
        label_kind,
        args=record_of_flags(vars(args), resumed),
    )


def save_epoch(
    args: argparse.Namespace,
    model: nn.Module,
    optimizer: Optimizer,
    scaler: GradScaler,
    description: ModelDescription,
    run: RunRecord,
    state: TrainingState,
    is_best: bool,
) -> None:
    """Writes the checkpoint and the history at the end of an epoch."""
    random_states = all_gather_objects(random_state())
    if is_main_process():
        parts = model, optimizer, scaler, description, run, state, random_states
        content = checkpoints.build(*parts)
        checkpoints.save_epoch(args.output_dir, content, is_best, every_epoch=not args.save_best)
        text_files.write_history(args.output_dir, state.results_name, state.history)

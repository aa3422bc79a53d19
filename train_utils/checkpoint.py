"""The one owner of the checkpoint format: builds, saves and loads it, and fills in what older files
lack.

A checkpoint is a dict of plain types and tensors, so torch.load reads it with weights_only=True.
It describes itself:

    format                      FORMAT
    model                       state_dict
    model_name, model_kwargs    arguments of build_model()
    class_names, class_colours, class_ids   of the classes: names, colours of pictures, ids in masks
    class_table                 ClassTable.to_dict(): how labels are read
    mean, std                   of each channel, of pixels in 0–1; None for volumes: each is
                                normalized by its own (z-score inside the ROI)
    spacing                     size (D, H, W) of a voxel, or None for images
    resize                      (height, width) that images are resized to when read, or None
    threshold                   on the probability of class 1, chosen by validation, else 0.5
    label_kind                  how labels are read: of classes, or of objects
    training                    TrainingSettings as a dict
    recipe                      what the flags left open, as it was planned from the data: the
                                fields of cli.recipe.Recipe and of budget.Budget; {} in older files
    args                        all flags of the run, see checkpoint_flags.py
    source                      only in weights of other projects: which one

and holds what an exact continuation needs:

    optimizer, scaler           state_dicts
    epoch, step                 the last finished epoch, optimizer steps so far
    plan                        TrainingState.lr_schedule
    best_score, history, results_name, split    of TrainingState
    ranks, random_states        number of processes, and the random state of each

strip_checkpoint() leaves those out and adds

    stripped                    True: for prediction, evaluation and --weights alone
"""

import argparse
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import nn

from src.errors import UserError
from train_utils.atomic import replacing
from train_utils.checkpoint_flags import given_flags
from train_utils.data.class_table import ClassTable
from train_utils.foreign_weights import describe_foreign, is_foreign
from train_utils.reporting.pictures import default_colours, with_default_colours

FORMAT = 1
REQUIRED = ("model", "model_name", "model_kwargs", "class_names", "mean", "std", "threshold")
# What strip_checkpoint() keeps: weights, description, and where they come from. Of the flags a
# later train.py --weights takes those of the model.
KEPT = ("format", *REQUIRED, "class_colours", "class_ids", "class_table", "resize", "spacing")
KEPT += ("training", "epoch", "recipe", "label_kind", "args", "source")
NEW_NAMES = {"images_per_second": "crops_per_second"}  # of columns of older histories


@dataclass(frozen=True)
class ModelDescription:
    """How to build a model, how its images are read, and which classes it knows.

    The fields are those of the checkpoint; mean and std are None where they are not known yet.
    """

    model_name: str
    model_kwargs: dict
    classes: ClassTable
    mean: list[float] | None
    std: list[float] | None
    resize: list[int] | None
    spacing: list[float] | None = None

    def entries(self) -> dict:
        """The description as it stands in a checkpoint."""
        return {
            "model_name": self.model_name,
            "model_kwargs": self.model_kwargs,
            "class_names": list(self.classes.names),
            "class_colours": with_default_colours(self.classes.colours).tolist(),
            "class_ids": self.classes.ids,
            "class_table": self.classes.to_dict(),
            "mean": self.mean,
            "std": self.std,
            "resize": self.resize,
            "spacing": self.spacing,
        }


@dataclass(frozen=True)
class TrainingSettings:
    """What later runs ask about the training of a checkpoint.

    val: what chose the epoch: "holdout", "none" or "test".
    folds: number of folds of a cross-validation, or None.
    epochs: number of epochs in the whole run.
    lr: base learning rate.
    weights: files that the run started from.
    """

    val: str
    folds: int | None
    epochs: int
    lr: float
    weights: list[str]


@dataclass(frozen=True)
class RunRecord:
    """What a checkpoint says of its run beside the state; the fields are those of the file."""

    training: TrainingSettings
    recipe: dict
    label_kind: str
    args: dict


@dataclass
class TrainingState:
    """Where a run is. The next checkpoint keeps it.

    epoch: the next epoch, in a checkpoint the last finished one.
    step: number of optimizer steps so far.
    lr_schedule: result of make_lr_schedule(); None before a new run has one.
    best_score: highest validation score so far.
    history: a dict of scores for each finished epoch.
    results_name: name of the run's results<timestamp>.txt.
    split: {"train": names, "val": names} of the images; with --split-file and --val none also those
        of "test".
    """

    epoch: int
    step: int
    lr_schedule: dict | None
    best_score: float
    history: list[dict]
    results_name: str
    split: dict


# --- writing --------------------------------------------------------------------------------------


def build(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    description: ModelDescription,
    run: RunRecord,
    state: TrainingState,
    random_states: list[dict],
) -> dict:
    """The checkpoint after the last epoch in state.history; random_states: one of each rank."""
    row = state.history[-1]
    return {
        **description.entries(),
        "model": model.state_dict(),
        "threshold": row.get("val_best_threshold", 0.5),
        **asdict(run),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "epoch": row["epoch"],
        "step": state.step,
        "plan": state.lr_schedule,
        "best_score": state.best_score,
        "history": state.history,
        "results_name": state.results_name,
        "split": state.split,
        "ranks": len(random_states),
        "random_states": random_states,
    }


def save(path: str | Path, checkpoint: dict) -> None:
    """Writes the checkpoint atomically; UserError if that fails, with the old file untouched."""
    try:
        with replacing(path) as temporary:
            torch.save({"format": FORMAT, **checkpoint}, temporary)
    except (OSError, RuntimeError) as error:  # torch's zip writer: RuntimeError for a full disk
        raise cannot_write(path, error) from error


def cannot_write(path: str | Path, error: Exception) -> UserError:
    """The error of a checkpoint that could not be written."""
    return UserError(
        f"{path}: cannot be written ({error}); free some space or choose another folder. "
        "An earlier file of that name is untouched"
    )


def save_epoch(folder: str | Path, checkpoint: dict, is_best: bool, every_epoch: bool) -> None:
    """Writes last_model.pth, best_model.pth if it is the best, model_<epoch>.pth on request.

    The file is written once, and linked under its other names. last_model.pth comes last: if the
    run is killed in between, the epoch is run again. UserError if a file cannot be written.
    """
    folder = Path(folder)
    names = ["last_model.pth"]
    if is_best:
        names.insert(0, "best_model.pth")
    if every_epoch:
        names.insert(0, f"model_{checkpoint['epoch']}.pth")
    save(folder / names[0], checkpoint)
    for name in names[1:]:
        try:
            with replacing(folder / name) as temporary:
                link_or_copy(folder / names[0], temporary)
        except OSError as error:
            raise cannot_write(folder / name, error) from error


def link_or_copy(source: Path, target: Path) -> None:
    """Gives a file a second name; copies it where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def strip_checkpoint(checkpoint: dict) -> dict:
    """The checkpoint without what only an exact continuation needs: a third of the size with AdamW.

    It also leaves out the names of the images, which --held-out needs. What chose the epoch stays,
    so that scores still say whether they are optimistic.
    """
    kept = {name: checkpoint[name] for name in KEPT if name in checkpoint}
    return {**kept, "stripped": True}


# --- reading --------------------------------------------------------------------------------------


def load(path: str | Path) -> dict:
    """The checkpoint on the CPU, with what files of earlier versions lack.

    Weights of milesial/Pytorch-UNet come back as a checkpoint. Any other file without description,
    such as the tutorials', is returned as it is. UserError for a file that is missing, damaged,
    unsafe or something else.
    """
    try:
        # The tutorials' files hold a Namespace, which is harmless.
        with torch.serialization.safe_globals([argparse.Namespace]):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except Exception as error:  # damaged bytes make the unpickler raise anything
        raise UserError(f"{path}: cannot be loaded: {reason_of(error)}") from None
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path}: holds a {type(checkpoint).__name__}, not a checkpoint")
    if is_foreign(checkpoint):
        checkpoint = {"format": FORMAT, **describe_foreign(checkpoint), "stripped": True}
    if describes_itself(checkpoint):
        return fill_in(checkpoint)
    return checkpoint


def reason_of(error: Exception) -> str:
    """Why torch.load failed, and what to do."""
    if re.search("unsupported (global|class)", str(error), re.IGNORECASE):
        return (
            "it holds Python objects that could run code, which are never loaded; "
            "use a file that train.py wrote"
        )
    if isinstance(error, (IsADirectoryError, PermissionError)):
        return f"it cannot be read ({error.strerror}); name a file that train.py wrote"
    detail = str(error).partition("\n")[0][:100]
    if isinstance(error, UnpicklingError):
        detail = type(error).__name__
    return (
        f"it is cut short or no checkpoint ({detail}); "
        "use an earlier copy, or a file that train.py wrote"
    )


def describes_itself(checkpoint: dict) -> bool:
    """Whether it is a checkpoint of this project: a bare state_dict has no metadata."""
    return checkpoint.get("format") == FORMAT


def load_described(path: str | Path) -> dict:
    """load(), for a checkpoint that describes itself; UserError for one that does not."""
    return check_described(load(path), path)


def check_described(checkpoint: dict, path: str | Path) -> dict:
    """The checkpoint, read from `path`; UserError if it does not describe itself."""
    if not describes_itself(checkpoint):
        raise UserError(
            f"{path}: does not say what it holds (format {checkpoint.get('format')}, "
            f"expected {FORMAT}); give weights without metadata to train.py --weights, "
            "with the flags of their architecture"
        )
    missing = [name for name in REQUIRED if name not in checkpoint]
    if missing:
        raise UserError(f"{path}: lacks {', '.join(missing)}; use a file that train.py wrote")
    return checkpoint


def check_not_stripped(checkpoint: dict, purpose: str, path: str | Path) -> None:
    """UserError if the checkpoint, read from `path`, lacks what the flag `purpose` needs."""
    if checkpoint.get("stripped"):
        raise UserError(
            f"{path}: holds weights alone, for prediction, evaluation and --weights; {purpose} "
            "needs last_model.pth or best_model.pth of the run, as train.py wrote it"
        )


def fill_in(checkpoint: dict) -> dict:
    """The checkpoint with the entries that files of earlier versions lack or call otherwise."""
    names = checkpoint.get("class_names") or []
    older = {"resize": None, "spacing": None, "recipe": {}, "class_ids": list(range(len(names)))}
    filled = {**older, **checkpoint}
    if "history" in filled:
        rows = [{NEW_NAMES.get(name, name): row[name] for name in row} for row in filled["history"]]
        filled["history"] = rows
    if not checkpoint.get("stripped"):  # which has the entries of its run, or came from no run
        filled = {**entries_of_run(checkpoint), **filled}
    if len(names) >= 2:
        filled.setdefault("class_colours", default_colours(len(names)).tolist())
        filled.setdefault("class_table", table_of(filled).to_dict())
    return filled


def entries_of_run(checkpoint: dict) -> dict:
    """What a file of an earlier version does not say of its run, by its flags."""
    flags = given_flags(checkpoint)
    return {
        "split": {"train": [], "val": []},
        "training": {
            "val": flags.get("val", "holdout"),
            "folds": flags.get("folds"),
            "epochs": flags.get("epochs", checkpoint.get("epoch", 0) + 1),
            "lr": flags.get("lr"),
            "weights": flags.get("weights", []),
        },
    }


def table_of(checkpoint: dict) -> ClassTable:
    """The class table of a file that holds only names, colours and ids."""
    return ClassTable(
        tuple(checkpoint["class_names"]),
        tuple(tuple(colour) for colour in checkpoint["class_colours"]),
        {value: index for index, value in enumerate(checkpoint["class_ids"])},
    )

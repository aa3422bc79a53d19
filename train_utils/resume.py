"""Where a run starts: at the beginning, or where a checkpoint ended."""

import math
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from src.errors import UserError
from train_utils.atomic import prepare_folder, replacing
from train_utils.budget import Budget
from train_utils.checkpoint import ModelDescription, TrainingState, check_not_stripped, load
from train_utils.data_loader import SEED_STRIDE
from train_utils.distributed_utils import is_main_process, log, rank, world_size
from train_utils.lr_scheduler import extend_schedule, poly_factor
from train_utils.plurals import counted
from train_utils.random_state import restore_random_state
from train_utils.reporting import curves, text_files

ENDED_FACTOR = 0.02  # of the base learning rate; below it a run has nearly ended


def new_state(steps: int, split: dict, start_epoch: int | None = None) -> TrainingState:
    """The state of a new run of `steps` optimizer steps an epoch. It has no schedule yet."""
    epoch = start_epoch or 0
    return TrainingState(
        epoch=epoch,
        step=epoch * steps,
        lr_schedule=None,
        best_score=-math.inf,
        history=[],
        results_name=time.strftime("results%Y%m%d-%H%M%S.txt"),
        split=split,
    )


def saved_state(checkpoint: dict, steps: int, start_epoch: int | None = None) -> TrainingState:
    """The state that the checkpoint holds.

    With `start_epoch` the epochs from there on are dropped, and the best epoch is chosen anew.
    """
    epoch, step = checkpoint["epoch"] + 1, checkpoint["step"]
    history, best_score = checkpoint["history"], checkpoint["best_score"]
    if start_epoch is not None:
        history = [row for row in history if row["epoch"] < start_epoch]
        epoch, step = start_epoch, steps_before(start_epoch, history, steps)
        best_score = -math.inf
    return TrainingState(
        epoch=epoch,
        step=step,
        lr_schedule=checkpoint["plan"],
        best_score=best_score,
        history=history,
        results_name=checkpoint["results_name"],
        split=checkpoint["split"],
    )


def steps_before(epoch: int, history: list[dict], steps: int) -> int:
    """Number of steps of the epochs before `epoch`.

    history: rows of epochs before it. In those after the last row, and in all of a run of an
    earlier version, whose rows do not have their step, an epoch has `steps` steps.
    """
    if not history or "step" not in history[-1]:
        return epoch * steps
    return history[-1]["step"] + (epoch - 1 - history[-1]["epoch"]) * steps


def check_split(checkpoint: dict, split: dict, path: str | Path) -> None:
    """UserError if the checkpoint, read from `path`, is stripped or was trained on other images."""
    check_not_stripped(checkpoint, "--resume", path)
    if any(split.get(part, []) != names for part, names in checkpoint["split"].items()):
        raise UserError(
            f"{path}: was trained on {', '.join(checkpoint['split']['train'])} with "
            f"{checkpoint['training']['val']!r} as --val; these flags split the images "
            "differently, so the scores could not be compared. Give --split-file with the run's "
            "split.json, or start a new run (--weights starts from the weights of this one)"
        )


def check_inputs(checkpoint: dict, description: ModelDescription, path: str | Path) -> None:
    """UserError if the run in the checkpoint, read from `path`, had other images as its inputs."""
    for name in ("resize", "mean", "std"):
        own, wanted = checkpoint[name], getattr(description, name)
        if own != wanted:
            raise UserError(
                f"{path}: was trained with {name} {own}, these flags give {wanted}; its scores "
                f"could not be compared: omit --{name}, or start a new run (--weights starts from "
                "the weights of this one)"
            )


def restore_optimizer(checkpoint: dict, optimizer: Optimizer, scaler: torch.amp.GradScaler) -> None:
    """Restores the state of each parameter (moments) and the gradient scale.

    The optimizer keeps its own learning rate, momentum and weight decay. One of another kind than
    in the checkpoint begins without moments.
    """
    saved, own = checkpoint["optimizer"], optimizer.state_dict()
    kind, other = (optimizer_kind(each["param_groups"][0]) for each in (own, saved))
    if kind == other:
        optimizer.load_state_dict({**own, "state": saved["state"]})
        take_memory_format(optimizer)
    else:
        log(f"the run was trained with {other}: {kind} begins without its moments")
    if scaler.is_enabled() and checkpoint["scaler"]:  # a run without float16 has no scale
        scaler.load_state_dict(checkpoint["scaler"])


def take_memory_format(optimizer: Optimizer) -> None:
    """Gives the moments the memory format of the weights.

    It may be another one than on the device that saved them, and fused optimizers walk both in the
    order of their memory.
    """
    for parameter, moments in optimizer.state.items():
        for name, moment in moments.items():
            if isinstance(moment, Tensor) and moment.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter).copy_(moment)


def optimizer_kind(param_group: dict) -> str:
    """ "adamw" or "sgd", from a group of parameters in the optimizer's state_dict."""
    return "adamw" if "betas" in param_group else "sgd"


def describe_state(
    checkpoint: dict, state: TrainingState, batch_size: int, path: str | Path
) -> str:
    """What is resumed, for the log."""
    text = f"resumed {path}: {counted(checkpoint['epoch'] + 1, 'epochs')} done"
    if state.split["val"] and state.best_score >= 0:
        measure = measure_of(len(checkpoint["class_names"])).removeprefix("val_")
        text += f", the best {measure} is {state.best_score:.4f}"
    if checkpoint["ranks"] != world_size():
        before = counted(checkpoint["ranks"], "processes")
        text += (
            f"\nthe run had {before} and continues with {world_size()}: a step now uses "
            f"{world_size()} × {batch_size} images; new processes get random states of their own"
        )
    return text


def resumed_schedule(state: TrainingState, budget: Budget, lr: float, new_rate: bool) -> dict:
    """The schedule of the saved run, or a new one from here on for another length or rate.

    budget: length of the run. lr: base rate. new_rate: whether it differs from the base rate of the
    saved run. If so, the new schedule starts from it.
    """
    schedule, end = state.lr_schedule, budget.steps
    same_end = end == schedule["total_steps"] and state.step >= schedule["start_step"]
    if state.epoch >= budget.epochs or (same_end and not new_rate):
        return schedule
    schedule = extend_schedule(schedule, state.step, end, new_rate)
    what = "restarted" if same_end else "extended"
    hint = "" if new_rate else " (give --lr to start from another rate)"
    factor = poly_factor(state.step, **schedule)
    if state.step < schedule["warmup_steps"]:
        change = f"rises to {lr:.6f}, then falls"
    else:
        change = f"falls from {lr * factor:.6f}"
    log(
        f"the schedule is {what}: from epoch {state.epoch} on the learning rate {change} to 0 at "
        f"the end of epoch {budget.epochs - 1}{hint}"
    )
    if factor < ENDED_FACTOR and state.step >= schedule["warmup_steps"]:
        log(
            "warning: the run had ended, at a learning rate of almost 0: more steps at it change "
            f"little. Another --lr, such as {lr / 2:g}, starts from there"
        )
    return schedule


def restore_randomness(random_states: list[dict], seed: int) -> None:
    """Restores this rank's random states. A rank without one is seeded: all ranks of a new run."""
    if rank() < len(random_states):
        restore_random_state(random_states[rank()])
    else:
        torch.manual_seed(seed + SEED_STRIDE * (rank() + 1))


def add_epoch(state: TrainingState, row: dict, measure: str = "val_dice") -> bool:
    """Adds an epoch's scores and the steps so far to the history; True if it is the best so far.

    measure: name of the validation score to maximize. If `row` does not have it (no validation),
    every epoch is the best. NaN (no foreground anywhere) ranks below every other score, but the
    first epoch is kept whatever its score.
    """
    state.history.append({**row, "step": state.step})
    if measure not in row:
        state.best_score = math.inf
        return True
    score = row[measure]
    if math.isnan(score):
        score = -1.0
    is_best = score > state.best_score
    state.best_score = max(score, state.best_score)
    return is_best


def measure_of(num_classes: int) -> str:
    """The score that chooses the epoch.

    Dice of the foreground; with more than two classes the mean IoU of all, since class 0 may be a
    class like the others.
    """
    return "val_dice" if num_classes == 2 else "val_mean_iou"


def prepare_output(folder: str | Path, model: nn.Module, resumed_from: str | Path) -> None:
    """UserError now, not after the first epoch, if the folder is not writable or too full.

    resumed_from: the checkpoint of the run that continues, "" for a new one. Its best weights are
    copied to a new folder, with split.json: they stay the best until an epoch beats them.
    """
    folder = Path(folder)
    tensors = model.state_dict().values()
    weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    # The best and the last checkpoint and the one that is being written, each with the weights and
    # the optimizer's two moments.
    prepare_folder(folder, 3 * 3 * weights + 20e6)
    if resumed_from and Path(resumed_from).resolve().parent != folder.resolve():
        with replacing(folder / "best_model.pth") as temporary:
            shutil.copyfile(best_until(resumed_from), temporary)
        split_file = Path(resumed_from).with_name("split.json")
        if split_file.exists():
            with replacing(folder / "split.json") as temporary:
                shutil.copyfile(split_file, temporary)
    elif not resumed_from and (folder / "last_model.pth").exists():
        log(f"note: this new run replaces the one in {folder} (--resume auto continues it)")


def best_until(path: str | Path) -> Path:
    """best_model.pth beside a checkpoint, or the checkpoint itself if the best epoch came later."""
    checkpoint = load(path)
    check_not_stripped(checkpoint, "--resume", path)
    best = Path(path).with_name("best_model.pth")
    if best.exists() and load(best).get("epoch", 0) <= checkpoint["epoch"]:
        return best
    return Path(path)


@contextmanager
def history_kept(folder: str | Path, state: TrainingState, measure: str) -> Iterator[None]:
    """Writes the history and curves.png on exit, also after an error.

    After Ctrl-C it logs how to resume.
    """
    folder, first_epoch = Path(folder), state.epoch
    try:
        yield
    except KeyboardInterrupt:
        log(how_to_resume(folder, state.epoch - 1, state.epoch > first_epoch))
        raise
    finally:
        if is_main_process() and state.history:
            text_files.write_history(folder, state.results_name, state.history)
            curves.save_curves(folder / "curves.png", state.history, measure)


def how_to_resume(folder: Path, epoch: int, any_epoch: bool) -> str:
    """The command that continues after `epoch`. any_epoch: whether this process finished one."""
    if not any_epoch:
        saved = "there is nothing to resume yet" if epoch < 0 else "nothing new is saved"
        return f"\nstopped in epoch {epoch + 1}: {saved}; the same command starts it again"
    saved = folder / "last_model.pth"
    start = "torchrun, with its flags," if world_size() > 1 else "python"
    return (
        f"\nstopped. {saved} holds the run up to the end of epoch {epoch}; continue with\n"
        f"  {start} {Path(sys.argv[0]).name} {shlex.join(['--resume', str(saved)])}"
    )

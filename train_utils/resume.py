"""What a run carries from epoch to epoch: model, optimiser, place in the schedule, random states; new or restored."""

import math
import time
from functools import partial
from pathlib import Path

import torch

from my_dataset import DATASETS
from run.data import class_table
from src import MODELS, build_model
from src.unet_original import legal_side
from train_utils import checkpoint as checkpoints
from train_utils.cli.flags import parse_args
from train_utils.cli.model_flags import MODEL_FLAGS, describe_model
from train_utils.cli.model_table import model_table
from train_utils.cli.presets import PRESETS
from train_utils.distributed_utils import (
    all_gather_objects,
    broadcast_from_rank_zero,
    is_main_process,
    log,
    rank,
    world_size,
)
from train_utils.lr_scheduler import extend, plan_schedule, poly_factor
from train_utils.reporting import text_files as results
from train_utils.reporting.pictures import with_default_colours


def make_model(args, path=""):
    """The model that the flags describe, with the weights of `path` if one is given, and that file's content."""
    description = describe_model(args)
    build = partial(build_model, description["model_name"], **description["model_kwargs"])
    model, checkpoint = build(), {}
    if path:
        checkpoint = broadcast_from_rank_zero(lambda: checkpoints.load(path))
        checkpoints.check_description(checkpoint, description, path)
        checkpoints.load_weights(model, checkpoint, path)
    elif (
        args.pretrain_backbone
    ):  # the file with the ImageNet weights need only be on the first machine
        model.load_state_dict(
            broadcast_from_rank_zero(lambda: build(pretrain_backbone=True).state_dict())
        )
    return model, checkpoint


def describe_recipe(args):
    """What runs, in a line: the model, and the settings of the preset as the flags left them."""
    model = describe_model(args)["model_kwargs"]
    recipe = {name: getattr(args, name) for name in PRESETS[args.preset] if name not in MODEL_FLAGS}
    model, recipe = (
        ", ".join(f"{name} {value}" for name, value in part.items()) for part in (model, recipe)
    )
    margin = getattr(MODELS[args.model], "margin", 0)
    centre = (
        f"; of each crop it learns from the central {legal_side(args.crop_size) - 2 * margin} px"
        if margin
        else ""
    )
    return f"model {args.model}: {model}{centre}\nrecipe {args.preset}: {recipe}"


def list_models():
    """The table of what `--model NAME` builds when no other flag is given."""
    return model_table(
        describe_model(parse_args(["--model", name], "train.py", "", DATASETS, MODELS))
        for name in MODELS
    )


def make_optimizer(args, model):
    lr = args.lr * (world_size() if args.scale_lr else 1)
    if args.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=args.weight_decay)
    return torch.optim.SGD(
        model.parameters(), lr=lr, momentum=args.momentum, weight_decay=args.weight_decay
    )


def start_or_resume(args, checkpoint, optimizer, scaler, steps, split):
    """Where the run stands, new or as the checkpoint left it, as a dict that the next checkpoint keeps.

    `steps` are the optimiser steps of an epoch, `split` the names of the images by purpose. Restores the optimiser and
    the scaler; settings come from the flags.
    """
    if not checkpoint:
        epoch = args.start_epoch or 0
        plan = plan_schedule(steps, args.epochs, args.warmup_epochs > 0, args.warmup_epochs)
        return {
            "epoch": epoch,
            "step": epoch * steps,
            "plan": plan,
            "best_score": -math.inf,
            "history": [],
            "results_name": time.strftime("results%Y%m%d-%H%M%S.txt"),
            "split": split,
        }
    if checkpoint["split"] != split:
        raise checkpoints.UserError(
            f"{args.resume}: was trained on {', '.join(checkpoint['split']['train'])} with {checkpoint['args']['val']!r} as "
            "--val; these flags split the images otherwise, so that its scores could not be compared. Start a new run "
            "(--weights begins from this one's weights)"
        )
    check_classes(args, checkpoint, args.resume)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": checkpoint["optimizer"]["state"]})
    if (
        scaler.is_enabled() and checkpoint["scaler"]
    ):  # a run without float16 has no scaler to go on with
        scaler.load_state_dict(checkpoint["scaler"])
    run = {
        name: checkpoint[name] for name in ("step", "plan", "best_score", "history", "results_name")
    }
    run["split"] = split
    run["epoch"] = checkpoint["epoch"] + 1
    if args.start_epoch is not None:
        run["epoch"], run["step"] = args.start_epoch, args.start_epoch * steps
        run["history"] = [row for row in run["history"] if row["epoch"] < args.start_epoch]
    log(
        f"resumed {args.resume}: epochs 0 to {checkpoint['epoch']} are done"
        + (
            f", the best {measure(args).removeprefix('val_')} is {run['best_score']:.4f}"
            if split["val"]
            else ""
        )
    )
    if checkpoint["ranks"] != world_size():
        log(
            f"the run had {checkpoint['ranks']} process(es) and goes on with {world_size()}: a step now takes "
            f"{world_size()} × {args.batch_size} images, and new processes get random streams of their own"
        )
    end = run["step"] + (args.epochs - run["epoch"]) * steps
    if run["epoch"] < args.epochs and end != run["plan"]["total_steps"]:
        restart = args.lr != checkpoint["args"]["lr"]
        run["plan"] = extend(run["plan"], run["step"], end, restart)
        start = optimizer.param_groups[0]["lr"] * poly_factor(run["step"], **run["plan"])
        log(
            f"the schedule is planned anew: from epoch {run['epoch']} on the rate falls from {start:.6f} to 0 at the end of "
            f"epoch {args.epochs - 1}"
            + ("" if restart else " (give --lr to start from another rate)")
        )
    return run


def check_classes(args, checkpoint, path):
    """UserError if the checkpoint read from `path` has other classes than the data; plain weights have none."""
    names = list(class_table(args).names)
    if checkpoint.get("class_names", names) != names:
        raise checkpoints.UserError(
            f"{path}: has the classes {', '.join(checkpoint['class_names'])}, the data's class "
            f"table {', '.join(names)}; bring back the run's own table (--classes FILE)"
        )


def restore_randomness(args, checkpoint):
    """Goes on with this rank's random states; a rank that the checkpoint does not know gets a stream of its own."""
    states = checkpoint.get("random_states", [])
    if rank() < len(states):
        checkpoints.restore_random_state(states[rank()])
    else:
        torch.manual_seed(args.seed + 1_000_003 * (rank() + 1))


def save_epoch(args, model, optimizer, scaler, scheduler, run, row, is_best):
    """Writes the epoch's checkpoints and text files. The best first: killed in between, the epoch is run once more."""
    random_states = all_gather_objects(checkpoints.random_state())
    if not is_main_process():
        return
    classes = class_table(args)
    content = {
        **describe_model(args),
        "model": model.state_dict(),
        "class_names": list(classes.names),
        "class_colours": with_default_colours(classes.colours).tolist(),
        "class_ids": classes.ids,
        "resize": args.resize,
        "mean": args.mean,
        "std": args.std,
        "threshold": row.get("val_best_threshold", 0.5),
        "args": vars(args),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "random_states": random_states,
        **run,
        "epoch": row["epoch"],
        "step": scheduler.last_epoch,
        "ranks": world_size(),
    }
    folder = Path(args.output_dir)
    if not args.save_best:
        checkpoints.save(folder / f"model_{row['epoch']}.pth", content)
    if is_best:
        checkpoints.save(folder / "best_model.pth", content)
    checkpoints.save(folder / "last_model.pth", content)
    results.write_history(folder, run["results_name"], run["history"])


def measure(args):
    """The score that chooses the epoch: Dice of the foreground, or with more than two classes the mean IoU of all."""
    return "val_dice" if args.num_classes == 2 else "val_mean_iou"


def keep_if_best(run, row, measure="val_dice"):
    """Adds the row to the run's history; True if it is the best so far by its `measure`, or without validation.

    A score that is NaN (no foreground anywhere) ranks below every other, but the first epoch is kept whatever it scored.
    """
    run["history"].append(row)
    score = row.get(measure, math.inf)
    score = -1.0 if math.isnan(score) else score
    is_best = score > run["best_score"] or measure not in row
    run["best_score"] = max(score, run["best_score"])
    return is_best

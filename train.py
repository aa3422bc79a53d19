"""Trains a U-Net on one device. `python train.py --demo` needs no data; `python train.py --help` lists the flags."""

import math
import shlex
import shutil
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from my_dataset import DATASETS, DataError
from readers.splits import names_of
from readers.training import (class_table, judge_loader, labelled_test_cases, make_dataset, make_train_loader,
                              pick_class_weights, settle_classes, settle_statistics, split_cases)
from src import MODELS, build_model
from src.device import pick_amp_dtype, pick_device, reuse_freed_memory
from src.inference import Flips
from train_utils import NonFiniteLossError, judge, plotting, report, results, summarize, train_one_epoch
from train_utils import checkpoint as checkpoints
from train_utils.atomic import replacing
from train_utils.board import Board
from train_utils.cli import run_script
from train_utils.demo_data import write_demo_drive
from train_utils.distributed_utils import (EpochBatches, from_main, gather_objects, is_main_process, log, rank,
                                           share_buffers, share_model, world_size)
from train_utils.evidence import Evidence
from train_utils.flags import describe_model, parse_args
from train_utils.lr_scheduler import extend, plan_schedule, poly_factor, schedule_from_plan
from train_utils.model_table import model_table
from train_utils.pictures import fill_colours
from train_utils.preview import draw_predictions
from transforms import eval_preset

# What --val means for the choice of the epoch and of the threshold; stands in the output of every run.
SELECTION = {
    "holdout": "validation images, which take no part in the training",
    "none": "nothing: the last weights, threshold 0.5",
    "test": "the TEST images themselves, as the tutorials do: the test scores below are flattered by it",
}


DEMO_FAREWELL = """
next:
  python predict.py --weights {folder}/best_model.pth --input {data}/DRIVE/test/images \\
         --roi-mask {data}/DRIVE/test/mask --overlay
  python train.py --data-path FOLDER_THAT_HOLDS_DRIVE      (README.md says where to get DRIVE)"""


# --- model and state --------------------------------------------------------------------------------------------------

def make_model(args, path=""):
    """The model that the flags describe, with the weights of `path` if one is given, and that file's content."""
    description = describe_model(args)
    build = partial(build_model, description["model_name"], **description["model_kwargs"])
    model, checkpoint = build(), {}
    if path:
        checkpoint = from_main(lambda: checkpoints.load(path))
        checkpoints.check_description(checkpoint, description, path)
        checkpoints.load_weights(model, checkpoint, path)
    elif args.pretrain_backbone:  # the file with the ImageNet weights need only be on the first machine
        model.load_state_dict(from_main(lambda: build(pretrain_backbone=True).state_dict()))
    return model, checkpoint


def list_models():
    """The table of what `--model NAME` builds when no other flag is given."""
    return model_table(describe_model(parse_args(["--model", name], "train.py", "", DATASETS, MODELS)) for name in MODELS)


def make_optimizer(args, model):
    lr = args.lr * (world_size() if args.scale_lr else 1)
    if args.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=args.weight_decay)
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=args.momentum, weight_decay=args.weight_decay)


def start_or_resume(args, checkpoint, optimizer, scaler, steps, split):
    """Where the run stands, new or as the checkpoint left it, as a dict that the next checkpoint keeps.

    `steps` are the optimiser steps of an epoch, `split` the names of the images by purpose. Restores the optimiser and the scaler; settings come from the flags.
    """
    if not checkpoint:
        epoch = args.start_epoch or 0
        plan = plan_schedule(steps, args.epochs, args.warmup_epochs > 0, args.warmup_epochs)
        return {"epoch": epoch, "step": epoch * steps, "plan": plan, "best_score": -math.inf, "history": [],
                "results_name": time.strftime("results%Y%m%d-%H%M%S.txt"), "split": split}
    if checkpoint["split"] != split:
        raise checkpoints.CheckpointError(
            f"{args.resume}: was trained on {', '.join(checkpoint['split']['train'])} with {checkpoint['args']['val']!r} as "
            "--val; these flags split the images otherwise, so that its scores could not be compared. Start a new run "
            "(--weights begins from this one's weights)")
    if checkpoint["class_names"] != list(class_table(args).names):
        raise checkpoints.CheckpointError(
            f"{args.resume}: has the classes {', '.join(checkpoint['class_names'])}, the data's class table "
            f"{', '.join(class_table(args).names)}; bring back the run's own table")
    optimizer.load_state_dict({**optimizer.state_dict(), "state": checkpoint["optimizer"]["state"]})
    if scaler.is_enabled() and checkpoint["scaler"]:  # a run without float16 has no scaler to go on with
        scaler.load_state_dict(checkpoint["scaler"])
    run = {name: checkpoint[name] for name in ("step", "plan", "best_score", "history", "results_name")}
    run["split"] = split
    run["epoch"] = checkpoint["epoch"] + 1
    if args.start_epoch is not None:
        run["epoch"], run["step"] = args.start_epoch, args.start_epoch * steps
        run["history"] = [row for row in run["history"] if row["epoch"] < args.start_epoch]
    log(f"resumed {args.resume}: epochs 0 to {checkpoint['epoch']} are done"
        + (f", the best {measure(args).removeprefix('val_')} is {run['best_score']:.4f}" if split["val"] else ""))
    if checkpoint["ranks"] != world_size():
        log(f"the run had {checkpoint['ranks']} process(es) and goes on with {world_size()}: a step now takes "
            f"{world_size()} × {args.batch_size} images, and new processes get random streams of their own")
    end = run["step"] + (args.epochs - run["epoch"]) * steps
    if run["epoch"] < args.epochs and end != run["plan"]["total_steps"]:
        restart = args.lr != checkpoint["args"]["lr"]
        run["plan"] = extend(run["plan"], run["step"], end, restart)
        start = optimizer.param_groups[0]["lr"] * poly_factor(run["step"], **run["plan"])
        log(f"the schedule is planned anew: from epoch {run['epoch']} on the rate falls from {start:.6f} to 0 at the end of "
            f"epoch {args.epochs - 1}" + ("" if restart else " (give --lr to start from another rate)"))
    return run


def restore_randomness(args, checkpoint):
    """Goes on with this rank's random states; a rank that the checkpoint does not know gets a stream of its own."""
    states = checkpoint.get("random_states", [])
    if rank() < len(states):
        checkpoints.restore_random_state(states[rank()])
    else:
        torch.manual_seed(args.seed + 1_000_003 * (rank() + 1))


def save_epoch(args, model, optimizer, scaler, scheduler, run, row, is_best):
    """Writes the epoch's checkpoints and text files. The best first: killed in between, the epoch is run once more."""
    random_states = gather_objects(checkpoints.random_state())
    if not is_main_process():
        return
    classes = class_table(args)
    content = {
        **describe_model(args), "model": model.state_dict(), "class_names": list(classes.names),
        "class_colours": fill_colours(classes.colours).tolist(), "resize": args.resize, "mean": args.mean,
        "std": args.std, "threshold": row.get("val_best_threshold", 0.5), "args": vars(args),
        "optimizer": optimizer.state_dict(), "scaler": scaler.state_dict(), "random_states": random_states,
        **run, "epoch": row["epoch"], "step": scheduler.last_epoch, "ranks": world_size(),
    }
    folder = Path(args.output_dir)
    if not args.save_best:
        checkpoints.save(folder / f"model_{row['epoch']}.pth", content)
    if is_best:
        checkpoints.save(folder / "best_model.pth", content)
    checkpoints.save(folder / "last_model.pth", content)
    results.write_history(folder, run["results_name"], run["history"])


# --- judging ----------------------------------------------------------------------------------------------------------

def describe_origin(paths, members, flips=False):
    """What test_scores.json says of the judged weights: files, epochs, what chose them, training images, flips."""
    choices = [SELECTION[checkpoint["args"]["val"]] if "args" in checkpoint else "unknown: plain weights"
               for checkpoint in members]
    each = {name: [checkpoint.get(name) for checkpoint in members] for name in ("epoch", "split")}
    each = {name: values[0] if len(values) == 1 else values for name, values in each.items()}
    return {"weights": [str(path) for path in paths], "flips": flips, "selection": "; ".join(dict.fromkeys(choices)), **each}


def score_test(args, model, checkpoint, origin, cases, device, amp_dtype, begin):
    """Judges the model on the test cases, writes test_scores.json, and prints the scores. Returns the data set."""
    dataset, _ = make_dataset(args, cases, eval_preset(checkpoint["mean"], checkpoint["std"]), "test")
    evidence = gather_evidence(args, dataset) if args.report else None
    loader = judge_loader(args, dataset, device)
    counts = judge(model, loader, device, args.num_classes, amp_dtype=amp_dtype, tolerance=args.tolerance,
                   observe=evidence)
    scores = summarize(counts, checkpoint["threshold"])
    scores = {name: value for name, value in scores.items() if not name.startswith("best_")}  # not chosen on test
    if is_main_process():
        content = {**results.provenance(device, time.perf_counter() - begin), **origin, "threshold": checkpoint["threshold"],
                   "scores": scores, "images": results.image_rows([case.name for case in cases], counts)}
        results.write_json(Path(args.output_dir) / "test_scores.json", content)
        if evidence:
            report.save(args.report, f"{args.dataset}: test images", content, evidence, dataset.classes.names,
                        lambda i: dataset.read(i)[0].permute(1, 2, 0).numpy())
    log(results.score_table(scores, dataset.classes.names, checkpoint["threshold"]))
    return dataset


def gather_evidence(args, dataset):
    """What judge() fills for the report: knows the labels without any ROI, and the second observer's, where there are."""
    frames = dataset.with_cases([replace(case, roi=None) for case in dataset.cases])
    seconds = dataset.with_cases([replace(case, label=case.second) for case in dataset.cases])
    every = range(len(dataset))
    return Evidence(args.num_classes, [dataset.read(i)[1] for i in every], [frames.read(i)[1] for i in every],
                    [seconds.read(i)[1] if dataset.cases[i].second else None for i in every])


def load_members(args, paths):
    """[(model, checkpoint)] of the files: the first as the flags describe it, which took their defaults from it, the others
    by their own description. Plain weights say nothing of themselves: they are of the flags' model, mean and std."""
    members = [make_model(args, paths[0])]
    for path in paths[1:]:
        checkpoint = from_main(lambda: checkpoints.load(path))
        if "format" in checkpoint:
            members.append((checkpoints.model_of(checkpoint, path), checkpoint))
        else:
            members.append(make_model(args, path))
    plain = {"class_names": list(class_table(args).names), "mean": args.mean, "std": args.std, "threshold": None}
    return [(model, checkpoint if "format" in checkpoint else plain) for model, checkpoint in members]


def test_only(args, device, amp_dtype, begin):
    """Scores --weights, one checkpoint or an ensemble, on the test split."""
    paths = args.weights or [args.resume]
    members = load_members(args, paths)
    if not (args.mean and args.std):
        raise DataError(f"{paths[0]}: does not say which mean and std it was trained with; give --mean and --std")
    for path, (member, _) in zip(paths, members):
        checkpoints.prune(member, args.prune, path)
    model, checkpoint = checkpoints.combine(paths, members)
    model = Flips(model) if args.flips else model
    checkpoint |= {"mean": args.mean, "std": args.std}
    if args.threshold is not None:
        checkpoint["threshold"] = args.threshold
    origin = describe_origin(paths, [checkpoint for _, checkpoint in members], args.flips)
    cases = labelled_test_cases(args)
    if not cases:
        raise DataError(f"{args.data_path}: there are no test images, or they have no labels to score by; predict.py "
                        "segments them")
    for folder in filter(None, (args.output_dir, args.report)):
        checkpoints.prepare_folder(folder)
    model = model.to(device, memory_format=torch.channels_last)
    dataset = score_test(args, model, checkpoint, origin, cases, device, amp_dtype, begin)
    if is_main_process():
        draw_predictions(Path(args.output_dir) / "predictions.png", model, dataset, device, amp_dtype,
                         dataset.classes.names, fill_colours(dataset.classes.colours))


# --- the story --------------------------------------------------------------------------------------------------------

def main(args):
    """Data, model, optimiser, resume, epochs, and the test split, once."""
    begin = time.perf_counter()
    if args.list_models:
        return log(list_models())
    device = pick_device(args.device)
    amp_dtype = pick_amp_dtype(device, args.amp)
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)
    reuse_freed_memory(device)
    log(f"{results.machine_name(device)}, {str(amp_dtype or torch.float32).removeprefix('torch.')}, seed {args.seed}")
    if args.demo:
        from_main(lambda: make_demo(args))
    settle_classes(args)
    if args.test_only:
        return test_only(args, device, amp_dtype, begin)

    train_cases, val_cases, test_cases = split_cases(args)
    log(f"epoch and threshold are chosen on {SELECTION[args.val]}")
    train_set, pixels = make_dataset(args, train_cases, None, "training")
    settle_statistics(args, train_set)
    val_set = make_dataset(args, val_cases, eval_preset(args.mean, args.std), "validation")[0] if val_cases else None
    batches = EpochBatches(len(train_set), args.batch_size, args.seed, rank(), world_size(), args.crops)
    train_loader = make_train_loader(args, train_set, batches, device)
    val_loader = judge_loader(args, val_set, device) if val_cases else None

    torch.manual_seed(args.seed)
    model, checkpoint = make_model(args, args.resume or next(iter(args.weights), ""))
    checkpoint = checkpoint if args.resume else {}
    from_main(lambda: prepare_output(args, model))
    model = model.to(device, memory_format=torch.channels_last)
    if args.compile:
        model.compile()
    parallel = share_model(model, device, args.sync_bn)
    optimizer = make_optimizer(args, model)
    scaler = torch.amp.GradScaler(device.type, enabled=amp_dtype is torch.float16)
    split = names_of(train_cases, val_cases)
    run = start_or_resume(args, checkpoint, optimizer, scaler, -(-len(batches) // args.accumulate), split)
    if is_main_process():  # not before: a refused resume leaves the run's own split
        results.write_json(Path(args.output_dir) / "split.json", {
            "dataset": args.dataset, "split_seed": args.split_seed, **split, **names_of(test=test_cases)})
    scheduler = schedule_from_plan(optimizer, run["plan"], run["step"])
    weights = pick_class_weights(args.class_weights, pixels[:args.num_classes])
    train = partial(train_one_epoch, parallel, optimizer, train_loader, device, num_classes=args.num_classes,
                    lr_scheduler=scheduler, print_freq=args.print_freq, scaler=scaler, amp_dtype=amp_dtype,
                    loss_weight=None if weights is None else weights.to(device), batch_dice=args.batch_dice,
                    accumulate=args.accumulate, clip_grad=args.clip_grad or None)
    board = Board(Path(args.output_dir) / "tensorboard" if args.tensorboard and is_main_process() else None)
    restore_randomness(args, checkpoint)

    kept = (args.resume, run["epoch"] - 1)
    try:
        for epoch in range(run["epoch"], args.epochs):
            row = train_epoch(train, epoch, batches, train_cases)
            share_buffers(model)
            if val_cases:  # not "if val_loader": a rank without an image of its own still has to take part
                counts = judge(model, val_loader, device, args.num_classes, amp_dtype=amp_dtype, tolerance=args.tolerance)
                row |= {f"val_{name}": value for name, value in summarize(counts).items()}
            is_best = keep_if_best(run, row, measure(args))
            save_epoch(args, model, optimizer, scaler, scheduler, run, row, is_best)
            kept = (Path(args.output_dir) / "last_model.pth", epoch)
            log(results.epoch_line(row, args.epochs) + ("  *best" if is_best and val_cases else ""))
            board.scalars(row, epoch)
    except KeyboardInterrupt:
        say_how_to_resume(args, *kept)
        raise
    finally:
        if is_main_process() and run["history"]:
            results.write_history(args.output_dir, run["results_name"], run["history"])
            plotting.save_curves(Path(args.output_dir) / "curves.png", run["history"], measure(args))
    finish(args, test_cases, val_set or train_set, device, amp_dtype, begin, board)


def make_demo(args):
    log(f"the demo's pictures are in {args.data_path}/DRIVE")
    try:
        write_demo_drive(args.data_path)
    except OSError as error:
        raise DataError(f"--demo: {error}") from error


def prepare_output(args, model):
    """Finds out now, not after the first epoch, that the output folder is not writable or full."""
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    states = {"sgd": 1, "adamw": 2}[args.optimizer]
    folder = Path(args.output_dir)
    checkpoints.prepare_folder(folder, 3 * (1 + states) * weights + 20e6)  # best, last, the one being written
    if args.resume and Path(args.resume).resolve().parent != folder.resolve():
        best = Path(args.resume).with_name("best_model.pth")  # it stays the best until an epoch beats it
        with replacing(folder / "best_model.pth") as temporary:
            shutil.copyfile(best if best.exists() else args.resume, temporary)
    elif not args.resume and (folder / "last_model.pth").exists():
        log(f"note: this new run replaces the one in {folder} (--resume auto goes on with it)")


def train_epoch(train, epoch, batches, cases):
    """One epoch's row of the history; names the images of a batch whose loss is not finite."""
    start = time.perf_counter()
    batches.set_epoch(epoch)
    try:
        loss, lr = train(epoch=epoch)
    except NonFiniteLossError as error:
        names = ", ".join(str(cases[i].image) for i in batches.batches()[error.step])
        error.args = (f"{error} of epoch {epoch}, on the images {names}. The weights of the last whole epoch are kept; "
                      "lower --lr, set --clip-grad 1, or try --no-amp",)
        raise
    seconds = time.perf_counter() - start
    return {"epoch": epoch, "train_loss": loss, "lr": lr, "seconds": seconds, "images_per_second": batches.size * batches.repeats / seconds}


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


def say_how_to_resume(args, path, epoch):
    """Prints the command that goes on from the checkpoint `path`, written at the end of `epoch`; "" if there is none."""
    if not path:
        log("\nstopped before the end of the first epoch: there is nothing to go on from; the same command starts anew")
        return
    folder = [] if Path(path).parent == Path(args.output_dir) else ["--output-dir", args.output_dir]
    start = "torchrun, with its flags," if world_size() > 1 else "python"
    log(f"\nstopped. {path} holds the run up to the end of epoch {epoch}; go on with\n"
        f"  {start} {Path(sys.argv[0]).name} {shlex.join(['--resume', str(path), *folder])}")


def report_validation(checkpoint):
    """Prints the validation scores of the kept weights, which stand for nothing else: they chose the epoch."""
    row = next(row for row in checkpoint["history"] if row["epoch"] == checkpoint["epoch"])
    scores = {name.removeprefix("val_"): value for name, value in row.items() if name.startswith("val_")}
    if scores:
        log(f"epoch {row['epoch']} on the validation images, which chose it:\n"
            + results.score_table(scores, checkpoint["class_names"], checkpoint["threshold"]))


def finish(args, test_cases, other_set, device, amp_dtype, begin, board):
    """Scores the kept weights on the test split, once, and draws predictions (without test labels, of `other_set`)."""
    folder = Path(args.output_dir)
    checkpoint = from_main(lambda: checkpoints.load_described(folder / "best_model.pth"))
    model = checkpoints.model_of(checkpoint, folder / "best_model.pth").to(device, memory_format=torch.channels_last)
    if test_cases:
        origin = describe_origin([folder / "best_model.pth"], [checkpoint])
        other_set = score_test(args, model, checkpoint, origin, test_cases, device, amp_dtype, begin)
    else:
        report_validation(checkpoint)
        if not args.folds:
            log("the test images have no labels, or there are none: nothing to score; predict.py segments them")
    if is_main_process():
        draw_predictions(folder / "predictions.png", model, other_set, device, amp_dtype,
                         other_set.classes.names, fill_colours(other_set.classes.colours))
        for name in ("curves.png", "predictions.png"):
            board.picture(folder / name, args.epochs)
    board.close()
    log(f"{time.perf_counter() - begin:.0f} s in all; weights, scores and pictures are in {folder}/")
    if args.demo:
        log(DEMO_FAREWELL.format(folder=folder, data=args.data_path))


if __name__ == "__main__":
    run_script(lambda: main(parse_args(None, "train.py", __doc__, DATASETS, MODELS)), "train.py", (DataError,))

"""Trains a U-Net on one device. `python train.py --demo` needs no data; `python train.py --help` lists the flags."""

import shlex
import shutil
import sys
import time
from functools import partial
from pathlib import Path

import torch

from my_dataset import DATASETS
from run.data import (
    evaluation_loader,
    make_dataset,
    make_train_loader,
    pick_class_weights,
    settle_classes,
    settle_statistics,
    split_samples,
)
from src import MODELS
from src.device import pick_amp_dtype, pick_device, reuse_freed_memory
from src.errors import UserError
from train_utils import NonFiniteLossError, judge, summarize, train_one_epoch
from train_utils import checkpoint as checkpoints
from train_utils.atomic import replacing
from train_utils.cli.flags import parse_args
from train_utils.cli.parser import run_script
from train_utils.data.demo import write_demo_drive
from train_utils.data.splits import split_names
from train_utils.distributed_utils import (
    EpochBatches,
    broadcast_buffers,
    broadcast_from_rank_zero,
    is_main_process,
    log,
    rank,
    world_size,
    wrap_in_ddp,
)
from train_utils.evaluation import SELECTION, describe_origin, score_test, test_only
from train_utils.lr_scheduler import schedule_from_plan
from train_utils.reporting import curves as plotting
from train_utils.reporting import text_files as results
from train_utils.reporting.grids import draw_predictions
from train_utils.reporting.pictures import with_default_colours
from train_utils.reporting.tensorboard import TensorBoardLogger
from train_utils.resume import (
    describe_recipe,
    keep_if_best,
    list_models,
    make_model,
    make_optimizer,
    measure,
    restore_randomness,
    save_epoch,
    start_or_resume,
)
from transforms import eval_preset

DEMO_FAREWELL = """
next:
  python predict.py --weights {folder}/best_model.pth --input {data}/DRIVE/test/images \\
         --roi-mask {data}/DRIVE/test/mask --overlay
  python train.py --data-path FOLDER_THAT_HOLDS_DRIVE      (README.md says where to get DRIVE)"""


def main(args):
    """Data, model, optimiser, resume, epochs, and the test split, once."""
    begin = time.perf_counter()
    if args.list_models:
        return log(list_models())
    device, amp_dtype = prepare_device(args)
    if args.demo:
        broadcast_from_rank_zero(lambda: make_demo(args))
    settle_classes(args)
    if args.test_only:
        return test_only(args, device, amp_dtype, begin)

    train_samples, val_samples, test_samples = split_samples(args)
    log(f"epoch and threshold are chosen on {SELECTION[args.val]}")
    train_set, pixels = make_dataset(args, train_samples, None, "training")
    settle_statistics(args, train_set)
    val_set = (
        make_dataset(args, val_samples, eval_preset(args.mean, args.std), "validation")[0]
        if val_samples
        else None
    )
    batches = EpochBatches(
        len(train_set), args.batch_size, args.seed, rank(), world_size(), args.crops
    )
    train_loader = make_train_loader(args, train_set, batches, device)
    val_loader = evaluation_loader(args, val_set, device) if val_samples else None

    log(describe_recipe(args))
    torch.manual_seed(args.seed)
    model, checkpoint = make_model(args, args.resume or next(iter(args.weights), ""))
    checkpoint = checkpoint if args.resume else {}
    broadcast_from_rank_zero(lambda: prepare_output(args, model))
    model = model.to(device, memory_format=torch.channels_last)
    if args.compile:
        model.compile()
    parallel = wrap_in_ddp(model, device, args.sync_bn)
    optimizer = make_optimizer(args, model)
    scaler = torch.amp.GradScaler(device.type, enabled=amp_dtype is torch.float16)
    split = split_names(train_samples, val_samples)
    run = start_or_resume(
        args, checkpoint, optimizer, scaler, -(-len(batches) // args.accumulate), split
    )
    if is_main_process():  # not before: a refused resume leaves the run's own split
        results.write_json(
            Path(args.output_dir) / "split.json",
            {
                "dataset": args.dataset,
                "split_seed": args.split_seed,
                **split,
                **split_names(test=test_samples),
            },
        )
    scheduler = schedule_from_plan(optimizer, run["plan"], run["step"])
    weights = pick_class_weights(args.class_weights, pixels[: args.num_classes])
    train = partial(
        train_one_epoch,
        parallel,
        optimizer,
        train_loader,
        device,
        num_classes=args.num_classes,
        lr_scheduler=scheduler,
        print_freq=args.print_freq,
        scaler=scaler,
        amp_dtype=amp_dtype,
        loss_weight=None if weights is None else weights.to(device),
        batch_dice=args.batch_dice,
        accumulate=args.accumulate,
        clip_grad=args.clip_grad or None,
    )
    board = TensorBoardLogger(
        Path(args.output_dir) / "tensorboard" if args.tensorboard and is_main_process() else None
    )
    restore_randomness(args, checkpoint)

    kept = (args.resume, run["epoch"] - 1)
    try:
        for epoch in range(run["epoch"], args.epochs):
            row = train_epoch(train, epoch, batches, train_samples)
            broadcast_buffers(model)
            if (
                val_samples
            ):  # not "if val_loader": a rank without an image of its own still has to take part
                counts = judge(
                    model,
                    val_loader,
                    device,
                    args.num_classes,
                    amp_dtype=amp_dtype,
                    tolerance=args.tolerance,
                )
                row |= {f"val_{name}": value for name, value in summarize(counts).items()}
            is_best = keep_if_best(run, row, measure(args))
            save_epoch(args, model, optimizer, scaler, scheduler, run, row, is_best)
            kept = (Path(args.output_dir) / "last_model.pth", epoch)
            log(
                results.epoch_line(row, args.epochs)
                + ("  *best" if is_best and val_samples else "")
            )
            board.scalars(row, epoch)
    except KeyboardInterrupt:
        say_how_to_resume(args, *kept)
        raise
    finally:
        if is_main_process() and run["history"]:
            results.write_history(args.output_dir, run["results_name"], run["history"])
            plotting.save_curves(
                Path(args.output_dir) / "curves.png", run["history"], measure(args)
            )
    finish(args, test_samples, val_set or train_set, device, amp_dtype, begin, board)


def prepare_device(args):
    """The device to compute on and the dtype of autocast, None for full precision."""
    device = pick_device(args.device)
    amp_dtype = pick_amp_dtype(device, args.amp)
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)
    reuse_freed_memory(device)
    log(
        f"{results.machine_name(device)}, {str(amp_dtype or torch.float32).removeprefix('torch.')}, seed {args.seed}"
    )
    return device, amp_dtype


def make_demo(args):
    log(f"the demo's pictures are in {args.data_path}/DRIVE")
    try:
        write_demo_drive(args.data_path)
    except OSError as error:
        raise UserError(f"--demo: {error}") from error


def prepare_output(args, model):
    """Finds out now, not after the first epoch, that the output folder is not writable or full."""
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    states = {"sgd": 1, "adamw": 2}[args.optimizer]
    folder = Path(args.output_dir)
    checkpoints.prepare_folder(
        folder, 3 * (1 + states) * weights + 20e6
    )  # best, last, the one being written
    if args.resume and Path(args.resume).resolve().parent != folder.resolve():
        best = Path(args.resume).with_name(
            "best_model.pth"
        )  # it stays the best until an epoch beats it
        with replacing(folder / "best_model.pth") as temporary:
            shutil.copyfile(best if best.exists() else args.resume, temporary)
    elif not args.resume and (folder / "last_model.pth").exists():
        log(f"note: this new run replaces the one in {folder} (--resume auto goes on with it)")


def train_epoch(train, epoch, batches, samples):
    """One epoch's row of the history; names the images of a batch whose loss is not finite."""
    start = time.perf_counter()
    batches.set_epoch(epoch)
    try:
        loss, lr = train(epoch=epoch)
    except NonFiniteLossError as error:
        names = ", ".join(str(samples[i].image) for i in batches.batches()[error.step])
        error.args = (
            f"{error} of epoch {epoch}, on the images {names}. The weights of the last whole epoch are kept; "
            "lower --lr, set --clip-grad 1, or try --no-amp",
        )
        raise
    seconds = time.perf_counter() - start
    speed = batches.size * batches.repeats / seconds
    return {
        "epoch": epoch,
        "train_loss": loss,
        "lr": lr,
        "seconds": seconds,
        "images_per_second": speed,
    }


def say_how_to_resume(args, path, epoch):
    """Prints the command that goes on from the checkpoint `path`, written at the end of `epoch`; "" if there is none."""
    if not path:
        log(
            "\nstopped before the end of the first epoch: there is nothing to go on from; the same command starts anew"
        )
        return
    folder = [] if Path(path).parent == Path(args.output_dir) else ["--output-dir", args.output_dir]
    start = "torchrun, with its flags," if world_size() > 1 else "python"
    log(
        f"\nstopped. {path} holds the run up to the end of epoch {epoch}; go on with\n"
        f"  {start} {Path(sys.argv[0]).name} {shlex.join(['--resume', str(path), *folder])}"
    )


def report_validation(checkpoint):
    """Prints the validation scores of the kept weights, which stand for nothing else: they chose the epoch."""
    row = next(row for row in checkpoint["history"] if row["epoch"] == checkpoint["epoch"])
    scores = {
        name.removeprefix("val_"): value for name, value in row.items() if name.startswith("val_")
    }
    if scores:
        log(
            f"epoch {row['epoch']} on the validation images, which chose it:\n"
            + results.score_table(scores, checkpoint["class_names"], checkpoint["threshold"])
        )


def finish(args, test_samples, other_set, device, amp_dtype, begin, board):
    """Scores the kept weights on the test split, once, and draws predictions (without test labels, of `other_set`)."""
    folder = Path(args.output_dir)
    checkpoint = broadcast_from_rank_zero(
        lambda: checkpoints.load_described(folder / "best_model.pth")
    )
    model = checkpoints.model_of(checkpoint, folder / "best_model.pth").to(
        device, memory_format=torch.channels_last
    )
    if test_samples:
        origin = describe_origin([folder / "best_model.pth"], [checkpoint])
        other_set = score_test(
            args, model, checkpoint, origin, test_samples, device, amp_dtype, begin
        )
    else:
        report_validation(checkpoint)
        if not args.folds:
            log(
                "the test images have no labels, or there are none: nothing to score; predict.py segments them"
            )
    if is_main_process():
        draw_predictions(
            folder / "predictions.png",
            model,
            other_set,
            device,
            amp_dtype,
            other_set.classes.names,
            with_default_colours(other_set.classes.colours),
        )
        for name in ("curves.png", "predictions.png"):
            board.picture(folder / name, args.epochs)
    board.close()
    log(
        f"{time.perf_counter() - begin:.0f} s in all; weights, scores and pictures are in {folder}/"
    )
    if args.demo:
        log(DEMO_FAREWELL.format(folder=folder, data=args.data_path))


if __name__ == "__main__":
    run_script(
        lambda: main(parse_args(None, "train.py", __doc__, DATASETS, MODELS)),
        "train.py",
        (UserError,),
    )

"""Segments images with a trained checkpoint.

`python predict.py --weights save_weights/best_model.pth --input IMAGES`

For each input x it writes x_mask.png: for two classes black and white (0 and 255), for more a
palette PNG of class ids, and legend.png with the names of the colours. predictions.csv has one row
for each image. --instances also writes the ids of objects. Reading, computing and writing overlap.
"""

import argparse
import time
from functools import partial
from pathlib import Path

import torch
from torch import nn

from src.device import pick_amp_dtype, pick_device, reuse_freed_memory
from src.errors import UserError
from src.image_io import read_image
from src.inference import Flips, optimize_for_inference
from src.instances import import_ndimage
from src.predictor import Predictor
from src.tiles import Tiling
from train_utils.atomic import prepare_folder
from train_utils.cli import predict_flags
from train_utils.cli.script import run_script
from train_utils.data.class_table import ClassTable
from train_utils.data.inputs import find_inputs, find_partners
from train_utils.data.reading import (
    find_jobs,
    read_picture,
)
from train_utils.model_files import write_export, write_stripped
from train_utils.model_loading import Member, check_threshold, combine, load_members, prune
from train_utils.prediction import predict_all
from train_utils.prediction_scores import PredictionScores
from train_utils.reporting.pictures import as_rgb, save_legend
from train_utils.reporting.prediction_files import PredictionFiles
from train_utils.reporting.prediction_settings import fingerprint, start_settings
from train_utils.reporting.prediction_summary import (
    describe,
    end_with_failures,
    say_how_to_continue,
    warn_of_one_class,
)
from train_utils.reporting.prediction_tables import PredictionTable
from train_utils.reporting.provenance import describe_origin, provenance
from train_utils.volume_prediction import (
    VOLUMES,
    VolumePredictor,
    check_are_volumes,
    refuse_volumes,
)
from train_utils.volume_results import VolumeScores, VolumeTable
from transforms import eval_preset

REMEDY = "give --tile 512 or a smaller one, leave out --flips, or use --device cpu"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The flags, checked."""
    return predict_flags.parse_args(argv, __doc__.splitlines()[0])


def main(args: argparse.Namespace) -> None:
    """Model, inputs, predictions, summary; or only a file made of the weights."""
    start = time.perf_counter()
    device = pick_device(args.device)
    amp_dtype = pick_amp_dtype(device, args.amp)
    reuse_freed_memory(device)

    # Model
    members = load_members(args.weights)
    if args.strip:
        return write_stripped(args.strip, args.weights[0], members[0][1])
    for path, (member, _) in zip(args.weights, members, strict=True):
        prune(member, args.prune, path)
    model, checkpoint = combine(args.weights, members)
    classes = ClassTable.from_dict(checkpoint["class_table"])
    check_threshold(args.threshold, classes.names)
    if args.instances:
        check_instances(classes.names)
    threshold = checkpoint["threshold"] if args.threshold is None else args.threshold
    dims = model.dims
    if args.flips:
        model = Flips(model)
    if args.export:
        return write_export(args.export, model, {**checkpoint, "threshold": threshold})
    settings = settings_of(args, model, threshold)
    model = optimize_for_inference(model, device)
    tiling = Tiling(args.tile, args.overlap)
    if dims == 3:
        return predict_volumes(
            args, model, checkpoint, members, threshold, amp_dtype, tiling, settings
        )
    if args.tile and checkpoint["resize"]:
        raise UserError(
            f"--tile {args.tile}: the model sees images at the size {checkpoint['resize']} of its "
            "training, never in tiles; leave it out"
        )
    normalize = eval_preset(checkpoint["mean"], checkpoint["std"])
    predictor = Predictor(
        model,
        device,
        amp_dtype,
        prepare=lambda images: normalize(images, torch.zeros(0))[0],
        size=checkpoint["resize"],
        tiling=tiling,
    )

    # Inputs and outputs
    jobs = find_jobs(
        args.input, args.recursive, args.output, args.roi_mask, args.labels, args.instances
    )
    refuse_volumes(job.item.path for job in jobs)
    read = partial(
        read_picture,
        channels=checkpoint["model_kwargs"]["in_channels"],
        max_pixels=args.max_pixels,
        auto_roi=args.auto_roi,
        classes=classes,
        instances=args.instances,
    )
    files = PredictionFiles(
        args.output,
        classes.names,
        checkpoint["class_colours"],
        checkpoint["class_ids"],
        args.save_prob,
        args.overlay,
        args.instances,
    )
    for folder in filter(None, (args.output, args.report)):
        prepare_folder(folder)
    start_settings(args.output, settings, args.weights, args.skip_existing)
    table = PredictionTable(args.output, classes.names, args.skip_existing, args.instances)
    todo = jobs
    if args.skip_existing:
        todo = [job for job in jobs if not is_done(job.item.name, files, table)]
        table.drop(job.item.name for job in todo)
    if len(classes.names) > 2:
        save_legend(files.folder / "legend.png", classes.names, files.colours)
    scores = None
    if args.labels:
        scores = PredictionScores(classes.names, threshold, args.instances, bool(args.report))

    # Predictions
    try:
        failed = predict_all(predictor, read, todo, threshold, files, table, scores)
    except KeyboardInterrupt:
        if not args.labels:
            say_how_to_continue(sum(job.item.name in table for job in jobs), len(jobs))
        raise
    table.close([job.item.name for job in jobs])

    # Summary
    done = [table.row(job.item.name) for job in todo if job.item.name in table]
    warn_of_one_class(done, classes.names)
    if len(jobs) > len(todo):
        print(f"{len(jobs) - len(todo)} images left out: their outputs are there")
    print(describe(done, classes.names, threshold, time.perf_counter() - start, args.output))
    if scores and scores.names:
        origin = describe_origin(args.weights, [each for _, each in members], args.flips)
        origin |= provenance(device, time.perf_counter() - start)
        path_of = {job.item.name: job.item.path for job in jobs}
        scores.save(
            args.output,
            origin,
            args.report,
            lambda index: as_rgb(read_image(path_of[scores.names[index]], 3, args.max_pixels)),
        )
    if failed:
        end_with_failures(failed, len(todo))


def settings_of(args: argparse.Namespace, model: nn.Module, threshold: float) -> dict:
    """All that changes what is predicted, for predictions.json. model: with weights as loaded."""
    return {
        "weights": fingerprint(model),
        "threshold": threshold,
        "flips": args.flips,
        "prune": args.prune,
        "tile": args.tile,
        "overlap": args.overlap,
        "roi_mask": args.roi_mask,
        "auto_roi": args.auto_roi,
    }


# --- volumes --------------------------------------------------------------------------------------


def predict_volumes(
    args: argparse.Namespace,
    model: nn.Module,
    checkpoint: dict,
    members: list[Member],
    threshold: float,
    amp_dtype: torch.dtype | None,
    tiling: Tiling,
    settings: dict,
) -> None:
    """Segments, writes and scores every volume.

    members: what the model is made of. settings: of settings_of().
    """
    predict_flags.check_volumes(args)
    inputs = find_inputs(args.input, args.recursive, args.output, VOLUMES)
    check_are_volumes(item.path for item in inputs)
    rois = labels = [None] * len(inputs)
    if args.roi_mask:
        rois = find_partners(args.roi_mask, inputs, "--roi-mask", VOLUMES)
    if args.labels:
        labels = find_partners(args.labels, inputs, "--labels", VOLUMES)
    prepare_folder(args.output)
    start_settings(args.output, settings, args.weights, args.skip_existing)
    start, names = time.perf_counter(), checkpoint["class_names"]
    predict = VolumePredictor(
        model,
        checkpoint,
        pick_device(args.device),
        amp_dtype,
        threshold,
        Path(args.output),
        args.save_prob,
        args.overlay,
        tiling,
        VolumeTable(args.output, names, args.skip_existing),
        VolumeScores(names) if args.labels else None,
    )
    jobs = todo = list(zip(inputs, rois, labels, strict=True))
    if args.skip_existing:
        todo = [job for job in jobs if not predict.is_done(job[0].path, job[0].name)]
        predict.table.drop(item.name for item, _, _ in todo)
    try:
        failed = predict.all(todo)
    except KeyboardInterrupt:
        if not args.labels:
            done = sum(item.name in predict.table for item in inputs)
            say_how_to_continue(done, len(inputs), "volumes")
        raise
    predict.table.close([item.name for item in inputs])

    # Summary
    done = [predict.table.row(item.name) for item, _, _ in todo if item.name in predict.table]
    warn_of_one_class(done, names, "volumes")
    if len(jobs) > len(todo):
        print(f"{len(jobs) - len(todo)} volumes left out: their outputs are there")
    print(f"{len(done)} volumes; written to {args.output}/")
    if predict.scores and predict.scores.names:
        origin = describe_origin(args.weights, [each for _, each in members], args.flips)
        origin |= provenance(predict.device, time.perf_counter() - start)
        predict.scores.save(args.output, threshold, origin)
    if failed:
        end_with_failures(failed, len(todo))


# --- images ---------------------------------------------------------------------------------------


def check_instances(class_names: list[str]) -> None:
    """UserError if a model with these classes has no objects, or scipy is missing."""
    if len(class_names) > 2:
        raise UserError(
            f"--instances: is for two classes, background and objects, but the model has "
            f"{len(class_names)} ({', '.join(class_names)}); leave it out"
        )
    import_ndimage()


def is_done(name: str, files: PredictionFiles, table: PredictionTable) -> bool:
    """Whether the image has all its files and its row."""
    return name in table and files.are_whole(name)


if __name__ == "__main__":
    run_script(lambda: main(parse_args()), "predict.py", REMEDY)

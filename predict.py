"""Segments images or volumes with a trained checkpoint.

`python predict.py --weights save_weights/best_model.pth --input IMAGES`

For each image x it writes x_mask.png: for two classes black and white (0 and 255), for more a
palette PNG of class ids, and legend.png with the names of the colours. --instances also writes the
ids of objects. Reading, computing and writing overlap.

A model for volumes takes volumes. For each volume x it writes x_mask in the format of the input,
with the class ids. predictions.csv has one row for each image or volume.
"""

import argparse
import time
from functools import partial
from pathlib import Path

import torch
from torch import nn

from src.device import pick_amp_dtype, pick_device, reuse_freed_memory
from src.errors import UserError
from src.inference import Flips, optimize_for_inference
from src.predictor import Predictor
from src.tiles import Tiling
from train_utils.atomic import prepare_folder
from train_utils.cli import predict_flags
from train_utils.cli.script import run_script
from train_utils.data.class_table import ClassTable
from train_utils.data.inputs import IMAGES, find_inputs
from train_utils.data.reading import Job, find_jobs, read_picture
from train_utils.flips import check_flips
from train_utils.model_files import write_export, write_stripped
from train_utils.model_loading import LoadedModel, check_threshold, combine, load_models, prune
from train_utils.prediction import ImagePredictor, check_instances, picture_reader
from train_utils.prediction_scores import PredictionScores
from train_utils.reporting.pictures import save_legend
from train_utils.reporting.prediction_files import PredictionFiles
from train_utils.reporting.prediction_settings import fingerprint, start_settings
from train_utils.reporting.prediction_summary import (
    end_with_failures,
    say_how_to_continue,
    summary_line,
    warn_of_one_class,
)
from train_utils.reporting.prediction_tables import PredictionTable
from train_utils.reporting.provenance import describe_origin, provenance
from train_utils.volume_prediction import VOLUMES, VolumePredictor, check_kind
from train_utils.volume_results import VolumeScores, VolumeTable
from transforms import eval_preset

OUT_OF_MEMORY_REMEDY = "give --tile 512 or a smaller one, leave out --flips, or use --device cpu"


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
    loaded = load_models(args.weights)
    if args.strip:
        return write_stripped(loaded[0].checkpoint, args.weights[0], args.strip)
    model, checkpoint = choose_model(args, loaded)
    if args.export:
        return write_export(model, checkpoint, args.export)
    settings = settings_of(args, model, checkpoint["threshold"])
    model = optimize_for_inference(model, device)

    # Inputs and outputs
    kind, make_predictor = IMAGES, image_predictor
    if model.dims == 3:
        kind, make_predictor = VOLUMES, volume_predictor
    check_flags(args, model.dims, checkpoint["resize"])
    inputs = find_inputs(args.input, args.recursive, args.output, kind)
    check_kind((item.path for item in inputs), model.dims)
    jobs = find_jobs(inputs, args.roi_mask, args.labels, kind, args.instances)
    for folder in filter(None, (args.output, args.report)):
        prepare_folder(folder)
    start_settings(args.output, settings, args.weights, args.skip_existing)
    predictor = make_predictor(args, model, checkpoint, device, amp_dtype)
    table, scores, todo = predictor.table, predictor.scores, jobs
    if args.skip_existing:
        todo = [job for job in jobs if not predictor.is_done(job)]
        table.drop(job.input.name for job in todo)

    # Predictions
    try:
        failed = predictor.predict_all(todo)
    except KeyboardInterrupt:
        if not args.labels:
            done = sum(item.name in table for item in inputs)
            say_how_to_continue(done, len(inputs), kind.noun)
        raise
    table.close([item.name for item in inputs])

    # Summary
    rows = [table.row(job.input.name) for job in todo if job.input.name in table]
    seconds = time.perf_counter() - start
    warn_of_one_class(rows, checkpoint["class_names"], kind.noun)
    if len(jobs) > len(todo):
        print(f"{len(jobs) - len(todo)} {kind.noun} left out: their outputs are there")
    names, threshold = checkpoint["class_names"], checkpoint["threshold"]
    print(summary_line(rows, names, threshold, seconds, args.output, kind.noun))
    if scores and scores.names:
        checkpoints = [each.checkpoint for each in loaded]
        origin = describe_origin(checkpoints, args.weights, args.flips)
        save_scores(args, predictor, jobs, origin | provenance(device, seconds))
    if failed:
        end_with_failures(failed, len(todo), kind.noun)


# --- the parts of main ----------------------------------------------------------------------------


def choose_model(args: argparse.Namespace, loaded: list[LoadedModel]) -> LoadedModel:
    """The model that the flags ask for, and its checkpoint with the chosen threshold."""
    for each, path in zip(loaded, args.weights, strict=True):
        prune(each.model, args.prune, path)
    model, checkpoint = combine(loaded, args.weights)
    check_threshold(args.threshold, checkpoint["class_names"])
    if args.instances:
        check_instances(checkpoint["class_names"])
    if args.threshold is not None:
        checkpoint = {**checkpoint, "threshold": args.threshold}
    if args.flips:
        check_flips([each.checkpoint for each in loaded], args.weights)
        model = Flips(model)
    return LoadedModel(model, checkpoint)


def check_flags(args: argparse.Namespace, dims: int, resize: list[int] | None) -> None:
    """UserError for flags that do not fit the model; resize: the size that it sees images at."""
    if dims == 3:
        predict_flags.check_volumes(args)
    elif args.tile and resize:
        raise UserError(
            f"--tile {args.tile}: the model sees images at the size {resize} of its "
            "training, never in tiles; leave it out"
        )


def settings_of(args: argparse.Namespace, model: nn.Module, threshold: float) -> dict:
    """All that changes what is predicted, for predictions.json."""
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


def image_predictor(
    args: argparse.Namespace,
    model: nn.Module,
    checkpoint: dict,
    device: torch.device,
    amp_dtype: torch.dtype | None,
) -> ImagePredictor:
    """The predictor that reads, segments, writes and scores images; writes legend.png."""
    names = checkpoint["class_names"]
    normalize = eval_preset(checkpoint["mean"], checkpoint["std"])
    predictor = Predictor(
        model,
        device,
        amp_dtype,
        prepare=lambda images: normalize(images, torch.zeros(0))[0],
        size=checkpoint["resize"],
        tiling=Tiling(args.tile, args.overlap),
    )
    read = partial(
        read_picture,
        channels=checkpoint["model_kwargs"]["in_channels"],
        max_pixels=args.max_pixels,
        auto_roi=args.auto_roi,
        classes=ClassTable.from_dict(checkpoint["class_table"]),
        instances=args.instances,
    )
    files = PredictionFiles(
        args.output,
        names,
        checkpoint["class_colours"],
        checkpoint["class_ids"],
        args.save_prob,
        args.overlay,
        args.instances,
    )
    if len(names) > 2:
        save_legend(files.folder / "legend.png", names, files.colours)
    threshold, scores = checkpoint["threshold"], None
    if args.labels:
        scores = PredictionScores(names, threshold, args.instances, bool(args.report))
    table = PredictionTable(args.output, names, args.skip_existing, args.instances)
    return ImagePredictor(predictor, read, threshold, files, table, scores)


def volume_predictor(
    args: argparse.Namespace,
    model: nn.Module,
    checkpoint: dict,
    device: torch.device,
    amp_dtype: torch.dtype | None,
) -> VolumePredictor:
    """The predictor that reads, segments, writes and scores volumes."""
    names = checkpoint["class_names"]
    return VolumePredictor(
        model=model,
        checkpoint=checkpoint,
        device=device,
        amp_dtype=amp_dtype,
        threshold=checkpoint["threshold"],
        output=Path(args.output),
        save_prob=args.save_prob,
        overlay=args.overlay,
        tiling=Tiling(args.tile, args.overlap),
        table=VolumeTable(args.output, names, args.skip_existing),
        scores=VolumeScores(names) if args.labels else None,
    )


def save_scores(
    args: argparse.Namespace,
    predictor: ImagePredictor | VolumePredictor,
    jobs: list[Job],
    origin: dict,
) -> None:
    """Prints the scores and writes scores.json; of images also the report if --report asks for it.

    origin: what the files say of the weights and the run.
    """
    scores = predictor.scores
    if isinstance(scores, VolumeScores):
        return scores.save(args.output, predictor.threshold, origin)
    image_of = picture_reader(jobs, scores.names, args.max_pixels)
    scores.save(args.output, origin, args.report, image_of)


if __name__ == "__main__":
    run_script(lambda: main(parse_args()), "predict.py", OUT_OF_MEMORY_REMEDY)

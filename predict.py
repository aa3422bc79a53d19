"""Segments images or volumes with a trained checkpoint.

`python predict.py --weights save_weights/best_model.pth --input IMAGES`

For each image x it writes x_mask.png: with two classes black and white (0 and 255), with more a
palette PNG of class ids, and legend.png with the names of the colours. --instances also writes the
ids of objects. Reading, computing and writing overlap.

A model for volumes takes volumes. For each volume x it writes x_mask in the format of the input,
with the class ids. predictions.csv has one row for each image or volume.
"""

import argparse
import time

import torch
from torch import nn

from src.device import pick_amp_dtype, reuse_freed_memory, use_device
from src.inference import Flips, optimize_for_inference
from src.predictor import Predictor
from src.tiles import Tiling
from train_utils.atomic import prepare_folder
from train_utils.cli import predict_flags
from train_utils.cli.predicting import make_file_predictor
from train_utils.cli.script import run_script
from train_utils.data.file_kinds import INPUTS_OF_DIMS
from train_utils.data.inputs import find_inputs, find_jobs, output_folders
from train_utils.flips import check_flips
from train_utils.model_files import write_export, write_stripped
from train_utils.model_loading import LoadedModel, combine, load_models, prune
from train_utils.reporting import prediction_summary as summary
from train_utils.reporting.prediction_settings import PredictionRecord, fingerprint
from train_utils.reporting.provenance import describe_origin, provenance
from transforms import eval_preset

OUT_OF_MEMORY_REMEDY = (
    "give a smaller --tile, such as 512 for images or 64 for volumes, leave out --flips, or use "
    "--device cpu"
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The flags, checked."""
    return predict_flags.parse_args(argv, __doc__.splitlines()[0])


def main(args: argparse.Namespace) -> None:
    """Model, inputs, predictions, summary; or only a file made of the weights."""
    start = time.perf_counter()
    device = use_device(args.device)
    reuse_freed_memory(device)

    # Model
    loaded = load_models(args.weights)
    if args.strip:
        return write_stripped(loaded[0].checkpoint, args.weights[0], args.strip)
    model, checkpoint = choose_model(args, loaded)
    if args.export:
        return write_export(model, checkpoint, args.export)
    settings = settings_of(args, model, checkpoint["threshold"])
    kind = INPUTS_OF_DIMS[model.dims]
    predictor = make_predictor(args, model, checkpoint, device)

    # Inputs and outputs
    inputs = find_inputs(args.input, args.recursive, args.output, kind)
    jobs = find_jobs(inputs, args.roi_mask, args.labels, kind, args.instances)
    record = PredictionRecord(args.output, settings, args.weights, keep=args.skip_existing)
    for folder in filter(None, (*output_folders(args.output, inputs), args.report)):
        prepare_folder(folder)
    file_predictor = make_file_predictor(args, predictor, checkpoint)
    table, scores, todo = file_predictor.table, file_predictor.scores, jobs
    outputs_of = file_predictor.outputs_of
    if args.skip_existing:
        is_done = file_predictor.is_done
        todo = [job for job in jobs if not (record.covers(job, outputs_of(job)) and is_done(job))]
        table.drop(job.input.name for job in todo)
    record.begin(todo, outputs_of, kept=jobs, scored=bool(args.labels))

    # Predictions
    try:
        failed = file_predictor.predict_all(todo)
    except KeyboardInterrupt:
        if not args.labels:
            done = sum(each.name in table for each in inputs)
            summary.say_how_to_continue(done, len(inputs), kind.noun)
        raise
    table.close([each.name for each in inputs])

    # Summary
    names, seconds = checkpoint["class_names"], time.perf_counter() - start
    rows = [table.row(job.input.name) for job in todo if job.input.name in table]
    summary.warn_of_one_class(rows, names, kind.noun)
    if len(jobs) > len(todo):
        print(summary.left_out_line(len(jobs) - len(todo), kind.noun))
    rule = summary.rule_text(names, checkpoint["threshold"])
    print(summary.summary_line(rows, rule, seconds, args.output, kind.noun))
    if scores and scores.names:
        origin = describe_origin([each.checkpoint for each in loaded], args.weights, args.flips)
        scores.save(args.output, origin | provenance(device, predictor.amp_dtype, seconds))
    if failed:
        summary.end_with_failures(failed, len(todo), kind.noun)


# --- the parts of main ----------------------------------------------------------------------------


def choose_model(args: argparse.Namespace, loaded: list[LoadedModel]) -> LoadedModel:
    """The model that the flags ask for, and its checkpoint with the chosen threshold."""
    for each, path in zip(loaded, args.weights, strict=True):
        prune(each.model, args.prune, path)
    model, checkpoint = combine(loaded, args.weights)
    predict_flags.check_for_model(args, model, checkpoint)
    if args.threshold is not None:
        checkpoint = {**checkpoint, "threshold": args.threshold}
    if args.flips:
        check_flips([each.checkpoint for each in loaded], args.weights)
        model = Flips(model)
    return LoadedModel(model, checkpoint)


def settings_of(args: argparse.Namespace, model: nn.Module, threshold: float) -> dict:
    """All that changes what is predicted, for predictions.json; the weights as they are stored."""
    return {
        "weights": fingerprint(model),
        "threshold": threshold,
        "flips": args.flips,
        "prune": args.prune,
        "tile": args.tile,
        "overlap": args.overlap,
        "auto_roi": args.auto_roi,
    }


def make_predictor(
    args: argparse.Namespace, model: nn.Module, checkpoint: dict, device: torch.device
) -> Predictor:
    """The model on the device, as it is applied to images or volumes of any size."""
    amp_dtype = pick_amp_dtype(device, args.amp)
    tiling = Tiling(args.tile, args.overlap)
    model = optimize_for_inference(model, device)
    if model.dims == 3:  # volumes are normalized when they are read
        return Predictor(model, device, amp_dtype, tiling=tiling)
    normalize = eval_preset(checkpoint["mean"], checkpoint["std"])
    return Predictor(
        model,
        device,
        amp_dtype,
        prepare=lambda images: normalize(images, torch.zeros(0))[0],
        size=checkpoint["resize"],
        tiling=tiling,
    )


if __name__ == "__main__":
    run_script(lambda: main(parse_args()), "predict.py", OUT_OF_MEMORY_REMEDY)

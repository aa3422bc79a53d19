"""Evaluation by the flags: --test-only and --held-out score weights without training."""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import Dataset

from src.errors import UserError
from src.tiles import Tiling
from train_utils import evaluation, held_out, model_loading
from train_utils.atomic import prepare_folder
from train_utils.cli import values
from train_utils.data.class_table import ClassTable
from train_utils.data_loader import make_evaluation_loader
from train_utils.flips import check_flips
from train_utils.reporting.provenance import describe_origin


def make_evaluator(
    args: argparse.Namespace, device: torch.device, amp_dtype: torch.dtype | None
) -> evaluation.Evaluator:
    """How images are evaluated: the validation images after each epoch, and the test images."""
    options = values.loading_options(args)
    loader_of = partial(make_evaluation_loader, device=device, **options)
    tiling = Tiling(args.tile, args.overlap)
    return evaluation.Evaluator(device, amp_dtype, args.tolerance, tiling, loader_of)


def test_only(
    args: argparse.Namespace,
    classes: ClassTable,
    evaluator: evaluation.Evaluator,
    start: float,
    list_samples: Callable[[str, str], values.Splits],
    open_samples: Callable[..., Dataset],
) -> None:
    """--test-only: scores --weights, one checkpoint or an ensemble, on the test split.

    start: time.perf_counter() at the start of the script. list_samples: that of my_dataset.
    open_samples: that of train.py.
    """
    paths = args.weights or [args.resume]
    description = values.describe_model(args, classes, args.mean, args.std, args.spacing)
    loaded = model_loading.load_for_evaluation(paths, description, args.prune)
    model_loading.check_threshold(args.threshold, classes.names)
    checkpoints = [each.checkpoint for each in loaded]
    if args.flips:
        check_flips(checkpoints, paths)
    origin = describe_origin(checkpoints, paths, args.flips)
    layout = list_samples(args.dataset, args.data_path)
    open_samples = partial(open_samples, args, classes)
    if args.held_out:
        return score_held_out(args, loaded, paths, layout, evaluator, origin, start, open_samples)
    model, checkpoint = model_loading.combine(loaded, paths)
    threshold = checkpoint["threshold"] if args.threshold is None else args.threshold
    samples = values.choose_test_samples(args, layout)
    if not samples:
        raise UserError(
            f"{args.data_path}: there are no test images, or they have no labels to score by; "
            "predict.py segments them, and --held-out scores the held-out images of a fold"
        )
    number = Counter(sample.name for split in layout.values() for sample in split)
    # train/001.png and test/001.png have one name, which says nothing.
    named_once = [sample for sample in samples if number[sample.name] == 1]
    held_out.log_used_in_training(checkpoints, named_once, paths)
    for folder in filter(None, (args.output_dir, args.report)):
        prepare_folder(folder)
    model = evaluator.prepare(model, args.flips)
    dataset = open_samples(samples, "test", args.mean, args.std, args.spacing)
    folders = args.output_dir, args.report
    title = f"{args.dataset}: test images"
    evaluation.score_test(evaluator, model, dataset, threshold, origin, start, *folders, title)
    evaluator.draw(model, dataset, Path(args.output_dir) / "predictions.png")


def score_held_out(
    args: argparse.Namespace,
    loaded: list[model_loading.LoadedModel],
    paths: list[str],
    layout: values.Splits,
    evaluator: evaluation.Evaluator,
    origin: dict,
    start: float,
    open_samples: Callable[..., Dataset],
) -> None:
    """--held-out: scores each model on the images that its own run held out.

    open_samples: function of (samples, title, mean, std, spacing) that gives their dataset.
    """
    checkpoints = [each.checkpoint for each in loaded]
    samples = [
        held_out.held_out_samples(layout, checkpoint, path)
        for checkpoint, path in zip(checkpoints, paths, strict=True)
    ]
    held_out.check_held_out(checkpoints, samples, paths)
    prepare_folder(args.output_dir)

    def parts() -> Iterator[tuple]:
        for (model, checkpoint), chosen, path in zip(loaded, samples, paths, strict=True):
            read_as = checkpoint["mean"], checkpoint["std"], checkpoint["spacing"]
            dataset = open_samples(chosen, f"held out by {path}", *read_as)
            yield path, evaluator.prepare(model, args.flips), dataset

    options = args.threshold, origin, start, args.output_dir
    choose = held_out.may_choose_threshold(checkpoints)
    held_out.score_held_out(evaluator, parts(), *options, choose_threshold=choose)

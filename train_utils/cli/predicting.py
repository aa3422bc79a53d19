"""Prediction by the flags: how images or volumes are read, segmented, written and scored."""

import argparse
from functools import partial

from src.predictor import Predictor
from train_utils.data.class_table import ClassTable
from train_utils.data.reading import read_picture, read_scan
from train_utils.image_prediction import ImagePredictor
from train_utils.prediction_scores import ImageScores, VolumeScores
from train_utils.reporting.image_files import ImageFiles
from train_utils.reporting.pictures import save_legend
from train_utils.reporting.prediction_tables import ImageTable, VolumeTable
from train_utils.reporting.volume_files import VolumeFiles
from train_utils.volume_prediction import VolumePredictor


def make_file_predictor(
    args: argparse.Namespace, predictor: Predictor, checkpoint: dict
) -> ImagePredictor | VolumePredictor:
    """What segments all inputs: images or volumes, as the model takes them.

    checkpoint: that of the model, with the chosen threshold. The output folder must exist; the
    table predictions.csv is begun.
    """
    if predictor.model.dims == 3:
        return volume_predictor(args, predictor, checkpoint)
    return image_predictor(args, predictor, checkpoint)


def image_predictor(
    args: argparse.Namespace, predictor: Predictor, checkpoint: dict
) -> ImagePredictor:
    """make_file_predictor() of images; with more than two classes it also writes legend.png."""
    names, threshold = checkpoint["class_names"], checkpoint["threshold"]
    read = partial(
        read_picture,
        channels=checkpoint["model_kwargs"]["in_channels"],
        max_pixels=args.max_pixels,
        auto_roi=args.auto_roi,
        classes=ClassTable.from_dict(checkpoint["class_table"]),
        instances=args.instances,
    )
    files = ImageFiles(
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
    table = ImageTable(args.output, names, args.skip_existing, args.instances)
    scores = None
    if args.labels:
        scores = ImageScores(names, threshold, args.instances, args.report, args.max_pixels)
    return ImagePredictor(predictor, read, threshold, files, table, scores)


def volume_predictor(
    args: argparse.Namespace, predictor: Predictor, checkpoint: dict
) -> VolumePredictor:
    """make_file_predictor() of volumes."""
    names, threshold = checkpoint["class_names"], checkpoint["threshold"]
    spacing = checkpoint["spacing"]
    read = partial(
        read_scan,
        channels=checkpoint["model_kwargs"]["in_channels"],
        classes=ClassTable.from_dict(checkpoint["class_table"]),
    )
    files = VolumeFiles(
        args.output,
        names,
        checkpoint["class_colours"],
        checkpoint["class_ids"],
        spacing,
        args.save_prob,
        args.overlay,
    )
    table = VolumeTable(args.output, names, args.skip_existing)
    scores = VolumeScores(names, threshold) if args.labels else None
    return VolumePredictor(predictor, read, spacing, threshold, files, table, scores)

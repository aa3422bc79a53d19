"""The flags of predict.py."""

import argparse
from argparse import BooleanOptionalAction
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from src.device import pick_device
from src.errors import UserError
from src.instances import import_ndimage
from src.tiles import Tiling
from train_utils.cli.parser import Parser, number, shared_help
from train_utils.model_loading import check_threshold
from train_utils.plurals import first_names

SWITCH = {"action": "store_true"}

# Flags that make another file of the weights, and those that change it.
ALONE = {"strip": (), "export": ("prune", "flips", "threshold")}
ALWAYS = ("weights", "device", "amp")  # the last two never change what is written


def parse_args(argv: list[str] | None, description: str) -> argparse.Namespace:
    """The flags, checked."""
    parser = Parser(
        prog="predict.py",
        usage="%(prog)s --weights FILE... --input FILE|DIR|GLOB|LIST|- [flags]\n"
        "       %(prog)s --weights FILE... --export FILE | --strip FILE",
        description=description,
    )
    add_model_flags(parser)
    add_input_flags(parser)
    add_output_flags(parser)
    add_prediction_flags(parser)
    args, others = parser.parse_known_args(argv)
    if others and all(Path(each).exists() for each in others):
        parser.error("--input takes one value: put a pattern in quotes, such as 'photos/*.png'")
    if others:
        parser.error(f"unrecognized arguments: {first_names(others)}")
    check_alone(args, parser)
    try:
        pick_device(args.device)
    except ValueError as error:
        parser.error(f"--device: {error}")
    check(args)
    return args


def add_model_flags(parser: Parser) -> None:
    """Adds --weights and what makes other files of them."""
    add = parser.add_argument_group("model").add_argument
    add(
        "--weights",
        required=True,
        nargs="+",
        metavar="FILE",
        help="a checkpoint of train.py, which says its architecture, classes, mean and std; "
        "weights of milesial/Pytorch-UNet load too. Of several files the probabilities are "
        "averaged",
    )
    add(
        "--prune",
        type=number(int, minimum=1, maximum=4),
        metavar="LEVEL",
        help=shared_help("prune"),
    )
    add(
        "--strip",
        default="",
        metavar="FILE",
        help="predict nothing; write the checkpoint to this file without what only --resume needs. "
        "It is a third as large",
    )
    add(
        "--export",
        default="",
        metavar="FILE",
        help="predict nothing; write the network to FILE.onnx or FILE.pt2 (torch.export), and "
        "compare its output with PyTorch's. It takes images of any size in batches of any size, "
        "normalizes them, and returns probabilities",
    )


def add_input_flags(parser: Parser) -> None:
    """Adds what is read: images, ROI masks, labels."""
    add = parser.add_argument_group("input").add_argument
    add(
        "--input",
        default="",
        help="an image or volume; a folder of them; a pattern in quotes, such as 'a/*.tif'; a text "
        "file (.txt) with a path on each line; or - for paths on standard input",
    )
    add("--recursive", **SWITCH, help="search the sub-folders of --input too (default: off)")
    add(
        "--roi-mask",
        default="",
        metavar="FILE|DIR",
        help="mask of the region to segment, or a folder of masks, in which x_mask.* belongs to "
        "image x; everything outside becomes background (default: the whole image)",
    )
    add(
        "--auto-roi",
        **SWITCH,
        help="find the round field of view of fundus photographs, and segment only that; for "
        "images (default: off)",
    )
    add(
        "--labels",
        default="",
        metavar="FILE|DIR",
        help="a label or a folder of labels, which are read as in training; score the predictions "
        "against them, and write scores.json (default: no scores)",
    )
    add(
        "--report",
        default="",
        metavar="DIR",
        help="with --labels: write report.html and images.csv into this folder; for images "
        "(default: no report)",
    )
    add(
        "--max-pixels",
        type=number(int, minimum=1),
        help=shared_help("max_pixels", "; for images"),
    )


def add_output_flags(parser: Parser) -> None:
    """Adds what is written."""
    add = parser.add_argument_group("output").add_argument
    add("--output", default="predictions", help="folder to write to (default: predictions)")
    add(
        "--save-prob",
        **SWITCH,
        help="also write the probability of class 1: x_prob.png, 16-bit, with 65535 for "
        "probability 1; of a volume in the format of the input. With more than two classes: "
        "x_prob.npy, float16 [classes, height, width], of a volume [classes, D, H, W] "
        "(default: off)",
    )
    add(
        "--overlay",
        **SWITCH,
        help="also write x_overlay.png: the prediction drawn on the image, or on three slices of a "
        "volume (default: off)",
    )
    add(
        "--instances",
        **SWITCH,
        help="with two classes: also write x_instances.png, with a 16-bit id for each object, that "
        "is each connected region of class 1, and objects.csv. --labels must then hold ids of "
        "objects; for images (default: off)",
    )
    add(
        "--skip-existing",
        **SWITCH,
        help="skip inputs whose outputs all exist, from the same weights and threshold, and keep "
        "their rows in predictions.csv; without this flag the table is written anew "
        "(default: off)",
    )


def add_prediction_flags(parser: Parser) -> None:
    """Adds how it is computed."""
    add = parser.add_argument_group("prediction").add_argument
    add(
        "--threshold",
        type=number(float, minimum=0, below=1),
        help=shared_help("threshold"),
    )
    add(
        "--flips",
        **SWITCH,
        help=shared_help("flips"),
    )
    add(
        "--tile",
        type=number(int, minimum=0),
        metavar="SIZE",
        help=shared_help("tile"),
    )
    add(
        "--overlap",
        type=number(int, minimum=0),
        metavar="PX",
        help=shared_help("overlap"),
    )
    add("--device", default="auto", help=shared_help("device"))
    add(
        "--amp",
        action=BooleanOptionalAction,
        default=True,
        help=shared_help("amp"),
    )


def check_alone(args: argparse.Namespace, parser: Parser) -> None:
    """UserError for a flag that --strip or --export has no use for."""
    if args.strip and args.export:
        raise UserError("--strip and --export: give one of them at a time")
    for alone, used in ALONE.items():
        if not getattr(args, alone):
            continue
        for name, value in vars(args).items():
            if name not in (alone, *used, *ALWAYS) and value != parser.get_default(name):
                flag = name.replace("_", "-")
                raise UserError(f"--{flag}: leave it out with --{alone}, which does not use it")


def check(args: argparse.Namespace) -> None:
    """UserError for flags that do not go together."""
    if not (args.input or args.strip or args.export):
        raise UserError("--input: name the images to segment, or give --export or --strip")
    if args.strip and len(args.weights) > 1:
        raise UserError(f"--strip {args.strip}: takes one file of --weights at a time")
    if args.auto_roi and args.roi_mask:
        raise UserError("--auto-roi: leave it out where --roi-mask gives the masks")
    if args.report and not args.labels:
        raise UserError("--report: is about scores; give --labels DIR")
    if args.labels and args.skip_existing:
        raise UserError("--skip-existing: leave it out with --labels: all images are scored")
    if args.overlap is not None and args.tile == 0:
        raise UserError("--overlap: has no meaning with --tile 0")


def check_for_model(args: argparse.Namespace, model: nn.Module, checkpoint: dict) -> None:
    """UserError for flags that do not fit the model and its checkpoint."""
    check_threshold(args.threshold, checkpoint["class_names"])
    if model.dims == 3:
        check_volumes(args)
    if checkpoint["resize"]:
        refuse_tiles(args, checkpoint["resize"])
    elif args.tile or args.overlap is not None:
        Tiling(args.tile, args.overlap).check(model)
    if args.instances:
        check_instances(checkpoint["class_names"])


def check_instances(class_names: list[str]) -> None:
    """UserError if a model with these classes has no objects, or scipy is missing."""
    if len(class_names) > 2:
        raise UserError(
            f"--instances: is for two classes, background and objects, but the model has "
            f"{len(class_names)} ({', '.join(class_names)}); leave it out"
        )
    import_ndimage()


def refuse_tiles(args: argparse.Namespace, size: Sequence[int]) -> None:
    """UserError for flags about tiles; the model sees whole images at the size (height, width)."""
    for flag, value in (("--tile", args.tile), ("--overlap", args.overlap)):
        if value:
            raise UserError(
                f"{flag} {value}: the model sees images at the size {size} of its training, never "
                "in tiles; leave it out"
            )


def check_volumes(args: argparse.Namespace) -> None:
    """UserError for flags that predictions of volumes do not have."""
    if args.report:
        raise UserError("--report: of volumes, train.py --test-only writes it; leave it out")
    for name in ("auto_roi", "max_pixels", "instances"):
        if getattr(args, name):
            flag = name.replace("_", "-")
            raise UserError(f"--{flag}: is for images; leave it out with a model for volumes")

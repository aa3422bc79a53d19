"""Mean and std of each channel over the training images' valid pixels, for train.py's flags."""

import argparse

from my_dataset import DATASETS, SegmentationDataset, list_samples
from train_utils.cli.parser import Parser, number, shared_help
from train_utils.cli.script import run_script
from train_utils.data.class_table import find_table
from train_utils.data.samples import choose_label_kind
from train_utils.data.splits import read_split, samples_by_name
from train_utils.data.statistics import channel_statistics, flag_values


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = Parser(prog="compute_mean_std.py", description=__doc__)
    add = parser.add_argument
    add("--data-path", default="./", help=shared_help("data_path"))
    add(
        "--dataset",
        default="drive",
        choices=sorted(name for name, row in DATASETS.items() if row["dims"] == 2),
        help="a row of DATASETS in my_dataset.py (default: drive)",
    )
    add(
        "--classes",
        default="",
        metavar="FILE",
        help="class table of the labels (default: as for train.py)",
    )
    add(
        "--label-kind",
        choices=["classes", "instances"],
        help="what labels hold: classes, or one id for each object (default: as for train.py)",
    )
    add(
        "--split-file",
        default="",
        metavar="FILE",
        help="split.json of a run: use its training images (default: the dataset's)",
    )
    add(
        "--fold",
        type=number(int, minimum=0),
        help="number of the fold in a --split-file of folds, from 0",
    )
    add(
        "--in-channels",
        type=number(int, minimum=1),
        default=3,
        help="1: read images as grey; 3: as RGB; any other number must be that of the files "
        "(default: 3)",
    )
    add(
        "--max-pixels",
        type=number(int, minimum=1),
        help=shared_help("max_pixels"),
    )
    args = parser.parse_args(argv)
    if args.fold is not None and not args.split_file:
        parser.error("--fold is for a --split-file that lists several folds")
    return args


def main(args: argparse.Namespace) -> None:
    """Prints mean and std in two ways, and the flags to use them."""
    splits = list_samples(args.dataset, args.data_path)
    samples = splits.get("train") or splits["all"]
    noun = "training images"
    if args.split_file:
        samples = samples_by_name(splits, read_split(args.split_file, args.fold))[0]
    elif "all" in splits:
        noun = "images, not split yet (--split-file does)"
    dataset = SegmentationDataset(
        samples,
        find_table(args.data_path, args.classes, DATASETS[args.dataset]["classes"]),
        cache=False,
        channels=args.in_channels,
        max_pixels=args.max_pixels,
        label_kind=choose_label_kind(args.label_kind, samples),
    )
    statistics = channel_statistics(dataset)
    pooled, per_image = (flag_values(statistics[name]) for name in ("pooled", "per image"))
    channels = {1: "grey", 3: "channels R G B"}.get(
        args.in_channels, f"{args.in_channels} channels"
    )
    print(f"{len(samples)} {noun}, pixels inside the ROI, scaled to 0-1, {channels}")
    print("pooled over all pixels:       mean {}   std {}".format(*pooled))
    print("mean over images of each's:   mean {}   std {}".format(*per_image))
    print("use them:  python train.py --mean {} --std {}".format(*pooled))


if __name__ == "__main__":
    run_script(lambda: main(parse_args()), "compute_mean_std.py")

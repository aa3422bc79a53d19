"""`python my_dataset.py check`: the command line of the label doctor."""

import argparse
import sys
from pathlib import Path

from src.errors import UserError
from train_utils.atomic import replacing
from train_utils.cli.parser import Parser, number, shared_help
from train_utils.cli.script import run_script
from train_utils.cli.values import check_two_classes
from train_utils.data.class_table import ClassTable, find_table
from train_utils.data.doctor import Report, check
from train_utils.data.doctor_volumes import check_volumes
from train_utils.data.samples import TRAINING_SPLITS, DatasetFiles, choose_label_kind
from train_utils.data.splits import read_split, samples_by_name
from train_utils.reporting.grids import save_contact_sheet


def parse_args(argv: list[str] | None, datasets: dict) -> argparse.Namespace:
    """The flags of `python my_dataset.py check`. argv: None for those of the command line."""
    parser = Parser(
        prog="my_dataset.py",
        usage="%(prog)s check --dataset NAME --data-path DIR [flags]",
        description="Checks every file of a dataset. The exit code is 1 if there are errors.",
    )
    parser.add_argument("command", choices=["check"])
    parser.add_argument("--dataset", default="drive", choices=sorted(datasets))
    parser.add_argument("--data-path", default="./", help=shared_help("data_path"))
    parser.add_argument(
        "--classes", default="", metavar="FILE", help="class table of the labels, see train.py"
    )
    parser.add_argument(
        "--label-kind",
        choices=["classes", "instances"],
        help="what labels hold: classes, or one id for each object (default: instances if there is "
        "a folder instances/ and no other labels, else classes)",
    )
    parser.add_argument(
        "--split-file", default="", metavar="FILE", help="split.json of a run: check its splits"
    )
    parser.add_argument(
        "--fold", type=number(int, minimum=0), help="number of the fold to check in --split-file"
    )
    parser.add_argument(
        "--in-channels",
        type=number(int, minimum=1),
        help="1: read images as grey; 3: as RGB; any other number must be that of the files "
        "(default: 3, of volumes 1)",
    )
    parser.add_argument("--max-pixels", type=number(int, minimum=1), help=shared_help("max_pixels"))
    parser.add_argument(
        "--all",
        action="store_true",
        help="print every error and warning (default: one line for all that are alike)",
    )
    parser.add_argument(
        "--output-dir",
        default="data_check",
        help="folder for check.txt and check.png (default: data_check)",
    )
    return parser.parse_args(argv)


def main(datasets: dict, argv: list[str] | None = None) -> None:
    """Check a dataset of the DATASETS table; print and save the report.

    Ends the script with exit code 1 if the dataset has errors, 2 if it cannot be checked.
    """
    args = parse_args(argv, datasets)
    run_script(lambda: run(args, datasets), "my_dataset.py check")


def run(args: argparse.Namespace, datasets: dict) -> None:
    """Check the dataset, print the report, and write check.txt and check.png."""
    files = datasets[args.dataset]["layout"](args.data_path)
    table = find_table(args.data_path, args.classes, datasets[args.dataset]["classes"])
    if args.split_file:
        parts = samples_by_name(files.splits, read_split(args.split_file, args.fold))
        files.splits = dict(zip(("train", "val", "test"), parts, strict=True))
    report = make_report(args, files, table, datasets[args.dataset]["dims"])
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    text = report.text(every_problem=args.all)
    print(text)
    with replacing(folder / "check.txt") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    if report.sheet:
        save_contact_sheet(folder / "check.png", report.sheet, table)
    print(f"written to {folder}/")
    if report.errors:
        sys.exit(1)


def make_report(
    args: argparse.Namespace, files: DatasetFiles, table: ClassTable, dims: int
) -> Report:
    """The label doctor's report; dims: 2 for images, 3 for volumes."""
    if dims == 3:
        if args.label_kind == "instances":
            raise UserError("--label-kind instances: labels of volumes hold classes; leave it out")
        return check_volumes(files, table, args.in_channels or 1)
    samples = [sample for name in TRAINING_SPLITS for sample in files.splits.get(name, [])]
    label_kind = choose_label_kind(args.label_kind, samples)
    if label_kind == "instances":
        check_two_classes(args, table, label_kind)
    channels = args.in_channels or 3
    return check(files, table, channels, args.max_pixels, label_kind=label_kind)

"""`python my_dataset.py check`: the label doctor's command line and its contact sheet."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from src.image_io import IGNORE
from train_utils.atomic import replacing
from train_utils.cli.parser import Parser, number, run_script
from train_utils.data.class_table import find_table
from train_utils.data.doctor import check
from train_utils.data.splits import read_split, samples_by_name
from train_utils.reporting.pictures import as_rgb, draw_legend, with_default_colours

CELL, TEXT = 240, 22  # width of a picture and height of a line on the contact sheet, in px
NOT_JUDGED = (80, 80, 80)


def parse_args(argv, datasets):
    parser = Parser(
        prog="my_dataset.py",
        usage="%(prog)s check --dataset NAME --data-path DIR [flags]",
        description="Looks at every file of a data set; exit code 1 if something is wrong with it.",
    )
    parser.add_argument("command", choices=["check"])
    parser.add_argument("--dataset", default="drive", choices=sorted(datasets))
    parser.add_argument(
        "--data-path", default="./", help="folder that holds the data set (default: here)"
    )
    parser.add_argument(
        "--classes", default="", metavar="FILE", help="class table of the labels, see train.py"
    )
    parser.add_argument(
        "--split-file", default="", metavar="FILE", help="split.json of a run: check its splits"
    )
    parser.add_argument(
        "--in-channels",
        type=number(int, minimum=1),
        default=3,
        help="1: grey, 3: colours, or the files' own number",
    )
    parser.add_argument(
        "--max-pixels", type=number(int, minimum=1), help="largest image that is decoded, in px"
    )
    parser.add_argument(
        "--output-dir",
        default="data_check",
        help="folder for check.txt and check.png (default: data_check)",
    )
    return parser.parse_args(argv)


def save_sheet(path, shown, table):
    """The contact sheet: sampled images, each beside its label in the classes' colours, and the legend."""
    colours = with_default_colours(table.colours)
    paint = np.full((256, 3), NOT_JUDGED, np.uint8)
    paint[: len(colours)] = colours
    font, columns = ImageFont.load_default(size=14), 3
    rows = []
    for start in range(0, len(shown), columns):
        pictures = [thumbnails(finding, paint) for finding in shown[start : start + columns]]
        rows.append(
            (shown[start : start + columns], pictures, max(pair[0].height for pair in pictures))
        )
    legend = [*table.names, "not judged"]
    height = sum(tall + TEXT + 8 for _, _, tall in rows) + TEXT * len(legend) + 16
    sheet = Image.new("RGB", (columns * (2 * CELL + 16) + 8, height), "white")
    draw, top = ImageDraw.Draw(sheet), 4
    for findings, pictures, tall in rows:
        for column, (finding, pair) in enumerate(zip(findings, pictures)):
            left = 8 + column * (2 * CELL + 16)
            draw.text(
                (left, top), f"{finding.split}: {finding.sample.name}"[:60], fill="black", font=font
            )
            for i, picture in enumerate(pair):
                sheet.paste(picture, (left + i * (CELL + 2), top + TEXT))
        top += tall + TEXT + 8
    draw_legend(draw, (8, top + 4), legend, [*colours, NOT_JUDGED], font, TEXT)
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG")


def thumbnails(finding, paint):
    """(image, painted label) as PIL pictures CELL px wide. Labels shrink by whole pixels, so that colours stay exact."""
    image = Image.fromarray(as_rgb(finding.image))
    label = Image.fromarray(paint[np.where(finding.target == IGNORE, IGNORE, finding.target)])
    size = (CELL, max(1, round(CELL * image.height / image.width)))
    return image.resize(size, Image.Resampling.BILINEAR), label.resize(
        size, Image.Resampling.NEAREST
    )


def main(datasets, argv=None):
    """Checks, prints and writes the report; ends the script with exit code 1 if there are errors."""
    args = parse_args(argv, datasets)

    def run():
        files = datasets[args.dataset]["layout"](args.data_path)
        table = find_table(args.data_path, args.classes, datasets[args.dataset]["classes"])
        if args.split_file:
            files.splits = dict(
                zip(
                    ("train", "val", "test"),
                    samples_by_name(files.splits, read_split(args.split_file)),
                )
            )
        report = check(files, table, args.in_channels, args.max_pixels)
        folder = Path(args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        print(report.text())
        with replacing(folder / "check.txt") as temporary:
            temporary.write_text(report.text() + "\n", encoding="utf-8")
        if report.shown:
            save_sheet(folder / "check.png", report.shown, table)
        print(f"written to {folder}/")
        if report.errors:
            sys.exit(1)

    run_script(run, "my_dataset.py check")

"""Time and memory of our training step against image side, batch, width and number of classes."""

import argparse
import copy

from tests.benchmarks.compare import compare

# One option varies at a time; the others stay as given on the command line.
VARIED = {
    "size": [96, 192, 288, 480, 768],
    "batch_size": [1, 2, 4, 8],
    "base_c": [16, 32, 64],
    "classes": [2, 5, 11, 21],
}
HEADER = (
    f"{'size':>6}{'batch':>7}{'base':>6}{'classes':>9}{'ms a step':>12}{'min – max':>20}"
    f"{'Mpixel/s':>10}{'peak MB':>9}"
)


def settings(options: argparse.Namespace) -> list[argparse.Namespace]:
    """The options of every row of the table; the given ones come first."""
    rows = [copy.copy(options)]
    for name, values in VARIED.items():
        for value in values:
            if value != getattr(options, name):
                rows.append(argparse.Namespace(**vars(options) | {name: value}))
    return rows


def measure(options: argparse.Namespace, device: str, rounds: int) -> list[dict]:
    """Prints a row for each setting, each measured in a process of its own; returns the rows."""
    print(HEADER)
    rows = []
    for each in settings(options):
        found = compare("tests.benchmarks.step", ["ours"], each, device, rounds)
        names = {name: getattr(each, name) for name in VARIED}
        rows.append({"options": names, "ways": found})
        print(line(each, found["ours"]), flush=True)
    return rows


def line(options: argparse.Namespace, row: dict) -> str:
    """One row of the table."""
    low, median, high = (
        1e3 * value / options.steps
        for value in (min(row["seconds"]), row["median_seconds"], max(row["seconds"]))
    )
    spread = f"{low:.1f} – {high:.1f}"
    speed = row["images_per_second"] * options.size**2 / 1e6
    return (
        f"{options.size:>6}{options.batch_size:>7}{options.base_c:>6}{options.classes:>9}"
        f"{median:>12.1f}{spread:>20}{speed:>10.2f}{row['memory_mb']:>9.0f}"
    )

"""The smallest run of train.py that still has everything: for tests of whole runs."""

from pathlib import Path

import train
from my_dataset import DATASETS
from train_utils.cli.defaults import parse_args

EXACT = ("--no-amp", "--device", "cpu")
TINY = (
    "--preset",
    "classic",
    "--base-c",
    "4",
    "--crop-size",
    "64",
    "--base-size",
    "96",
    "--batch-size",
    "2",
    *EXACT,
)
AFFINE = ("--base-c", "4", "--crop-size", "64", "--crops", "2", "--batch-size", "2", *EXACT)


def parse(*argv):
    """The settings of train.py for these flags."""
    return parse_args([str(arg) for arg in argv], "train.py", "", DATASETS)


def run_train(data, output, *options, settings=TINY):
    """Runs train.main in this process on the data folder and returns the output folder."""
    train.main(parse("--data-path", data, "--output-dir", output, *settings, *options))
    return Path(output)

"""The smallest run of train.py that still has everything: for tests of whole runs."""

import train
from my_dataset import DATASETS
from src import MODELS
from train_utils.cli.flags import parse_args

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
    "--no-amp",
    "--device",
    "cpu",
)
AFFINE = (
    "--base-c",
    "4",
    "--crop-size",
    "64",
    "--crops",
    "2",
    "--batch-size",
    "2",
    "--no-amp",
    "--device",
    "cpu",
)


def run_train(data, output, *options, settings=TINY):
    """Runs train.main in this process on the data folder and returns the output folder."""
    argv = ["--data-path", data, "--output-dir", output, *settings, *options]
    train.main(parse_args([str(arg) for arg in argv], "train.py", "", DATASETS, MODELS))
    return output

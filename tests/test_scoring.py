"""--test-only by the functions that it is handed: which samples it opens, and how they are read.

Whole runs of it are in test_train.py, those of --held-out in test_held_out.py.
"""

import json

import pytest
import torch

from my_dataset import list_samples, open_dataset
from tests.small import described, error_of, make_model
from tests.tiny import parse
from train_utils.checkpoint import save
from train_utils.cli import scoring
from train_utils.data.class_table import BINARY
from transforms import eval_preset


@pytest.fixture
def weights(tmp_path):
    """Weights of a small U-Net that describe themselves."""
    save(tmp_path / "model.pth", described(make_model(), class_names=list(BINARY.names)))
    return tmp_path / "model.pth"


def parse_test(weights, data, output):
    """The settings of --test-only."""
    argv = ("--test-only", "--weights", weights, "--base-c", 2, "--bilinear", "--data-path", data)
    values = ("--mean", 0.5, 0.5, 0.5, "--std", 0.2, 0.2, 0.2)
    return parse(*argv, *values, "--output-dir", output, "--device", "cpu")


def evaluator_of(args):
    return scoring.make_evaluator(args, torch.device("cpu"), None)


def test_images_are_evaluated_as_the_flags_say(tiny_root):
    evaluator = evaluator_of(parse("--tolerance", 3, "--tile", 64, "--overlap", 16, "--workers", 0))
    assert evaluator.tolerance == 3
    assert (evaluator.tiling.size, evaluator.tiling.overlap) == (64, 16)
    dataset, _ = open_dataset(list_samples("drive", tiny_root)["test"], "test")
    loader = evaluator.make_loader(dataset)
    assert len(loader) == 2 and loader.num_workers == 0


def test_the_test_images_are_read_with_this_mean_and_std(weights, tiny_root, tmp_path):
    args = parse_test(weights, tiny_root, tmp_path / "out")
    opened = []

    def open_samples(args, classes, samples, title, mean, std, spacing):
        opened.append(([sample.name for sample in samples], mean, std, spacing))
        return open_dataset(samples, title, eval_preset(mean, std))[0]

    scoring.test_only(args, BINARY, evaluator_of(args), 0.0, list_samples, open_samples)
    assert opened == [(["01_test", "02_test"], [0.5] * 3, [0.2] * 3, None)]
    scores = json.loads((tmp_path / "out" / "test_scores.json").read_text())
    assert scores["weights"] == [str(weights)] and scores["threshold"] == 0.4


def test_data_without_test_images_are_refused_before_anything_is_written(
    weights, tiny_root, tmp_path
):
    args = parse_test(weights, tiny_root, tmp_path / "out")
    layout = {"train": list_samples("drive", tiny_root)["train"], "test": []}
    message = error_of(
        scoring.test_only,
        args,
        BINARY,
        evaluator_of(args),
        0.0,
        lambda name, path: layout,
        open_dataset,
    )
    assert "there are no test images" in message and not (tmp_path / "out").exists()

"""--test-only by the functions that it is handed: which samples it opens, and how they are read.

Whole runs of it are in test_train.py, those of --held-out in test_held_out.py.
"""

import dataclasses
import json
import shutil

import pytest
import torch

from my_dataset import list_samples, open_dataset
from tests.made import write_folder
from tests.small import described, error_of, make_model
from tests.tiny import EXACT, parse, run_train
from train_utils.checkpoint import save
from train_utils.cli import scoring
from train_utils.cli.values import find_classes
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


@pytest.mark.parametrize("used, warned", [("01_test", True), ("both", False), ("other", False)])
def test_test_images_that_a_run_used_are_named_also_in_split_folders(
    used, warned, weights, tiny_root, tmp_path, capsys
):
    checkpoint = torch.load(weights, weights_only=True)
    save(weights, checkpoint | {"split": {"train": [used], "val": []}})
    args = parse_test(weights, tiny_root, tmp_path / "out")
    layout = list_samples("drive", tiny_root)
    # A name that occurs in two split folders says nothing.
    layout["train"].append(dataclasses.replace(layout["test"][0], name="both"))
    layout["test"][1] = dataclasses.replace(layout["test"][1], name="both")
    test_set, _ = open_dataset(layout["test"], "test", eval_preset([0.5] * 3, [0.2] * 3))
    scoring.test_only(
        args, BINARY, evaluator_of(args), 0.0, lambda name, path: layout, lambda *_: test_set
    )
    assert ("names of training images" in capsys.readouterr().out) == warned


def test_a_split_of_another_data_path_is_named(tmp_path, capsys):
    write_folder(tmp_path / "data")
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    dataset = ("--dataset", "folder")
    run_train(tmp_path / "data", tmp_path / "out", *dataset, "--epochs", 1)
    scored = (*dataset, "--test-only", "--weights", tmp_path / "out" / "best_model.pth")
    run_train(tmp_path / "data", tmp_path / "scores", *scored, settings=EXACT)
    assert "give --split-file" not in capsys.readouterr().out
    run_train(tmp_path / "copy", tmp_path / "scores", *scored, settings=EXACT)
    split_file = tmp_path / "out" / "split.json"
    assert f"give --split-file {split_file}" in capsys.readouterr().out
    everything = (*scored, "--test-fraction", 1)
    run_train(tmp_path / "copy", tmp_path / "scores", *everything, settings=EXACT)
    said = capsys.readouterr().out
    assert "all images are test images" in said and "split.json" not in said
    split_file.write_text(json.dumps({"train": ["a"], "val": ["b"], "test": []}))  # of a fold
    run_train(tmp_path / "copy", tmp_path / "scores", *scored, settings=EXACT)
    assert "--held-out scores the fold's own" in capsys.readouterr().out


def test_class_weights_of_the_run_do_not_matter(weights, tiny_root, tmp_path):
    """The message is about the classes then, not about a flag that was not given."""
    three = ("--class-weights", "1,2,3", "--data-path", tiny_root)
    find_classes(parse("--test-only", "--weights", weights, *three), BINARY)
    said = error_of(find_classes, parse(*three), BINARY)
    assert said == "--class-weights has 3 weights for 2 classes"


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

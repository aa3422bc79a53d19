"""Whole runs of train.py on volumes: files, resuming, folds, evaluation, flags that do not fit."""

import csv
import json
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image

import train
from src.errors import UserError
from tests import processes
from tests.made_volumes import draw, save, write_decathlon
from tests.tiny import EXACT, parse, run_train
from tests.watch import stop_after
from train_utils.checkpoint import load
from train_utils.checkpoint import save as save_checkpoint

SETTINGS = ("--model", "unet_3d", "--base-c", "2", "--crop-size", "16", "--crops", "1")
SETTINGS += ("--mirror", "both", "--warmup-epochs", "1", *EXACT)


def weights(folder, name="last_model.pth"):
    return load(folder / name)["model"]


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Eight volumes, one of them with other voxels, and two folds in a file."""
    root = write_decathlon(tmp_path_factory.mktemp("volumes"), spacings={3: (1.0, 1.0, 2.0)})
    names = [f"v{number:02d}" for number in range(8)]
    folds = [
        {"train": [n for n in names if n not in names[k::2]], "val": names[k::2]} for k in (0, 1)
    ]
    (root / "splits.json").write_text(json.dumps(folds))
    return root


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory):
    """The output folder of fold 0, trained for two epochs."""
    options = ("--split-file", root / "splits.json", "--fold", 0, "--epochs", 2)
    return run_train(root, tmp_path_factory.mktemp("run"), *options, settings=SETTINGS)


def test_a_run_describes_itself(finished):
    checkpoint = load(finished / "last_model.pth")
    assert checkpoint["model_name"] == "unet_3d" and checkpoint["mean"] is None
    assert checkpoint["spacing"] == checkpoint["model_kwargs"]["spacing"] == [1.0, 1.0, 1.0]
    assert checkpoint["class_names"] == ["background", "left", "right"]
    assert checkpoint["split"]["val"] == ["v00", "v02", "v04", "v06"]
    assert Image.open(finished / "predictions.png").size[0] > 300
    assert all(math.isfinite(row["train_loss"]) for row in checkpoint["history"])
    assert len(checkpoint["history"][-1]["val_image_dice_per_class"]) == 3


def test_volumes_that_do_not_fit_into_memory_give_nearly_the_same_weights(
    root, finished, tmp_path, capsys
):
    options = ("--split-file", root / "splits.json", "--fold", 0, "--epochs", 2)
    options += ("--cache-limit", "0.00001", "--workers", 0)
    run_train(root, tmp_path, *options, settings=SETTINGS)
    assert "a whole volume is read for each crop" in capsys.readouterr().out
    # The volumes of a batch are padded to another size, which rounds positions differently.
    kept, read = weights(finished), weights(tmp_path)
    assert all((kept[name] - read[name]).abs().max() < 1e-4 for name in kept)


def test_resuming_gives_the_same_bits(root, finished, tmp_path):
    options = ("--split-file", root / "splits.json", "--fold", 0, "--epochs", 2)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, tmp_path, 1)
        run_train(root, tmp_path, *options, settings=SETTINGS)
    train.main(parse("--resume", tmp_path / "last_model.pth", "--device", "cpu"))
    assert equal(weights(tmp_path), weights(finished))


def test_a_resumed_run_keeps_the_plan(root, tmp_path, capsys):
    """Of volumes of 16×20×14 voxels; four steps in two epochs."""
    options = ("--split-file", root / "splits.json", "--fold", 0, "--steps", 4, "--epochs", 2)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, tmp_path, 1)
        run_train(
            root, tmp_path, *options, settings=("--model", "unet_3d", "--base-c", "2", *EXACT)
        )
    recipe = load(tmp_path / "last_model.pth")["recipe"]
    assert (recipe["crop_size"], recipe["mirror"]) == ([16, 16, 16], "none")
    assert "16×16×16 voxels" in recipe["reasons"][0]
    assert recipe["reasons"][-1] == "set by flags, not planned: steps 4"
    capsys.readouterr()
    train.main(parse("--resume", tmp_path / "last_model.pth", "--device", "cpu"))
    assert "plan of" not in capsys.readouterr().out
    finished = load(tmp_path / "last_model.pth")
    assert (finished["recipe"], finished["step"]) == (recipe, 4)


def test_held_out_volumes_are_scored_with_the_dice_of_each_class(root, finished, tmp_path, capsys):
    options = ("--test-only", "--held-out", "--weights", finished / "last_model.pth")
    run_train(root, tmp_path, *options, settings=("--device", "cpu", "--no-amp"))
    content = json.loads((tmp_path / "held_out_scores.json").read_text())
    rows = {row["name"]: row for row in content["images"]}
    assert list(rows) == ["v00", "v02", "v04", "v06"]
    by_hand = np.array(
        [
            [2 * tp / max(2 * tp + fp + fn, 1) for tp, fp, fn in zip(*cells, strict=True)]
            for cells in ((row["tp"], row["fp"], row["fn"]) for row in rows.values())
        ]
    )
    scores = content["scores"]
    np.testing.assert_allclose(scores["image_dice_per_class"][1:], by_hand.mean(0), atol=1e-9)
    np.testing.assert_allclose(scores["image_dice_sd_per_class"][1:], by_hand.std(0), atol=1e-9)
    assert "Dice, mean of volumes   left " in capsys.readouterr().out


def test_the_report_of_volumes(root, finished, tmp_path):
    split = write_split(tmp_path, train=["v00"], test=["v01", "v03", "v05"])
    weights = finished / "last_model.pth"
    options = ("--test-only", "--split-file", split, "--weights", weights, "--flips")
    options += ("--report", tmp_path / "report")
    run_train(root, tmp_path, *options, settings=("--device", "cpu", "--no-amp"))
    page = (tmp_path / "report" / "report.html").read_text()
    assert "averaged over eight flips of each image: 3 volumes" in page
    assert page.count("<figcaption>slices") == 3 and "Thin and thick" not in page
    with open(tmp_path / "report" / "images.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    scores = json.loads((tmp_path / "test_scores.json").read_text())
    assert [row["name"] for row in rows] == ["v01", "v03", "v05"]
    for row, image in zip(rows, scores["images"], strict=True):
        assert float(row["dice"]) == pytest.approx(image["dice"])
        assert int(row["tp_1"]) == image["tp"][0]


def test_each_held_out_model_reads_volumes_at_its_own_voxels(root, finished, tmp_path):
    first = finished / "last_model.pth"
    checkpoint = load(first)
    checkpoint["split"]["train"], checkpoint["split"]["val"] = (
        checkpoint["split"][name] for name in ("val", "train")
    )
    checkpoint["spacing"] = checkpoint["model_kwargs"]["spacing"] = [1.5, 1.0, 1.0]
    save_checkpoint(tmp_path / "second.pth", checkpoint)
    options = ("--test-only", "--held-out", "--weights", first, tmp_path / "second.pth")
    run_train(root, tmp_path, *options, settings=("--device", "cpu", "--no-amp"))
    rows = json.loads((tmp_path / "held_out_scores.json").read_text())["images"]
    voxels = {row["name"]: sum(row[cell][0] for cell in ("tp", "fp", "fn", "tn")) for row in rows}
    assert voxels["v00"] == 14 * 20 * 16 and voxels["v01"] == 14 * 20 * 11


def test_weights_that_do_not_say_their_voxels(root, finished, tmp_path):
    torch.save(weights(finished), tmp_path / "bare.pth")
    options = ("--test-only", "--test-fraction", 1, "--weights", tmp_path / "bare.pth")
    with pytest.raises(UserError, match="bare.pth: does not say which voxels.*give --spacing"):
        run_train(root, tmp_path, *options, settings=SETTINGS)


def test_it_learns_boxes(root, tmp_path):
    """Bright boxes on noise: few steps are enough to find them."""
    options = ("--epochs", 2, "--crops", 10, "--val", "none", "--lr", 0.01, "--mirror", "none")
    run_train(root, tmp_path, *options, settings=SETTINGS)
    history = load(tmp_path / "last_model.pth")["history"]
    assert history[-1]["train_loss"] < 0.85 * history[0]["train_loss"]


def test_long_voxels_give_in_plane_poolings_and_images_and_masks_two_classes(tmp_path):
    for number in range(4):
        image, label = draw(number, size=(24, 22, 12), classes=2)
        save(tmp_path / "images" / f"p{number}.nii.gz", image, (1.0, 1.0, 4.0))
        save(tmp_path / "masks" / f"p{number}.nii.gz", label, (1.0, 1.0, 4.0))
    options = ("--epochs", 1, "--val", "none", "--test-fraction", 0, "--crop-size", 2, 16, 16)
    run_train(tmp_path, tmp_path / "out", *options, settings=(*SETTINGS, "--batch-size", "1"))
    checkpoint = load(tmp_path / "out" / "last_model.pth")
    assert checkpoint["spacing"] == [4.0, 1.0, 1.0]
    assert checkpoint["threshold"] == 0.5


def test_the_unpadded_network_trains_on_what_it_predicts(root, tmp_path):
    """Crops have the margin that its valid convolutions remove; the target is their centre."""
    options = ("--epochs", 1, "--val", "none", "--no-padded")
    with pytest.raises(ValueError, match="--crop-size: UNet3D needs volumes of at least 92×92×92"):
        run_train(root, tmp_path, *options, "--crop-size", 88, settings=SETTINGS)
    few = ("--split-file", write_split(tmp_path, train=["v00", "v01"]))
    run_train(root, tmp_path / "out", *options, "--crop-size", 92, *few, settings=SETTINGS)
    assert load(tmp_path / "out" / "last_model.pth")["model_kwargs"]["padded"] is False


def test_two_ranks_train_and_score_like_one(root, tmp_path):
    """Three test volumes, one of them resampled: the ranks score two and one of them."""
    split = write_split(tmp_path, train=["v00", "v01", "v02"], test=["v03", "v05", "v07"])
    options = ("--data-path", root, *SETTINGS, "--split-file", split, "--val", "none")
    options += ("--output-dir", tmp_path / "two", "--epochs", 1)
    finished = processes.torchrun(2, "train_multi_GPU.py", *options)
    assert [rank.returncode for rank in finished] == [0, 0], finished
    assert load(tmp_path / "two" / "last_model.pth")["ranks"] == 2
    options = ("--test-only", "--weights", tmp_path / "two" / "best_model.pth")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the ranks have: convolutions may add in another order with more
    try:
        run_train(root, tmp_path / "one", *options, settings=("--device", "cpu", "--no-amp"))
    finally:
        torch.set_num_threads(threads)
    one, two = (
        json.loads((tmp_path / name / "test_scores.json").read_text()) for name in ("one", "two")
    )
    assert [row["name"] for row in two["images"]] == ["v03", "v05", "v07"]
    assert one["images"] == two["images"] and one["scores"] == two["scores"]


def write_split(folder, train, test=()):
    (folder / "few.json").write_text(json.dumps({"train": train, "val": [], "test": [*test]}))
    return folder / "few.json"


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--dataset", "volumes", "--model", "unet"], "--model unet is for images, but.*unet_3d"),
        (["--model", "unet_3d", "--dataset", "drive"], "is for volumes, but --dataset drive holds"),
        (["--model", "unet_3d", "--resize", "32", "32"], "--resize: volumes are resampled"),
        (["--model", "unet_3d", "--mean", "0.5"], "--mean: each volume is normalized by its own"),
        (["--model", "unet_3d", "--preset", "classic"], "volumes have one recipe"),
        (["--model", "unet_3d", "--bilinear"], "--bilinear: --model unet_3d has no such option"),
        (["--spacing", "1", "1", "1"], "--spacing: --model unet has no such option"),
        (["--crop-size", "8", "64", "64"], "--crop-size takes one number for images"),
        (
            ["--model", "unet_3d", "--crop-size", "8", "64"],
            "takes one number, or three: 2 are given",
        ),
        (["--fold", "1"], "unless --split-file names a list of folds"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags_of_images_and_volumes_that_do_not_fit(flags, message, capsys):
    with pytest.raises(SystemExit):
        parse(*flags)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error), error


def test_the_model_and_the_dataset_imply_each_other():
    by_model, by_dataset = parse("--model", "unet_3d"), parse("--dataset", "volumes")
    assert (by_model.dataset, by_dataset.model) == ("volumes", "unet_3d")
    assert by_model.in_channels == 1 and by_model.base_c == 16 and by_model.crop_size is None
    demo = parse("--demo", "--model", "unet_3d")
    assert (demo.data_path, demo.dataset, demo.crop_size) == ("demo_volumes", "volumes", 32)

"""Checkpoints of earlier versions are loaded, completed, evaluated, and resumed.

fixtures/e4bf391.pth is model_1.pth of this run at commit e4bf391, where DATA is the folder of the
fixture tiny_root:

    python train.py --data-path DATA --base-c 1 --epochs 4 --crops 2 --crop-size 64
        --optimizer sgd --no-save-best --no-amp --device cpu

The golden numbers are what commit e4bf391 itself gave for the rest of that run, for the evaluation
(train.py --test-only --weights e4bf391.pth) and for the prediction (predict.py --save-prob).
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import predict
from my_dataset import DATASETS
from tests.tiny import EXACT, parse, run_train
from train_utils.checkpoint import load
from train_utils.data.class_table import ClassTable
from train_utils.model_loading import load_model

OLD = Path(__file__).parent / "fixtures/e4bf391.pth"
# epoch → (train_loss, learning rate, val_auc) of the uninterrupted run
ROWS = {
    0: (1.3876498341560364, 0.000375625, 0.4792617241791873),
    1: (1.4049347937107086, 0.000875125, 0.4328063448828001),
    2: (1.3949673473834991, 0.0006550764934180986, 0.4530080160836025),
    3: (1.3875243365764618, 0.00015389305166811456, 0.46461808712025915),
}


def content():
    """What the file itself holds."""
    return torch.load(OLD, weights_only=True)


def predicted(weights, tiny_root, output):
    """(masks, probabilities) of the test images, as predict.py writes them."""
    images = tiny_root / "DRIVE/test/images"
    argv = ["--weights", weights, "--input", images, "--output", output, "--save-prob", *EXACT]
    predict.main(predict.parse_args([str(arg) for arg in argv]))
    return tuple(
        [np.asarray(Image.open(path)) for path in sorted(output.glob(f"*_{kind}.png"))]
        for kind in ("mask", "prob")
    )


def test_what_the_file_lacks_is_filled_in():
    old, checkpoint = content(), load(OLD)
    assert "training" not in old and "class_table" not in old
    assert checkpoint["training"] == {
        "val": "holdout",
        "folds": None,
        "epochs": 4,
        "lr": 0.001,
        "weights": [],
    }
    table = ClassTable.from_dict(checkpoint["class_table"])
    assert table.names == ("background", "vessel") and table.ids == [0, 1]
    for name in ("resize", "class_ids", "class_colours", "split", "threshold", "args"):
        assert checkpoint[name] == old[name]


def test_what_still_older_files_lack_is_filled_in(tiny_root, tmp_path):
    older = content()
    for name in ("resize", "class_ids", "class_colours", "split"):
        del older[name]
    torch.save(older, tmp_path / "older.pth")
    checkpoint = load(tmp_path / "older.pth")
    assert checkpoint["resize"] is None and checkpoint["class_ids"] == [0, 1]
    assert checkpoint["split"] == {"train": [], "val": []}
    assert len(checkpoint["class_colours"]) == 2
    expected = predicted(OLD, tiny_root, tmp_path / "old")
    found = predicted(tmp_path / "older.pth", tiny_root, tmp_path / "older")
    for one, other in zip(expected, found, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_it_builds_its_model():
    model, checkpoint = load_model(OLD)
    assert checkpoint["epoch"] == 1 and model.base_c == 1
    for name, value in content()["model"].items():
        assert torch.equal(model.state_dict()[name], value)


def test_it_predicts(tiny_root, tmp_path):
    masks, probs = predicted(OLD, tiny_root, tmp_path)
    assert [int((mask == 255).sum()) for mask in masks] == pytest.approx([9571, 9542], abs=20)
    means = [prob.mean() / 65535 for prob in probs]
    assert means == pytest.approx([0.2569979778739292, 0.2541784899632805], abs=1e-4)


def test_it_is_evaluated(tiny_root, tmp_path):
    run_train(tiny_root, tmp_path, "--test-only", "--weights", OLD, settings=EXACT)
    found = json.loads((tmp_path / "test_scores.json").read_text())
    assert found["threshold"] == content()["threshold"] and found["epoch"] == 1
    assert "validation images" in found["selection"]
    scores = found["scores"]
    assert scores["auc"] == pytest.approx(0.4091813777513738, abs=1e-4)
    assert scores["average_precision"] == pytest.approx(0.09142502850437605, abs=1e-4)
    assert scores["f1_at_threshold"] == pytest.approx(0.20029496453402626, abs=1e-3)


def test_it_is_evaluated_on_what_it_held_out(tiny_root, tmp_path):
    options = ("--test-only", "--held-out", "--weights", OLD)
    run_train(tiny_root, tmp_path, *options, settings=EXACT)
    found = json.loads((tmp_path / "held_out_scores.json").read_text())
    assert [row["name"] for row in found["images"]] == ["25_training"]
    assert found["scores"]["auc"] == pytest.approx(ROWS[1][2], abs=1e-4)


def test_its_flags_are_those_of_the_resumed_run(tmp_path):
    args, old = parse("--resume", OLD, "--output-dir", tmp_path), content()["args"]
    same = ("epochs", "batch_size", "crops", "crop_size", "optimizer", "lr", "base_c", "amp")
    assert {name: getattr(args, name) for name in same} == {name: old[name] for name in same}
    assert args.class_weights == [1.0, 1.25]  # earlier versions saved the resolved weights
    assert (args.mean, args.std) == (DATASETS["drive"]["mean"], DATASETS["drive"]["std"])
    assert args.output_dir == str(tmp_path) and args.device == "auto"


def test_resumed_it_ends_like_the_uninterrupted_run(tiny_root, tmp_path):
    run_train(tiny_root, tmp_path, "--resume", OLD, "--device", "cpu", settings=())
    checkpoint = load(tmp_path / "last_model.pth")
    assert checkpoint["epoch"] == 3 and checkpoint["step"] == 16
    for row, expected in zip(checkpoint["history"], ROWS.values(), strict=True):
        found = (row["train_loss"], row["lr"], row["val_auc"])
        # The last bits differ between threads, memory formats and fused optimizers, and add up.
        assert found == pytest.approx(expected, abs=5e-3, rel=5e-3)
    assert checkpoint["results_name"] == content()["results_name"]
    assert checkpoint["training"]["epochs"] == 4 and checkpoint["split"] == content()["split"]
    assert (tmp_path / "model_3.pth").exists()  # --no-save-best is part of the run

"""The text of a run: score names, the lines of the console, and files that can be read back."""

import csv
import json
import math

import numpy as np
import torch

from train_utils.metrics import SegmentationCounts, summarize
from train_utils.reporting.score_names import SCORE_NAMES
from train_utils.reporting.text_files import (
    epoch_line,
    image_rows,
    score_table,
    write_csv,
    write_history,
    write_json,
)

EPOCH = {"epoch": 2, "train_loss": 0.5, "lr": 0.01, "seconds": 3.21, "crops_per_second": 7.0}


def counts_of(*pairs, num_classes=2):
    counts = SegmentationCounts(num_classes)
    for target, pred in pairs:
        target, pred = torch.tensor([target]), torch.tensor([pred])
        probs = torch.nn.functional.one_hot(pred, num_classes).movedim(-1, 0).float()
        counts.add_image(target, pred, probs)
    return counts


def test_epoch_line_has_the_scores_that_there_are():
    assert epoch_line(EPOCH, 10) == "epoch 2/9  loss 0.5000  lr 0.010000  3.2 s  7.0 crops/s"
    scores = {"val_f1": 0.25, "val_dice": 0.5, "val_f1_tolerant": 0.75, "val_accuracy": 1.0}
    line = epoch_line(EPOCH | scores, 10, is_best=True)
    assert "  dice 0.5000  f1 0.2500  F1 near 0.7500  3.2 s" in line and line.endswith("  *best")
    assert "best" not in epoch_line(EPOCH, 10, is_best=True)  # without validation nothing is


def test_every_single_score_has_a_name():
    scores = summarize(counts_of(([0, 1], [0, 1])), 0.5)
    counted = {"pixels", "images", "images_without_foreground", "dice_sd"}
    chosen = {"best_threshold", "best_f1", "f1_at_threshold"}
    single = {name for name in scores if not name.endswith("_per_class")}
    assert single - counted - chosen <= set(SCORE_NAMES)


def test_score_table_shows_every_score_that_has_a_name():
    scores, names = summarize(counts_of(([0, 1, 1], [0, 1, 0]))), ["ground", "brick"]
    single = {key: name.full for key, name in SCORE_NAMES.items() if key in scores}
    table = score_table(scores, names, None)
    assert len(single) > 8
    for key, name in single.items():
        assert name in table and f"{scores[key]:.4f}" in table


def test_score_table_names_absent_classes_and_images_without_foreground():
    counts = counts_of(([0, 0, 1, 1], [0, 1, 1, 1]), ([0, 0, 0, 0], [0, 0, 0, 0]), num_classes=3)
    table = score_table(summarize(counts), ["ground", "brick", "water"], None)
    assert "over 8 valid pixels" in table and "mean of 1 image " in table
    assert "(1 image without foreground left out)" in table
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines()}
    assert rows["class"] == ["precision", "recall", "Dice", "IoU"]
    assert rows["brick"] == ["0.6667", "1.0000", "0.8000", "0.6667"]
    assert rows["water"] == ["absent"] * 4
    assert "water absent" in table and "nan" not in table


def test_a_score_without_a_value_is_no_absent_class():
    counts = counts_of(([0, 0, 1, 1], [0, 2, 0, 0]), num_classes=3)
    table = score_table(summarize(counts), ["ground", "brick", "water"], None)
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines()}
    assert rows["brick"] == ["–", "0.0000", "0.0000", "0.0000"]  # never predicted
    assert rows["water"] == ["0.0000", "–", "0.0000", "0.0000"]  # never true


def test_score_table_of_volumes_has_their_words():
    counts = counts_of(([0, 0, 1, 1], [0, 1, 1, 1]), ([0, 0, 0, 0], [0, 0, 0, 0]), num_classes=3)
    scores, names = summarize(counts), ["ground", "brick", "water"]
    table = score_table(scores, names, None, ("volumes", "voxels"))
    assert "over 8 valid voxels" in table and "mean of 1 volume " in table
    assert "(1 volume without foreground left out)" in table
    assert "Dice, mean of volumes   brick" in table and "images" not in table


def test_score_table_of_two_classes_shows_threshold_and_tolerance():
    scores = summarize(counts_of(([0, 1, 1], [0, 1, 0])), 0.25)
    scores |= {"tolerance": 2, "f1_tolerant": 0.9}
    scores |= {"precision_tolerant": 0.8, "recall_tolerant": 0.7}
    table = score_table(scores, ["background", "vessel"], 0.25)
    assert f"F1 at the chosen threshold 0.250   {scores['f1_at_threshold']:.4f}" in table
    assert "within 2 px   F1 0.9000   precision 0.8000   recall 0.7000" in table


def test_image_rows_by_hand():
    two = counts_of(([0, 1, 1, 0, 0, 255], [0, 1, 0, 1, 1, 1]))
    assert image_rows(["a"], two) == [
        {"name": "a", "dice": 2 / 5, "tp": 1, "fp": 2, "fn": 1, "tn": 1}
    ]
    [row] = image_rows(["b"], counts_of(([0, 1, 2, 2], [0, 1, 1, 2]), num_classes=3))
    assert (row["tp"], row["fp"]) == ([1, 1], [1, 0])
    assert (row["fn"], row["tn"]) == ([0, 1], [2, 2])


# --- objects --------------------------------------------------------------------------------------


def counts_of_objects():
    """Two images: one object found and one missed; no object at all."""
    counts = counts_of(([0, 1, 1, 0], [0, 1, 0, 0]), ([0, 0, 0, 0], [0, 0, 0, 0]))
    counts.add_objects(np.array([[1, 1, 0, 2]]), np.array([[5, 5, 0, 0]]))
    counts.add_objects(np.zeros((1, 4), int), np.zeros((1, 4), int))
    return counts


def test_score_table_shows_objects_where_there_are_any():
    counts = counts_of_objects()
    scores = summarize(counts, 0.25)
    lines = score_table(scores, ["background", "cell"], 0.25).splitlines()
    assert lines[-2:] == [
        "objects at p > 0.5: AP 0.5000 (at IoU 0.5 0.5000, at 0.75 0.5000)   AJI 0.6667",
        "  2 true, 1 predicted, 1 found, 0 merged, 0 split",
    ]
    scores["object_ap_at_threshold"] = 0.75
    lines = score_table(scores, ["background", "cell"], 0.25).splitlines()
    assert lines[-1] == "objects: AP at the chosen threshold 0.250   0.7500"


def test_image_rows_have_the_objects_of_each_image():
    first, second = image_rows(["a", "b"], counts_of_objects())
    assert (first["objects"], first["objects_predicted"], first["object_ap"]) == (2, 1, 0.5)
    assert (second["objects"], second["objects_found"]) == (0, 0)
    assert math.isnan(second["object_ap"])


def test_epoch_line_shows_the_average_precision_of_objects():
    assert "  f1 0.2500  obj AP 0.5000  3.2 s" in epoch_line(
        EPOCH | {"val_f1": 0.25, "val_object_ap": 0.5, "val_object_ap_50": 0.9}, 10
    )


# --- files ----------------------------------------------------------------------------------------


def test_csv_has_a_column_for_every_name(tmp_path):
    rows = [{"a": 1, "iou_per_class": [0.5, 0.25]}, {"a": 2, "b": 3}]
    write_csv(tmp_path / "rows.csv", rows)
    first, second = csv.DictReader((tmp_path / "rows.csv").open(encoding="utf-8"))
    assert first == {"a": "1", "iou_0": "0.5", "iou_1": "0.25", "b": ""}
    assert second == {"a": "2", "iou_0": "", "iou_1": "", "b": "3"}


def test_json_has_null_for_what_is_not_finite(tmp_path):
    write_json(tmp_path / "x.json", {"a": [math.nan, {"b": math.inf}], "c": 1.5, "d": True})
    content = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    assert content == {"a": [None, {"b": None}], "c": 1.5, "d": True}


def test_history_is_written_anew_each_time(tmp_path):
    for _ in range(2):
        write_history(tmp_path, "results.txt", [EPOCH, EPOCH | {"epoch": 3}])
    text = (tmp_path / "results.txt").read_text(encoding="utf-8")
    assert text.count("[epoch: ") == 2 and text.startswith("[epoch: 2]\ntrain_loss: 0.5000\n")
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 3

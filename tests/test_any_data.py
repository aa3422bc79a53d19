"""Whole tiny runs of train.py, predict.py and compute_mean_std.py on folder datasets of two and
three classes."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

import compute_mean_std
import predict
from src.errors import UserError
from tests.made import COLOURS, TABLE, ids_of, write_folder, write_three_classes
from tests.tiny import AFFINE, run_train
from tests.watch import stop_after
from train_utils.checkpoint import load
from train_utils.reporting.pictures import OVERLAY_COLOUR

FOLDER = ("--dataset", "folder", *AFFINE, "--crop-size", "32")


def run(data, output, *options, settings=FOLDER):
    return run_train(data, output, *options, settings=settings)


def weights(folder, name="last_model.pth"):
    return load(folder / name)["model"]


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("two"), count=10)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    return write_three_classes(tmp_path_factory.mktemp("three"), count=10)


@pytest.fixture(scope="module")
def trained(three, tmp_path_factory):
    """A run on three classes, long enough that it tells them apart."""
    return run(
        three,
        tmp_path_factory.mktemp("run"),
        "--epochs",
        8,
        "--lr",
        0.01,
        "--crops",
        6,
        "--jitter",
        0,
    )


# --- training -------------------------------------------------------------------------------------


def test_three_classes_in_colours_are_learned(trained):
    checkpoint, scores = (
        load(trained / "best_model.pth"),
        json.loads((trained / "test_scores.json").read_text()),
    )
    assert checkpoint["class_names"] == ["ground", "brick", "water"]
    assert (
        checkpoint["class_colours"] == COLOURS.tolist()
        and checkpoint["model_kwargs"]["num_classes"] == 3
    )
    assert scores["scores"]["mean_iou"] > 0.6 and len(scores["scores"]["iou_per_class"]) == 3


def test_more_than_two_classes_are_chosen_by_the_mean_iou(trained):
    history = load(trained / "last_model.pth")["history"]
    best = max(range(len(history)), key=lambda epoch: history[epoch]["val_mean_iou"])
    assert load(trained / "best_model.pth")["epoch"] == best


def test_the_split_depends_on_its_seed_and_is_written_down(two, tmp_path, capsys):
    splits = []
    for folder, options in (("a", ()), ("b", ()), ("c", ("--split-seed", 1)), ("d", ("--seed", 1))):
        run(two, tmp_path / folder, "--epochs", 1, *options)
        splits.append(json.loads((tmp_path / folder / "split.json").read_text()))
    assert splits[0] == splits[1] == splits[3] and splits[0]["test"] != splits[2]["test"]
    assert [len(splits[0][part]) for part in ("train", "val", "test")] == [6, 2, 2]
    assert sorted(splits[0]["train"] + splits[0]["val"] + splits[0]["test"]) == [
        f"p{n:02d}" for n in range(10)
    ]
    assert [
        row["name"] for row in json.loads((tmp_path / "a/test_scores.json").read_text())["images"]
    ] == splits[0]["test"]
    assert "6 labels read as 0/255" in capsys.readouterr().out


def test_a_run_continues_with_its_split_though_files_were_added(two, tmp_path):
    data = write_folder(tmp_path / "data", count=10)
    straight = run(two, tmp_path / "straight", "--epochs", 2)
    stopped = tmp_path / "stopped"
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, stopped, 1)
        with pytest.raises(KeyboardInterrupt):
            run(data, stopped, "--epochs", 2)
    write_folder(data, count=5, first=10)
    run(data, stopped, "--resume", "auto", "--device", "cpu", settings=())
    assert equal(weights(straight), weights(stopped)) and equal(
        weights(straight, "best_model.pth"), weights(stopped, "best_model.pth")
    )
    assert [(straight / "split.json").read_text()] == [(stopped / "split.json").read_text()]
    scores = [
        json.loads((folder / "test_scores.json").read_text())["images"]
        for folder in (straight, stopped)
    ]
    assert scores[0] == scores[1]
    run(
        data,
        tmp_path / "scored",
        "--test-only",
        "--weights",
        stopped / "best_model.pth",
        "--device",
        "cpu",
        settings=(),
    )
    assert json.loads((tmp_path / "scored/test_scores.json").read_text())["images"] == scores[0]
    run(
        data,
        tmp_path / "all",
        "--test-only",
        "--weights",
        stopped / "best_model.pth",
        "--test-fraction",
        1,
        "--device",
        "cpu",
        settings=(),
    )
    assert len(json.loads((tmp_path / "all/test_scores.json").read_text())["images"]) == 15


def test_a_split_file_repeats_another_runs_split(two, tmp_path):
    split = {"train": ["p00", "p01", "p02"], "val": ["p03"], "test": ["p09"]}
    (tmp_path / "mine.json").write_text(json.dumps(split))
    run(two, tmp_path / "out", "--epochs", 1, "--split-file", tmp_path / "mine.json")
    written = json.loads((tmp_path / "out/split.json").read_text())
    assert {part: written[part] for part in split} == split


def test_the_command_that_started_a_run_resumes_it(two, tmp_path):
    options = ("--epochs", 1, "--split-seed", 3, "--val-fraction", 0.3, "--resume", "auto")
    folder = run(two, tmp_path / "out", *options)
    before = (folder / "split.json").read_text()
    run(two, folder, *options[2:], "--epochs", 2)
    assert (folder / "split.json").read_text() == before
    assert load(folder / "last_model.pth")["epoch"] == 1


def test_a_refused_resume_leaves_the_split_as_it_is(two, tmp_path):
    folder = run(two, tmp_path / "out", "--epochs", 1)
    before = (folder / "split.json").read_text()
    for options in (
        ("--val", "none"),
        ("--folds", 3, "--fold", 0),
        ("--split-seed", 5, "--split-file", ""),
    ):
        with pytest.raises(UserError, match="split the images differently"):
            run(two, folder, "--resume", "auto", "--epochs", 2, *options, settings=())
    assert (folder / "split.json").read_text() == before


def test_labels_that_are_ignored_throughout_are_refused(tmp_path):
    data = write_folder(tmp_path / "data", count=4, label=lambda ids: Image.fromarray(ids * 0 + 9))
    (data / "classes.csv").write_text(TABLE)
    with pytest.raises(UserError, match="every pixel of the training images is ignored.*_mask.png"):
        run(data, tmp_path / "out", "--epochs", 1)


def test_resuming_with_another_class_table_is_refused(tmp_path):
    data = write_three_classes(tmp_path / "data", count=6)
    run(data, tmp_path / "out", "--epochs", 1)
    (data / "classes.csv").write_text(TABLE.replace("water", "sea"))
    with pytest.raises(UserError, match="ground, brick, water.*ground, brick, sea"):
        run(data, tmp_path / "out", "--resume", "auto", "--epochs", 2, settings=())


def test_read_from_files_the_run_is_the_same(two, tmp_path, capsys):
    """Beyond --cache-limit images are read again for each batch; crops and weights are the same."""
    kept = run(two, tmp_path / "kept", "--epochs", 2)
    read = run(two, tmp_path / "read", "--epochs", 2, "--cache-limit", "0.00001", "--workers", 0)
    assert "exceed --cache-limit" in capsys.readouterr().out
    assert equal(weights(kept), weights(read))


def test_validation_folders_without_test_are_scored_when_they_chose_nothing(tmp_path, capsys):
    for split, first, count in (("train", 0, 4), ("val", 4, 2)):
        write_folder(tmp_path / "data", count=count, first=first, below=split)
    run(tmp_path / "data", tmp_path / "chosen", "--epochs", 1)
    assert "on the validation images, which chose it" in capsys.readouterr().out
    assert not (tmp_path / "chosen/test_scores.json").exists()
    run(tmp_path / "data", tmp_path / "out", "--epochs", 1, "--val", "none")
    scores = json.loads((tmp_path / "out/test_scores.json").read_text())
    assert [row["name"] for row in scores["images"]] == ["p04", "p05"] and "nothing" in scores[
        "selection"
    ]


def test_mean_and_std_are_computed_and_kept(two, tmp_path, capsys):
    run(two, tmp_path / "out", "--epochs", 1)
    checkpoint = load(tmp_path / "out/best_model.pth")
    compute_mean_std.main(
        compute_mean_std.parse_args(
            [
                "--dataset",
                "folder",
                "--data-path",
                str(two),
                "--split-file",
                str(tmp_path / "out/split.json"),
            ]
        )
    )
    printed = re.search(r"pooled over all pixels: +mean (.*?)   std (.*)", capsys.readouterr().out)
    assert checkpoint["mean"] == [float(value) for value in printed[1].split()]
    assert checkpoint["std"] == [float(value) for value in printed[2].split()]


@pytest.mark.parametrize(
    "options",
    [
        ("--in-channels", 1),
        ("--resize", 48, 40),
        ("--augment", "resize", "--rotate", 0, "--jitter", 0, "--base-size", 64),
    ],
    ids=["grey", "resized", "by the loader"],
)
def test_other_ways_to_read(two, tmp_path, options):
    folder = run(two, tmp_path / "out", "--epochs", 1, *options)
    checkpoint = load(folder / "best_model.pth")
    channels = 1 if options[0] == "--in-channels" else 3
    assert checkpoint["model_kwargs"]["in_channels"] == channels == len(checkpoint["mean"])
    pixels = json.loads((folder / "test_scores.json").read_text())["scores"]["pixels"]
    assert pixels == 2 * (48 * 40 if options[0] == "--resize" else 64 * 72)
    masks = segment(folder, two / "images/p00.png", tmp_path / "masks")
    # the input's size, whatever the model has seen
    assert Image.open(masks["p00_mask.png"]).size == (72, 64)


def test_the_tolerance_is_reported_beside_the_strict_score(two, tmp_path, capsys):
    run(two, tmp_path / "out", "--epochs", 2, "--tolerance", 1)
    scores = json.loads((tmp_path / "out/test_scores.json").read_text())["scores"]
    assert scores["tolerance"] == 1 and scores["f1_tolerant"] >= scores["f1"]
    assert "within 1 px   F1" in capsys.readouterr().out
    assert "val_f1_tolerant" in (tmp_path / "out/results.csv").read_text()


@pytest.mark.parametrize(
    "options, named",
    [
        (("--num-classes", 4), "--num-classes 4: folder has 3 classes"),
        (("--class-weights", "1,2"), "2 weights for 3 classes"),
        (("--classes", "nowhere.csv"), "nowhere.csv"),
        (("--split-file", "nowhere.json"), "nowhere.json"),
        (("--max-pixels", 100), "4,608 pixels, the limit is 100"),
    ],
)
def test_what_contradicts_the_data_is_refused(three, tmp_path, options, named):
    with pytest.raises(UserError, match=named):
        run(three, tmp_path / "out", "--epochs", 1, *options)
    assert not (tmp_path / "out").exists()


def test_a_stray_colour_stops_the_run_before_it_starts(tmp_path):
    data = write_three_classes(tmp_path / "data", count=6)
    stray = COLOURS[ids_of(3)].copy()
    stray[0, :5] = (1, 2, 3)
    Image.fromarray(stray).save(data / "masks/p03_mask.png")
    with pytest.raises(
        UserError,
        match=r"p03_mask.png: holds 1 colour outside the class table: \(1, 2, 3\) \(5 pixels\)",
    ):
        run(data, tmp_path / "out", "--epochs", 1)
    assert not (tmp_path / "out").exists()


# --- predicting -----------------------------------------------------------------------------------


def segment(folder, source, output, *options):
    argv = [
        "--weights",
        folder / "best_model.pth",
        "--input",
        source,
        "--output",
        output,
        "--no-amp",
        "--device",
        "cpu",
        *options,
    ]
    predict.main(predict.parse_args([str(arg) for arg in argv]))
    return {path.name: path for path in output.iterdir()}


def test_predictions_have_the_tables_colours_and_a_legend(trained, three, tmp_path):
    files = segment(trained, three / "images", tmp_path / "out", "--overlay")
    mask = Image.open(files["p00_mask.png"])
    ids, colours = np.asarray(mask), np.asarray(mask.convert("RGB"))
    assert mask.mode == "P" and len(np.unique(ids)) > 1
    assert np.array_equal(colours, COLOURS[ids])
    assert (ids == ids_of(0)).mean() > 0.8
    image, overlay = (
        np.asarray(Image.open(path)).astype(int)
        for path in (three / "images/p00.png", files["p00_overlay.png"])
    )
    assert np.abs(overlay - (image + COLOURS[ids]) / 2)[ids > 0].max() <= 1
    legend = {
        tuple(colour)
        for colour in np.unique(np.asarray(Image.open(files["legend.png"])).reshape(-1, 3), axis=0)
    }
    assert set(map(tuple, COLOURS)) <= legend


def test_the_grid_has_the_tables_colours(trained):
    shown = {
        tuple(colour)
        for colour in np.unique(
            np.asarray(Image.open(trained / "predictions.png").convert("RGB")).reshape(-1, 3),
            axis=0,
        )
    }
    assert set(map(tuple, COLOURS)) <= shown


def test_two_classes_stay_black_and_white(two, tmp_path):
    folder = run(two, tmp_path / "run", "--epochs", 4, "--lr", 0.01, "--crops", 6)
    files = segment(folder, two / "images", tmp_path / "out", "--overlay", "--threshold", 0.1)
    mask, overlay = (
        np.asarray(Image.open(files["p00_mask.png"])),
        np.asarray(Image.open(files["p00_overlay.png"])).astype(int),
    )
    assert set(np.unique(mask)) <= {0, 255} and (mask == 255).any() and "legend.png" not in files
    image = np.asarray(Image.open(two / "images/p00.png")).astype(int)
    assert np.abs(overlay - (image + OVERLAY_COLOUR) / 2)[mask > 0].max() <= 1


def test_a_prediction_is_a_label_that_can_be_trained_on(trained, three, tmp_path):
    """The palette PNGs of predict.py, given back as masks, are read as the ids they hold."""
    files = segment(trained, three / "images", tmp_path / "out")
    (tmp_path / "again/masks").mkdir(parents=True)
    (tmp_path / "again/images").symlink_to(three / "images")
    for name, path in files.items():
        if name.endswith("_mask.png"):
            path.rename(tmp_path / "again/masks" / name)
    (tmp_path / "again/classes.csv").write_text(TABLE)
    folder = run(tmp_path / "again", tmp_path / "out2", "--epochs", 1)
    assert (folder / "split.json").exists()


# --- which images are the test, which labels agree ------------------------------------------------


def test_flat_images_beside_a_test_folder_are_for_training(tmp_path):
    """The images in test/ are the test split; none are chosen at random."""
    write_folder(tmp_path / "data", count=6)
    write_folder(tmp_path / "data", count=2, first=6, below="test")
    run(tmp_path / "data", tmp_path / "out", "--epochs", 1)
    split = json.loads((tmp_path / "out/split.json").read_text())
    assert split["test"] == ["p06", "p07"] and len(split["train"]) == 5 and len(split["val"]) == 1


def test_test_only_scores_the_test_images_of_the_run(tmp_path):
    """--split-file made an image of the folder test/ a training image: it must not be scored."""
    for below, first, count in (("train", 0, 4), ("val", 4, 1), ("test", 5, 2)):
        write_folder(tmp_path / "data", count=count, first=first, below=below)
    split = {"train": ["p00", "p01", "p05"], "val": ["p04"], "test": ["p02", "p03"]}
    (tmp_path / "mine.json").write_text(json.dumps(split))
    run(tmp_path / "data", tmp_path / "out", "--epochs", 1, "--split-file", tmp_path / "mine.json")
    run(
        tmp_path / "data",
        tmp_path / "scored",
        "--test-only",
        "--weights",
        tmp_path / "out/best_model.pth",
        settings=(),
    )
    for folder in ("out", "scored"):
        images = json.loads((tmp_path / folder / "test_scores.json").read_text())["images"]
        assert [row["name"] for row in images] == ["p02", "p03"]


@pytest.mark.parametrize("others", [(1, 2), (0, 2)], ids=["a value is both", "two foregrounds"])
def test_class_ids_without_a_table_are_refused_though_each_file_has_two_values(tmp_path, others):
    write_folder(tmp_path, count=4, label=Image.fromarray)
    write_folder(
        tmp_path,
        count=4,
        first=4,
        label=lambda ids: Image.fromarray(np.array(others, np.uint8)[ids]),
    )
    with pytest.raises(UserError, match="would mean two things.*classes.csv"):
        run(tmp_path, tmp_path / "out", "--epochs", 1, "--val", "none", "--test-fraction", 0)


def test_pairs_that_agree_may_be_mixed(tmp_path):
    for first, high in ((0, 255), (4, 1), (8, 254)):
        write_folder(
            tmp_path / "data",
            count=4,
            first=first,
            label=lambda ids, high=high: Image.fromarray(ids * np.uint8(high)),
        )
    assert run(tmp_path / "data", tmp_path / "out", "--epochs", 1)


def test_three_ids_without_a_table_lead_to_the_table(tmp_path):
    write_folder(tmp_path, count=5, classes=3, label=Image.fromarray)
    with pytest.raises(UserError, match="put a classes.csv beside the data"):
        run(tmp_path, tmp_path / "out", "--epochs", 1)


def test_evaluating_with_another_class_table_is_refused(trained, three, tmp_path):
    (tmp_path / "other.csv").write_text(TABLE.replace("brick", "stone"))
    with pytest.raises(UserError, match="ground, brick, water.*ground, stone, water"):
        run(
            three,
            tmp_path / "out",
            "--test-only",
            "--weights",
            trained / "best_model.pth",
            "--classes",
            tmp_path / "other.csv",
            settings=(),
        )


def test_labels_of_several_encodings_are_reported(tmp_path, capsys):
    write_three_classes(tmp_path / "data", count=5)
    write_folder(tmp_path / "data", classes=3, count=5, first=5, label=Image.fromarray)
    run(tmp_path / "data", tmp_path / "out", "--epochs", 1)
    assert "warning: labels of several encodings" in capsys.readouterr().out


def test_masks_hold_the_ids_of_the_table(tmp_path):
    """Classes 0, 1, 2 are stored as 0, 7 and 11: predict.py writes masks with these values."""
    write_folder(
        tmp_path / "data",
        count=6,
        classes=3,
        label=lambda ids: Image.fromarray(np.array([0, 7, 11], np.uint8)[ids]),
    )
    (tmp_path / "data/classes.csv").write_text(
        "id,name,colour\n0,ground,#14283c\n7,brick,#c8501e\n11,water,60 160 220\n"
    )
    run(
        tmp_path / "data",
        tmp_path / "out",
        "--epochs",
        6,
        "--lr",
        0.01,
        "--crops",
        6,
        "--jitter",
        0,
        "--val",
        "none",
    )
    predict.main(
        predict.parse_args(
            [
                "--weights",
                str(tmp_path / "out/best_model.pth"),
                "--device",
                "cpu",
                "--input",
                str(tmp_path / "data/images"),
                "--output",
                str(tmp_path / "masks"),
            ]
        )
    )
    masks = [Image.open(path) for path in sorted((tmp_path / "masks").glob("*_mask.png"))]
    found = {value for mask in masks for value in np.unique(np.asarray(mask)).tolist()}
    assert found <= {0, 7, 11} and found & {7, 11}
    assert masks[0].getpalette()[21:24] == [200, 80, 30]


def test_a_threshold_for_several_classes_is_refused(trained, three, tmp_path):
    with pytest.raises(UserError, match="--threshold.*3 classes"):
        predict.main(
            predict.parse_args(
                [
                    "--weights",
                    str(trained / "best_model.pth"),
                    "--device",
                    "cpu",
                    "--threshold",
                    "0.4",
                    "--input",
                    str(three / "images"),
                    "--output",
                    str(tmp_path),
                ]
            )
        )
    with pytest.raises(UserError, match="--threshold.*3 classes"):
        run(
            three,
            tmp_path,
            "--test-only",
            "--weights",
            trained / "best_model.pth",
            "--threshold",
            "0.4",
            "--device",
            "cpu",
            settings=(),
        )


@pytest.mark.parametrize("channels", [1, 4])
def test_a_report_of_any_number_of_channels(tmp_path, channels):
    write_folder(tmp_path / "data", count=5)
    if channels == 4:
        for path in (tmp_path / "data/images").iterdir():
            Image.open(path).convert("CMYK").save(path.with_suffix(".tif"))
            path.unlink()
    run(tmp_path / "data", tmp_path / "out", "--epochs", 1, "--in-channels", channels)
    run(
        tmp_path / "data",
        tmp_path / "scored",
        "--test-only",
        "--weights",
        tmp_path / "out/best_model.pth",
        "--report",
        tmp_path / "report",
        settings=(),
    )
    assert "<img" in (tmp_path / "report/report.html").read_text()


def test_the_split_of_a_run_is_not_that_of_other_data(two, tmp_path):
    """Images of another folder that happen to have the same names have their own split."""
    run(two, tmp_path / "out", "--epochs", 1)
    for below, first, count in (("train", 0, 3), ("test", 3, 7)):
        write_folder(tmp_path / "other", count=count, first=first, below=below)
    run(
        tmp_path / "other",
        tmp_path / "scored",
        "--test-only",
        "--weights",
        tmp_path / "out/best_model.pth",
        settings=(),
    )
    images = json.loads((tmp_path / "scored/test_scores.json").read_text())["images"]
    assert [row["name"] for row in images] == [f"p{n:02d}" for n in range(3, 10)]

"""Whole runs of train.py on a tiny dataset: what they write, how they are evaluated and resumed."""

import argparse
import copy
import json
import math
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

import predict
import train
from my_dataset import DATASETS, DriveDataset
from src.errors import UserError
from src.inference import predict_probs
from tests.made import write_three_classes
from tests.tiny import AFFINE, EXACT, parse, run_train
from tests.watch import forbid_training, opened_files, stop_after
from train import make_optimizer
from train_utils import NonFiniteLossError, resume
from train_utils.checkpoint import load
from train_utils.cli.script import run_script
from train_utils.model_loading import load_model
from transforms import eval_preset

BLOCK = [
    "[epoch: 0]",
    "train_loss: ",
    "lr: ",
    "dice coefficient: ",
    "global correct: ",
    "average row correct: [",
    "IoU: [",
    "mean IoU: ",
]


def weights(folder, name="last_model.pth"):
    return load(folder / name)["model"]


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def finished(tiny_root, tmp_path_factory):
    """The output folder of a run of three epochs."""
    return run_train(tiny_root, tmp_path_factory.mktemp("run"), "--epochs", 3)


def test_a_run_leaves_every_file(finished):
    names = {
        path.name.split("2")[0] if path.name.startswith("results2") else path.name
        for path in finished.iterdir()
    }
    assert names == {
        "best_model.pth",
        "last_model.pth",
        "results",
        "results.csv",
        "curves.png",
        "predictions.png",
        "split.json",
        "test_scores.json",
    }
    for name in ("curves.png", "predictions.png"):
        assert Image.open(finished / name).size[0] > 300


def test_results_txt_has_the_tutorials_block(finished):
    text = next(finished.glob("results2*.txt")).read_text()
    blocks = text.strip().split("\n\n")
    assert len(blocks) == 3
    for line, start in zip(blocks[0].splitlines(), BLOCK, strict=True):
        assert line.startswith(start)


def test_results_csv_has_a_row_an_epoch(finished):
    header, *rows = (finished / "results.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["0", "1", "2"]
    assert {
        "train_loss",
        "lr",
        "val_dice",
        "val_f1",
        "val_auc",
        "val_iou_1",
        "val_specificity",
    } <= set(header.split(","))


def test_test_scores_say_where_they_come_from(finished):
    scores = json.loads((finished / "test_scores.json").read_text())
    assert {
        "command",
        "commit",
        "versions",
        "machine",
        "precision",
        "seconds",
        "peak_memory_mb",
        "selection",
        "threshold",
    } <= set(scores)
    assert [row["name"] for row in scores["images"]] == ["01_test", "02_test"]
    assert "validation" in scores["selection"]
    cells = [sum(row[cell] for row in scores["images"]) for cell in ("tp", "fp", "fn", "tn")]
    assert sum(cells) == scores["scores"]["pixels"]
    assert scores["scores"]["f1"] == pytest.approx(
        2 * cells[0] / (2 * cells[0] + cells[1] + cells[2])
    )
    history = load(finished / "best_model.pth")["history"]
    seconds = sum(row["seconds"] for row in history)
    assert scores["training_seconds"] == pytest.approx(seconds, abs=0.1) and seconds > 0
    # no threshold is chosen on the test images
    assert not any(name.startswith("best_") for name in scores["scores"])


def test_checkpoint_describes_itself_in_plain_types(finished):
    model, checkpoint = load_model(finished / "best_model.pth")
    assert checkpoint["model_name"] == "unet" and model.base_c == 4
    assert checkpoint["class_names"] == ["background", "vessel"]
    assert checkpoint["mean"] == DATASETS["drive"]["mean"] and 0 <= checkpoint["threshold"] < 1
    assert math.isfinite(checkpoint["best_score"])
    best = max(
        range(3), key=lambda epoch: load(finished / "last_model.pth")["history"][epoch]["val_dice"]
    )
    assert checkpoint["epoch"] == best


def test_test_only_repeats_the_final_scores(finished, tiny_root, tmp_path):
    run_train(tiny_root, tmp_path, "--test-only", "--weights", finished / "best_model.pth")
    first, again = (
        json.loads((folder / "test_scores.json").read_text()) for folder in (finished, tmp_path)
    )
    assert first["scores"] == again["scores"] and first["images"] == again["images"]
    assert again["selection"] == first["selection"]


def test_test_only_evaluates_weights_without_metadata(finished, tiny_root, tmp_path):
    torch.save(
        {"model": weights(finished), "epoch": 3, "args": argparse.Namespace(amp="False")},
        tmp_path / "plain.pth",
    )
    run_train(tiny_root, tmp_path, "--test-only", "--weights", tmp_path / "plain.pth")
    scores = json.loads((tmp_path / "test_scores.json").read_text())
    assert scores["selection"] == "unknown: weights without metadata"


@pytest.fixture(scope="module")
def other(tiny_root, tmp_path_factory):
    """Weights of another architecture, seed and threshold than `finished`'s."""
    folder = run_train(
        tiny_root, tmp_path_factory.mktemp("other"), "--epochs", 1, "--seed", 1, "--base-c", 5
    )
    torch.save(load(folder / "best_model.pth") | {"threshold": 0.25}, folder / "other.pth")
    return folder / "other.pth"


def evaluated(tiny_root, folder, *options):
    run_train(tiny_root, folder, "--test-only", *options, settings=EXACT)
    return json.loads((folder / "test_scores.json").read_text())


def test_an_ensemble_with_flips_scores_the_mean_of_all_probabilities(
    finished, other, tiny_root, tmp_path
):
    paths = [finished / "best_model.pth", other]
    found = evaluated(tiny_root, tmp_path, "--weights", *paths, "--flips")
    models, checkpoints = zip(*(load_model(path) for path in paths), strict=True)
    dataset = DriveDataset(
        tiny_root,
        train=False,
        transforms=eval_preset(checkpoints[0]["mean"], checkpoints[0]["std"]),
    )
    for (image, target), row in zip(dataset, found["images"], strict=True):
        every = [
            predict_probs(model, image[None].flip(axes)).flip(axes)
            for model in models
            for axes in ([], [2], [3], [2, 3])
        ]
        vessel = torch.stack(every).mean(0)[0, 1] > 0.5
        assert (row["tp"], row["fp"]) == (
            int((vessel & (target == 1)).sum()),
            int((vessel & (target == 0)).sum()),
        )
    assert found["weights"] == [str(path) for path in paths] and found["flips"] is True
    assert found["threshold"] == pytest.approx((checkpoints[0]["threshold"] + 0.25) / 2)
    assert (
        found["epoch"] == [checkpoint["epoch"] for checkpoint in checkpoints]
        and len(found["split"]) == 2
    )
    assert [kwargs["base_c"] for kwargs in found["model_kwargs"]] == [4, 5] and found[
        "model_name"
    ] == ["unet"] * 2
    assert [flags["seed"] for flags in found["args"]] == [0, 1]  # how each was trained


def test_an_ensemble_of_one_file_twice_scores_like_the_file(finished, tiny_root, tmp_path):
    path = finished / "best_model.pth"
    once = evaluated(tiny_root, tmp_path / "once", "--weights", path)
    twice = evaluated(tiny_root, tmp_path / "twice", "--weights", path, path)
    assert (
        once["images"] == twice["images"]
        and once["weights"] == [str(path)]
        and once["flips"] is False
    )
    assert once["scores"]["f1"] == twice["scores"]["f1"] and once["selection"] == twice["selection"]


def test_weights_without_metadata_may_join_an_ensemble(finished, tiny_root, tmp_path):
    described, plain = finished / "best_model.pth", tmp_path / "plain.pth"
    torch.save(weights(finished, "best_model.pth"), plain)
    once = evaluated(tiny_root, tmp_path, "--weights", described)
    for paths in ((described, plain), (plain, described)):
        found = evaluated(
            tiny_root, tmp_path / "two", "--base-c", 4, "--bilinear", "--weights", *paths
        )
        assert (
            found["images"] == once["images"]
            and found["threshold"] is None
            and "unknown" in found["selection"]
        )


def test_a_threshold_of_ones_own_goes_before_the_checkpoints(finished, tiny_root, tmp_path):
    found = evaluated(
        tiny_root, tmp_path, "--weights", finished / "best_model.pth", "--threshold", 0.5
    )
    assert found["threshold"] == 0.5 != load(finished / "best_model.pth")["threshold"]
    assert found["scores"]["f1_at_threshold"] == pytest.approx(found["scores"]["f1"])


@pytest.mark.parametrize(
    "change, named",
    [
        ({"mean": [0.5, 0.5, 0.5]}, "other.pth.*mean .0.5, 0.5, 0.5.*best_model.pth with"),
        ({"class_names": ["background", "crack"]}, "other.pth: has the classes background, crack"),
        (
            {"resize": [48, 48]},
            r"other.pth: was trained with resize \[48, 48\], but .*best_model.pth with None",
        ),
    ],
)
def test_members_of_different_normalization_or_classes_are_refused(
    finished, tiny_root, tmp_path, change, named
):
    torch.save(load(finished / "best_model.pth") | change, tmp_path / "other.pth")
    with pytest.raises(UserError, match=named):
        evaluated(
            tiny_root,
            tmp_path / "out",
            "--weights",
            finished / "best_model.pth",
            tmp_path / "other.pth",
        )
    assert not (tmp_path / "out").exists()


def test_weights_of_a_run_that_diverged_are_refused_in_one_sentence(
    finished, tiny_root, tmp_path, capsys
):
    """Compared with the threshold, their NaN would pass for background."""
    checkpoint = load(finished / "best_model.pth")
    checkpoint["model"]["out_conv.0.bias"].fill_(float("nan"))
    torch.save(checkpoint, tmp_path / "nan.pth")
    argv = [
        "--weights",
        tmp_path / "nan.pth",
        "--input",
        tiny_root / "DRIVE/test/images",
        "--output",
        tmp_path / "out",
    ]
    for script in (
        lambda: evaluated(tiny_root, tmp_path / "scored", "--weights", tmp_path / "nan.pth"),
        lambda: predict.main(predict.parse_args([*map(str, argv), "--device", "cpu"])),
    ):
        with pytest.raises(SystemExit) as stop:
            run_script(script, "script")
        assert (
            stop.value.code == 2
            and f"script: error: {tmp_path}/nan.pth: 1 weights hold NaN" in capsys.readouterr().err
        )


def test_test_images_are_not_read_before_the_end(tiny_root, tmp_path, monkeypatch):
    opened, original = opened_files(monkeypatch), torch.save

    def watched(content, path):
        opened.append(Path(path))
        original(content, path)

    monkeypatch.setattr(torch, "save", watched)
    run_train(tiny_root, tmp_path, "--epochs", 2)
    last_save = max(i for i, path in enumerate(opened) if path.suffix == ".tmp")
    test_reads = [i for i, path in enumerate(opened) if tiny_root / "DRIVE/test" in path.parents]
    labels = tiny_root / "DRIVE/test/1st_manual"  # they are checked first, but not scored
    scored = [i for i in test_reads if labels not in opened[i].parents]
    assert scored and min(scored) > last_save
    history = load(tmp_path / "last_model.pth")["history"]
    assert [row["epoch"] for row in history if "val_dice" in row] == [0, 1]
    assert load(tmp_path / "last_model.pth")["split"]["val"] == ["25_training"]


def test_val_test_says_that_it_selects_on_test(tiny_root, tmp_path, capsys):
    run_train(tiny_root, tmp_path, "--epochs", 1, "--val", "test")
    assert "TEST images" in capsys.readouterr().out
    assert "TEST" in json.loads((tmp_path / "test_scores.json").read_text())["selection"]


def test_val_none_trains_on_all_and_keeps_the_last_weights(tiny_root, tmp_path):
    run_train(tiny_root, tmp_path, "--epochs", 2, "--val", "none")
    assert equal(weights(tmp_path), weights(tmp_path, "best_model.pth"))
    assert (
        load(tmp_path / "best_model.pth")["epoch"] == 1
        and load(tmp_path / "best_model.pth")["threshold"] == 0.5
    )
    assert "val_dice" not in (tmp_path / "results.csv").read_text()


def test_cross_validation_never_scores_the_test_split(tiny_root, tmp_path, capsys):
    run_train(tiny_root, tmp_path, "--epochs", 1, "--folds", 5, "--fold", 1)
    assert not (tmp_path / "test_scores.json").exists()
    assert "validation: 1 image (22_training)" in capsys.readouterr().out


def test_a_dice_of_zero_or_nan_still_saves_the_first_epoch():
    for dice in (0.0, math.nan):
        state = resume.new_state(steps=1, split={})
        assert resume.add_epoch(state, {"val_dice": dice})
        assert not resume.add_epoch(state, {"val_dice": math.nan})
        assert resume.add_epoch(state, {"val_dice": 0.1})
        assert not resume.add_epoch(state, {"val_dice": 0.05})


# --- resuming -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--no-cache", "--workers", 1),
        ("--amp", "--optimizer", "adamw", "--accumulate", 2),
        ("--preset", "best", "--crops", 2),
    ],
    ids=["plain", "workers", "amp", "crops"],
)
def test_resumed_equals_uninterrupted_after_any_epoch(tiny_root, tmp_path, monkeypatch, options):
    straight = run_train(tiny_root, tmp_path / "straight", "--epochs", 4, *options)
    for stop in (1, 3):
        folder = tmp_path / f"stopped{stop}"
        with monkeypatch.context() as patch:
            stop_after(patch, folder, stop)
            with pytest.raises(KeyboardInterrupt):
                run_train(tiny_root, folder, "--epochs", 4, *options)
        assert load(folder / "last_model.pth")["epoch"] == stop - 1
        torch.manual_seed(99)  # another process starts from another random state
        # Every other setting is in the checkpoint. The number of workers changes nothing.
        local = ("--no-cache", "--workers", stop - 1) if "--workers" in options else ()
        run_train(tiny_root, folder, "--resume", "auto", "--device", "cpu", *local, settings=())
        for name in ("last_model.pth", "best_model.pth"):
            assert equal(weights(straight, name), weights(folder, name))
        assert [row["epoch"] for row in load(folder / "last_model.pth")["history"]] == [0, 1, 2, 3]
        assert len(list(folder.glob("results2*.txt"))) == 1
        assert same_history(straight, folder)


def same_history(*folders):
    def rows(folder):
        timing = {"seconds", "crops_per_second"}
        return str(
            [
                {k: v for k, v in row.items() if k not in timing}
                for row in load(folder / "last_model.pth")["history"]
            ]
        )

    return len({rows(folder) for folder in folders}) == 1


def test_resume_keeps_the_best_score_and_the_settings(finished, tiny_root, tmp_path, capsys):
    for path in finished.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    run_train(tiny_root, tmp_path, "--resume", "auto", settings=())
    assert "resumed" in capsys.readouterr().out
    assert (
        load(tmp_path / "last_model.pth")["best_score"]
        == load(finished / "last_model.pth")["best_score"]
    )
    assert equal(weights(finished), weights(tmp_path))


def test_more_epochs_extend_the_schedule_without_a_jump(tiny_root, tmp_path, capsys):
    run_train(tiny_root, tmp_path, "--epochs", 2)
    run_train(tiny_root, tmp_path, "--resume", "auto", "--epochs", 4)
    assert "the schedule is extended" in capsys.readouterr().out
    rates = [row["lr"] for row in load(tmp_path / "last_model.pth")["history"]]
    assert len(rates) == 4 and rates[1] >= rates[2] >= rates[3] > 0


def test_more_epochs_from_a_rate_of_ones_own(tiny_root, tmp_path):
    run_train(tiny_root, tmp_path, "--epochs", 2)
    run_train(tiny_root, tmp_path, "--resume", "auto", "--epochs", 4, "--lr", 0.005)
    rates = [row["lr"] for row in load(tmp_path / "last_model.pth")["history"]]
    assert 0.002 < rates[2] < 0.005 and rates[3] < rates[2]


def test_resume_auto_without_a_checkpoint_is_a_new_run(tiny_root, tmp_path):
    run_train(tiny_root, tmp_path, "--epochs", 1, "--resume", "auto")
    assert load(tmp_path / "last_model.pth")["epoch"] == 0


def test_resuming_with_a_scaler_from_a_run_without_one(finished):
    """Earlier code read checkpoint["scaler"] of a run that had none: KeyError."""
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", enabled=True)
    checkpoint = {**load(finished / "last_model.pth"), "optimizer": optimizer.state_dict()}
    assert checkpoint["scaler"] == {}
    resume.restore_optimizer(checkpoint, optimizer, scaler)
    assert scaler.get_scale() == torch.amp.GradScaler("cpu", enabled=True).get_scale()


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_moments_take_the_memory_format_of_the_weights(name):
    """A run may be resumed on another device, and fused optimizers walk raw memory."""
    losses = []
    formats = torch.contiguous_format, torch.channels_last
    for layout in formats:
        torch.manual_seed(0)
        model, image = torch.nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8)
        optimizer = make_optimizer(parse("--optimizer", name, "--lr", 0.1), model)
        for step in range(4):
            loss = model(image).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if step == 1:  # resumed in the other format
                saved = {"optimizer": copy.deepcopy(optimizer.state_dict()), "scaler": {}}
                model = model.to(memory_format=layout)
                optimizer = make_optimizer(parse("--optimizer", name, "--lr", 0.1), model)
                scaler = torch.amp.GradScaler("cpu", enabled=False)
                resume.restore_optimizer(saved, optimizer, scaler)
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_resume_in_another_folder_keeps_the_best_weights(finished, tiny_root, tmp_path):
    run_train(tiny_root, tmp_path, "--resume", finished / "last_model.pth", settings=())
    assert equal(weights(finished, "best_model.pth"), weights(tmp_path, "best_model.pth"))
    assert (tmp_path / "results.csv").exists() and (tmp_path / "test_scores.json").exists()


def test_resume_with_another_split_is_refused(finished, tiny_root, tmp_path):
    for options in (("--val", "none"), ("--folds", 5, "--fold", 0)):
        with pytest.raises(UserError, match="split the images differently"):
            run_train(
                tiny_root, tmp_path, "--resume", finished / "last_model.pth", *options, settings=()
            )


def test_start_epoch_goes_back_without_doubling_epochs(finished, tiny_root, tmp_path):
    run_train(
        tiny_root,
        tmp_path,
        "--resume",
        finished / "last_model.pth",
        "--start-epoch",
        1,
        settings=(),
    )
    assert [row["epoch"] for row in load(tmp_path / "last_model.pth")["history"]] == [0, 1, 2]


def test_resume_of_another_architecture_is_refused(finished, tiny_root, tmp_path):
    with pytest.raises(UserError, match="base_c.*leave these flags out"):
        run_train(tiny_root, tmp_path, "--resume", finished / "last_model.pth", "--base-c", 8)


def test_no_save_best_keeps_every_epoch(tiny_root, tmp_path):
    run_train(tiny_root, tmp_path, "--epochs", 2, "--no-save-best")
    assert (
        load(tmp_path / "model_0.pth")["epoch"] == 0
        and load(tmp_path / "model_1.pth")["epoch"] == 1
    )


def parameters(state):
    """What the optimizer changes: all but the statistics of BatchNorm."""
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return {name: value for name, value in state.items() if not name.endswith(statistics)}


def test_fine_tuning_starts_from_the_weights(finished, tiny_root, tmp_path):
    """With such a small learning rate the weights stay what they were."""
    start = finished / "best_model.pth"
    for name, options in (("tuned", ("--weights", start)), ("new", ())):
        run_train(tiny_root, tmp_path / name, "--epochs", 1, "--lr", 1e-30, *options)
    assert equal(parameters(weights(tmp_path / "tuned")), parameters(load(start)["model"]))
    assert not equal(parameters(weights(tmp_path / "new")), parameters(load(start)["model"]))
    assert load(tmp_path / "tuned/last_model.pth")["training"]["weights"] == [str(start)]


# --- what is found out at the start is kept -------------------------------------------------------


def test_a_class_table_deleted_during_a_run_changes_nothing(tmp_path, monkeypatch):
    data = write_three_classes(tmp_path / "data", count=6)
    original, table = torch.save, data / "classes.csv"

    def save_and_delete(content, path):
        table.unlink(missing_ok=True)
        original(content, path)

    monkeypatch.setattr(torch, "save", save_and_delete)
    options = ("--dataset", "folder", "--epochs", 2, "--no-save-best", "--crop-size", 32)
    folder = run_train(data, tmp_path / "out", *options, settings=AFFINE)
    assert not table.exists()
    for name in ("model_0.pth", "model_1.pth", "last_model.pth", "best_model.pth"):
        checkpoint = load(folder / name)
        assert checkpoint["class_names"] == ["ground", "brick", "water"]
        assert checkpoint["class_colours"] == [[20, 40, 60], [200, 80, 30], [60, 160, 220]]
        assert checkpoint["class_table"]["names"] == checkpoint["class_names"]
        assert checkpoint["class_table"]["numbers"] == [[0, 0], [1, 1], [2, 2], [9, 255]]
        assert [[255, 255, 255], 255] in checkpoint["class_table"]["palette"]


def test_the_log_says_after_ten_steps_how_long_the_run_takes(tiny_root, tmp_path, capsys):
    """Each epoch has four steps, so the tenth is the second of epoch 2."""
    options = ("--epochs", 3, "--print-freq", 1)
    run_train(tiny_root, tmp_path, *options, settings=AFFINE)
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if "steps in all" in line)
    before = lines[lines.index(line) - 1]
    assert before.startswith("epoch 2  batch 2/4")
    assert re.fullmatch(r"12 steps in all: .*\b0:00:\d\d left, until (.* )?\d\d:\d\d .*", line)


def test_a_run_of_ten_steps_or_fewer_does_not_say_it(tiny_root, tmp_path, capsys):
    run_train(tiny_root, tmp_path, "--epochs", 5)  # of two steps each
    assert "steps in all" not in capsys.readouterr().out


def test_a_resumed_run_says_how_long_the_rest_takes(tiny_root, tmp_path, capsys):
    run_train(tiny_root, tmp_path, "--epochs", 1)
    run_train(tiny_root, tmp_path, "--resume", "auto", "--epochs", 7)
    assert "14 steps in all" in capsys.readouterr().out


# --- data and failures ----------------------------------------------------------------------------


def test_non_finite_loss_names_the_images_and_keeps_the_last_weights(tiny_root, tmp_path):
    run_train(tiny_root, tmp_path, "--epochs", 2)
    before = weights(tmp_path)
    with pytest.raises(NonFiniteLossError, match=r"epoch 2, on the images .*_training\.tif.*--lr"):
        run_train(tiny_root, tmp_path, "--resume", "auto", "--epochs", 3, "--lr", 1e30)
    assert equal(weights(tmp_path), before)


def test_test_labels_are_optional(tiny_copy, tmp_path, capsys):
    for path in (tiny_copy / "DRIVE/test/1st_manual").iterdir():
        path.unlink()
    run_train(tiny_copy, tmp_path, "--epochs", 1)
    assert "no labels" in capsys.readouterr().out
    assert (tmp_path / "predictions.png").exists() and not (tmp_path / "test_scores.json").exists()
    with pytest.raises(UserError, match="no labels"):
        run_train(tiny_copy, tmp_path, "--test-only", "--weights", tmp_path / "best_model.pth")


def test_a_wrong_test_label_stops_the_run_before_training(tiny_copy, tmp_path, monkeypatch):
    path = min((tiny_copy / "DRIVE/test/1st_manual").iterdir())
    label = Image.open(path).convert("L")
    label.putpixel((3, 3), 77)
    label.save(path)
    forbid_training(monkeypatch)
    with pytest.raises(UserError, match=f"{path.name}: a label holds two values"):
        run_train(tiny_copy, tmp_path, "--epochs", 1)


def test_an_impossible_tile_stops_the_run_before_data_are_read(tiny_root, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "read_data", lambda *args: pytest.fail("the data were read"))
    with pytest.raises(UserError, match="--tile 48"):
        run_train(tiny_root, tmp_path, "--epochs", 1, "--tile", 48)


def test_labels_of_other_values_are_reported(tiny_copy, tmp_path, capsys):
    for path in (tiny_copy / "DRIVE/training/1st_manual").iterdir():
        values = Image.open(path).point(lambda v: 253 if v else 3)
        values.save(path, optimize=False)
    run_train(tiny_copy, tmp_path, "--epochs", 1)
    out = capsys.readouterr().out
    assert "4 labels read as 3/253, such as" in out and "the larger value is read as class 1" in out


def test_tensorboard_logs_scalars_and_pictures(tiny_root, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_train(tiny_root, tmp_path, "--epochs", 2, "--tensorboard")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("val/dice")] == [0, 1]
    assert set(events.Tags()["images"]) == {"curves", "predictions"}


def test_auto_class_weights_balance_the_classes(tiny_root, tmp_path, capsys):
    run_train(tiny_root, tmp_path, "--epochs", 1, "--class-weights", "auto")
    background, vessel = (
        capsys.readouterr().out.split("class weights: ")[1].split("\n")[0].split(", ")
    )
    assert float(vessel) > 3 * float(background) > 0


def test_piped_output_has_plain_lines(tiny_root, tmp_path, capsys):
    run_train(tiny_root, tmp_path, "--epochs", 1, "--print-freq", 1)
    captured = capsys.readouterr()
    assert (
        "epoch 0  batch 1/2  loss " in captured.out
        and "crops/s" in captured.out
        and "left" in captured.out
    )
    assert "\r" not in captured.out + captured.err

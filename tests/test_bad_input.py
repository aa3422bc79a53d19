"""Bad input: one clear sentence that names the file or flag and the remedy, exit code 2, nothing
half-written."""

import os
import pickle
import re

import numpy as np
import pytest
import torch
from PIL import Image

import compute_mean_std
import predict
import train
from tests.made import write_folder
from tests.made_instances import write_instances
from tests.tiny import TINY, parse, run_train
from tests.watch import forbid_training, opened_files
from train_utils.checkpoint import load
from train_utils.cli.script import run_script

TRAINING = "DRIVE/training/"


def script(name, *argv):
    """Runs a script as its last lines do."""
    argv = [str(arg) for arg in argv]
    mains = {
        "train.py": lambda: train.main(parse(*argv)),
        "predict.py": lambda: predict.main(predict.parse_args(argv)),
        "compute_mean_std.py": lambda: compute_mean_std.main(compute_mean_std.parse_args(argv)),
    }
    run_script(mains[name], name)


def refusal(capsys, name, *argv):
    """The sentence a script ends with; it must exit with code 2 and print no traceback."""
    with pytest.raises(SystemExit) as stop:
        script(name, *argv)
    message = capsys.readouterr().err
    assert stop.value.code == 2
    assert message.startswith(f"{name}: error: ") and "Traceback" not in message
    return message


@pytest.fixture(scope="module")
def weights(tiny_root, tmp_path_factory):
    return run_train(tiny_root, tmp_path_factory.mktemp("run"), "--epochs", 1) / "best_model.pth"


# --- flags ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv, named",
    [
        (["--epochs", "0"], "--epochs.*at least 1"),
        (["--crop-size", "7"], "--crop-size.*at least 32"),
        (["--num-classes", "1"], "--num-classes.*at least 2"),
        (["--num-classes", "5"], "--num-classes 5.*2 classes, the background included"),
        (["--lr", "-0.1"], "--lr.*above 0"),
        (["--lr", "nan"], "--lr"),
        (["--warmup-epochs", "inf"], "--warmup-epochs"),
        (["--mean", "300", "0", "0"], "--mean"),
        (["--preset", "classic", "--scale", "0.001", "1"], "leaves no pixel"),
        (["--start-epoch", "300"], "--start-epoch"),
        (["--resume", "a.pth", "--weights", "b.pth"], "--resume FILE.*omit --weights"),
        (["--wd", "-1"], "--weight-decay.*at least 0"),
        (["--momentum", "1"], "--momentum.*below 1"),
        (["--batch-size", "zero"], "'zero' is not an integer"),
        (["--amp", "False"], "unrecognized arguments: False"),
        (["--class-weights", "1,2,3"], "3 weights for 2 classes"),
        (["--class-weights", "1,-2"], "--class-weights"),
        (["--scale", "2", "1"], "--scale"),
        (["--fold", "1"], "--folds K and --fold k"),
        (["--folds", "5", "--fold", "5"], "0 to 4"),
        (
            ["--folds", "5", "--fold", "0", "--split-file", "a.json"],
            "--split-file and --folds .*give one",
        ),
        (["--split-file", "a.json", "--split-seed", "3"], "--split-seed: .*those of a.json; omit"),
        (["--split-file", "a.json", "--test-fraction", ".3"], "--test-fraction: .*those of a.json"),
        (["--device", "tpu"], "'tpu' is not one of auto, cpu"),
        (["--test-only"], "--weights FILE"),
        (
            ["--weights", "{weights}", "b.pth"],
            "--weights .*b.pth: a run starts from one file.*--test-only",
        ),
        (["--flips"], "belong to --test-only"),
        (["--threshold", "0.3"], "belong to --test-only"),
        (["--report", "folder"], "belong to --test-only"),
        (["--test-only", "--weights", "{weights}", "--threshold", "1"], "--threshold.*below 1"),
        (
            ["--in-channels", "1", "--mean", "0.1", "0.2", "0.3"],
            "--mean has 3 values for --in-channels 1",
        ),
        (
            ["--weights", "{weights}", "--in-channels", "1"],
            "--in-channels 1: .*[.]pth was trained with 3 channels; leave out --in-channels",
        ),
        (["--test-fraction", "1"], "--test-fraction 1 leaves nothing"),
        (["--val-fraction", "1"], "--val-fraction.*below 1"),
        (["--dataset", "cityscapes"], "--dataset.*camvid"),
        (["--resize", "8", "64"], "--resize.*at least 16"),
        (["--optimiser", "sgd"], "--optimiser"),
        (
            ["--crop-size", "100000000"],
            r"--crop-size 100000000: .*take \d+\.\d GB, and \d+\.\d GB are free on .*lower one",
        ),
    ],
)
def test_impossible_flags(capsys, weights, argv, named):
    assert re.search(
        named, refusal(capsys, "train.py", *(arg.format(weights=weights) for arg in argv))
    )


def test_report_folder_is_tried_before_evaluating(
    capsys, weights, tiny_root, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("in the way")
    opened = opened_files(monkeypatch)
    message = refusal(
        capsys,
        "train.py",
        "--data-path",
        tiny_root,
        "--test-only",
        "--weights",
        weights,
        "--output-dir",
        tmp_path / "out",
        "--report",
        tmp_path / "file",
    )
    assert str(tmp_path / "file") in message and "another folder" in message
    assert not opened and not list((tmp_path / "out").glob("*"))


def test_a_second_observer_that_does_not_fit_is_named(capsys, weights, tiny_copy, tmp_path):
    (tiny_copy / "DRIVE/test/2nd_manual").mkdir()
    save_array(tiny_copy / "DRIVE/test/2nd_manual/02_manual2.gif", np.zeros((5, 5), np.uint8))
    message = refusal(
        capsys,
        "train.py",
        "--data-path",
        tiny_copy,
        "--test-only",
        "--weights",
        weights,
        "--output-dir",
        tmp_path / "out",
        "--report",
        tmp_path / "report",
    )
    assert (
        "02_manual2.gif: is 5×5 pixels" in message
        and not (tmp_path / "out/test_scores.json").exists()
    )


def test_more_workers_than_the_machine_can_use(capsys):
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    message = refusal(capsys, "train.py", "--workers", 100000)
    assert f"--workers 100000: this machine has {cores} cores; use at most" in message
    most = int(re.search(r"at most (\d+)", message)[1])
    assert most >= cores and parse("--workers", most).workers == most


def test_cuda_asked_for_and_absent(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert "--device auto or --device cpu" in refusal(capsys, "train.py", "--device", "cuda:1")


def test_on_off_flags_are_no_strings():
    def amp(*argv):
        return parse("--data-path", "x", *argv).amp

    assert amp() is True and amp("--amp") is True and amp("--no-amp") is False


# --- data -----------------------------------------------------------------------------------------


def test_no_data_folder_names_the_tree_and_the_demo(capsys, tmp_path):
    for name in ("train.py", "compute_mean_std.py"):
        message = refusal(capsys, name, "--data-path", tmp_path)
        assert (
            "training/images/21_training.tif" in message
            and "--demo" in message
            and str(tmp_path) in message
        )


def save_array(path, array):
    Image.fromarray(array).save(path, optimize=False)


def remove(path):
    path.unlink()


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def shrink(path):
    save_array(path, np.asarray(Image.open(path))[:-3])


def three_values(path):
    values = np.array(Image.open(path))
    values[:2, :2] = 7
    save_array(path, values)


def empty(path):
    save_array(path, np.zeros_like(np.asarray(Image.open(path))))


@pytest.mark.parametrize(
    "file, spoil, named",
    [
        ("mask/23_training_mask.gif", remove, "23_training.tif has no ROI mask"),
        ("1st_manual/23_manual1.gif", remove, "23_training.tif has no label"),
        ("images/23_training.tif", remove, "23_manual1.gif has no image"),
        (
            "images/23_training.tif",
            cut,
            "23_training.tif: cannot be read as an image.*replace or remove",
        ),
        ("1st_manual/23_manual1.gif", cut, "23_manual1.gif: "),
        ("1st_manual/23_manual1.gif", shrink, "23_manual1.gif: is 104×93 pixels.*104×96"),
        ("mask/23_training_mask.gif", shrink, "23_training_mask.gif: is 104×93 pixels"),
        (
            "1st_manual/23_manual1.gif",
            three_values,
            r"23_manual1.gif: a label holds two values.*7 \(4 pixels\)",
        ),
        (
            "mask/23_training_mask.gif",
            three_values,
            r"23_training_mask.gif: a ROI mask holds two values",
        ),
        ("mask/23_training_mask.gif", empty, "23_training_mask.gif: the ROI mask is empty"),
    ],
)
def test_bad_data_is_found_before_anything_is_written(
    capsys, tiny_copy, tmp_path, file, spoil, named
):
    spoil(tiny_copy / TRAINING / file)
    message = refusal(
        capsys, "train.py", "--data-path", tiny_copy, "--output-dir", tmp_path / "out", *TINY
    )
    assert re.search(named, message) and not (tmp_path / "out").exists()


def test_training_labels_without_foreground_are_refused(capsys, tiny_copy, tmp_path):
    for path in (tiny_copy / TRAINING / "1st_manual").iterdir():
        empty(path)
    message = refusal(
        capsys, "train.py", "--data-path", tiny_copy, "--output-dir", tmp_path / "out", *TINY
    )
    assert "no pixel of the training images is foreground" in message
    assert re.search(r"21_manual1.gif, hold nothing but background; .*my_dataset.py check", message)
    assert not (tmp_path / "out").exists()


def test_ids_of_objects_in_the_place_of_classes_name_the_flag(capsys, tmp_path):
    data = write_instances(tmp_path / "data", count=3)
    (data / "instances").rename(data / "masks")
    argv = ("--dataset", "folder", "--data-path", data, "--output-dir", tmp_path / "out")
    message = refusal(capsys, "train.py", *argv, *TINY)
    assert "--label-kind instances" in message and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options, named",
    [
        ((), "--test-fraction 0.2 takes 1 of 1 image for test.*--test-fraction 0"),
        (("--test-fraction", 0), "--val-fraction 0.2 takes 1 of 1 image.*--val none"),
    ],
)
def test_one_image_cannot_be_split(capsys, tmp_path, options, named):
    data = write_folder(tmp_path / "data", count=1)
    argv = ("--dataset", "folder", "--data-path", data, "--output-dir", tmp_path / "out")
    message = refusal(capsys, "train.py", *argv, *TINY, *options)
    assert re.search(named, message) and not (tmp_path / "out").exists()


def test_one_training_image_of_drive_cannot_be_split(capsys, tiny_copy, tmp_path):
    for path in sorted((tiny_copy / TRAINING).glob("*/*")):
        if not path.name.startswith("21"):
            path.unlink()
    argv = ("--data-path", tiny_copy, "--output-dir", tmp_path / "out")
    message = refusal(capsys, "train.py", *argv, *TINY)
    assert re.search("--val-fraction 0.2 takes 1 of 1 image.*--val none", message)
    assert not (tmp_path / "out").exists()


def test_demo_leaves_real_data_alone(capsys, tmp_path):
    (tmp_path / "DRIVE").mkdir()
    (tmp_path / "DRIVE" / "mine.txt").write_text("precious")
    assert "left untouched" in refusal(capsys, "train.py", "--demo", "--data-path", tmp_path)


# --- checkpoints and folders ----------------------------------------------------------------------


class Hostile:
    def __reduce__(self):
        return exec, ("raise SystemExit('the pickle ran')",)


def hostile(path):
    path.write_bytes(pickle.dumps(Hostile()))


def hostile_zip(path):
    torch.save({"model": Hostile()}, path)


@pytest.mark.parametrize(
    "spoil, named",
    [
        (remove, "no such file"),
        (cut, "cut short"),
        (hostile, "could run code|no checkpoint"),
        (hostile_zip, "could run code"),
        (lambda path: path.write_text("hello"), "no checkpoint"),
        (lambda path: path.write_bytes(b""), "no checkpoint"),
    ],
)
def test_unusable_checkpoints(capsys, weights, tiny_root, tmp_path, spoil, named):
    path = tmp_path / "model.pth"
    path.write_bytes(weights.read_bytes())
    spoil(path)
    image = tiny_root / "DRIVE/test/images/01_test.tif"
    for name, argv in (
        ("predict.py", ["--weights", path, "--input", image, "--output", tmp_path / "out"]),
        (
            "train.py",
            ["--data-path", tiny_root, "--resume", path, "--output-dir", tmp_path / "out", *TINY],
        ),
        ("train.py", ["--data-path", tiny_root, "--test-only", "--weights", path]),
    ):
        message = refusal(capsys, name, *argv)
        assert str(path) in message and re.search(named, message)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change, named",
    [
        ({"model_name": "transformer"}, "architecture 'transformer'.*unet"),
        (
            {"model_kwargs": {"in_channels": 3, "num_classes": 5, "bilinear": True, "base_c": 4}},
            "out_conv.0.*another arch",
        ),
        ({"format": 99}, "format 99"),
    ],
)
def test_checkpoints_of_something_else(capsys, weights, tiny_root, tmp_path, change, named):
    torch.save({**load(weights), **change}, tmp_path / "model.pth")
    message = refusal(
        capsys,
        "predict.py",
        "--weights",
        tmp_path / "model.pth",
        "--input",
        tiny_root / "DRIVE/test/images",
        "--output",
        tmp_path / "out",
    )
    assert re.search(named.split(".*")[0], message) and str(tmp_path / "model.pth") in message


def test_resume_from_plain_weights_points_to_weights(capsys, weights, tiny_root, tmp_path):
    torch.save(load(weights)["model"], tmp_path / "plain.pth")
    message = refusal(
        capsys, "train.py", "--data-path", tiny_root, "--resume", tmp_path / "plain.pth", *TINY
    )
    assert "--weights" in message


def test_output_folder_is_tried_before_training(capsys, tiny_root, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    forbid_training(monkeypatch)
    message = refusal(
        capsys, "train.py", "--data-path", tiny_root, "--output-dir", tmp_path / "file", *TINY
    )
    assert str(tmp_path / "file") in message and "another folder" in message


def test_full_disk_is_found_before_training(capsys, tiny_root, tmp_path, monkeypatch):
    forbid_training(monkeypatch)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    message = refusal(capsys, "train.py", "--data-path", tiny_root, "--output-dir", tmp_path, *TINY)
    assert "MB are free" in message and not list(tmp_path.iterdir())


# --- predict.py -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv, named",
    [
        (["--input", "nowhere/*.png"], "nowhere.*no images"),
        (["--input", "{root}"], "no images"),
        (
            ["--input", "{images}", "--roi-mask", "nowhere.gif"],
            "--roi-mask nowhere.gif: there is no such file",
        ),
        (["--input", "{images}", "--roi-mask", "{root}"], "0 files for 01_test.tif"),
        (["--input", "{images}", "--threshold", "1.5"], "--threshold.*below 1"),
        (["--input", "{images}", "--output", "{images}"], "folder of the inputs"),
    ],
)
def test_bad_input_of_predict(capsys, weights, tiny_root, tmp_path, argv, named):
    argv = [arg.format(root=tiny_root, images=tiny_root / "DRIVE/test/images") for arg in argv]
    assert re.search(
        named,
        refusal(capsys, "predict.py", "--weights", weights, "--output", tmp_path / "out", *argv),
    )


def test_a_pattern_without_quotes_is_named(capsys):
    """The shell makes several values of it."""
    with pytest.raises(SystemExit):
        predict.parse_args(["--weights", "a.pth", "--input", __file__, __file__])
    assert "put a pattern in quotes" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        predict.parse_args(["--weights", "a.pth", "--input", __file__, "no such file"])
    assert "unrecognized arguments: no such file" in capsys.readouterr().err

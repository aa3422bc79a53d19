"""How the settings of a run come about: built-in defaults, preset, dataset, demo, a saved run, and
the command line, each over the one before it."""

import argparse
import copy
import re

import pytest
import torch

import train
from my_dataset import DATASETS
from src.encoder import IMAGENET_MEAN, IMAGENET_STD
from tests.tiny import AFFINE, EXACT, parse, run_train
from train_utils.cli.parser import flag

# Values that are nobody's default, for every flag there is. The tests below fail for a new flag
# until it is added to one of these tables.
RUN = {  # a resumed run, or an evaluated one, takes them from the checkpoint
    "data_path": "elsewhere",
    "dataset": "list",
    "classes": "table.csv",
    "num_classes": 3,
    "resize": [48, 40],
    "max_pixels": 123456,
    "val": "none",
    "val_fraction": 0.3,
    "val_images": 77,
    "test_fraction": 0.1,
    "split_seed": 5,
    "folds": None,
    "fold": None,
    "augment": "affine",
    "base_size": 77,
    "scale": [0.6, 1.1],
    "crop_size": 72,
    "crops": 3,
    "rotate": 12.0,
    "mirror": "none",
    "jitter": 0.11,
    "pretrain_backbone": True,
    "preset": "fast",
    "memory": "large",
    "steps": 1234,
    "epochs": 17,
    "batch_size": 5,
    "accumulate": 3,
    "optimizer": "sgd",
    "lr": 0.0123,
    "momentum": 0.7,
    "label_kind": "instances",
    "border_weight": 3.0,
    "border_sigma": 4.0,
    "dice": False,
    "elastic": 6.0,
    "weight_decay": 0.003,
    "warmup_epochs": 2.5,
    "clip_grad": 1.5,
    "class_weights": [1.0, 3.0, 4.0],
    "batch_dice": False,
    "seed": 9,
    "amp": False,
    "compile": True,
    "deterministic": True,
    "tolerance": 2,
    "tile": 256,
    "overlap": 32,
    "save_best": False,
    "sync_bn": False,
    "scale_lr": True,
}
MODEL = {  # so does a new run that starts from the weights
    "in_channels": 1,
    "mean": [0.4],
    "std": [0.3],
    "model": "attention_unet",
    "base_c": 6,
    "bilinear": True,
    "align_corners": True,
    "norm": False,
    "bias": True,
    "deep_supervision": False,
    "padded": False,
    "spacing": [3.0, 1.0, 0.5],
}
LOCAL = {  # no other run takes them
    "demo": True,
    "split_file": "other.json",
    "cache": False,
    "cache_limit": 1.0,
    "workers": 1,
    "prefetch": 3,
    "pin_memory": True,
    "device": "cuda:7",
    "resume": "other.pth",
    "start_epoch": 3,
    "weights": ["other.pth"],
    "test_only": True,
    "held_out": True,
    "flips": True,
    "threshold": 0.3,
    "prune": 2,
    "report": "report",
    "output_dir": "other",
    "print_freq": 3,
    "profile": True,
    "tensorboard": True,
    "list_models": True,
    "dist_timeout": 60,
    "minutes": 5.0,
}


@pytest.fixture
def saved(tmp_path):
    """A checkpoint whose run had all these settings, and one that this version does not have."""
    description = {
        "format": 1,
        "model": {},
        "model_name": "attention_unet",
        "model_kwargs": {},
        "class_names": ["a", "b", "c"],
        "mean": MODEL["mean"],
        "std": MODEL["std"],
        "spacing": MODEL["spacing"],
        "threshold": 0.5,
    }
    path = tmp_path / "run/last_model.pth"
    path.parent.mkdir()
    torch.save(description | {"args": RUN | MODEL | LOCAL | {"gone": 1}}, path)
    return path


def chosen(args, names):
    """{name: value} of these settings."""
    return {name: getattr(args, name) for name in names}


# --- defaults of a new run ------------------------------------------------------------------------


def test_the_preset_replaces_built_in_defaults():
    best, classic = parse(), parse("--preset", "classic")
    assert (best.epochs, best.lr, best.crop_size, best.base_c) == (40, 1e-3, None, None)  # planned
    assert (classic.epochs, classic.crop_size, classic.lr, classic.base_c) == (200, 480, 0.01, 32)
    assert best.momentum == classic.momentum == 0.9  # in no preset


def test_the_dataset_chooses_the_preset():
    assert {row["preset"] for row in DATASETS.values()} == {"best", "scenes"}
    assert parse().preset == parse("--dataset", "folder").preset == "best"
    assert parse("--dataset", "camvid").preset == "scenes"
    assert parse("--dataset", "camvid", "--preset", "best").preset == "best"
    assert parse("--dataset", "folder", "--preset", "scenes").preset == "scenes"


def test_a_length_in_steps_or_minutes_replaces_the_crops_of_a_preset_and_of_the_demo():
    for length in (("--steps", 100), ("--minutes", 2)):
        for argv in (("--preset", "fast"), ("--demo",), ("--model", "unet_3d"), ()):
            args = parse(*argv, *length)
            assert args.crops is None and (args.steps or args.minutes) == length[1]
    assert (parse("--preset", "fast").crops, parse("--demo").crops) == (124, 8)


def test_the_width_of_a_preset_is_that_of_the_plain_unet():
    for name in ("resunet", "unet_plus_plus", "vgg16_unet"):
        args = parse("--preset", "classic", "--model", name)
        assert (args.base_c, args.bilinear, args.crop_size) == (None, None, 480)


def test_the_dataset_has_its_mean_and_std():
    row = DATASETS["drive"]
    assert (parse().mean, parse().std) == (row["mean"], row["std"])
    for argv in (("--dataset", "folder"), ("--in-channels", 1)):
        assert (parse(*argv).mean, parse(*argv).std) == (None, None)
    for argv in ((), ("--dataset", "folder")):
        args = parse("--model", "vgg16_unet", "--pretrained", *argv)
        assert (args.mean, args.std) == (IMAGENET_MEAN, IMAGENET_STD)


def test_the_demo_replaces_the_preset():
    args = parse("--demo", "--preset", "classic")
    assert (args.data_path, args.epochs, args.crop_size) == ("demo_data", 10, 192)
    assert args.optimizer == "sgd"  # the demo leaves it to the preset


def test_the_command_line_replaces_all():
    argv = ("--demo", "--epochs", 3, "--data-path", "mine", "--mean", 0.1, 0.2, 0.3, "--lr", 0.5)
    args = parse(*argv)
    assert (args.epochs, args.data_path, args.lr) == (3, "mine", 0.5)
    assert args.mean == [0.1, 0.2, 0.3] and args.std == DATASETS["drive"]["std"]
    assert parse("--no-amp").amp is False and parse("--no-bilinear").bilinear is False


def test_a_flag_that_equals_the_default_is_still_given():
    """288 is the default of the preset, but with --demo it is not."""
    assert parse("--demo").crop_size == 192
    assert parse("--demo", "--crop-size", 288).crop_size == 288


# --- saved runs -----------------------------------------------------------------------------------


def test_every_flag_is_in_one_table():
    tables = [RUN, MODEL, LOCAL]
    assert set().union(*tables) == vars(parse()).keys()
    assert sum(map(len, tables)) == len(vars(parse()))


def test_a_flag_cannot_be_declared_without_saying_who_inherits_it():
    with pytest.raises(TypeError):
        flag("--new", default=1, help="a new flag")


def test_a_resumed_run_takes_all_but_the_local_flags(saved):
    args, new = parse("--resume", saved), parse()
    assert chosen(args, RUN) == RUN and chosen(args, MODEL) == MODEL
    own = {"resume": str(saved), "output_dir": str(saved.parent)}
    assert chosen(args, LOCAL) == chosen(new, LOCAL) | own
    assert not hasattr(args, "gone")


def test_resume_auto_is_the_same(saved):
    args = parse("--resume", "auto", "--output-dir", saved.parent)
    assert vars(args) == vars(parse("--resume", saved))


def test_an_evaluation_takes_all_but_the_local_flags(saved):
    args, new = parse("--test-only", "--weights", saved), parse()
    assert chosen(args, RUN) == RUN and chosen(args, MODEL) == MODEL
    own = {"weights": [str(saved)], "test_only": True}
    assert chosen(args, LOCAL) == chosen(new, LOCAL) | own


def test_a_run_that_starts_from_weights_takes_the_model(saved):
    args, new = parse("--weights", saved), parse("--model", "attention_unet")
    assert chosen(args, MODEL) == MODEL
    assert chosen(args, RUN) == chosen(new, RUN)
    assert chosen(args, LOCAL) == chosen(new, LOCAL) | {"weights": [str(saved)]}


def test_a_saved_run_replaces_the_demo_and_the_command_line_replaces_it(saved):
    args = parse("--resume", saved, "--demo", "--epochs", 20, "--output-dir", "new")
    assert (args.epochs, args.output_dir) == (20, "new")
    assert (args.data_path, args.crop_size) == ("elsewhere", 72)


def test_the_split_of_a_saved_run_is_used_on_its_own_data(saved):
    split = saved.parent / "split.json"
    split.write_text("{}")
    assert parse("--resume", saved).split_file == str(split)
    assert parse("--resume", saved, "--data-path", "moved").split_file == str(split)
    evaluated = ("--test-only", "--weights", saved)
    assert parse(*evaluated).split_file == str(split)
    assert parse(*evaluated, "--data-path", "other").split_file == ""
    assert parse(*evaluated, "--split-file", "mine.json").split_file == "mine.json"
    assert parse("--weights", saved).split_file == ""


def test_another_preset_is_refused_on_resuming(saved, capsys):
    with pytest.raises(SystemExit) as stop:
        parse("--resume", saved, "--preset", "classic")
    assert stop.value.code == 2
    assert "--resume continues with the preset of its run, fast" in capsys.readouterr().err
    assert parse("--resume", saved, "--preset", "fast").preset == "fast"


# --- --help ---------------------------------------------------------------------------------------


def default_in_help(capsys, name, *argv):
    """The default of a flag as --help shows it."""
    with pytest.raises(SystemExit) as stop:
        parse(*argv, "--help")
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    return text.split(f" {name} ", 1)[1].split("(default: ", 1)[1].split(")", 1)[0]


@pytest.mark.parametrize(
    "argv, name, expected",
    [
        ((), "--crop-size", "planned from the data"),
        (("--dataset", "camvid"), "--preset", "scenes"),
        (("--preset", "classic"), "--crop-size", "480"),
        (("--preset", "classic"), "--epochs", "200"),
        (("--preset", "classic", "--demo"), "--crop-size", "192"),
        ((), "--mean", "0.709 0.381 0.224"),
        (("--dataset", "folder"), "--mean", "the dataset's, else .*"),
        ((), "--base-c", "16 for two classes, 32 for more; .*"),
        (("--preset", "classic"), "--base-c", "32"),
        (("--model", "resunet"), "--base-c", ".* other models than unet have their own, .*"),
        ((), "--amp, --no-amp", "on"),
        ((), "--tile", "up to 1024, for volumes about 64 to 96, .*"),
        ((), "--overlap", "a sixteenth of the tile, for volumes an eighth"),
    ],
)
def test_help_shows_the_defaults_of_the_other_flags(capsys, argv, name, expected):
    assert re.fullmatch(expected, default_in_help(capsys, name, *argv))


# --- nothing changes the settings -----------------------------------------------------------------


class Settings(argparse.Namespace):
    """Settings that cannot be changed."""

    def __init__(self, args):
        self.__dict__.update(copy.deepcopy(vars(args)))

    def __setattr__(self, name, value):
        raise AttributeError(f"{name} is changed")

    def __delattr__(self, name):
        raise AttributeError(f"{name} is deleted")


def run_unchanged(*argv):
    """Runs train.main and checks that the settings are what they were."""
    args = Settings(parse(*argv))
    before = copy.deepcopy(vars(args))
    train.main(args)
    assert vars(args) == before


def test_no_run_changes_its_settings(tiny_root, tmp_path):
    weights = tmp_path / "run/last_model.pth"
    data = ("--data-path", tiny_root, "--output-dir")
    folds = ("--folds", 2, "--fold", 0)
    evaluated = (*EXACT, "--test-only", "--weights", weights)
    run_unchanged(*data, tmp_path / "run", *AFFINE, *folds, "--epochs", 1)
    run_unchanged(*data, tmp_path / "run", "--resume", weights, "--epochs", 2, "--device", "cpu")
    run_unchanged(*data, tmp_path / "test", *evaluated, "--report", tmp_path / "report")
    run_unchanged(*data, tmp_path / "held_out", *evaluated, "--held-out")
    run_unchanged(*data, tmp_path / "tuned", *AFFINE, "--weights", weights, "--epochs", 1)


def test_what_is_found_out_is_saved_by_name_and_the_flags_as_they_were(tiny_root, tmp_path):
    argv = ("--epochs", 1, "--class-weights", "auto", "--mean", 0.5, 0.5, 0.5)
    folder = run_train(tiny_root, tmp_path, *argv, settings=AFFINE)
    checkpoint = torch.load(folder / "last_model.pth", weights_only=True)
    flags = checkpoint["args"]
    assert (flags["num_classes"], flags["class_weights"]) == (None, "auto")
    assert checkpoint["model_kwargs"]["num_classes"] == 2
    assert checkpoint["mean"] == flags["mean"] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("flags", [("--weights",), ("--test-only", "--weights")], ids=str)
def test_weights_without_a_word_on_it_were_trained_with_align_corners(flags, tmp_path):
    """The tutorials' files, whose args are a Namespace, and ours from before the flag."""
    for args in (argparse.Namespace(lr=1.0), {"model": "unet", "bilinear": True}):
        torch.save({"model": {}, "args": args}, tmp_path / "old.pth")
        assert parse(*flags, tmp_path / "old.pth").align_corners is True
    torch.save({"model": {}, "args": {"align_corners": False}}, tmp_path / "new.pth")
    assert parse(*flags, tmp_path / "new.pth").align_corners is False
    assert parse("--preset", "classic").align_corners is True
    assert parse().align_corners is False

"""--model and the options of the architectures, from the command line to the checkpoint and
predict.py."""

import json
import urllib.error

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.models import MobileNet_V3_Large_Weights

import predict
import train
from my_dataset import DATASETS, Data, DriveDataset
from src import MODELS, build_model
from src.encoder import IMAGENET_MEAN, IMAGENET_STD
from src.errors import UserError
from tests.tiny import TINY, parse, run_train
from train_utils.checkpoint import ModelDescription, load
from train_utils.cli.model_flags import MODEL_FLAGS, model_kwargs
from train_utils.cli.recipe import describe_recipe, make_recipe, recipe_of_flags
from train_utils.data_loader import EpochBatches
from train_utils.model_loading import check_description, load_model

TINY_WITHOUT_WIDTH = TINY[:2] + TINY[4:]  # for the models that have no --base-c
assert TINY[2:4] == ("--base-c", "4")


def options(*argv):
    """The model's options that these flags ask for, beside the channels and classes."""
    kwargs = model_kwargs(parse(*argv), num_classes=2)
    assert kwargs.pop("in_channels") == 3 and kwargs.pop("num_classes") == 2
    return kwargs


def refusal(capsys, *argv):
    with pytest.raises(SystemExit) as stop:
        parse(*argv)
    assert stop.value.code == 2
    return capsys.readouterr().err


# --- flags → options ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv, expected",
    [
        ([], {"bilinear": False, "base_c": 16, "norm": True, "bias": None}),
        (
            ["--preset", "classic"],
            {"bilinear": True, "base_c": 32, "norm": True, "bias": None, "align_corners": True},
        ),
        (
            ["--base-c", 8, "--no-norm"],
            {"bilinear": False, "base_c": 8, "norm": False, "bias": None},
        ),
        (["--bias"], {"bilinear": False, "base_c": 16, "norm": True, "bias": True}),
        (
            ["--model", "unet_plus_plus"],
            {"base_c": 32, "deep_supervision": True, "norm": True, "bias": None},
        ),
        (
            ["--model", "unet_plus_plus", "--no-deep-supervision", "--preset", "classic"],
            {"base_c": 32, "deep_supervision": False, "norm": True, "bias": None},
        ),
        (
            ["--model", "attention_unet", "--bilinear"],
            {"bilinear": True, "base_c": 16, "norm": True, "bias": None, "align_corners": False},
        ),
        (["--model", "resunet"], {"base_c": 64}),
        (["--model", "unet_original", "--base-c", 16], {"base_c": 16}),
        (["--model", "vgg16_unet"], {"align_corners": False}),
        (["--model", "vgg16_unet", "--align-corners"], {"align_corners": True}),
        (["--model", "vgg16_unet", "--preset", "classic"], {"align_corners": True}),
        # where the weights came from is not what the model is
        (["--model", "mobilenetv3_unet", "--pretrained"], {"align_corners": False}),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_options_are_the_flags_or_the_models_own_defaults(argv, expected):
    assert options(*argv) == expected


@pytest.mark.parametrize(
    "argv, named",
    [
        (
            ["--model", "vgg16_unet", "--base-c", 16],
            "--base-c: --model vgg16_unet has no such option; it has --align-corners, --pretrained",
        ),
        (
            ["--model", "resunet", "--no-bilinear"],
            "--bilinear: --model resunet has no such option; it has --base-c",
        ),
        (
            ["--pretrained"],
            "--pretrained: --model unet has no such option; "
            "it has --base-c, --bilinear, --align-corners, --norm, --bias",
        ),
        (["--no-deep-supervision"], "--deep-supervision: --model unet has no such option"),
        (
            ["--model", "unet_original", "--crop-size", 187],
            "--crop-size 187: unet_original trains on crops of at least 188",
        ),
        (
            ["--model", "mobilenetv3_unet", "--crop-size", 32],
            "--crop-size 32: mobilenetv3_unet.*of at least 33",
        ),
        (
            ["--model", "vgg16_unet", "--pretrained", "--in-channels", 4],
            "--pretrained: .*not --in-channels 4",
        ),
        (["--align-corners"], "--align-corners: is of bilinear upsampling; .*--bilinear"),
        (["--prune", 2], "--prune belongs to --test-only"),
        (["--prune", 5, "--test-only"], "--prune.*at most 4"),
    ],
)
def test_a_flag_that_the_model_does_not_have_is_an_error(capsys, argv, named):
    message = refusal(capsys, *argv)
    assert all(part in message for part in named.split(".*"))


def described(*argv):
    """The lines that the log says of the model and the recipe."""
    args = parse(*argv)
    length = {"epochs": 7, "warmup_epochs": 0.5}
    return describe_recipe(args, model_kwargs(args, 2), recipe_of_flags(args, 2), length)


def test_the_log_says_the_model_and_the_recipe_as_the_flags_left_it():
    said = described("--preset", "classic", "--lr", 0.02, "--model", "resunet")
    assert (
        "model resunet: in_channels 3, num_classes 2, base_c 64\nrecipe classic: augment resize"
        in said
    )
    assert "lr 0.02" in said and "class_weights [1.0, 2.0]" in said
    assert "momentum 0.9" in said and "epochs 7" in said and "warmup_epochs 0.5" in said
    assert "central 4 px" in described("--crop-size", 192, "--model", "unet_original")


def test_settings_without_effect_are_not_in_the_recipe():
    said = described("--no-dice", "--rotate", 30)
    assert "optimizer adamw" in said and "momentum" not in said
    assert "dice False" in said and "batch_dice" not in said
    assert "rotate 30.0" in said and "base_size" not in said and "elastic" not in said
    assert "base_size 565" in described("--preset", "classic")


def test_every_option_of_every_class_has_a_flag():
    for name in MODELS:
        kwargs = model_kwargs(parse("--model", name), 2)
        assert kwargs.keys() <= MODEL_FLAGS.keys() | {"in_channels", "num_classes"}
        with torch.device("meta"):
            assert build_model(name, **kwargs).num_classes == 2


def test_list_models_prints_what_each_name_builds(capsys):
    train.main(parse("--list-models"))
    lines = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines()}
    assert lines.keys() == MODELS.keys() | {"--model"}
    # base 16 transposed is what the recipe trains: 31,037,698 is base 64
    with torch.device("meta"):
        assert (
            lines["unet"]
            == f"{sum(p.numel() for p in MODELS['unet'](3, 2, False, 16).parameters()):,}"
        )
    assert lines["unet_plus_plus"] == "9,046,056"


def test_mean_and_std_follow_the_weights():
    row = DATASETS["drive"]
    for argv, mean, std in (
        (["--model", "vgg16_unet"], row["mean"], row["std"]),
        (["--model", "vgg16_unet", "--pretrained"], IMAGENET_MEAN, IMAGENET_STD),
        (
            ["--model", "vgg16_unet", "--pretrained", "--mean", 0.1, 0.2, 0.3],
            [0.1, 0.2, 0.3],
            IMAGENET_STD,
        ),
    ):
        args = parse(*argv)
        assert (args.mean, args.std) == (mean, std)


# --- checkpoints ----------------------------------------------------------------------------------


def test_what_a_checkpoint_asks_for_and_this_version_or_machine_has_not(tmp_path, capsys):
    path = tmp_path / "run.pth"
    torch.save({"args": {"model": "transformer"}}, path)
    assert "--model transformer, as the checkpoint says: this version has only" in refusal(
        capsys, "--test-only", "--weights", path
    )
    described = ("model", "model_name", "model_kwargs", "mean", "std", "threshold")
    content = {"format": 1, "class_names": ["a", "b"], "args": {"sync_bn": True}}
    torch.save(dict.fromkeys(described) | content, path)
    # an evaluation needs no SyncBatchNorm
    assert parse("--test-only", "--weights", path, "--device", "cpu").sync_bn
    assert "CUDA only, not on cpu; give --no-sync-bn" in refusal(
        capsys, "--resume", path, "--device", "cpu"
    )
    assert not parse("--resume", path, "--device", "cpu", "--no-sync-bn").sync_bn


def asked(*argv):
    """The description of the model that these flags ask for."""
    args, classes = parse(*argv), DATASETS["drive"]["classes"]
    return ModelDescription(args.model, model_kwargs(args, 2), classes, args.mean, args.std, None)


def test_a_checkpoint_from_before_an_option_had_its_default():
    old = {
        "model_name": "unet",
        "model_kwargs": {"in_channels": 3, "num_classes": 2, "bilinear": False, "base_c": 16},
    }
    check_description(old, asked(), "old.pth")
    with pytest.raises(
        UserError, match="old.pth: is of a unet with {'norm': True}, but .* {'norm': False}"
    ):
        check_description(old, asked("--no-norm"), "old.pth")
    with pytest.raises(
        UserError, match="of the model unet, but the flags ask for resunet; leave out --model"
    ):
        check_description(old, asked("--model", "resunet"), "old.pth")
    check_description({"model": {}}, asked(), "plain.pth")


def test_weights_of_another_number_of_classes_name_the_class_table():
    kwargs = {"in_channels": 3, "num_classes": 5, "bilinear": False, "base_c": 16}
    with pytest.raises(UserError) as caught:
        check_description({"model_name": "unet", "model_kwargs": kwargs}, asked(), "old.pth")
    message = str(caught.value)
    assert message.startswith("old.pth: these weights are of a model of 5 classes")
    assert "a model of 2 classes, as the data have; check the class table" in message
    assert "flags" not in message


def predicted(weights, images, output, *more):
    """The probabilities that predict.py writes."""
    argv = [
        "--weights",
        weights,
        "--input",
        images,
        "--output",
        output,
        "--device",
        "cpu",
        "--no-amp",
        "--save-prob",
        *more,
    ]
    predict.main(predict.parse_args([str(arg) for arg in argv]))
    return np.asarray(Image.open(output / "01_test_prob.png")).astype(int)


def test_a_unet_plus_plus_trains_resumes_and_is_pruned(tiny_root, tmp_path, capsys):
    """From the second run on no flag describes the model: the checkpoint does."""
    folder = run_train(tiny_root, tmp_path / "run", "--model", "unet_plus_plus", "--epochs", 1)
    run_train(tiny_root, folder, "--resume", "auto", "--epochs", 2, settings=())
    model, checkpoint = load_model(folder / "last_model.pth")
    assert checkpoint["epoch"] == 1 and (model.base_c, model.depth) == (4, 4)
    weights, images, scores = folder / "best_model.pth", tiny_root / "DRIVE/test/images", []
    for level in (4, 1):
        output = run_train(
            tiny_root,
            tmp_path / f"test{level}",
            "--test-only",
            "--weights",
            weights,
            "--prune",
            level,
            settings=(),
        )
        scores.append(json.loads((output / "test_scores.json").read_text())["scores"])
    assert (
        scores[0] == json.loads((folder / "test_scores.json").read_text())["scores"]
        and scores[0] != scores[1]
    )
    whole, *pruned = (
        predicted(weights, images, tmp_path / f"out{i}", *more)
        for i, more in enumerate(([], ["--prune", 4], ["--prune", 1]))
    )
    assert np.array_equal(whole, pruned[0]) and not np.array_equal(whole, pruned[1])


def test_pruning_something_else_names_the_file(tiny_root, tmp_path):
    weights = run_train(tiny_root, tmp_path / "run", "--epochs", 1) / "best_model.pth"
    for run in (
        lambda: predicted(weights, tiny_root / "DRIVE/test/images", tmp_path / "out", "--prune", 2),
        lambda: run_train(
            tiny_root, tmp_path / "t", "--test-only", "--weights", weights, "--prune", 2
        ),
    ):
        with pytest.raises(UserError, match="best_model.pth: is a UNet, which has no levels"):
            run()
    assert not (tmp_path / "out").exists()


def test_the_original_unet_trains_on_centres_and_predicts_whole_images(tiny_root, tmp_path):
    folder = run_train(
        tiny_root,
        tmp_path / "run",
        "--model",
        "unet_original",
        "--crop-size",
        204,
        "--base-size",
        204,
        "--scale",
        1,
        1,
        "--epochs",
        1,
    )
    assert load(folder / "last_model.pth")["history"][0]["train_loss"] > 0
    size = Image.open(tiny_root / "DRIVE/test/images/01_test.tif").size
    assert (
        predicted(
            folder / "best_model.pth", tiny_root / "DRIVE/test/images", tmp_path / "out"
        ).shape
        == size[::-1]
    )


def test_crops_reach_over_the_border_by_what_valid_convolutions_take_off(tiny_root):
    dataset = DriveDataset(tiny_root, train=True)
    row = DATASETS["drive"]
    pixels = dataset.count_pixels()
    data = Data(dataset, None, [], {"train": [], "val": []}, pixels, row["mean"], row["std"])
    for argv, margin in ((["--model", "unet_original"], 92), ([], 0)):
        batches = EpochBatches(len(dataset), 1, 0)
        args = parse(*argv)
        recipe = make_recipe(args, train.summarize_training(data), torch.device("cpu"))
        loader = train.make_train_loader(args, recipe, data, batches, torch.device("cpu"))
        assert loader.cropper.margin == margin


def test_a_pretrained_run_says_how_it_normalizes_and_does_not_need_the_file_again(
    tiny_root, tmp_path, monkeypatch
):
    file = (
        tmp_path / "hub/checkpoints" / MobileNet_V3_Large_Weights.IMAGENET1K_V1.url.rsplit("/")[-1]
    )
    file.parent.mkdir(parents=True)
    torch.save(torchvision.models.mobilenet_v3_large().state_dict(), file)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = run_train(
        tiny_root,
        tmp_path / "run",
        "--model",
        "mobilenetv3_unet",
        "--pretrained",
        "--epochs",
        1,
        "--lr",
        1e-30,  # leaves the weights as they are
        settings=TINY_WITHOUT_WIDTH,
    )
    checkpoint, imagenet = load(folder / "best_model.pth"), torch.load(file)
    first = checkpoint["model"]["backbone.0.0.weight"]
    assert torch.equal(first, imagenet["features.0.0.weight"])
    assert (checkpoint["mean"], checkpoint["std"]) == (IMAGENET_MEAN, IMAGENET_STD)

    file.unlink()
    run_train(tiny_root, folder, "--resume", "auto", "--epochs", 2, settings=())
    assert (
        load(folder / "last_model.pth")["epoch"] == 1
        and load(folder / "last_model.pth")["mean"] == IMAGENET_MEAN
    )
    run_train(
        tiny_root,
        tmp_path / "tuned",
        "--weights",
        folder / "best_model.pth",
        "--epochs",
        1,
        "--crop-size",
        64,
        "--crops",
        1,
        "--device",
        "cpu",
        settings=(),
    )
    assert load(tmp_path / "tuned/last_model.pth")["mean"] == IMAGENET_MEAN
    with pytest.raises(SystemExit):
        parse("--model", "mobilenetv3_unet", "--pretrained", "--weights", folder / "best_model.pth")


def test_offline_a_pretrained_run_ends_before_anything_is_written(tiny_root, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    # run_script ends with this sentence
    with pytest.raises(UserError, match="mobilenet_v3_large.*elsewhere and copy it to"):
        run_train(
            tiny_root,
            tmp_path / "run",
            "--model",
            "mobilenetv3_unet",
            "--pretrained",
            settings=TINY_WITHOUT_WIDTH,
        )
    assert not (tmp_path / "run").exists()

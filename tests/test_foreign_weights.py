"""Weights of milesial/Pytorch-UNet load into UNet, with what they say of their images and classes.

Its names are written out in THEIRS, so that a wrong entry of the table in train_utils/
foreign_weights.py cannot be hidden by its own inverse.
"""

import numpy as np
import pytest
import torch
from PIL import Image

import predict
from src import UNet
from src.inference import predict_probs
from tests.small import error_of, same_weights
from tests.tiny import EXACT, run_train
from train_utils.checkpoint import check_described, load, save, strip_checkpoint
from train_utils.data.class_table import BINARY, ClassTable
from train_utils.foreign_weights import class_table_of
from train_utils.model_loading import load_models

DOWN = "down{n}.maxpool_conv.1.double_conv.{layer}"
THEIRS = {  # of our modules
    "in_conv.{layer}": "inc.double_conv.{layer}",
    "down{n}.1.{layer}": DOWN,
    "up{n}.conv.{layer}": "up{n}.conv.double_conv.{layer}",
    "up{n}.up": "up{n}.up",
    "out_conv.0": "outc.conv",
}


def their_names():
    """{our module: theirs} of all modules with weights."""
    names = {}
    for ours, theirs in THEIRS.items():
        for n in (1, 2, 3, 4):
            for layer in (0, 1, 3, 4):
                names[ours.format(n=n, layer=layer)] = theirs.format(n=n, layer=layer)
    return names


def model_of(seed=0, **options):
    torch.manual_seed(seed)
    options = {"in_channels": 3, "num_classes": 2, "bilinear": False, "base_c": 4} | options
    model = UNet(**options)
    model(torch.rand(2, 3, 64, 64)[:, : options["in_channels"]])  # BatchNorm has seen something
    return model.eval()


def their_state(model, **extra):
    """The state_dict as that repository saves it."""
    names, state = their_names(), {}
    for name, value in model.state_dict().items():
        module, _, kind = name.rpartition(".")
        state[f"{names[module]}.{kind}"] = value
    return {**state, **extra}


def save_theirs(path, model, **extra):
    torch.save(their_state(model, **extra), path)
    return path


# --- the network ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bilinear": True},
        {"in_channels": 1, "num_classes": 4, "base_c": 2},
        {"bias": True},  # as in its early versions
    ],
    ids=str,
)
def test_weights_load_by_their_names_and_shapes(tmp_path, options):
    model = model_of(**options)
    path = save_theirs(tmp_path / "theirs.pth", model, mask_values=[0, 1])
    ((loaded, checkpoint),) = load_models([path])
    assert same_weights(loaded.state_dict(), model.state_dict()) and not loaded.training
    kwargs = checkpoint["model_kwargs"]
    expected = {"in_channels": 3, "num_classes": 2, "bilinear": False, "base_c": 4} | options
    assert kwargs == expected
    channels = kwargs["in_channels"]
    assert checkpoint["mean"] == [0.0] * channels and checkpoint["std"] == [1.0] * channels


def test_a_single_class_becomes_two_with_the_same_probabilities(tmp_path):
    model = model_of(num_classes=1)
    path = save_theirs(tmp_path / "theirs.pth", model, mask_values=[0, 255])
    ((loaded, checkpoint),) = load_models([path])
    image = torch.rand(2, 3, 48, 40)
    with torch.no_grad():
        expected = model(image)["out"].sigmoid()
    torch.testing.assert_close(predict_probs(loaded, image)[:, 1:], expected)
    assert checkpoint["threshold"] == 0.5
    assert checkpoint["class_names"] == ["background", "foreground"]


def test_a_file_that_lacks_a_weight_is_refused_by_name(tmp_path):
    state = their_state(model_of())
    del state["up2.conv.double_conv.3.weight"]
    torch.save(state, tmp_path / "theirs.pth")
    message = error_of(load_models, [tmp_path / "theirs.pth"])
    assert "theirs.pth" in message and "missing (first: up2.conv.3.weight)" in message


# --- the classes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [None, [0, 1], [0, 255], [7], "ab", [0.5, 1.5]], ids=str)
def test_two_classes_of_numbers_are_any_two_values(values):
    assert class_table_of(values, 2) == BINARY


def test_more_classes_have_the_ids_of_the_masks():
    table = class_table_of([0, 100, 200], 3)
    assert table.names == ("background", "class 100", "class 200") and table.ids == [0, 100, 200]
    table = class_table_of(None, 3)
    assert table.names == ("background", "class 1", "class 2") and table.ids == [0, 1, 2]


@pytest.mark.parametrize("values", [[0, 1], [0, -1, 2], [0, 1, "x"], 3], ids=str)
def test_values_that_do_not_fit_are_not_used(values):
    assert class_table_of(values, 3) == class_table_of(None, 3)


def test_colours_of_the_masks_are_those_of_the_classes():
    table = class_table_of([[0, 0, 0], [0, 0, 255], [255, 0, 0]], 3)
    assert table.names == ("background", "class 1", "class 2") and table.ids == [0, 1, 2]
    assert table.colours == ((0, 0, 0), (0, 0, 255), (255, 0, 0))
    assert table.palette == {(0, 0, 0): 0, (0, 0, 255): 1, (255, 0, 0): 2}


def test_the_classes_are_in_the_checkpoint(tmp_path):
    values = [[0, 0, 0], [0, 0, 255], [255, 0, 0]]
    path = save_theirs(tmp_path / "theirs.pth", model_of(num_classes=3), mask_values=values)
    checkpoint = check_described(load(path), path)
    assert checkpoint["class_colours"] == values
    assert ClassTable.from_dict(checkpoint["class_table"]) == class_table_of(values, 3)


# --- the scripts ---------------------------------------------------------------------------------


def test_predict_uses_the_file_as_it_is(tmp_path, capsys):
    model = model_of()
    path = save_theirs(tmp_path / "theirs.pth", model, mask_values=[0, 1])
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (41, 50, 3), generator=generator).byte()
    Image.fromarray(pixels.numpy()).save(tmp_path / "image.png")
    argv = ["--weights", path, "--input", tmp_path / "image.png", "--output", tmp_path / "out"]
    predict.main(predict.parse_args([str(arg) for arg in (*argv, "--save-prob", *EXACT)]))
    found = np.asarray(Image.open(tmp_path / "out/image_prob.png")) / 65535
    with torch.no_grad():  # images are scaled to 0–1 and no further
        expected = model(pixels.permute(2, 0, 1)[None] / 255)["out"].softmax(1)[0, 1]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
    note = capsys.readouterr().out
    assert f"{path} holds weights of milesial/Pytorch-UNet" in note and "--scale 0.5" in note


def test_train_starts_from_the_file_without_flags_of_the_model(tiny_root, tmp_path, capsys):
    path = save_theirs(tmp_path / "theirs.pth", model_of(num_classes=1))
    flags = ("--epochs", 1, "--crops", 1, "--crop-size", 64, "--batch-size", 2, "--lr", 1e-9)
    folder = run_train(tiny_root, tmp_path / "run", "--weights", path, *flags, settings=EXACT)
    content = load(folder / "last_model.pth")
    assert content["model_kwargs"]["base_c"] == 4 and content["mean"] == [0.0] * 3
    assert content["class_names"] == ["background", "vessel"]
    first = their_state(model_of(num_classes=1))["inc.double_conv.0.weight"]
    assert torch.allclose(content["model"]["in_conv.0.weight"], first, atol=1e-3)
    assert "--scale 0.5" in capsys.readouterr().out


def test_a_stripped_copy_describes_itself(tmp_path):
    path = save_theirs(tmp_path / "theirs.pth", model_of())
    save(tmp_path / "ours.pth", strip_checkpoint(load(path)))
    ((first, one),), ((second, other),) = (
        load_models([path]),
        load_models([tmp_path / "ours.pth"]),
    )
    assert same_weights(first.state_dict(), second.state_dict())
    assert {**one, "model": None} == {**other, "model": None}

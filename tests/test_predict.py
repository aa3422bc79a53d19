"""predict.py: its files agree with the scores of train.py and have the size of the input."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import predict
from src.errors import UserError
from src.image_io import read_image
from src.inference import predict_probs
from tests.tiny import EXACT, run_train
from train_utils.checkpoint import load
from train_utils.model_loading import load_model
from transforms import eval_preset


@pytest.fixture(scope="module")
def run(tiny_root, tmp_path_factory):
    """A run that is long enough to predict both classes."""
    options = ("--epochs", 12, "--optimizer", "adamw", "--lr", 0.01)
    return run_train(tiny_root, tmp_path_factory.mktemp("run"), *options)


@pytest.fixture
def images(tiny_root):
    return tiny_root / "DRIVE/test/images"


def segment(weights, source, output, *options):
    """Runs predict.main; returns the files that it wrote by their names."""
    argv = ["--weights", *weights, "--input", source, "--output", output, *EXACT, *options]
    predict.main(predict.parse_args([str(arg) for arg in argv]))
    return {path.name: path for path in output.iterdir()}


def pixels_of(path):
    return np.asarray(Image.open(path))


def test_masks_reproduce_the_scored_predictions(run, tiny_root, images, tmp_path):
    files = segment([run / "best_model.pth"], images, tmp_path, "--threshold", 0.5)
    for row in json.loads((run / "test_scores.json").read_text())["images"]:
        number = row["name"].split("_")[0]
        mask = pixels_of(files[f"{row['name']}_mask.png"])
        names = f"1st_manual/{number}_manual1.gif", f"mask/{number}_test_mask.gif"
        truth, roi = (pixels_of(tiny_root / "DRIVE/test" / name) > 0 for name in names)
        predicted = (mask > 0) & roi
        assert set(np.unique(mask)) == {0, 255}
        assert row["tp"] == (predicted & truth).sum() and row["fp"] == (predicted & ~truth).sum()


def test_flips_and_several_weights_average_the_probabilities(run, images, tmp_path, capsys):
    checkpoint = load(run / "last_model.pth")
    torch.save(checkpoint | {"threshold": checkpoint["threshold"] / 2}, tmp_path / "half.pth")
    paths, path = [run / "best_model.pth", tmp_path / "half.pth"], images / "01_test.tif"
    files = segment(paths, path, tmp_path / "out", "--flips", "--save-prob")
    thresholds = [load(path)["threshold"] for path in paths]
    assert f"threshold {sum(thresholds) / 2:.3f}" in capsys.readouterr().out
    normalize = eval_preset(checkpoint["mean"], checkpoint["std"])
    image, _ = normalize(read_image(path), torch.zeros(96, 104))
    every = [
        predict_probs(load_model(path)[0], image[None].flip(axes)).flip(axes)[0, 1]
        for path in paths
        for axes in ([], [2], [3], [2, 3])
    ]
    found = pixels_of(files["01_test_prob.png"]) / 65535
    np.testing.assert_allclose(found, torch.stack(every).mean(0).numpy(), atol=1e-5)


def test_threshold_comes_from_the_checkpoint(run, images, tmp_path, capsys):
    segment([run / "best_model.pth"], images / "01_test.tif", tmp_path)
    assert f"threshold {load(run / 'best_model.pth')['threshold']:.3f}" in capsys.readouterr().out


def test_probabilities_roi_and_overlay(run, tiny_root, images, tmp_path):
    rois = tiny_root / "DRIVE/test/mask"
    options = ("--save-prob", "--overlay", "--threshold", 0.5, "--roi-mask", rois)
    files = segment([run / "best_model.pth"], images, tmp_path, *options)
    image, roi = pixels_of(images / "02_test.tif"), pixels_of(rois / "02_test_mask.gif") > 0
    probs, mask = pixels_of(files["02_test_prob.png"]), pixels_of(files["02_test_mask.png"])
    overlay = pixels_of(files["02_test_overlay.png"])
    assert probs.dtype == np.uint16 and probs[~roi].max() == 0 and probs.max() > 32768
    assert ((probs > 32768) == (mask > 0)).mean() > 0.999
    assert (overlay[mask == 0] == image[mask == 0]).all()
    assert (overlay[mask > 0] != image[mask > 0]).any()


@pytest.mark.parametrize("size", [(31, 20), (97, 131)])
def test_output_has_the_inputs_size(run, tmp_path, size):
    Image.new("RGB", size, (150, 80, 50)).save(tmp_path / "odd.png")
    files = segment([run / "best_model.pth"], tmp_path / "odd.png", tmp_path / "out")
    assert Image.open(files["odd_mask.png"]).size == size


def test_a_pattern_selects_the_files_that_match_it(run, images, tmp_path, capsys):
    files = segment([run / "best_model.pth"], images / "*1_test.tif", tmp_path)
    assert list(files) == ["01_test_mask.png"]
    assert "1 images, " in capsys.readouterr().out


def test_same_stem_twice_is_refused(run, tmp_path):
    for name in ("a.png", "a.jpg"):
        Image.new("RGB", (40, 40)).save(tmp_path / name)
    with pytest.raises(UserError, match="a.jpg.*a.png|a.png.*a.jpg"):
        segment([run / "best_model.pth"], tmp_path, tmp_path / "out")


def test_warns_when_one_class_is_predicted(run, images, tmp_path, capsys):
    checkpoint = load(run / "best_model.pth")
    checkpoint["model"]["out_conv.0.bias"] = torch.tensor([100.0, -100.0])
    torch.save(checkpoint, tmp_path / "black.pth")
    segment([tmp_path / "black.pth"], images, tmp_path / "out")
    warning = "only one class was predicted in 2 of 2 images: 01_test.tif (all background)"
    assert warning in capsys.readouterr().out

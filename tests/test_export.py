"""Exported networks: the same probabilities as PyTorch's at any size, in one file that says what
it holds, or no file at all."""

import json
import sys

import numpy as np
import pytest
import torch
from torch import nn

from src import build_model
from src.export import ENTRIES, MIN_SIDE, describe, export_model
from src.inference import Ensemble, Flips, predict_probs
from tests.small import error_of
from tests.test_models import SMALL

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.1, 0.3]
CHECKPOINT = {
    "model_name": "unet",
    "class_names": ["ground", "brick"],
    "class_ids": [0, 7],
    "class_colours": [[0, 0, 0], [200, 80, 30]],
    "threshold": 0.375,
    "mean": MEAN,
    "std": STD,
    "resize": None,
}
SIZES = [(1, 33, 64), (3, 40, 37), (2, 111, 48), (1, 95, 97)]  # not those that export checks itself


def make(name, **options):
    """A model in eval mode whose probabilities vary from pixel to pixel."""
    torch.manual_seed(0)
    model = build_model(name, in_channels=3, num_classes=2, **SMALL[name] | options)
    head = [each for each in model.modules() if isinstance(each, nn.Conv2d)][-1]
    with torch.no_grad():
        model.train()(torch.randn(2, 3, 192, 192))
        logits = model.eval()(torch.randn(1, 3, 64, 64))["out"]
        head.weight *= 3 / logits.std()
    return model


class Custom(nn.Module):
    """A model whose logits are a function of the image."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, image):
        return {"out": self.logits(image)}


def images_of(batch, height, width):
    generator = torch.Generator().manual_seed(height)
    return torch.rand(batch, 3, height, width, generator=generator)


def expected_of(model, image):
    mean, std = torch.tensor([MEAN, STD]).view(2, 1, 3, 1, 1)
    return predict_probs(model, (image - mean) / std).numpy()


def check_everywhere(model, run):
    """Compares run(image) with the model at all SIZES."""
    for size in SIZES:
        image = images_of(*size)
        expected = expected_of(model, image)
        assert expected.std() > 0.05  # something to compare
        np.testing.assert_allclose(run(image), expected, rtol=0, atol=1e-4)


def check_description(description):
    assert {name: description[name] for name in ENTRIES} == CHECKPOINT
    assert description["input_range"] == [0, 1] and description["format"] == 1
    assert description["minimum_side"] == MIN_SIDE and description["fixed_side"] is None


def open_onnx(path):
    """(function of the file, its metadata)."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path)
    entries = session.get_modelmeta().custom_metadata_map
    description = {name: json.loads(text) for name, text in entries.items()}
    return lambda image: session.run(None, {"image": image.numpy()})[0], description


def open_pt2(path):
    """(function of the file, its metadata)."""
    files = {"description.json": ""}
    network = torch.export.load(path, extra_files=files).module()
    return lambda image: network(image).detach().numpy(), json.loads(files["description.json"])


# --- probabilities -------------------------------------------------------------------------------


# Tracing takes seconds. These have all that depends on the size: both kinds of upsampling, padding
# by a positive and, in mobilenetv3_unet, a negative number of pixels, and the gates' strides. Every
# other model is compared with PyTorch whenever it is exported, as these are.
@pytest.mark.parametrize("name", ["attention_unet", "unet"])
def test_a_pt2_file_has_the_probabilities_of_the_model(tmp_path, name):
    model = make(name)
    (tmp_path / "model.pt2").write_text("an earlier file")
    export_model(model, CHECKPOINT, tmp_path / "model.pt2")
    run, description = open_pt2(tmp_path / "model.pt2")
    check_everywhere(model, run)
    check_description(description)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt2"]


@pytest.mark.parametrize("name", ["attention_unet", "mobilenetv3_unet"])
def test_an_onnx_file_has_the_probabilities_of_the_model(tmp_path, name):
    pytest.importorskip("onnxscript")
    model = make(name)
    export_model(model, CHECKPOINT, tmp_path / "model.onnx")
    run, description = open_onnx(tmp_path / "model.onnx")
    check_everywhere(model, run)
    check_description(description)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_ensembles_and_flips_are_exported_as_one_network(tmp_path):
    model = Flips(Ensemble([Custom(torch.sin), Custom(torch.cos)])).eval()
    export_model(model, CHECKPOINT, tmp_path / "model.pt2")
    check_everywhere(model, open_pt2(tmp_path / "model.pt2")[0])


def test_unet_original_is_exported_for_one_tile(tmp_path):
    model = make("unet_original", base_c=2)
    export_model(model, CHECKPOINT, tmp_path / "model.pt2")
    run, description = open_pt2(tmp_path / "model.pt2")
    assert description["fixed_side"] == 572 and description["margin"] == 92
    image = images_of(1, 580, 580)
    tile = image[..., 4:576, 4:576]  # its output starts at 96, a multiple of 16
    centre = expected_of(model, image)[..., 96:484, 96:484]
    assert centre.std() > 0.05
    np.testing.assert_allclose(run(tile), centre, rtol=0, atol=1e-4)


# --- refusing ------------------------------------------------------------------------------------


def random_logits(image):
    return torch.rand_like(image)


def logits_by_parity(image):
    if image.shape[-1] % 2:
        return image
    return 2 * image


def not_a_number(image):
    return image * torch.nan


@pytest.mark.parametrize(
    "logits, message",
    [
        (random_logits, "differ by "),
        (not_a_number, "differ by nan"),
        (logits_by_parity, "cannot export this network for images of any size"),
    ],
)
def test_a_file_that_differs_from_pytorch_is_not_kept(tmp_path, logits, message):
    path = tmp_path / "model.pt2"
    path.write_text("an earlier file")
    found = error_of(export_model, Custom(logits).eval(), CHECKPOINT, path)
    assert str(path) in found and message in found
    assert path.read_text() == "an earlier file" and len(list(tmp_path.iterdir())) == 1


def test_an_onnx_file_of_one_parity_is_not_kept(tmp_path):
    """The exporter itself does not notice."""
    pytest.importorskip("onnxscript")
    path = tmp_path / "model.onnx"
    found = error_of(export_model, Custom(logits_by_parity).eval(), CHECKPOINT, path)
    assert f"{path}: probabilities of the exported network differ" in found
    assert list(tmp_path.iterdir()) == []


def test_other_suffixes_are_refused(tmp_path):
    message = error_of(export_model, make("unet"), CHECKPOINT, tmp_path / "model.pth")
    assert "model.pth" in message and ".onnx or a .pt2" in message


def test_missing_packages_are_named_with_the_command(tmp_path, monkeypatch):
    for name in ("onnxruntime", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None)
    message = error_of(export_model, make("unet"), CHECKPOINT, tmp_path / "model.onnx")
    assert "onnxruntime, onnxscript missing" in message
    assert "pip install onnx onnxruntime onnxscript" in message


@pytest.mark.parametrize("wrap", [Flips, lambda model: Ensemble([model])])
def test_unet_original_is_refused_as_a_part(tmp_path, wrap):
    model = wrap(make("unet_original")).eval()
    message = error_of(export_model, model, CHECKPOINT, tmp_path / "model.pt2")
    assert "model.pt2: unet_original works tile by tile" in message


def test_a_disk_that_fills_up_leaves_nothing(tmp_path):
    """PyTorch's zip writer would abort the process."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        message = error_of(export_model, Custom(torch.sin), CHECKPOINT, tmp_path / "model.pt2")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "model.pt2: cannot be written" in message and list(tmp_path.iterdir()) == []


def test_the_metadata_says_what_the_channels_are():
    one = CHECKPOINT | {"mean": [0.5], "std": [0.2]}
    four = CHECKPOINT | {"mean": [0.5] * 4, "std": [0.2] * 4}
    for checkpoint, words in ((one, "grey"), (CHECKPOINT, "RGB"), (four, "4 channels")):
        assert words in describe(make("unet"), checkpoint)["input"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("zip")])
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, error):
    def fail(program, file, extra_files):
        file.write(b"half")
        raise error

    monkeypatch.setattr(torch.export, "save", fail)
    model = Custom(torch.sin).eval()
    message = error_of(export_model, model, CHECKPOINT, tmp_path / "model.pt2")
    assert "model.pt2: cannot be written" in message and list(tmp_path.iterdir()) == []

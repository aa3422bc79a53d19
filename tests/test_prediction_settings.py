"""predictions.json: --skip-existing does not mix predictions of different settings."""

import json

import pytest
import torch

from tests.small import error_of, make_model
from train_utils.reporting.prediction_settings import fingerprint, start_settings

SETTINGS = {"weights": "0a1b2c3d", "threshold": 0.4, "flips": False}


def test_equal_settings_are_continued_whatever_the_files_are_called(tmp_path):
    start_settings(tmp_path, SETTINGS, ["a.pth"], check=True)
    start_settings(tmp_path, SETTINGS, ["b.pth"], check=True)
    content = json.loads((tmp_path / "predictions.json").read_text())
    assert content == {**SETTINGS, "files": ["b.pth"]}


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"weights": "ffffffff"}, "weights 0a1b2c3d, this call has ffffffff"),
        ({"threshold": 0.5}, "threshold 0.4, this call has 0.5"),
        ({"flips": True}, "flips False, this call has True"),
    ],
)
def test_other_settings_are_refused_and_the_file_stays(tmp_path, changes, words):
    start_settings(tmp_path, SETTINGS, ["a.pth"], check=True)
    before = (tmp_path / "predictions.json").read_bytes()
    other = {**SETTINGS, **changes}
    assert words in error_of(start_settings, tmp_path, other, ["a.pth"], check=True)
    assert (tmp_path / "predictions.json").read_bytes() == before
    start_settings(tmp_path, other, ["a.pth"], check=False)
    start_settings(tmp_path, other, ["a.pth"], check=True)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"other": 1}'])
def test_a_folder_whose_settings_are_unknown_is_taken(tmp_path, text):
    (tmp_path / "predictions.json").write_text(text)
    start_settings(tmp_path, SETTINGS, ["a.pth"], check=True)


def test_the_fingerprint_is_that_of_the_weights():
    model = make_model()
    code = fingerprint(model)
    assert code == fingerprint(make_model()) != fingerprint(make_model(seed=1))
    assert fingerprint(make_model().to(memory_format=torch.channels_last)) == code
    with torch.no_grad():
        model.out_conv[0].bias[0] += 1e-6
    assert fingerprint(model) != code
    fingerprint(model.bfloat16())

"""predictions.json: --skip-existing mixes no predictions of other settings or other images."""

import dataclasses
import json
import os

import pytest
import torch

from tests.small import error_of, make_model
from train_utils.data.inputs import Input, Job
from train_utils.reporting.prediction_settings import PredictionRecord, fingerprint

SETTINGS = {"weights": "0a1b2c3d", "threshold": 0.4, "flips": False}


def record(folder, settings=None, weights=("a.pth",), keep=True):
    return PredictionRecord(folder, settings or SETTINGS, weights, keep)


def outputs(*flags):
    """A function that gives the outputs of a job."""
    return lambda job: {flag: f"{job.input.path.stem}_{flag}.png" for flag in flags}


def make_job(path, content=b"1234"):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return Job(Input(path, "x"), None, None)


def test_equal_settings_are_continued_whatever_the_files_are_called(tmp_path):
    record(tmp_path).begin([], outputs())
    record(tmp_path, weights=["b.pth"]).begin([], outputs())
    content = json.loads((tmp_path / "predictions.json").read_text())
    assert content == {**SETTINGS, "files": ["b.pth"], "scored": False, "images": {}}


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"weights": "ffffffff"}, "weights 0a1b2c3d, this call has ffffffff"),
        ({"threshold": 0.5}, "threshold 0.4, this call has 0.5"),
        ({"flips": True}, "flips False, this call has True"),
    ],
)
def test_other_settings_are_refused_and_the_file_stays(tmp_path, changes, words):
    record(tmp_path).begin([], outputs())
    before = (tmp_path / "predictions.json").read_bytes()
    other = {**SETTINGS, **changes}
    assert words in error_of(record, tmp_path, other)
    assert (tmp_path / "predictions.json").read_bytes() == before
    record(tmp_path, other, keep=False).begin([], outputs())
    record(tmp_path, other)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"other": 1}', '{"images": [1]}'])
def test_a_folder_whose_settings_are_unknown_is_taken(tmp_path, text):
    (tmp_path / "predictions.json").write_text(text)
    assert record(tmp_path).covers(make_job(tmp_path / "x.png"), ["overlay"])


def test_predictions_are_of_one_file_as_it_was(tmp_path):
    job = make_job(tmp_path / "in" / "x.png")
    record(tmp_path).begin([job], outputs())
    assert record(tmp_path).covers(job, [])
    assert not record(tmp_path).covers(Job(Input(job.input.path, "y"), None, None), [])
    other = make_job(tmp_path / "other" / "x.png")
    os.utime(other.input.path, ns=(0, job.input.path.stat().st_mtime_ns))
    assert not record(tmp_path).covers(other, [])
    os.utime(job.input.path, ns=(0, 0))
    assert not record(tmp_path).covers(job, [])
    assert not record(tmp_path).covers(make_job(job.input.path, b"12345"), [])


def test_predictions_are_of_one_roi_mask_as_it_was(tmp_path):
    job = make_job(tmp_path / "in" / "x.png")
    masked = dataclasses.replace(job, roi_path=make_job(tmp_path / "roi" / "x.png").input.path)
    record(tmp_path).begin([masked], outputs())
    assert record(tmp_path).covers(masked, [])
    assert not record(tmp_path).covers(job, [])
    os.utime(masked.roi_path, ns=(0, 0))
    assert not record(tmp_path).covers(masked, [])


def test_a_record_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "predictions.json").mkdir()
    said = error_of(record(tmp_path, keep=False).begin, [], outputs())
    assert "predictions.json: cannot be written" in said


def test_only_outputs_of_the_last_prediction_count(tmp_path):
    job = make_job(tmp_path / "x.png")
    record(tmp_path).begin([job], outputs("overlay", "save_prob"))
    assert record(tmp_path).covers(job, ["save_prob"])
    record(tmp_path).begin([], outputs(), kept=[job])
    assert record(tmp_path).covers(job, ["save_prob"])
    record(tmp_path).begin([job], outputs("overlay"))
    assert not record(tmp_path).covers(job, ["save_prob"])


def test_predictions_of_an_earlier_version_stay_valid(tmp_path):
    job = make_job(tmp_path / "x.png")
    (tmp_path / "predictions.json").write_text(json.dumps(SETTINGS))
    record(tmp_path).begin([], outputs("overlay"), kept=[job])
    assert record(tmp_path).covers(job, ["overlay"])


def test_outputs_that_an_earlier_version_recorded_as_flags_count(tmp_path):
    job = make_job(tmp_path / "x.png")
    record(tmp_path).begin([job], lambda job: ["overlay"])
    assert record(tmp_path).covers(job, ["overlay"])
    record(tmp_path, keep=False).begin([job], outputs())


def test_only_recorded_files_of_an_earlier_call_are_removed(tmp_path, capsys):
    folder, job = tmp_path / "out", make_job(tmp_path / "in" / "x.png")
    folder.mkdir()
    names = "x_overlay.png", "x_save_prob.png", "x_instances.png", "objects.csv", "scores.json"
    for name in names:
        (folder / name).touch()
    record(folder, keep=False).begin([job], outputs("overlay"))  # nothing is recorded yet
    record(folder, keep=False).begin([job], outputs("overlay", "instances"), scored=True)
    record(folder).begin([job], outputs("overlay", "instances"), kept=[job])
    assert {path.name for path in folder.iterdir()} == {*names, "predictions.json"}
    assert capsys.readouterr().out == ""
    record(folder, keep=False).begin([job], outputs("overlay"))
    left = {path.name for path in folder.iterdir()}
    assert left == {"x_overlay.png", "x_save_prob.png", "predictions.json"}
    removed = "3 files of an earlier call removed, new masks replace its own: scores.json, objects"
    assert removed in capsys.readouterr().out


@pytest.mark.parametrize("name", ["../in/x_y.png", "x_/../notes.txt", "notes.txt", "", 3, None])
def test_a_record_removes_only_files_that_are_called_like_the_image(tmp_path, name):
    folder, job = tmp_path / "out", make_job(tmp_path / "in" / "x.png")
    (folder / "x_").mkdir(parents=True)
    kept = folder / "notes.txt", tmp_path / "in" / "x_y.png"
    for path in kept:
        path.touch()
    record(folder, keep=False).begin([job], lambda job: {"overlay": name})
    record(folder, keep=False).begin([job], outputs())
    assert all(path.is_file() for path in kept)


def test_the_fingerprint_is_that_of_the_weights():
    model = make_model()
    code = fingerprint(model)
    assert code == fingerprint(make_model()) != fingerprint(make_model(seed=1))
    assert fingerprint(make_model().to(memory_format=torch.channels_last)) == code
    with torch.no_grad():
        model.out_conv[0].bias[0] += 1e-6
    assert fingerprint(model) != code
    fingerprint(model.bfloat16())

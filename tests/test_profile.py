"""--profile says where the time of a training step goes, and leaves a run as it is."""

import json
import time

import pytest
import torch

from tests.tiny import AFFINE, parse, run_train
from train_utils.reporting.profile import STAGES, FixedSteps, Stages, table

CPU = torch.device("cpu")


def test_a_profile_prints_a_table_writes_a_trace_and_nothing_else(tiny_root, tmp_path, capsys):
    run_train(tiny_root, tmp_path, "--epochs", 1, settings=AFFINE)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    capsys.readouterr()
    run_train(tiny_root, tmp_path, "--epochs", 1, "--profile", settings=AFFINE)
    out = capsys.readouterr().out
    rows = out[out.index("stage  ") :].splitlines()[1:8]
    assert [row.split()[0] for row in rows] == [*STAGES, "all"]
    assert all(float(row.split()[1]) > 0 for row in rows)
    assert "evaluation of the validation images: " in out and "replaces" not in out
    trace = tmp_path / "trace.json"
    names = [event.get("name") for event in json.loads(trace.read_text())["traceEvents"]]
    assert all(names.count(stage) == 20 for stage in STAGES)
    trace.unlink()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_without_validation_images_nothing_is_evaluated(tiny_root, tmp_path, capsys):
    run_train(tiny_root, tmp_path, "--val", "none", "--profile", settings=AFFINE)
    out = capsys.readouterr().out
    assert "stage  " in out and "evaluation of" not in out
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json"]


def test_a_profile_needs_training(capsys):
    with pytest.raises(SystemExit):
        parse("--profile", "--test-only", "--weights", "tests/fixtures/e4bf391.pth")
    assert "--profile is about training" in capsys.readouterr().err


def test_stages_are_timed_and_the_loader_starts_again(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    class Slow:
        def __iter__(self):
            for number in range(3):
                now[0] += 0.02
                yield number

    stages = Stages(CPU, wait=True)
    found = []
    for number in FixedSteps(Slow(), 7, stages):
        found.append(number)
        with stages("loss"):
            now[0] += 0.01
    assert found == [0, 1, 2, 0, 1, 2, 0] and len(FixedSteps(Slow(), 7, stages)) == 7
    assert stages.seconds["data"] == pytest.approx(0.14)
    assert stages.seconds["loss"] == pytest.approx(0.07)
    assert stages.seconds["forward"] == 0


def test_the_table_has_milliseconds_a_step_and_shares():
    rows = table({"data": 0.5, "loss": 1.5}, steps=10).splitlines()[1:]
    assert [row.split() for row in rows] == [
        ["data", "50.00", "25", "%"],
        ["loss", "150.00", "75", "%"],
        ["all", "200.00", "100", "%"],
    ]

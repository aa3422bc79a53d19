"""Stripped checkpoints predict, are evaluated and start runs; they are not resumed."""

import json
from pathlib import Path

import pytest
import torch

from src.errors import UserError
from tests.small import error_of, same_weights
from tests.test_resume_old_files import OLD, predicted
from tests.tiny import EXACT, run_train
from train_utils.checkpoint import FORMAT, fill_in, load, save, strip_checkpoint
from train_utils.held_out import held_out_samples
from train_utils.model_loading import load_model


@pytest.fixture
def stripped(tmp_path):
    """The old file of two epochs, stripped, in a folder of its own."""
    folder = tmp_path / "published"
    folder.mkdir()
    save(folder / "small.pth", strip_checkpoint(load(OLD)))
    return folder / "small.pth"


def scores_of(folder):
    return json.loads((Path(folder) / "test_scores.json").read_text())


def test_weights_and_description_are_kept_and_the_run_is_not():
    whole = load(OLD)
    small = strip_checkpoint(whole)
    described = {"model", "model_name", "model_kwargs", "class_names", "class_colours", "class_ids"}
    described |= {"class_table", "mean", "std", "resize", "spacing", "threshold"}
    assert small.keys() == described | {"format", "training", "epoch", "recipe", "args", "stripped"}
    assert all(small[name] is whole[name] for name in small.keys() - {"stripped"})


def test_the_file_holds_no_more_than_the_weights(tmp_path):
    """With AdamW a whole checkpoint has three numbers for each weight."""
    model = torch.nn.Linear(400, 400)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 400)).sum().backward()
    optimizer.step()
    whole = {**load(OLD), "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    save(tmp_path / "whole.pth", whole)
    save(tmp_path / "small.pth", strip_checkpoint(whole))
    sizes = [(tmp_path / name).stat().st_size for name in ("whole.pth", "small.pth")]
    assert 0.3 < sizes[1] / sizes[0] < 0.4


def test_nothing_is_invented_about_its_run(stripped):
    content = load(stripped)
    assert content["training"] == load(OLD)["training"] and "split" not in content
    # Of a file that came from no run, such as another repository's weights:
    assert "training" not in fill_in({"format": FORMAT, "stripped": True, "class_names": ["a"]})


def test_it_builds_the_same_model_and_predicts_the_same(stripped, tiny_root, tmp_path):
    first, second = load_model(OLD)[0], load_model(stripped)[0]
    assert same_weights(first.state_dict(), second.state_dict())
    expected = predicted(OLD, tiny_root, tmp_path / "whole")
    found = predicted(stripped, tiny_root, tmp_path / "small")
    for one, other in zip(expected, found, strict=True):
        assert all((a == b).all() for a, b in zip(one, other, strict=True))


def test_it_is_evaluated_like_the_whole_file(stripped, tiny_root, tmp_path):
    found = []
    for path in (OLD, stripped):
        folder = tmp_path / path.stem
        run_train(tiny_root, folder, "--test-only", "--weights", path, settings=EXACT)
        found.append(scores_of(folder))
    for name in ("scores", "threshold", "selection", "epoch", "images"):
        assert found[0][name] == found[1][name]


def test_a_run_starts_from_it_without_flags_of_the_model(stripped, tiny_root, tmp_path):
    flags = ("--epochs", 1, "--crops", 2, "--crop-size", 64, "--base-size", 96, "--batch-size", 2)
    folder = run_train(tiny_root, tmp_path / "run", "--weights", stripped, *flags, settings=EXACT)
    content = load(folder / "last_model.pth")
    assert content["model_kwargs"]["base_c"] == 1 and content["epoch"] == 0
    assert "stripped" not in content and content["split"]["train"]


def test_it_is_not_resumed(stripped, tiny_root, tmp_path):
    for output in (stripped.parent, tmp_path / "elsewhere"):
        with pytest.raises(UserError) as caught:
            run_train(tiny_root, output, "--resume", stripped, "--device", "cpu", settings=())
        message = str(caught.value)
        assert f"{stripped}: holds weights alone" in message and "--resume needs" in message
        assert not (output / "best_model.pth").exists()


def test_it_has_no_held_out_images(stripped):
    message = error_of(held_out_samples, {"val": []}, load(stripped), stripped)
    assert f"{stripped}: holds weights alone" in message and "--held-out needs" in message

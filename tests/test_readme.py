"""The README says what is there: every flag, every source file, every published score."""

import json
import re
from pathlib import Path

import pytest

from my_dataset import DATASETS
from src import MODELS
from train_utils.cli.flags import get_parser, parse_args
from train_utils.cli.model_flags import describe_model
from train_utils.cli.model_table import cost

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = (ROOT / ".github/results/README.md").read_text(encoding="utf-8")


def test_the_table_has_every_flag_and_its_default():
    rows = {
        flag: line
        for line in README.splitlines()
        if line.startswith("| `-")
        for flag in re.findall(r"`(--[\w-]+)`", line)
    }
    actions = [
        action
        for action in get_parser("train.py", "", DATASETS, MODELS)._actions
        if action.dest != "help"
    ]
    flags = {
        flag: action
        for action in actions
        for flag in action.option_strings
        if flag.startswith("--") and not flag.startswith("--no-")
    }
    assert rows.keys() == flags.keys()
    for flag, action in flags.items():
        assert action.help
        if isinstance(action.default, (int, float)) and not isinstance(action.default, bool):
            assert f"| {action.default} |" in rows[flag]


def test_the_table_of_architectures_has_what_list_models_counts():
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([\d,]+ \| [\d.]+ G) \|$", README, re.MULTILINE))
    assert rows.keys() == MODELS.keys()
    for name in MODELS:
        parameters, operations, _ = cost(
            **describe_model(parse_args(["--model", name], "train.py", "", DATASETS, MODELS))
        )
        assert rows[name] == f"{parameters:,} | {operations / 1e9:.2f} G"


@pytest.mark.parametrize("folder", ["."])
def test_the_tree_has_every_file(folder):
    tree = README.split("## Files")[1].split("## Cite")[0]
    missing = [
        path.name
        for path in (ROOT / folder).glob("*.py")
        if path.name not in tree and path.name != "__init__.py"
    ]
    assert not missing


def test_pictures_exist():
    for link in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / link).exists()


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github/results").glob("*.json")), ids=lambda path: path.stem
)
def test_published_scores_are_those_of_their_counts_and_are_quoted(path):
    """Pooled F1 (two classes) or mean IoU counted anew from the rows of the images, and found in a page."""
    published = json.loads(path.read_text(encoding="utf-8"))
    quoted = published["scores"]["mean_iou"]
    if len(published["scores"]["dice_per_class"]) == 2:
        true_pos, false_pos, false_neg = (
            sum(row[name] for row in published["images"]) for name in ("tp", "fp", "fn")
        )
        quoted = 2 * true_pos / (2 * true_pos + false_pos + false_neg)
        assert published["scores"]["f1"] == pytest.approx(quoted, abs=1e-9)
    assert re.search(rf"`{path.stem}\.json` .*\| {quoted:.4f} \|".replace(" 0.", r" \."), RESULTS)

"""Curves: what is plotted can be read and seen, a failure leaves nothing."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from train_utils.reporting.curves import rank_curve_svg, save_curves

NAN = float("nan")


def history(epochs, **scores):
    rows = [{"epoch": e, "train_loss": 2.0**-e, "lr": 0.01 / e} for e in range(1, epochs + 1)]
    for key, values in scores.items():
        for row, value in zip(rows, values, strict=False):
            row[key] = value
    return rows


def read(path):
    """The picture as RGB; load() fails on a truncated file."""
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        picture.load()
        return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize(
    "rows",
    [
        history(
            6,
            val_dice=[0.1, 0.5, 0.7, 0.9, 0.8, 1.0],
            val_f1=[0.1] * 6,
            val_mean_iou=[0.2] * 6,
            val_auc=[0.9] * 6,
        ),
        history(6, val_dice=[None, 0.5, NAN, 0.6], val_auc=[NAN] * 6),
        history(3),
        history(1),
        history(1, val_dice=[0.0]),
        [
            {"epoch": 1, "train_loss": float("inf"), "lr": 0.1},
            {"epoch": 2, "train_loss": NAN, "lr": None},
        ],
        [],
    ],
    ids=["full", "gaps", "unvalidated", "one", "one validated", "diverged", "empty"],
)
def test_curves_can_be_read(tmp_path, rows):
    save_curves(tmp_path / "curves.png", rows)
    picture = read(tmp_path / "curves.png")
    assert picture.shape[1] > 1000 and (tmp_path / "curves.png").stat().st_size > 5000
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_single_epoch_is_visible(tmp_path):
    save_curves(tmp_path / "one.png", history(1))
    save_curves(tmp_path / "none.png", [{"epoch": 1}])
    blue = {
        name: (read(tmp_path / name) == (0, 114, 178)).all(-1) for name in ("one.png", "none.png")
    }
    assert blue["one.png"].sum() > 10 and not blue["none.png"].any()


def test_rank_curves_are_small_svg_that_stands_alone():
    x = np.linspace(0, 1, 65537)
    blue = (0, 114, 178)
    line, point = ("_$x_{ <&>", blue, x, np.sqrt(x)), ("$p > 0.5", "o", 0.1, 0.8)
    text = rank_curve_svg("ROC", "across", "up", [line], [point], diagonal=True)
    root = ElementTree.fromstring(text)  # one well-formed element, without a prologue
    assert root.tag.endswith("svg") and len(text) < 100_000 and "#0072b2" in text
    assert not re.findall(r"(?:href|src)=\"(?!#)", text)
    assert "svg" in rank_curve_svg("PR", "across", "up", [])


def test_a_failed_save_leaves_nothing_behind(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        save_curves(tmp_path / "missing" / "picture.png", history(2))
    assert not list(tmp_path.iterdir())
    (tmp_path / "picture.png").mkdir()  # cannot be replaced by a file
    with pytest.raises(OSError):
        save_curves(tmp_path / "picture.png", history(2))
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]

"""Pictures: what is drawn has the right colours, what is saved can be read, a failure leaves nothing."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from train_utils.reporting.curves import rank_curve_svg, save_curves, save_prediction_grid
from train_utils.reporting.pictures import (
    MANY_CLASS_ERRORS,
    OVERLAY_COLOUR,
    TWO_CLASS_ERRORS,
    default_colours,
    error_map,
    overlay,
    save_mask,
)

NAN = float("nan")


def history(epochs, **scores):
    rows = [{"epoch": e, "train_loss": 2.0**-e, "lr": 0.01 / e} for e in range(1, epochs + 1)]
    for key, values in scores.items():
        for row, value in zip(rows, values):
            row[key] = value
    return rows


def grid_row(height, width, num_classes=2, **changes):
    rng = np.random.default_rng(height)
    target = rng.integers(0, num_classes, (height, width)).astype(np.uint8)
    target[0] = 255
    row = {
        "name": f"{height}x{width}",
        "target": target,
        "score": 0.5,
        "image": rng.integers(0, 256, (height, width, 3)).astype(np.uint8),
        "prediction": rng.integers(0, num_classes, (height, width)).astype(np.uint8),
    }
    return {**row, **changes}


def read(path):
    """The picture as RGB; load() fails on a truncated file."""
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        picture.load()
        return np.asarray(picture.convert("RGB"))


def count(picture, colour):
    return (picture == np.array(colour)).all(axis=-1).sum()


@pytest.mark.parametrize("num_classes", [2, 3, 8, 30, 255])
def test_colours_are_distinct_and_begin_with_black(num_classes):
    colours = default_colours(num_classes)
    assert colours.shape == (num_classes, 3) and colours.dtype == np.uint8
    assert len(np.unique(colours, axis=0)) == num_classes
    assert not colours[0].any()


def test_colours_of_two_classes_and_of_a_longer_list():
    assert default_colours(2).tolist() == [[0, 0, 0], [255, 255, 255]]
    assert np.array_equal(default_colours(12)[:5], default_colours(5))  # a class keeps its colour
    for num_classes in (1, 256):
        with pytest.raises(ValueError, match="num_classes"):
            default_colours(num_classes)


def test_mask_of_two_classes_is_black_and_white(tmp_path):
    mask = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
    save_mask(tmp_path / "mask.png", mask, default_colours(2))
    with Image.open(tmp_path / "mask.png") as picture:
        assert picture.mode == "L"
        assert np.array_equal(np.asarray(picture), mask * 255)


def test_mask_of_five_classes_keeps_ids_and_palette(tmp_path):
    mask = np.array([[0, 1, 2], [3, 4, 0]], np.uint8)
    save_mask(tmp_path / "mask.png", mask, default_colours(5))
    with Image.open(tmp_path / "mask.png") as picture:
        assert picture.mode == "P"
        assert np.array_equal(np.asarray(picture), mask)
    assert np.array_equal(read(tmp_path / "mask.png"), default_colours(5)[mask])


@pytest.mark.parametrize(
    "mask", [np.full((2, 2), 2, np.uint8), np.zeros((2, 2)), np.zeros(4, np.uint8)]
)
def test_what_is_no_mask_is_refused(tmp_path, mask):
    with pytest.raises(ValueError):
        save_mask(tmp_path / "mask.png", mask, default_colours(2))
    assert not list(tmp_path.iterdir())


def test_overlay_blends_the_class_and_nothing_else():
    image = np.full((2, 3, 3), 100, np.uint8)
    mask = np.array([[0, 1, 255], [0, 0, 2]], np.uint8)
    drawn = overlay(image, mask, default_colours(3), alpha=0.25)
    for at in ((0, 0), (0, 2), (1, 0), (1, 1)):
        assert drawn[at].tolist() == [100, 100, 100]
    for at in ((0, 1), (1, 2)):
        assert np.array_equal(drawn[at], np.rint(75 + 0.25 * default_colours(3)[mask[at]]))
    assert drawn.dtype == np.uint8 and (image == 100).all()


def test_overlay_of_two_classes_uses_its_own_colour():
    drawn = overlay(np.zeros((1, 2, 3), np.uint8), np.array([[0, 1]]), default_colours(2), alpha=1)
    assert drawn.tolist() == [[[0, 0, 0], list(OVERLAY_COLOUR)]]
    with pytest.raises(ValueError):  # a float picture would come out black
        overlay(np.zeros((1, 2, 3)), np.array([[0, 1]]), default_colours(2))


def test_error_map_of_two_classes():
    target = np.array([[1, 0, 255], [1, 0, 255]], np.uint8)
    prediction = np.array([[1, 1, 1], [0, 0, 0]], np.uint8)
    names = [
        ["true positive", "false positive", "not judged"],
        ["false negative", "true negative", "not judged"],
    ]
    drawn = error_map(target, prediction)
    assert drawn.dtype == np.uint8
    assert drawn.tolist() == [[list(TWO_CLASS_ERRORS[name]) for name in line] for line in names]


def test_error_map_of_more_classes():
    target = np.array([[0, 1, 2], [2, 255, 0]], np.uint8)
    prediction = np.array([[0, 1, 1], [2, 2, 2]], np.uint8)
    names = [["correct", "correct", "wrong"], ["correct", "not judged", "wrong"]]
    drawn = error_map(target, prediction)
    assert drawn.tolist() == [[list(MANY_CLASS_ERRORS[name]) for name in line] for line in names]
    few = error_map(
        np.array([[0, 1]]), np.array([[1, 1]]), num_classes=3
    )  # two of three classes in sight
    assert few.tolist() == [[list(MANY_CLASS_ERRORS["wrong"]), list(MANY_CLASS_ERRORS["correct"])]]
    with pytest.raises(ValueError, match="shape"):
        error_map(target, prediction[:1])


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
    blue = (0, 114, 178)
    assert (
        count(read(tmp_path / "one.png"), blue) > 10
        and count(read(tmp_path / "none.png"), blue) == 0
    )


def test_grid_holds_the_pictures_pixel_for_pixel(tmp_path):
    row = grid_row(201, 203)
    save_prediction_grid(tmp_path / "grid.png", [row], ["background", "vessel"], max_side=300)
    sheet = read(tmp_path / "grid.png")
    corner = np.flatnonzero((sheet[:, :, None] == row["image"][0, 0]).all(axis=-1).reshape(-1))
    tops, lefts = np.unravel_index(corner, sheet.shape[:2])
    assert any(
        np.array_equal(sheet[y : y + 201, x : x + 203], row["image"]) for y, x in zip(tops, lefts)
    )
    errors = error_map(row["target"], row["prediction"])
    for name in (
        "false positive",
        "false negative",
    ):  # more than the picture: the patch of the legend
        assert count(sheet, TWO_CLASS_ERRORS[name]) > count(errors, TWO_CLASS_ERRORS[name]) > 0


def test_grid_of_odd_rows(tmp_path):
    rows = [
        grid_row(40, 90),
        grid_row(120, 30, score=None),
        grid_row(5, 7, score=NAN, name="$x_" * 30),
        grid_row(64, 64, target=None),
    ]
    save_prediction_grid(tmp_path / "grid.png", rows, ["background", "_vessel_"], max_side=80)
    assert (np.asarray(read(tmp_path / "grid.png"))[:, 0] == 255).all()  # a white margin
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]


def test_grid_without_label_shows_no_errors(tmp_path):
    orange = TWO_CLASS_ERRORS["false positive"]
    for name, rows in (
        ("with.png", [grid_row(64, 64)]),
        ("without.png", [grid_row(64, 64, target=None)]),
    ):
        save_prediction_grid(tmp_path / name, rows, ["background", "vessel"])
    legend_only = count(read(tmp_path / "without.png"), orange)
    assert 0 < legend_only < count(read(tmp_path / "with.png"), orange)


def test_grid_of_many_classes(tmp_path):
    names = [f"class {k}" for k in range(7)]
    save_prediction_grid(tmp_path / "grid.png", [grid_row(64, 64, num_classes=7)], names)
    sheet = read(tmp_path / "grid.png")
    assert all(count(sheet, colour) for colour in default_colours(7))
    assert count(sheet, MANY_CLASS_ERRORS["wrong"])


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [grid_row(8, 8, prediction=np.zeros((8, 9), np.uint8))],
        [grid_row(8, 8, target=np.full((8, 8), 3, np.uint8))],
    ],
    ids=["no rows", "other shape", "unknown class"],
)
def test_grid_refuses_bad_rows(tmp_path, rows):
    with pytest.raises(ValueError):
        save_prediction_grid(tmp_path / "grid.png", rows, ["background", "vessel"])
    assert not list(tmp_path.iterdir())


def test_rank_curves_are_small_svg_that_stands_alone():
    x = np.linspace(0, 1, 65537)
    blue = (0, 114, 178)
    line, point = ("_$x_{ <&>", blue, x, np.sqrt(x)), ("$p > 0.5", "o", 0.1, 0.8)
    text = rank_curve_svg("ROC", "across", "up", [line], [point], diagonal=True)
    root = ElementTree.fromstring(text)  # one well-formed element, without a prologue
    assert root.tag.endswith("svg") and len(text) < 100_000 and "#0072b2" in text
    assert not re.findall(r"(?:href|src)=\"(?!#)", text)
    assert "svg" in rank_curve_svg("PR", "across", "up", [])


SAVERS = [
    lambda path: save_mask(path, np.zeros((2, 2), np.uint8), default_colours(2)),
    lambda path: save_curves(path, history(2)),
    lambda path: save_prediction_grid(path, [grid_row(8, 8)], ["background", "vessel"]),
]


@pytest.mark.parametrize("save", SAVERS, ids=["mask", "curves", "grid"])
def test_a_failed_save_leaves_nothing_behind(tmp_path, save):
    with pytest.raises(FileNotFoundError, match="missing"):
        save(tmp_path / "missing" / "picture.png")
    assert not list(tmp_path.iterdir())
    (tmp_path / "picture.png").mkdir()  # cannot be replaced by a file
    with pytest.raises(OSError):
        save(tmp_path / "picture.png")
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_an_old_picture_survives_a_failed_save(tmp_path, monkeypatch):
    path = tmp_path / "mask.png"
    save_mask(path, np.ones((2, 2), np.uint8), default_colours(2))
    before = path.read_bytes()

    def full_disk(self, file, **options):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(OSError, match="disk full"):
        save_mask(path, np.zeros((2, 2), np.uint8), default_colours(2))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]

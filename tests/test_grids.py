"""Grids of pictures: exact class colours, nothing cropped, names that fit, and a legend."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from src.tiles import Tiling
from train_utils.data.class_table import ClassTable
from train_utils.data.doctor_sample import Finding
from train_utils.reporting.grids import draw_predictions, save_contact_sheet, save_prediction_grid
from train_utils.reporting.pictures import (
    IGNORED_COLOUR,
    MANY_CLASS_ERRORS,
    TWO_CLASS_ERRORS,
    default_colours,
)

NAN = float("nan")


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


def quarters(height, width, values, dtype=np.uint8):
    """An array [height, width, ...] whose four quarters have the four values."""
    picture = np.zeros((height, width, *np.shape(values[0])), dtype)
    for index, value in enumerate(values):
        top, left = index // 2 * (height // 2), index % 2 * (width // 2)
        picture[top : top + height // 2, left : left + width // 2] = value
    return picture


@pytest.mark.parametrize("size", [(40, 60), (200, 300), (900, 1300)])
def test_grid_shows_whole_pictures_in_exact_colours(tmp_path, size):
    photograph = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0)]
    colours = [(10, 20, 30), (40, 50, 60)]
    row = grid_row(
        *size,
        image=quarters(*size, photograph),
        target=quarters(*size, [0, 1, 0, 1]),
        prediction=quarters(*size, [0, 0, 1, 1]),
    )
    save_prediction_grid(tmp_path / "grid.png", [row], ["background", "vessel"], colours)
    sheet = read(tmp_path / "grid.png")
    areas = [count(sheet, colour) for colour in photograph]
    assert min(areas) > 0.95 * max(areas) > 10_000
    for colour in colours:  # half of truth and prediction each, and a patch of the legend
        assert 3.9 < count(sheet, colour) / areas[0] < 4.3
    for name in ("true positive", "false positive", "false negative"):
        assert 0.95 < count(sheet, TWO_CLASS_ERRORS[name]) / areas[0] < 1.2


@pytest.mark.parametrize("size", [(40, 90), (120, 30), (64, 64), (3, 200)])
def test_grid_keeps_the_proportions(tmp_path, size):
    row = grid_row(*size, image=np.full((*size, 3), (200, 0, 0), np.uint8))
    save_prediction_grid(tmp_path / "grid.png", [row], ["background", "vessel"])
    red = (read(tmp_path / "grid.png") == (200, 0, 0)).all(-1)
    height, width = np.count_nonzero(red.any(1)), np.count_nonzero(red.any(0))
    assert height / width == pytest.approx(size[0] / size[1], rel=0.06, abs=0.01)


def test_grid_of_odd_rows(tmp_path):
    rows = [
        grid_row(40, 90),
        grid_row(120, 30, score=None),
        grid_row(5, 7, score=NAN, name="$x_" * 30),
        grid_row(64, 64, target=None),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_prediction_grid(tmp_path / "grid.png", rows, ["background", "_vessel_"])
    sheet = read(tmp_path / "grid.png")
    assert (sheet[:, 0] == 255).all() and (sheet[:, -1] == 255).all()  # white margins
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]


def test_long_names_are_shortened(tmp_path):
    sheets = []
    for length in (100, 200):
        rows, names = [grid_row(30, 30, name="n" * length)], ["background", "c" * length]
        save_prediction_grid(tmp_path / "grid.png", rows, names)
        sheets.append(read(tmp_path / "grid.png"))
    assert np.array_equal(*sheets)


def test_names_that_begin_with_an_underscore_are_in_the_legend(tmp_path):
    for name, class_names in (("one.png", ["background", "_"]), ("two.png", ["background", " "])):
        save_prediction_grid(tmp_path / name, [grid_row(30, 30)], class_names, [(9, 8, 7)] * 2)
    one, two = read(tmp_path / "one.png"), read(tmp_path / "two.png")
    assert count(one, (9, 8, 7)) == count(two, (9, 8, 7)) > 0 and not np.array_equal(one, two)


def test_grid_without_label_shows_no_errors(tmp_path):
    orange = TWO_CLASS_ERRORS["false positive"]
    for name, rows in (
        ("with.png", [grid_row(64, 64)]),
        ("without.png", [grid_row(64, 64, target=None)]),
    ):
        save_prediction_grid(tmp_path / name, rows, ["background", "vessel"])
    legend_only = count(read(tmp_path / "without.png"), orange)
    assert 0 < legend_only < count(read(tmp_path / "with.png"), orange)


@pytest.mark.parametrize("num_classes", [7, 254])
def test_grid_of_many_classes(tmp_path, num_classes):
    names = [f"class {k}" for k in range(num_classes)]
    row = grid_row(64, 64, num_classes=num_classes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_prediction_grid(tmp_path / "grid.png", [row], names)
    packed = read(tmp_path / "grid.png").astype(int) @ (1 << 16, 1 << 8, 1)
    shown = set(np.unique(packed).tolist())
    for colour in [*default_colours(num_classes), MANY_CLASS_ERRORS["wrong"]]:
        assert np.array(colour, int) @ (1 << 16, 1 << 8, 1) in shown


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [grid_row(8, 8, prediction=np.zeros((8, 9), np.uint8))],
        [grid_row(8, 8, target=np.full((8, 8), 3, np.uint8))],
        [grid_row(8, 8, target=np.zeros((8, 9), np.uint8))],
    ],
    ids=["no rows", "other shape", "unknown class", "other shape of the target"],
)
def test_grid_refuses_bad_rows(tmp_path, rows):
    with pytest.raises(ValueError):
        save_prediction_grid(tmp_path / "grid.png", rows, ["background", "vessel"])
    assert not list(tmp_path.iterdir())


def test_predictions_of_the_first_samples_are_shown(tmp_path):
    target = torch.from_numpy(quarters(32, 32, [0, 1, 255, 255]))

    class Squares(torch.utils.data.Dataset):
        samples = [SimpleNamespace(name=f"square {i}") for i in range(9)]
        shown = []

        def read(self, index):
            return torch.full((1, 32, 32), 90, dtype=torch.uint8), target

        def __getitem__(self, index):
            self.shown.append(index)
            return torch.zeros(1, 32, 32), target.long()

    class Foreground(torch.nn.Module):
        def forward(self, image):
            return {"out": torch.tensor([0.0, 9.0])[None, :, None, None].expand(1, 2, 32, 32)}

    path, dataset, cpu = tmp_path / "predictions.png", Squares(), torch.device("cpu")
    draw_predictions(path, Foreground(), dataset, cpu, None, ["background", "vessel"], count=2)
    sheet = read(path)
    assert dataset.shown == [0, 1]
    for name in ("true positive", "false positive", "ignored"):
        assert count(sheet, TWO_CLASS_ERRORS[name]) > 10_000
    assert count(sheet, TWO_CLASS_ERRORS["false negative"]) < 10_000  # the legend


def test_predictions_are_computed_in_the_given_tiles(tmp_path):
    sides = []

    class Noise(torch.utils.data.Dataset):
        samples = [SimpleNamespace(name="noise")]

        def read(self, index):
            return torch.full((1, 150, 70), 90, dtype=torch.uint8), torch.ones(150, 70).byte()

        def __getitem__(self, index):
            return torch.zeros(1, 150, 70), torch.ones(150, 70)

    class Foreground(torch.nn.Module):
        in_channels, dims, margin = 1, 2, 0

        def forward(self, image):
            sides.append(max(image.shape[2:]))
            return {"out": torch.zeros(len(image), 2, *image.shape[2:])}

    path, cpu, tiling = tmp_path / "predictions.png", torch.device("cpu"), Tiling(64, 16)
    draw_predictions(path, Foreground(), Noise(), cpu, None, ["background", "vessel"])
    assert sides == [150]
    sides.clear()
    draw_predictions(
        path, Foreground(), Noise(), cpu, None, ["background", "vessel"], tiling=tiling
    )
    assert len(sides) > 1 and max(sides) <= 64


def finding(split, name, size, classes):
    rng = np.random.default_rng(len(name))
    image = torch.from_numpy(rng.integers(0, 256, (3, *size)).astype(np.uint8))
    return Finding(split, SimpleNamespace(name=name), image, quarters(*size, [*classes, 255]))


def test_contact_sheet_shows_the_classes_and_ignored_pixels(tmp_path):
    sizes = [(30, 40), (80, 20), (9, 300), (64, 64), (500, 700)]
    findings = [finding("train", "x" * 9 * i, size, (0, 1, 2)) for i, size in enumerate(sizes)]
    colours = ((20, 40, 60), (200, 80, 30), (60, 160, 220))
    table = ClassTable(("ground", "brick", "$_water"), colours, {0: 0, 1: 1, 2: 2})
    save_contact_sheet(tmp_path / "sheet.png", findings, table)
    sheet = read(tmp_path / "sheet.png")
    areas = [count(sheet, colour) for colour in (*colours, IGNORED_COLOUR)]
    assert min(areas) > 0.95 * max(areas) > 10_000
    assert (sheet[:, 0] == 255).all() and (sheet[:, -1] == 255).all()


@pytest.mark.parametrize("kind", ["grid", "sheet"])
def test_a_failed_save_leaves_nothing_behind(tmp_path, kind):
    def save(path):
        if kind == "grid":
            save_prediction_grid(path, [grid_row(8, 8)], ["background", "vessel"])
        else:
            table = ClassTable(("a", "b"), (None, None), {0: 0, 1: 1})
            save_contact_sheet(path, [finding("train", "x", (8, 8), (0, 1, 0))], table)

    with pytest.raises(FileNotFoundError, match="missing"):
        save(tmp_path / "missing" / "picture.png")
    assert not list(tmp_path.iterdir())
    (tmp_path / "picture.png").mkdir()  # cannot be replaced by a file
    with pytest.raises(OSError):
        save(tmp_path / "picture.png")
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]

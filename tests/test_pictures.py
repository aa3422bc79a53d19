"""Pictures of class ids: exact colours, files that can be read, and nothing left by a failure."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from tests.pictures import save_mask
from tests.small import error_of
from train_utils.reporting.pictures import (
    IGNORED_COLOUR,
    MANY_CLASS_ERRORS,
    OVERLAY_COLOUR,
    TWO_CLASS_ERRORS,
    as_rgb,
    class_picture,
    default_colours,
    error_map,
    error_overlay,
    overlay,
    resized_for_display,
    save_legend,
    with_default_colours,
)


def read(path):
    """The picture as RGB; load() fails on a truncated file."""
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        picture.load()
        return np.asarray(picture.convert("RGB"))


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


@pytest.mark.parametrize("ids, stored", [([0, 7, 255], [0, 7, 255]), ([0, 7, 256], [0, 1, 2])])
def test_mask_pixels_are_the_stored_ids_where_they_fit(tmp_path, ids, stored):
    mask = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    save_mask(tmp_path / "mask.png", mask, default_colours(3), ids)
    with Image.open(tmp_path / "mask.png") as picture:
        assert np.array_equal(np.asarray(picture), np.array(stored)[mask])
    assert np.array_equal(read(tmp_path / "mask.png"), default_colours(3)[mask])


def test_overlay_blends_the_class_and_nothing_else():
    image = np.full((2, 3, 3), 100, np.uint8)
    mask = np.array([[0, 1, 255], [0, 0, 2]], np.uint8)
    drawn = overlay(image, mask, default_colours(3), alpha=0.25)
    for at in ((0, 0), (0, 2), (1, 0), (1, 1)):
        assert drawn[at].tolist() == [100, 100, 100]
    for at in ((0, 1), (1, 2)):
        assert np.array_equal(drawn[at], np.rint(75 + 0.25 * default_colours(3)[mask[at]]))
    assert drawn.dtype == np.uint8 and (image == 100).all()


def test_overlay_by_strips_is_the_overlay_of_the_whole():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
    mask = rng.integers(0, 3, (9, 7), dtype=np.uint8)
    whole = overlay(image, mask, default_colours(3))
    strips = [
        overlay(image[rows], mask[rows], default_colours(3))
        for rows in (slice(0, 4), slice(4, 5), slice(5, 9))
    ]
    assert np.array_equal(np.concatenate(strips), whole)


def test_overlay_of_two_classes_uses_its_own_colour():
    drawn = overlay(np.zeros((1, 2, 3), np.uint8), np.array([[0, 1]]), default_colours(2), alpha=1)
    assert drawn.tolist() == [[[0, 0, 0], list(OVERLAY_COLOUR)]]
    with pytest.raises(ValueError):  # a float picture would come out black
        overlay(np.zeros((1, 2, 3)), np.array([[0, 1]]), default_colours(2))


def test_error_map_of_two_classes():
    target = np.array([[1, 0, 255], [1, 0, 255]], np.uint8)
    prediction = np.array([[1, 1, 1], [0, 0, 0]], np.uint8)
    names = [
        ["true positive", "false positive", "ignored"],
        ["false negative", "true negative", "ignored"],
    ]
    drawn = error_map(target, prediction, 2)
    assert drawn.dtype == np.uint8
    assert drawn.tolist() == [[list(TWO_CLASS_ERRORS[name]) for name in line] for line in names]


def test_error_map_of_more_classes():
    target = np.array([[0, 1, 2], [2, 255, 0]], np.uint8)
    prediction = np.array([[0, 1, 1], [2, 2, 2]], np.uint8)
    names = [["correct", "correct", "wrong"], ["correct", "ignored", "wrong"]]
    drawn = error_map(target, prediction, 3)
    assert drawn.tolist() == [[list(MANY_CLASS_ERRORS[name]) for name in line] for line in names]
    # Two of the three classes occur: the colours depend on the number of classes alone.
    few = error_map(np.array([[0, 1]]), np.array([[1, 1]]), num_classes=3)
    assert few.tolist() == [[list(MANY_CLASS_ERRORS["wrong"]), list(MANY_CLASS_ERRORS["correct"])]]
    with pytest.raises(ValueError, match="shape"):
        error_map(target, prediction[:1], 3)


def test_error_overlay_shows_the_image_where_nothing_is_found_or_missed():
    target = np.array([[1, 0, 1, 0, 255]], np.uint8)
    prediction = np.array([[1, 1, 0, 0, 1]], np.uint8)
    drawn = error_overlay(np.full((1, 5, 3), (30, 60, 90), np.uint8), target, prediction, 2)
    names = ["true positive", "false positive", "false negative"]
    expected = [list(TWO_CLASS_ERRORS[name]) for name in names]
    assert drawn[0].tolist() == [*expected, [36, 36, 36], list(IGNORED_COLOUR)]
    assert drawn.dtype == np.uint8


def test_class_picture_shows_classes_and_ignored_pixels():
    mask = np.array([[0, 2], [255, 1]], np.uint8)
    colours = default_colours(3)
    expected = [[colours[0], colours[2]], [IGNORED_COLOUR, colours[1]]]
    assert np.array_equal(class_picture(mask, colours), expected)
    with pytest.raises(ValueError, match="class ids"):
        class_picture(mask, colours[:2])


def test_a_class_table_without_colours_gets_the_default_ones():
    assert np.array_equal(with_default_colours((None, None)), default_colours(2))
    filled = with_default_colours((None, (1, 2, 3), None))
    assert np.array_equal(filled, [default_colours(3)[0], (1, 2, 3), default_colours(3)[2]])


@pytest.mark.parametrize("photograph", [True, False])
def test_pictures_are_resized_for_display(photograph):
    picture = np.zeros((20, 40, 3), np.uint8)
    picture[:, 1::2] = 200  # columns of 0 and 200
    large = np.asarray(resized_for_display(picture, 90, photograph))
    assert np.array_equal(large, picture)  # another whole factor would exceed half of 90
    assert resized_for_display(picture, 160, photograph).size == (80, 40)
    small = np.asarray(resized_for_display(picture, 20, photograph))
    assert small.shape == (10, 20, 3)
    assert set(np.unique(small)) == ({100} if photograph else set(np.unique(small)) & {0, 200})


@pytest.mark.parametrize("channels, shown", [(1, [0, 0, 0]), (3, [0, 1, 2]), (5, [0, 1, 2])])
def test_images_of_any_number_of_channels_are_shown_in_three(channels, shown):
    image = torch.arange(channels, dtype=torch.uint8)[:, None, None].expand(-1, 2, 4)
    assert as_rgb(image).shape == (2, 4, 3) and as_rgb(image)[1, 2].tolist() == shown


def test_legend_has_the_colour_of_each_class(tmp_path):
    colours = default_colours(5)
    save_legend(tmp_path / "legend.png", ["class"] * 5, colours)
    found = {tuple(colour) for colour in read(tmp_path / "legend.png").reshape(-1, 3).tolist()}
    assert {tuple(colour) for colour in colours.tolist()} <= found


def test_pictures_do_without_matplotlib():
    code = "import sys, train_utils.reporting.pictures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_failed_save_leaves_nothing_behind(tmp_path):
    mask = np.zeros((2, 2), np.uint8)
    for path in (tmp_path / "missing/picture.png", tmp_path / "folder"):
        (tmp_path / "folder").mkdir(exist_ok=True)  # cannot be replaced by a file
        assert f"{path}: cannot be written" in error_of(save_mask, path, mask, default_colours(2))
        assert [path.name for path in tmp_path.iterdir()] == ["folder"]

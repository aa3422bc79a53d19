"""Weight maps: the paper's border weight, and maps of one's own."""

import math

import numpy as np
import pytest
from PIL import Image

from src.instances import separate
from tests.small import error_of
from train_utils.data.border_weights import border_weights, read_weights


def three_objects():
    """int32 [20, 34]: two objects that touch, and a third one 7 px away."""
    ids = np.zeros((20, 34), np.int32)
    ids[4:12, 3:10], ids[6:16, 10:18], ids[2:9, 25:30] = 1, 2, 5
    return ids


def by_double_loop(ids, w0, sigma):
    """Equation 2 of Ronneberger et al. 2015, pixel by pixel, of separated ids."""
    weights = np.ones(ids.shape)
    places = {index: np.argwhere(ids == index) for index in np.unique(ids[ids > 0])}
    for y, x in np.argwhere(ids == 0):
        distances = [np.hypot(*(places[index] - (y, x)).T).min() for index in places]
        d1, d2 = sorted(distances)[:2]
        weights[y, x] = 1 + w0 * math.exp(-((d1 + d2) ** 2) / (2 * sigma**2))
    return weights


@pytest.mark.parametrize("w0, sigma", [(10, 5), (10, 1.5), (3, 12)])
def test_the_weight_equals_that_of_a_double_loop(w0, sigma):
    ids = three_objects()
    weights = border_weights(ids, w0, sigma)
    assert weights.dtype == np.float32
    expected = by_double_loop(separate(ids), w0, sigma)
    assert np.abs(weights - expected).max() < 1e-6 * w0
    assert expected.max() > 1 + w0 / 10


def test_the_gap_between_touching_objects_has_the_largest_weight():
    ids = np.repeat(np.repeat([[1, 2]], 20, 0), 20, 1)
    weights = border_weights(ids)
    # Straight border: the gap of 2 px is 1 px from one object and 2 px from the other one.
    assert weights[10, 19] == weights[10, 20] == pytest.approx(1 + 10 * math.exp(-9 / 50))
    assert (weights[separate(ids) > 0] == 1).all() and weights.max() == weights[10, 19]


@pytest.mark.parametrize("count", [0, 1])
def test_without_a_second_object_all_weights_are_1(count):
    ids = np.zeros((12, 14), np.int32)
    ids[3:6, 4:9] = count
    assert (border_weights(ids) == 1).all()


def test_the_given_ids_do_not_change():
    ids = three_objects()
    border_weights(ids)
    assert np.array_equal(ids, three_objects())


# --- maps of one's own --------------------------------------------------------------------------

WEIGHTS = np.arange(12, dtype=np.float32).reshape(3, 4)


def save(path, array):
    """Writes an image or a .npy file; returns its path."""
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)
    return path


@pytest.mark.parametrize(
    "name, array",
    [
        ("w.npy", WEIGHTS / 8),
        ("w.npy", WEIGHTS.astype(np.float64)),
        ("w.npy", WEIGHTS.astype(np.int16)),
        ("w.tif", WEIGHTS / 8),
        ("w.png", WEIGHTS.astype(np.uint8)),
        ("w.png", WEIGHTS.astype(np.uint16) * 5000),
    ],
)
def test_weights_are_read_as_they_are_stored(tmp_path, name, array):
    weights = read_weights(save(tmp_path / name, array))
    assert weights.dtype == np.float32 and np.array_equal(weights, array)


def changed(value):
    """WEIGHTS with one other value."""
    weights = WEIGHTS.copy()
    weights[1, 2] = value
    return weights


@pytest.mark.parametrize("name", ["w.npy", "w.tif"])
@pytest.mark.parametrize(
    "array, words",
    [
        (changed(np.nan), "1 weights that are NaN or infinite"),
        (changed(np.inf), "1 weights that are NaN or infinite"),
        (changed(-0.5), "-0.5"),
        (WEIGHTS * 0, "all weights are 0"),
    ],
)
def test_weights_that_a_loss_cannot_use_are_refused(tmp_path, name, array, words):
    path = save(tmp_path / name, array)
    message = error_of(read_weights, path)
    assert message.startswith(f"{path}: ") and words in message and "correct the file" in message


def test_weights_beyond_float32_are_refused(tmp_path):
    path = save(tmp_path / "w.npy", WEIGHTS.astype(np.float64) * 1e300)
    assert "infinite" in error_of(read_weights, path)


def test_colours_and_palettes_are_refused(tmp_path):
    colours = np.stack([WEIGHTS, WEIGHTS, WEIGHTS + 1], 2).astype(np.uint8)
    assert "colour picture" in error_of(read_weights, save(tmp_path / "w.png", colours))
    Image.fromarray(colours).convert("P").save(tmp_path / "p.png")
    assert "colour picture" in error_of(read_weights, tmp_path / "p.png")


@pytest.mark.parametrize("array", [WEIGHTS[None], WEIGHTS[0], WEIGHTS.astype(complex)])
def test_an_array_that_is_no_map_is_refused(tmp_path, array):
    assert "[height, width]" in error_of(read_weights, save(tmp_path / "w.npy", array))

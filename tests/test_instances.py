"""Objects: distances to the two nearest, gaps where objects touch, and masks back to ids."""

import sys

import numpy as np
import pytest

from src.instances import connected_objects, label_objects, object_table, separate, two_nearest
from tests.small import error_of


def squares(side=8, count=3):
    """int32 [count · side + 4, same]: count² squares that touch, with two px of background."""
    index = np.arange(count * side) // side
    return np.pad((index[:, None] * count + index + 1).astype(np.int32), 2)


def discs(*circles, size=(40, 60)):
    """int32 [H, W]: discs (row, column, radius) with ids 1 … N; a pixel belongs to the nearest."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    depths = [radius - np.hypot(rows - y, columns - x) for y, x, radius in circles]
    return np.where(np.max(depths, 0) >= 0, np.argmax(depths, 0) + 1, 0).astype(np.int32)


def by_double_loop(ids, reach):
    """two_nearest() of the definition, pixel by pixel and object by object."""
    first, second = np.full(ids.shape, np.inf), np.full(ids.shape, np.inf)
    nearest = np.zeros(ids.shape, int)
    places = {int(index): np.argwhere(ids == index) for index in np.unique(ids[ids > 0])}
    for here in np.ndindex(ids.shape):
        ranked = []
        for index, there in places.items():
            distance = np.hypot(*(there - here).T).min()
            if distance <= reach:
                ranked.append((distance, index))
        ranked.sort()
        if ranked:
            first[here], nearest[here] = ranked[0]
        if len(ranked) > 1:
            second[here] = ranked[1][0]
    return first, second, nearest


@pytest.mark.parametrize("reach", [4, 30])
def test_distances_equal_those_of_a_double_loop(reach):
    ids = np.zeros((18, 26), np.uint16)
    ids[2:7, 3:9], ids[2:7, 9:12], ids[12:14, 1], ids[15:, 20:] = 1, 2, 4, 9
    ids[1, 24] = 4  # a second place of this id
    first, second, nearest = two_nearest(ids, reach)
    expected = by_double_loop(ids, reach)
    assert (first.dtype, second.dtype, nearest.dtype) == (np.float32, np.float32, np.int32)
    np.testing.assert_allclose(first, expected[0], rtol=1e-6)
    np.testing.assert_allclose(second, expected[1], rtol=1e-6)
    np.testing.assert_array_equal(nearest, expected[2])
    assert np.isinf(second).any() == (reach == 4)


def test_of_equally_near_objects_the_smaller_id_is_the_nearest():
    first, second, nearest = two_nearest(np.array([[5, 0, 3]]))
    assert nearest[0, 1] == 3 and first[0, 1] == second[0, 1] == 1


def test_touching_objects_lose_a_pixel_on_each_side():
    ids = np.array([[0, 1, 1, 1, 2, 2, 2, 0, 3, 3]] * 4)
    before = ids.copy()
    separated = separate(ids)
    assert separated.tolist() == [[0, 1, 1, 0, 0, 2, 2, 0, 3, 3]] * 4  # a gap is there already
    assert np.array_equal(ids, before) and separated.dtype == ids.dtype


def test_objects_that_touch_at_a_corner_lose_the_corner():
    ids = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 7, 7], [0, 0, 7, 7]])
    assert separate(ids).tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 7], [0, 0, 7, 7]]


def test_separating_twice_changes_nothing_more():
    once = separate(discs((15, 15, 10), (17, 33, 9), (28, 24, 8)))
    assert np.array_equal(separate(once), once)


def test_squares_that_touch_come_back_from_their_mask():
    ids = squares()
    mask = separate(ids) > 0
    found = label_objects(mask)
    assert (mask.sum(), (ids > 0).sum()) == (400, 576)
    assert np.array_equal(found[ids > 0], ids[ids > 0])
    # Two background pixels are added at each of the eight ends of a border.
    assert (found[ids == 0] > 0).sum() == 16


def test_discs_that_touch_come_back_but_for_the_notches_between_them():
    ids = discs((15, 15, 10), (17, 33, 9), (28, 24, 8))
    found = label_objects(separate(ids) > 0)
    assert found.max() == 3
    lost, added = (found == 0) & (ids > 0), (found > 0) & (ids == 0)
    assert (lost.sum(), added.sum(), (ids > 0).sum()) == (2, 10, 735)
    assert np.array_equal(found[(ids > 0) & ~lost], ids[(ids > 0) & ~lost])


def test_objects_three_pixels_apart_do_not_grow():
    mask = np.zeros((9, 15), bool)
    mask[2:7, 1:6] = mask[2:7, 9:13] = True
    found = label_objects(mask)
    assert np.array_equal(found > 0, mask)
    assert (found[4, 2], found[4, 10]) == (1, 2) and found.dtype == np.int32


def test_diagonal_neighbours_are_two_objects():
    mask = np.eye(2, dtype=bool)
    assert label_objects(mask).max() == 2
    assert connected_objects(mask).tolist() == [[1, 0], [0, 2]]


def test_connected_objects_do_not_grow():
    mask = np.array([[1, 1, 0, 1], [1, 0, 0, 1]]) > 0
    assert connected_objects(mask).tolist() == [[1, 1, 0, 2], [1, 0, 0, 2]]


@pytest.mark.parametrize("value", [False, True])
def test_a_mask_of_one_value(value):
    mask = np.full((5, 6), value)
    assert (
        np.array_equal(label_objects(mask), mask) and len(object_table(mask.astype(int))) == value
    )


def test_the_table_of_objects():
    ids = np.zeros((6, 8), np.int32)
    ids[1:3, 2:6], ids[5, 0] = 4, 2
    assert object_table(ids) == [
        {"id": 2, "area": 1, "x": 0.0, "y": 5.0},
        {"id": 4, "area": 8, "x": 3.5, "y": 1.5},
    ]


def test_scipy_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert "pip install scipy" in error_of(label_objects, np.ones((3, 3), bool))

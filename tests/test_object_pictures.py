"""Pictures of objects and weights."""

import numpy as np

from tests.made_instances import discs
from train_utils.reporting.object_pictures import object_picture, weight_picture


def test_near_objects_have_different_colours_and_each_object_one():
    ids = discs(3, size=(120, 130), count=60)
    picture = object_picture(ids)
    assert picture.shape == (120, 130, 3) and picture.dtype == np.uint8
    assert (picture[ids == 0] == 0).all() and (picture[ids > 0] > 0).any(1).all()
    for index in np.unique(ids[ids > 0]):
        assert len(np.unique(picture[ids == index], axis=0)) == 1
    pairs = 0
    for one, other in (((0, 0), (0, 1)), ((0, 0), (1, 0)), ((0, 0), (1, 1)), ((0, 1), (1, 0))):
        rows, columns = 119, 129
        first = slice(one[0], one[0] + rows), slice(one[1], one[1] + columns)
        second = slice(other[0], other[0] + rows), slice(other[1], other[1] + columns)
        meet = (ids[first] != ids[second]) & (ids[first] > 0) & (ids[second] > 0)
        pairs += meet.sum()
        assert (picture[first][meet] != picture[second][meet]).any(1).all()
    assert pairs > 100  # many of them touch


def test_objects_a_few_px_apart_differ_and_large_ids_are_possible():
    ids = np.zeros((8, 20), np.int32)
    ids[:, :5], ids[:, 7:12], ids[:, 14:] = 65535, 65528, 7  # equal modulo seven hues
    picture = object_picture(ids)
    assert len(np.unique(picture[0], axis=0)) == 4
    assert not object_picture(ids * 0).any()


def test_weights_are_brighter_up_to_the_largest():
    picture = weight_picture(np.array([[0.0, 1.0], [2.0, 4.0]], np.float32))
    assert picture.tolist() == [
        [[0, 0, 0], [64, 55, 25]],
        [[128, 110, 50], [255, 220, 100]],
    ]

"""Outlines of objects: the pixels inside their borders, in colours that differ for neighbours."""

import numpy as np

from train_utils.reporting.object_outlines import OUTLINE_COLOURS, object_edges, outlined


def test_edges_are_the_pixels_beside_something_else():
    ids = np.array(
        [
            [1, 1, 1, 2, 2],
            [1, 1, 1, 2, 2],
            [1, 1, 1, 2, 2],
            [0, 0, 0, 2, 2],
        ]
    )
    expected = [
        [0, 0, 1, 1, 0],
        [0, 0, 1, 1, 0],
        [1, 1, 1, 1, 0],
        [0, 0, 0, 1, 0],
    ]
    assert object_edges(ids).astype(int).tolist() == expected


def test_only_edges_are_drawn_and_colours_repeat():
    ids = np.array([[1, 2, 3], [len(OUTLINE_COLOURS) + 1, 0, 3]])
    edges = np.array([[True, True, False], [True, False, False]])
    image = np.full((2, 3, 3), 7, np.uint8)
    drawn = outlined(image, ids, edges)
    assert (drawn[~edges] == 7).all() and (image == 7).all()
    assert (drawn[0, 0] == drawn[1, 0]).all() and (drawn[0, 0] != drawn[0, 1]).any()

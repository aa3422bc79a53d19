"""Ids of objects and weight maps as pictures, numpy arrays [H, W, 3] uint8."""

from collections import defaultdict

import numpy as np

from train_utils.reporting.pictures import BASE_COLOURS

HUES = np.array(BASE_COLOURS[1:], np.uint8)  # without the black of the background
LARGEST_WEIGHT = np.array((255, 220, 100), np.float32)  # seen on a white page
NEAR = 3  # px; objects with at most this distance get different hues


def object_picture(ids: np.ndarray) -> np.ndarray:
    """The ids [H, W] in few colours: background black, near objects in different ones."""
    neighbours = near_objects(ids)
    hue_of = {}
    for index in np.unique(ids[ids > 0]).tolist():
        taken = [hue_of[other] for other in neighbours[index] if other in hue_of]
        # The first hue is another one for each id, so that all hues occur.
        order = [(index + step) % len(HUES) for step in range(len(HUES))]
        hue_of[index] = min(order, key=taken.count)
    colours = np.zeros((int(ids.max()) + 1, 3), np.uint8)
    for index, hue in hue_of.items():
        colours[index] = HUES[hue]
    return colours[ids]


def near_objects(ids: np.ndarray) -> dict[int, set[int]]:
    """{id: ids of the objects within NEAR px along rows, columns and diagonals}."""
    neighbours = defaultdict(set)
    for step in range(1, NEAR + 1):
        shifted = [
            (ids[:, :-step], ids[:, step:]),
            (ids[:-step], ids[step:]),
            (ids[:-step, :-step], ids[step:, step:]),
            (ids[:-step, step:], ids[step:, :-step]),
        ]
        for one, other in shifted:
            meet = (one != other) & (one > 0) & (other > 0)
            for first, second in set(zip(one[meet].tolist(), other[meet].tolist(), strict=True)):
                neighbours[first].add(second)
                neighbours[second].add(first)
    return neighbours


def weight_picture(weight: np.ndarray) -> np.ndarray:
    """The weights [H, W] from black for 0 to LARGEST_WEIGHT for the largest of them."""
    share = weight / weight.max()
    return np.rint(share[..., None] * LARGEST_WEIGHT).astype(np.uint8)

"""Objects outlined over their image.

predict.py imports this module, so it must not import matplotlib.
"""

import numpy as np

from train_utils.reporting.pictures import BASE_COLOURS

# By the id of the object. Without black and dark blue, which vanish on dark tissue.
OUTLINE_COLOURS = np.array([BASE_COLOURS[index] for index in (1, 2, 3, 4, 6, 7)], np.uint8)


def object_edges(ids: np.ndarray) -> np.ndarray:
    """bool [H, W]: pixels of an object that are beside a pixel of something else.

    ids: int [H, W], 0 for background. The border of the image is no edge.
    """
    edges = np.zeros(ids.shape, bool)
    down, right = ids[1:] != ids[:-1], ids[:, 1:] != ids[:, :-1]
    edges[1:] |= down
    edges[:-1] |= down
    edges[:, 1:] |= right
    edges[:, :-1] |= right
    return edges & (ids > 0)


def outlined(image: np.ndarray, ids: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The image [H, W, 3] uint8 with the edges of its objects in the colours of their ids.

    edges: of object_edges(). Each pixel depends on itself alone, so a large image may be given by
    strips of rows.
    """
    drawn = image.copy()
    drawn[edges] = OUTLINE_COLOURS[(ids[edges] - 1) % len(OUTLINE_COLOURS)]
    return drawn

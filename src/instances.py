"""Objects in an image: distances between them, gaps where they touch, masks back to ids.

Ids are integers [H, W]: 0 is background, every other id is one object. All distances are Euclidean,
in px between the centres of pixels.
"""

import math
from types import ModuleType

import numpy as np

from .errors import UserError

GAP = 1  # px that an object loses along its border with another one, in the target


def import_ndimage() -> ModuleType:
    """The part of scipy that works on images; UserError if scipy is not installed."""
    try:
        from scipy import ndimage
    except ImportError:
        raise UserError(
            "instances (objects with an id each) need the package scipy: pip install scipy"
        ) from None
    return ndimage


def two_nearest(ids: np.ndarray, reach: float = 30) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two objects that are nearest to each pixel.

    Returns (float32 [H, W]: the distance to the nearest pixel of the nearest object, float32
    [H, W]: that to the second nearest object, int32 [H, W]: the id of the nearest one). A distance
    above `reach` px is inf, and the id is 0 where there is no object within reach. Inside an object
    the first distance is 0. Of two equally near objects the one of the smaller id is the nearest.

    Each object is measured in a window of its own, `reach` px larger than its bounding box.
    """
    ndimage = import_ndimage()
    nearest = np.zeros(ids.shape, np.int32)
    first = np.full(ids.shape, np.inf, np.float32)
    second = first.copy()
    margin = math.ceil(reach)
    for index, box in enumerate(ndimage.find_objects(ids)):
        if box is None:  # no object has this id
            continue
        window = tuple(slice(max(side.start - margin, 0), side.stop + margin) for side in box)
        outside = ids[window] != index + 1
        distance = ndimage.distance_transform_edt(outside).astype(np.float32)
        distance[distance > reach] = np.inf
        is_nearer = distance < first[window]
        second[window] = np.minimum(second[window], np.maximum(distance, first[window]))
        first[window][is_nearer] = distance[is_nearer]
        nearest[window][is_nearer] = index + 1
    return first, second, nearest


def separate(ids: np.ndarray) -> np.ndarray:
    """The ids with a gap between objects that touch, in a new array.

    Pixels of an object that are less than GAP + 1 px from another object become 0. The width of an
    object that touches others is thus smaller by GAP px on each such side; one of 2 px may vanish.
    """
    _, to_another, _ = two_nearest(ids, GAP + 1)
    return np.where(to_another < GAP + 1, 0, ids)


def connected_objects(mask: np.ndarray, diagonal: bool = False) -> np.ndarray:
    """int32 [H, W]: ids 1 … N of the 4-connected components of a mask, bool [H, W].

    diagonal: pixels are connected at their corners, too.
    """
    neighbours = np.ones((3, 3)) if diagonal else None
    components, _ = import_ndimage().label(mask, neighbours)
    return components.astype(np.int32)


def label_objects(mask: np.ndarray) -> np.ndarray:
    """int32 [H, W]: ids 1 … N of the objects in a mask, bool [H, W], from top to bottom.

    An object is a 4-connected component, grown back by the gap: a pixel between two components goes
    to the nearest one if its distances to both are together less than 2 · (GAP + 1) px, and the
    second one is more than GAP px away. That closes the gaps that separate() made. Where such a gap
    ends at the background, a few pixels of the notch are added: two at the end of a straight
    border.
    """
    components = connected_objects(mask)
    first, second, nearest = two_nearest(components, 2 * (GAP + 1))
    # separate() removes no pixel that then has its second object within GAP px.
    in_gap = (first + second < 2 * (GAP + 1)) & (second >= GAP + 1)
    return np.where(in_gap, nearest, components).astype(np.int32)


def object_table(ids: np.ndarray) -> list[dict]:
    """{"id", "area" in px, "x", "y" of the centroid in px} of each object, in the order of ids.

    The centre of the top left pixel is at x = 0, y = 0.
    """
    rows, columns = np.nonzero(ids)
    values = ids[rows, columns]
    areas, x_sums, y_sums = (np.bincount(values, weights) for weights in (None, columns, rows))
    return [
        {
            "id": int(index),
            "area": int(areas[index]),
            "x": float(x_sums[index] / areas[index]),
            "y": float(y_sums[index] / areas[index]),
        }
        for index in np.flatnonzero(areas)
    ]

"""Maps of the loss's weight at each pixel: computed from the objects, or read from a file."""

import math
from pathlib import Path

import numpy as np

from src.errors import UserError
from src.image_io import numbers_of, open_image
from src.instances import separate, two_nearest
from train_utils.data.instance_labels import read_flat_npy

REACH = 6  # standard deviations; the weight beyond is below w0 · exp(−18), 1.5e-8 of it


def border_weights(ids: np.ndarray, w0: float = 10.0, sigma: float = 5.0) -> np.ndarray:
    """The weight that makes a model learn the narrow background between objects, float32 [H, W].

    1 + w0 · exp(−(d1 + d2)² / 2σ²) on the background, d1 and d2 the distances in px to the nearest
    and to the second nearest object; 1 on objects and far from a second one. It is equation 2 of
    Ronneberger et al. 2015 without the class weight, which the loss multiplies by.

    ids: int [H, W]. Objects that touch are separated first, as in the target. sigma: in px, > 0.
    """
    ids = separate(ids)
    first, second, _ = two_nearest(ids, math.ceil(REACH * sigma))
    weights = 1 + w0 * np.exp(-((first + second) ** 2) / (2 * sigma**2))
    weights[ids > 0] = 1
    return weights


def read_weights(path: str | Path, max_pixels: int | None = None) -> np.ndarray:
    """A weight map of one's own, float32 [H, W]: the numbers as they are stored.

    path: a .npy file, a grey image with 8 or 16 bits, or a TIFF of floating-point numbers.
    UserError for colours, for weights that are negative, NaN or infinite, and if all of them are 0.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        stored = read_flat_npy(path, max_pixels)
    else:
        stored = read_weight_image(path, max_pixels)
    with np.errstate(over="ignore"):  # becomes infinite, which is refused
        weights = stored.astype(np.float32)
    check_weights(path, weights)
    return weights


def read_weight_image(path: Path, max_pixels: int | None) -> np.ndarray:
    """The numbers [H, W] of an image."""
    image = open_image(path, max_pixels)
    if image.mode == "F":
        return np.asarray(image)
    weights = None
    if image.mode not in ("P", "PA"):  # the numbers of a palette stand for colours
        weights = numbers_of(path, image)
    if weights is None:
        raise UserError(
            f"{path}: is a colour picture; save the weights as a grey image or as .npy of float32"
        )
    return weights


def check_weights(path: Path, weights: np.ndarray) -> None:
    """UserError for a weight map that a loss cannot use."""
    bad = weights.size - np.count_nonzero(np.isfinite(weights))
    if bad:
        raise UserError(
            f"{path}: holds {bad:,} weights that are NaN or infinite; weights are finite numbers "
            "from 0 up, correct the file"
        )
    if weights.min() < 0:
        raise UserError(
            f"{path}: holds the weight {weights.min():g}; weights are finite numbers from 0 up, "
            "correct the file"
        )
    if not weights.any():
        raise UserError(
            f"{path}: all weights are 0, so the image would not be trained on; correct the file, "
            "or leave the image out"
        )

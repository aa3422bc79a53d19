"""The round field of view of a fundus photograph, found in the image itself."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .image_io import resize_image

SEARCH_SIDE = 512  # px, longer side of the copy in which the disc is searched
MIN_CONTRAST = 10  # grey levels between frame and disc
LIT_LEVEL = 0.15  # a bright pixel exceeds the frame by this share of the contrast
TRIALS = 200  # circles that are tried; where half of the points fit, about 25 of them are right
TOLERANCE = 0.02  # distance of a boundary point from its circle, as a share of the radius
MIN_FITTING = 0.5  # share of the boundary points that are on the circle
MIN_LIT = 0.6  # share of the disc that is bright
MAX_STRAY = 0.1  # bright area outside the disc, as a share of the disc
MIN_CUT = 0.02  # of the radius; where less is missing at a side, the disc is only dim there


@dataclass(frozen=True)
class Circle:
    """A circle in px; x and y of the first pixel's centre are 0."""

    x: float
    y: float
    radius: float


def find_field_of_view(image: Tensor) -> Tensor | None:
    """The disc of a fundus photograph that a dark frame surrounds.

    A circle is fitted to the boundary between bright and dark pixels: RANSAC (Fischler and Bolles
    1981), then least squares on the points near the circle. Where the camera cuts the disc off
    along straight lines, the field ends there. The same image always gives the same field.

    image: uint8 [C, H, W]. Returns bool [H, W] on the CPU, or None if there is no bright disc in a
    dark frame; then a ROI mask has to be given.
    """
    lit = bright_pixels(small_grey(image))
    circle = None
    if lit is not None:
        circle = fit_circle(boundary_points(lit))
    if circle is None:
        return None
    disc = disc_of(circle, *lit.shape)
    if (lit & disc).sum() < MIN_LIT * disc.sum() or (lit & ~disc).sum() > MAX_STRAY * disc.sum():
        return None
    top, bottom = bright_range((lit & disc).sum(axis=1), disc.sum(axis=1), circle.radius)
    left, right = bright_range((lit & disc).sum(axis=0), disc.sum(axis=0), circle.radius)
    height, width = image.shape[1:]
    scale = max(height, width) / max(lit.shape)
    x, y = (circle.x + 0.5) * scale - 0.5, (circle.y + 0.5) * scale - 0.5
    field = disc_of(Circle(x, y, circle.radius * scale), height, width)
    field[: round(top * scale)] = field[round(bottom * scale) :] = False
    field[:, : round(left * scale)] = field[:, round(right * scale) :] = False
    return torch.from_numpy(field)


# --- bright and dark -----------------------------------------------------------------------------


def small_grey(image: Tensor) -> Tensor:
    """float32 [h, w]: the brightest channel of a copy of at most SEARCH_SIDE, without noise."""
    height, width = image.shape[1:]
    step = max(max(height, width) // (2 * SEARCH_SIDE), 1)
    scale = min(SEARCH_SIDE / max(height, width), 1)
    size = [max(round(side * scale), 1) for side in (height, width)]
    # The middle pixel of each step, so that the copy is not shifted.
    row, column = (min(step // 2, side - 1) for side in (height, width))
    grey = resize_image(image[:, row::step, column::step], size).amax(dim=0).float()
    padded = F.pad(grey[None, None], [1] * 4, mode="replicate")
    return F.avg_pool2d(padded, 3, 1)[0, 0]


def bright_pixels(grey: Tensor) -> np.ndarray | None:
    """bool [h, w]: pixels brighter than the frame, without specks; None without a dark frame."""
    height, width = grey.shape
    side = max(min(height, width) // 20, 1)
    corners = (grey[:side, :side], grey[:side, -side:], grey[-side:, :side], grey[-side:, -side:])
    levels = sorted(corner.median().item() for corner in corners)
    frame = levels[2]  # one corner may hold a mark
    middle = grey[height // 4 : height - height // 4, width // 4 : width - width // 4]
    contrast = middle.median().item() - frame
    if contrast < MIN_CONTRAST:
        return None
    lit = (grey > frame + LIT_LEVEL * contrast).float()
    eroded = -F.max_pool2d(-lit[None, None], 5, 1, 2)
    return F.max_pool2d(eroded, 5, 1, 2)[0, 0].bool().numpy()


def boundary_points(lit: np.ndarray) -> np.ndarray:
    """float64 [n, 2]: x and y of the first and last bright pixel of each row and each column.

    Those at the border of the image are left out, since the disc may continue beyond it.
    """
    height, width = lit.shape
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    lefts = lit.argmax(axis=1)[rows]
    rights = width - 1 - lit[:, ::-1].argmax(axis=1)[rows]
    tops = lit.argmax(axis=0)[columns]
    bottoms = height - 1 - lit[::-1].argmax(axis=0)[columns]
    x = np.concatenate([lefts, rights, columns, columns]).astype(np.float64)
    y = np.concatenate([rows, rows, tops, bottoms]).astype(np.float64)
    inside = (x > 0) & (y > 0) & (x < width - 1) & (y < height - 1)
    return np.stack([x, y], axis=1)[inside]


def bright_range(lit: np.ndarray, disc: np.ndarray, radius: float) -> tuple[int, int]:
    """(first, end) of the rows of the disc that the camera shows.

    lit, disc: bright pixels and all pixels of the disc in each row.
    """
    rows = np.flatnonzero(disc)
    bright = np.flatnonzero(lit > disc / 2)
    first, end = bright[0], bright[-1] + 1
    if first - rows[0] < MIN_CUT * radius:
        first = rows[0]
    if rows[-1] + 1 - end < MIN_CUT * radius:
        end = rows[-1] + 1
    return int(first), int(end)


# --- circles -------------------------------------------------------------------------------------


def fit_circle(points: np.ndarray) -> Circle | None:
    """The circle that most of the points [n, 2] are on; None if fewer than MIN_FITTING are."""
    if len(points) < 100:
        return None
    picks = np.random.default_rng(0).integers(0, len(points), (TRIALS, 3))
    trials = circles_through(points[picks])
    on_circle = near_circles(points, trials)
    best = on_circle.sum(axis=1).argmax()
    circle, chosen = trials[best], on_circle[best]
    for _ in range(3):
        if chosen.sum() < MIN_FITTING * len(points):
            return None
        circle = circles_through(points[chosen][None])[0]
        chosen = near_circles(points, circle[None])[0]
    x, y, radius = circle.tolist()
    return Circle(x, y, radius + 0.5)  # from the centres of the outermost pixels to their edges


def circles_through(points: np.ndarray) -> np.ndarray:
    """float64 [t, 3]: x, y and radius of the circle of least squares through points [t, n, 2].

    x² + y² = a·x + b·y + c is linear in a, b and c (Kåsa 1976).
    """
    middle = points.mean(axis=1, keepdims=True)
    x, y = np.moveaxis(points - middle, 2, 0)
    terms = np.stack([x, y, np.ones_like(x)], axis=2)
    a, b, c = (np.linalg.pinv(terms) @ (x**2 + y**2)[..., None])[..., 0].T
    radius = np.sqrt(np.clip(c + a**2 / 4 + b**2 / 4, 0, None))
    return np.stack([a / 2 + middle[:, 0, 0], b / 2 + middle[:, 0, 1], radius], axis=1)


def near_circles(points: np.ndarray, circles: np.ndarray) -> np.ndarray:
    """bool [t, n]: which of the points [n, 2] are near which of the circles [t, 3]."""
    x, y, radius = circles.T[..., None]
    distance = np.hypot(points[:, 0] - x, points[:, 1] - y)
    return np.abs(distance - radius) < TOLERANCE * radius


def disc_of(circle: Circle, height: int, width: int) -> np.ndarray:
    """bool [height, width]: the pixels whose centre is in the circle."""
    y = np.arange(height) - circle.y
    half = np.sqrt(np.clip(circle.radius**2 - y**2, 0, None))  # of each row's chord
    x = np.abs(np.arange(width) - circle.x)
    return (x[None] <= half[:, None]) & (half > 0)[:, None]

"""Draws synthetic fundus images with their vessel labels, for the demo dataset.

Anatomy is in field units: (0, 0) is the centre of the round field of view, 1 its radius, x points
right and y down. Only the paint functions know about pixels.
"""

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

FINE = 4  # vessels are drawn this many times larger than the image, then averaged (anti-aliasing)
STEP = 0.024  # length of one vessel segment, in field units
THICK, THIN = 0.037, 0.0093  # vessel widths in field units: 5 px and 1.25 px in a 292×282 image


def draw_fundus(rng: Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One eye: image uint8 [H, W, 3], vessel label and field mask uint8 [H, W] of 0 and 255."""
    disc = np.array([-rng.uniform(0.5, 0.8), rng.uniform(-0.1, 0.1)])
    macula = disc + [rng.uniform(0.75, 0.9), rng.uniform(0.0, 0.12)]
    coverage, shade = paint_vessels(grow_tree(rng, disc, macula), size)
    colour = paint_background(rng, size, disc, macula)
    # Blood absorbs green most, so that is where vessels show best.
    colour *= 1 - shade[..., None] * np.array([0.17, 0.38, 0.22]) * rng.uniform(0.6, 1.1)
    if rng.random() < 0.5:  # so far the disc is on the left; the other eye is the mirror image
        coverage, colour = coverage[:, ::-1], colour[:, ::-1]
    field = paint_field(size)
    noise = 0.012 * rng.normal(size=(*size, 1)) + 0.01 * rng.normal(size=(*size, 3))
    image = np.clip(np.rint((colour * field[..., None] + noise) * 255), 0, 255).astype(np.uint8)
    masks = np.stack([(coverage > 0.5) & (field > 0.5), field > 0.5]) * np.uint8(255)
    return image, masks[0], masks[1]


def grow_tree(rng: Generator, disc: np.ndarray, macula: np.ndarray) -> list[np.ndarray]:
    """The vessels that grow from the disc: arrays [n, 3] of x, y, width in field units."""
    # (angle from the axis disc → macula, bend in radians per unit length, width); y points down
    trunks = []
    for side in (-1, 1):
        for angle, width in ((1.2, THICK), (1.45, 0.75 * THICK)):  # the arcade around the macula
            trunks.append((side * rng.normal(angle, 0.08), -side * rng.uniform(1.3, 1.7), width))
        for _ in range(rng.integers(1, 3)):  # nasal vessels, away from the macula
            trunks.append(
                (side * rng.uniform(1.8, 2.9), side * rng.uniform(-0.5, 0.5), 0.6 * THICK)
            )
        trunks.append((side * rng.uniform(0.2, 0.6), side * rng.uniform(-0.2, 0.3), 0.4 * THICK))
    queue = [(disc + rng.normal(0, 0.02, 2), *trunk, True) for trunk in trunks]
    vessels, taken = [], {}
    while queue:  # first in, first out, so that trunks take their room before twigs
        points, branches = grow_vessel(rng, *queue.pop(0), macula, taken, len(vessels))
        if len(points) > 7:  # shorter vessels would look like thorns
            vessels.append(points)
            queue += branches
    return vessels


def grow_vessel(
    rng: Generator,
    position: np.ndarray,
    angle: float,
    bend: float,
    width: float,
    trunk: bool,
    macula: np.ndarray,
    taken: dict[tuple, int],
    name: int,
) -> tuple[np.ndarray, list[tuple]]:
    """Grows one vessel step by step from the disc (trunk) or from its parent.

    taken: {grid cell: name of the vessel in it}; branches become thin in cells of other vessels.
    Returns the vessel's points [n, 3] and the branches to grow from it.
    """
    points, branches, wiggle = [], [], 0.0
    side, next_branch = rng.choice([-1, 1]), rng.integers(5, 9)
    while width > 0.85 * THIN and position @ position < 1.05 and len(points) < 110:
        points.append((*position, max(width, THIN)))
        cell = tuple(np.floor(position / 0.045).astype(int))
        # A branch needs 5 points to leave its parent.
        crowded = taken.setdefault(cell, name) != name and len(points) > 5
        in_fovea = np.hypot(*(position - macula)) < 0.15  # which has no vessels
        if not trunk and (crowded or in_fovea):
            width *= 0.85
        if len(points) == next_branch:
            side, next_branch = -side, next_branch + rng.integers(5, 8)
            branch_angle = angle + side * rng.uniform(0.5, 1.1)
            branch_width = width * rng.uniform(0.4, 0.73)
            branch_bend = -side * rng.uniform(0, 1)
            branches.append((position, branch_angle, branch_bend, branch_width, False))
            width *= 0.965
        # The wiggle returns to 0, so that vessels wind but keep their direction.
        wiggle = 0.85 * wiggle + rng.normal(0, 0.13)
        position = position + STEP * np.array([np.cos(angle + wiggle), np.sin(angle + wiggle)])
        angle, bend, width = angle + bend * STEP, 0.985 * bend, 0.993 * width
    return np.array(points), branches


def paint_vessels(vessels: list[np.ndarray], size: tuple[int, int]) -> list[np.ndarray]:
    """Coverage and darkness of the vessels, two arrays [H, W] in [0, 1]; thin ones are fainter."""
    canvases = [Image.new("L", (size[1] * FINE, size[0] * FINE)) for _ in range(2)]
    cover, shade = (ImageDraw.Draw(canvas) for canvas in canvases)
    radius = field_radius(size)
    for points in sorted(vessels, key=lambda points: points[0, 2]):  # thick ones last, on top
        points = points[points[:, 2] * radius > 0.6]  # small images lack the finest twigs
        xy = (points[:, :2] * radius + np.array(size[::-1]) / 2) * FINE
        width = np.maximum(points[:, 2] * radius, 1.25) * FINE  # labels of 1 px would break up
        strength = 0.15 + 0.85 * (points[:, 2] / THICK) ** 0.7
        stroke(cover, xy, width, np.full(len(xy), 255))
        stroke(shade, xy, width, 255 * strength)
        thick = points[:, 2] > 0.55 * THICK
        # The light reflex along the middle.
        stroke(shade, xy[thick], 0.3 * width[thick], 170 * strength[thick])
    canvases[1] = canvases[1].filter(ImageFilter.GaussianBlur(0.5 * FINE))  # the camera's optics
    return [np.asarray(canvas.reduce(FINE)) / 255 for canvas in canvases]


def stroke(
    draw: ImageDraw.ImageDraw, xy: np.ndarray, widths: np.ndarray, greys: np.ndarray
) -> None:
    """Draws a line with round joints: points xy [n, 2] and widths [n] in canvas pixels."""
    for i, ((x, y), width, grey) in enumerate(zip(xy, widths, greys, strict=True)):
        draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=int(grey))
        if i:
            draw.line((*xy[i - 1], x, y), fill=int(grey), width=max(1, round(width)))


def paint_background(
    rng: Generator, size: tuple[int, int], disc: np.ndarray, macula: np.ndarray
) -> np.ndarray:
    """Fundus without vessels: colours [H, W, 3] in about [0, 1], not yet cut to the field."""
    x, y = field_grid(size)
    light = 1.1 - 0.2 * (x**2 + y**2)
    for strength, cells in ((0.09, 3), (0.025, 24), (0.025, 60)):  # uneven light, then texture
        light += strength * smooth_noise(rng, size, cells)
    light *= 1 - rng.uniform(0.2, 0.35) * blob(x, y, macula, 0.15)
    for _ in range(rng.integers(6, 14)):  # small dark and bright spots that are no vessels
        strength = rng.uniform(-0.3, 0.3)
        centre = rng.uniform(-0.75, 0.75, 2)
        light *= 1 + strength * blob(x, y, centre, rng.uniform(0.01, 0.02))
    tint = np.stack([0.04 * smooth_noise(rng, size, 4) for _ in range(3)], axis=-1)
    base = np.array([0.69, 0.365, 0.21]) * rng.normal(1, 0.05) * rng.normal(1, 0.04, 3)
    colour = base * light[..., None] * (1 + tint)
    radius = rng.uniform(0.14, 0.18)
    distance = np.hypot(x - disc[0], 0.9 * (y - disc[1])) / radius
    distance *= 1 + 0.06 * smooth_noise(rng, size, 8)
    share = 0.75 / (1 + np.exp(14 * (distance - 1))) + 0.15 * np.exp(-((distance / 1.6) ** 2))
    bright = np.array([0.96, 0.72, 0.40]) * (1 + 0.2 * blob(x, y, disc, 0.5 * radius)[..., None])
    return colour + share[..., None] * (bright - colour)


def blob(x: np.ndarray, y: np.ndarray, centre: np.ndarray, spread: float) -> np.ndarray:
    """Gaussian bump of height 1; centre and spread (standard deviation) are in field units."""
    return np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * spread**2))


def smooth_noise(rng: Generator, size: tuple[int, int], cells: int) -> np.ndarray:
    """Random field [H, W] of about unit variance that changes over 1/cells of the image."""
    coarse = Image.fromarray(rng.normal(size=(cells + 1, cells + 1)).astype(np.float32))
    return np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC), dtype=np.float64)


def paint_field(size: tuple[int, int]) -> np.ndarray:
    """Share of each pixel inside the round field of view; its top and bottom are slightly cut."""
    x, y = field_grid(size)
    distance = np.maximum(np.hypot(x, y), np.abs(y) / 0.99)
    return np.clip((1 - distance) * field_radius(size) + 0.5, 0, 1)


def field_radius(size: tuple[int, int]) -> float:
    """Radius of the field of view in pixels; as in DRIVE it fills 95 % of the shorter side."""
    return 0.475 * min(size)


def field_grid(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """x and y of each pixel's centre in field units, each [H, W]."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    radius = field_radius(size)
    return (columns + 0.5 - size[1] / 2) / radius, (rows + 0.5 - size[0] / 2) / radius

"""Draws a small synthetic fundus data set in DRIVE's layout, for trying the code without the real pictures.

Anatomy is in field units: (0, 0) is the centre of the round field of view, 1 its radius, x to the right,
y down. Only the painting functions know about pixels.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

FINE = 4  # vessels are drawn this many times larger than the picture, then averaged down (anti-aliasing)
STEP = 0.024  # length of one vessel segment, in field units
THICK, THIN = 0.037, 0.0093  # vessel widths in field units: 5 px and 1.25 px in a 292 x 282 picture


def write_demo_drive(root, num_training=20, num_test=8, size=(292, 282), seed=0) -> Path:
    """Draws a synthetic fundus set in DRIVE's layout under root/DRIVE and returns root (as Path).

    size is (height, width) in pixels, each at least 64. Training pictures are numbered from 21, test pictures
    from 01, as in DRIVE. A picture depends only on (seed, its number, size). A finished set is left as it is, an
    unfinished one is completed; nothing is ever deleted or written over but a set of the same parameters.

    Raises FileExistsError if root/DRIVE holds anything else, and ValueError for a size below 64 pixels, a negative
    count or seed, or num_test > 20 (number 21 is already a training picture).
    """
    size = (int(size[0]), int(size[1]))
    if min(size) < 64 or num_training < 0 or not 0 <= num_test <= 20 or seed < 0:
        raise ValueError(
            "need size at least (64, 64), num_training >= 0, 0 <= num_test <= 20 and seed >= 0, "
            f"got {size}, {num_training}, {num_test} and {seed}"
        )
    folder = Path(root) / "DRIVE"
    marker = folder / "demo.txt"
    description = f"synthetic demo set: {num_training=} {num_test=} {size=} {seed=}\n"
    drawing = "unfinished " + description
    found = marker.read_text() if marker.exists() else "no demo.txt"
    if folder.exists() and any(folder.iterdir()) and found not in (description, drawing):
        raise FileExistsError(
            f"{folder} holds other files than this demo set ({found.strip()}); they are left untouched: "
            "move the folder away"
        )
    paths = {
        number: picture_paths(folder, "training", number) for number in range(21, 21 + num_training)
    }
    paths |= {number: picture_paths(folder, "test", number) for number in range(1, 1 + num_test)}
    if found == description and all(path.exists() for three in paths.values() for path in three):
        return Path(root)
    folder.mkdir(parents=True, exist_ok=True)
    marker.write_text(
        drawing
    )  # the description comes last, so that an interrupted set is drawn again
    for number, three in paths.items():
        save_picture(draw_fundus(np.random.default_rng([seed, number]), size), three)
    marker.write_text(description)
    return Path(root)


def picture_paths(folder, split, number):
    """Paths of one picture's image, vessel label and field-of-view mask, as DRIVE names them."""
    return (
        folder / split / "images" / f"{number:02d}_{split}.tif",
        folder / split / "1st_manual" / f"{number:02d}_manual1.gif",
        folder / split / "mask" / f"{number:02d}_{split}_mask.gif",
    )


def save_picture(arrays, paths):
    """Writes the three uint8 arrays of draw_fundus to the three picture_paths."""
    for array, path in zip(arrays, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        # A GIF's optimised palette would store 255 as index 1; without it the stored values are 0 and 255.
        Image.fromarray(array).save(path, optimize=False)


def draw_fundus(rng, size):
    """One eye, uint8: image (height, width, 3), vessel label and field mask (height, width) of 0 and 255."""
    disc = np.array([-rng.uniform(0.5, 0.8), rng.uniform(-0.1, 0.1)])
    macula = disc + [rng.uniform(0.75, 0.9), rng.uniform(0.0, 0.12)]
    coverage, shade = paint_vessels(grow_tree(rng, disc, macula), size)
    colour = paint_background(rng, size, disc, macula)
    # Blood absorbs green most, so that is where vessels show best.
    colour *= 1 - shade[..., None] * np.array([0.17, 0.38, 0.22]) * rng.uniform(0.6, 1.1)
    if rng.random() < 0.5:  # so far a disc on the left; the other eye is the mirror image
        coverage, colour = coverage[:, ::-1], colour[:, ::-1]
    field = paint_field(size)
    noise = 0.012 * rng.normal(size=(*size, 1)) + 0.01 * rng.normal(size=(*size, 3))
    image = np.clip(np.rint((colour * field[..., None] + noise) * 255), 0, 255).astype(np.uint8)
    masks = np.stack([(coverage > 0.5) & (field > 0.5), field > 0.5]) * np.uint8(255)
    return image, masks[0], masks[1]


def grow_tree(rng, disc, macula):
    """Vessel tree out of the disc: a list of (n, 3) arrays of x, y, width in field units."""
    trunks = []  # (angle from the axis disc -> macula, bend in radians per unit length, width); y is down
    for side in (-1, 1):
        for angle, width in ((1.2, THICK), (1.45, 0.75 * THICK)):  # the arcade round the macula
            trunks.append((side * rng.normal(angle, 0.08), -side * rng.uniform(1.3, 1.7), width))
        for _ in range(rng.integers(1, 3)):  # nasal vessels, away from the macula
            trunks.append(
                (side * rng.uniform(1.8, 2.9), side * rng.uniform(-0.5, 0.5), 0.6 * THICK)
            )
        trunks.append((side * rng.uniform(0.2, 0.6), side * rng.uniform(-0.2, 0.3), 0.4 * THICK))
    queue = [(disc + rng.normal(0, 0.02, 2), *trunk, True) for trunk in trunks]
    vessels, taken = [], {}
    while queue:  # first in, first out: trunks claim their room before twigs
        points, branches = grow_vessel(rng, *queue.pop(0), macula, taken, len(vessels))
        if len(points) > 7:  # shorter ones would look like thorns
            vessels.append(points)
            queue += branches
    return vessels


def grow_vessel(rng, position, angle, bend, width, trunk, macula, taken, name):
    """Walks one vessel from the disc (trunk) or from its parent; branches thin out where it gets crowded.

    Returns its (n, 3) points and the branches to grow from it. taken maps a grid cell to the vessel in it.
    """
    points, branches, wiggle = [], [], 0.0
    side, next_branch = rng.choice([-1, 1]), rng.integers(5, 9)
    while width > 0.85 * THIN and position @ position < 1.05 and len(points) < 110:
        points.append((*position, max(width, THIN)))
        cell = tuple(np.floor(position / 0.045).astype(int))
        crowded = taken.setdefault(cell, name) != name and len(points) > 5  # 5 to leave its parent
        if not trunk and (
            crowded or np.hypot(*(position - macula)) < 0.15
        ):  # no vessels in the fovea
            width *= 0.85
        if len(points) == next_branch:
            side, next_branch = -side, next_branch + rng.integers(5, 8)
            branch_angle, branch_width = (
                angle + side * rng.uniform(0.5, 1.1),
                width * rng.uniform(0.4, 0.73),
            )
            branches.append(
                (position, branch_angle, -side * rng.uniform(0, 1), branch_width, False)
            )
            width *= 0.965
        wiggle = 0.85 * wiggle + rng.normal(
            0, 0.13
        )  # returns to 0, so vessels wind but keep their course
        position = position + STEP * np.array([np.cos(angle + wiggle), np.sin(angle + wiggle)])
        angle, bend, width = angle + bend * STEP, 0.985 * bend, 0.993 * width
    return np.array(points), branches


def paint_vessels(vessels, size):
    """Coverage and darkness of the vessels, two (height, width) arrays in [0, 1]; thin ones are fainter."""
    canvases = [Image.new("L", (size[1] * FINE, size[0] * FINE)) for _ in range(2)]
    cover, shade = (ImageDraw.Draw(canvas) for canvas in canvases)
    for points in sorted(vessels, key=lambda points: points[0, 2]):  # thick ones last, on top
        points = points[
            points[:, 2] * field_radius(size) > 0.6
        ]  # small pictures lack the finest twigs
        xy = (points[:, :2] * field_radius(size) + np.array(size[::-1]) / 2) * FINE
        width = (
            np.maximum(points[:, 2] * field_radius(size), 1.25) * FINE
        )  # labels of 1 px would break up
        strength = 0.15 + 0.85 * (points[:, 2] / THICK) ** 0.7
        stroke(cover, xy, width, np.full(len(xy), 255))
        stroke(shade, xy, width, 255 * strength)
        thick = points[:, 2] > 0.55 * THICK
        stroke(
            shade, xy[thick], 0.3 * width[thick], 170 * strength[thick]
        )  # light reflex along the middle
    canvases[1] = canvases[1].filter(ImageFilter.GaussianBlur(0.5 * FINE))  # the camera's optics
    return [np.asarray(canvas.reduce(FINE)) / 255 for canvas in canvases]


def stroke(draw, xy, widths, greys):
    """Draws a line of varying width with round joints: xy (n, 2) and widths (n,) in canvas pixels."""
    for i, ((x, y), width, grey) in enumerate(zip(xy, widths, greys)):
        draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=int(grey))
        if i:
            draw.line((*xy[i - 1], x, y), fill=int(grey), width=max(1, round(width)))


def paint_background(rng, size, disc, macula):
    """Fundus without vessels: (height, width, 3) colours in about [0, 1], not yet cut to the field."""
    x, y = field_grid(size)
    light = 1.1 - 0.2 * (x**2 + y**2)
    for strength, cells in ((0.09, 3), (0.025, 24), (0.025, 60)):  # uneven light, then texture
        light += strength * smooth_noise(rng, size, cells)
    light *= 1 - rng.uniform(0.2, 0.35) * blob(x, y, macula, 0.15)
    for _ in range(rng.integers(6, 14)):  # small dark and bright spots that are no vessels
        light *= 1 + rng.uniform(-0.3, 0.3) * blob(
            x, y, rng.uniform(-0.75, 0.75, 2), rng.uniform(0.01, 0.02)
        )
    tint = np.stack([0.04 * smooth_noise(rng, size, 4) for _ in range(3)], axis=-1)
    base = np.array([0.69, 0.365, 0.21]) * rng.normal(1, 0.05) * rng.normal(1, 0.04, 3)
    colour = base * light[..., None] * (1 + tint)
    radius = rng.uniform(0.14, 0.18)
    distance = (
        np.hypot(x - disc[0], 0.9 * (y - disc[1]))
        / radius
        * (1 + 0.06 * smooth_noise(rng, size, 8))
    )
    share = 0.75 / (1 + np.exp(14 * (distance - 1))) + 0.15 * np.exp(-((distance / 1.6) ** 2))
    bright = np.array([0.96, 0.72, 0.40]) * (1 + 0.2 * blob(x, y, disc, 0.5 * radius)[..., None])
    return colour + share[..., None] * (bright - colour)


def blob(x, y, centre, spread):
    """Gaussian bump of height 1 at centre; spread is its standard deviation in field units."""
    return np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * spread**2))


def smooth_noise(rng, size, cells):
    """Random (height, width) field of about unit variance, changing over 1/cells of the picture."""
    coarse = Image.fromarray(rng.normal(size=(cells + 1, cells + 1)).astype(np.float32))
    return np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC), dtype=np.float64)


def paint_field(size):
    """Share of each pixel inside the round field of view, whose top and bottom are slightly cut off."""
    x, y = field_grid(size)
    return np.clip(
        (1 - np.maximum(np.hypot(x, y), np.abs(y) / 0.99)) * field_radius(size) + 0.5, 0, 1
    )


def field_radius(size):
    """Radius of the field of view in pixels: as in DRIVE it fills 95 % of the shorter side."""
    return 0.475 * min(size)


def field_grid(size):
    """x and y of each pixel's centre in field units, each (height, width)."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    radius = field_radius(size)
    return (columns + 0.5 - size[1] / 2) / radius, (rows + 0.5 - size[0] / 2) / radius

"""Writes a small synthetic dataset of volumes, to try the code without real ones."""

from pathlib import Path

import numpy as np

from src.volume_io import write_volume
from src.volumes import Geometry

CLASSES = "id,name,colour\n0,background,#000000\n1,body,#e69f00\n2,core,#56b4e9\n"
SHAPE = (36, 44, 40)


def write_demo_volumes(root: str | Path, count: int = 24, seed: int = 0) -> Path:
    """Writes root/images, root/masks and root/classes.csv, and returns root as a Path.

    Volumes are TIFF stacks. Each depends only on the seed and its number. A complete dataset is
    left as it is. FileExistsError if root holds anything else.
    """
    root = Path(root)
    marker = root / "demo.txt"
    complete = f"synthetic demo volumes: {count=} {seed=}\n"
    found = marker.read_text() if marker.exists() else ""
    if found == complete:
        return root
    if root.exists() and any(root.iterdir()) and not found.startswith("unfinished"):
        raise FileExistsError(
            f"{root} holds other files than the demo's; they are left untouched: give another "
            "--data-path"
        )
    for folder in (root / "images", root / "masks"):
        folder.mkdir(parents=True, exist_ok=True)
    marker.write_text("unfinished " + complete)
    (root / "classes.csv").write_text(CLASSES)
    for number in range(count):
        image, label = draw_volume(np.random.default_rng([seed, number]))
        name = f"{number:02d}.tif"
        write_volume(root / "images" / name, image, Geometry(SHAPE))
        write_volume(root / "masks" / name, label, Geometry(SHAPE))
    marker.write_text(complete)
    return root


def draw_volume(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(image, label), uint8 [D, H, W]: a bright body with a core, among balls as bright as it.

    Size and core tell the body from the balls. The scale of the intensities is another
    one in each volume.
    """
    grid = np.stack(np.meshgrid(*[np.arange(side) for side in SHAPE], indexing="ij"), axis=-1)
    centre = np.array(SHAPE) / 2 + rng.uniform(-5, 5, 3)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    offset = (grid - centre) @ turn
    radii = rng.uniform(7, 12, 3)
    bend = 0.03 * rng.uniform(-1, 1) * offset[..., 1] ** 2
    body = np.linalg.norm((offset + bend[..., None] * [1, 0, 0]) / radii, axis=-1) < 1
    core = np.linalg.norm(offset - [0, 0.3 * radii[1], 0], axis=-1) < 0.5 * radii.min()
    brightness = 0.4 * body
    for _ in range(rng.integers(8, 14)):
        ball = np.linalg.norm(grid - rng.uniform(0, SHAPE), axis=-1) < rng.uniform(1.5, 3.5)
        brightness = np.maximum(brightness, 0.4 * ball)
    label = body.astype(np.uint8)
    label[body & core] = 2
    brightness[body & core] = 0.65
    noisy = 0.25 + brightness + rng.normal(0, 0.12, SHAPE)
    return (255 * rng.uniform(0.4, 1) * noisy).clip(0, 255).astype(np.uint8), label

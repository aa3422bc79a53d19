"""A small synthetic dataset of discs that touch, with one id each."""

import numpy as np
from PIL import Image


def discs(seed, size=(64, 72), count=6, radius=9):
    """int32 [H, W]: ids of up to `count` discs; a later one covers an earlier one."""
    rng, ids = np.random.default_rng(seed), np.zeros(size, np.int32)
    rows, columns = np.mgrid[: size[0], : size[1]]
    for index in range(1, count + 1):
        y, x = rng.integers(radius, size[0] - radius), rng.integers(radius, size[1] - radius)
        ids[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = index
    return ids


def microscope(ids, seed):
    """uint8 [H, W, 3]: bright objects on a dark ground, each of its own brightness."""
    rng = np.random.default_rng(seed)
    brightness = np.concatenate([[30], rng.integers(120, 230, ids.max())])
    noise = rng.normal(0, 8, ids.shape)
    grey = np.clip(brightness[ids] + noise, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def write_instances(root, count=6, size=(64, 72)):
    """Writes images/ and instances/ (16-bit ids); returns root."""
    for number in range(count):
        ids = discs(number, size)
        for kind in ("images", "instances"):
            (root / kind).mkdir(parents=True, exist_ok=True)
        name = f"cell{number:02d}.png"
        Image.fromarray(microscope(ids, number)).save(root / "images" / name)
        Image.fromarray(ids.astype(np.uint16)).save(root / "instances" / name)
    return root

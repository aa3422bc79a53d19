"""Small synthetic datasets for tests: rectangles, each in the colour of its class."""

import numpy as np
from PIL import Image

# Colours of the classes, in the class table and in the images.
COLOURS = np.array([(20, 40, 60), (200, 80, 30), (60, 160, 220)], np.uint8)
TABLE = """\
id,name,colour,ignore
0,ground,#14283c,
1,brick,#c8501e,
2,water,60 160 220,
9,unclear,255 255 255,1
"""


def ids_of(seed, classes=3, size=(64, 72)):
    """uint8 [H, W]: a rectangle of each class on background; the places depend on the seed."""
    rng, ids = np.random.default_rng(seed), np.zeros(size, np.uint8)
    for index in range(1, classes):
        top, left = rng.integers(0, size[0] - 24), rng.integers(0, size[1] - 24)
        ids[top : top + 24, left : left + 24] = index
    return ids


def photograph_of(ids, seed):
    """uint8 [H, W, 3]: the colours of the classes with noise."""
    noise = np.random.default_rng(seed).normal(0, 12, (*ids.shape, 3))
    return np.clip(COLOURS[ids] + noise, 0, 255).astype(np.uint8)


def write_folder(root, count=10, classes=2, label=None, below="", first=0, size=(64, 72)):
    """Writes `count` samples to images/ and masks/ in root/below; returns root.

    label: makes the PIL image of a label from class ids; None: 0 and 255. first: number of the
    first sample, which is also its seed.
    """
    label = label or (lambda ids: Image.fromarray(ids * np.uint8(255)))
    for number in range(first, first + count):
        ids = ids_of(number, classes, size)
        for kind, name, picture in (
            ("images", f"p{number:02d}.png", Image.fromarray(photograph_of(ids, number))),
            ("masks", f"p{number:02d}_mask.png", label(ids)),
        ):
            (root / below / kind).mkdir(parents=True, exist_ok=True)
            picture.save(root / below / kind / name)
    return root


def write_three_classes(root, **options):
    """Writes a dataset of three classes in RGB colours, with its class table; returns root."""
    write_folder(root, classes=3, label=lambda ids: Image.fromarray(COLOURS[ids]), **options)
    (root / "classes.csv").write_text(TABLE)
    return root

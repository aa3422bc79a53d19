"""Small PIL pictures for tests: an image, its label and its ROI mask, stored in many ways."""

import numpy as np
from PIL import Image

from train_utils.reporting.pictures import check_class_ids, mask_style
from train_utils.reporting.png import PngWriter

SIZE = (6, 8)
TRUTH = np.zeros(SIZE, bool)
TRUTH[1:4, 2:7] = True
FIELD = np.ones(SIZE, bool)
FIELD[:, 0] = FIELD[5] = False
COLOURS = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def two_valued(mask, low, high):
    """A grey picture of the two values, of 16 bits where they need it."""
    return Image.fromarray(np.where(mask, high, low).astype(np.uint8 if high < 256 else np.uint16))


def palette_picture(mask, colours=((0, 0, 0), (255, 255, 255))):
    """A picture of the indices 0 and 1, which stand for the two colours."""
    picture = Image.fromarray(mask.astype(np.uint8))
    picture.putpalette([channel for colour in colours for channel in colour])
    return picture


# How a mask is stored → function of a mask bool [H, W] that gives the picture.
MASK_KINDS = {
    "0/1": lambda mask: two_valued(mask, 0, 1),
    "0/254": lambda mask: two_valued(mask, 0, 254),
    "0/200": lambda mask: two_valued(mask, 0, 200),
    "0/255": lambda mask: two_valued(mask, 0, 255),
    "3/253": lambda mask: two_valued(mask, 3, 253),
    "0/65535": lambda mask: two_valued(mask, 0, 65535),
    "mode 1": lambda mask: Image.fromarray(mask),
    "palette": palette_picture,
    "palette of 3/253": lambda mask: palette_picture(mask, ((4, 2, 4), (252, 254, 252))),
    "palette of dark colours": lambda mask: palette_picture(mask, ((200, 0, 0), (1, 2, 3))),
    "RGB": lambda mask: two_valued(mask, 0, 255).convert("RGB"),
    "RGBA": lambda mask: two_valued(mask, 0, 255).convert("RGBA"),
    "LA": lambda mask: two_valued(mask, 0, 255).convert("LA"),
}


def save_mask(path, mask, colours, ids=None):
    """Writes a whole mask [H, W] of classes as predict.py writes its strips."""
    mask = check_class_ids(mask, len(colours))
    kind, palette, values = mask_style(colours, ids)
    with PngWriter(path, mask.shape[1], mask.shape[0], kind, palette) as writer:
        writer.write(values[mask])

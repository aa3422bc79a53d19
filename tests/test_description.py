"""What the log says of the labels that were read, and which labels are refused."""

from pathlib import Path

import torch

from src.image_io import IGNORE
from train_utils.data.class_table import BINARY, ClassTable
from train_utils.data.description import describe, missing_pixels

IMAGES = ("images", "pixels")
TABLE = ClassTable(("a", "b"), (None, None), {0: 0, 1: 1})
FIRST = {"0/255": (2, Path("one.png"))}


def pixels_of(**counts):
    """int64 [256] of class_0=…, class_1=…, ignored=…."""
    pixels = torch.zeros(256, dtype=torch.int64)
    for name, count in counts.items():
        pixels[IGNORE if name == "ignored" else int(name[-1])] = count
    return pixels


def test_samples_shares_and_encodings_are_named():
    pixels = pixels_of(class_0=750, class_1=250, ignored=99)
    lines = describe(["one", "three", "two"], IMAGES, pixels, BINARY, FIRST).splitlines()
    assert lines[0] == (
        "3 images (one to two), 1,000 valid pixels: 75.0 % background, 25.0 % foreground"
    )
    assert lines[1:] == ["  2 labels read as 0/255, such as one.png"]
    assert "1 volume (one), 1,000 valid voxels" in describe(
        ["one"], ("volumes", "voxels"), pixels, BINARY, FIRST
    )


def test_of_an_unusual_pair_the_larger_value_is_said_to_be_class_1():
    text = describe(["one"], IMAGES, pixels_of(class_0=1), BINARY, {"3/253": (1, Path("one.png"))})
    assert text.endswith("read as 3/253, such as one.png: the larger value is read as class 1")


def test_several_encodings_by_one_table_are_a_warning():
    both = FIRST | {"ids": (1, Path("two.png"))}
    assert "labels of several" in describe(["one"], IMAGES, pixels_of(class_0=1), TABLE, both)
    assert "labels of several" not in describe(["one"], IMAGES, pixels_of(class_0=1), BINARY, both)


def test_labels_without_valid_or_foreground_pixels_are_named():
    ignored = missing_pixels("test", pixels_of(ignored=9), TABLE, FIRST, for_training=False)
    assert "every pixel of the test images is ignored" in ignored and "one.png" in ignored
    empty = pixels_of(class_0=9, ignored=9)
    text = missing_pixels("training", empty, TABLE, FIRST, for_training=True)
    assert "no pixel of the training images is foreground" in text
    assert "one.png, hold nothing but a;" in text
    assert missing_pixels("validation", empty, TABLE, FIRST, for_training=False) == ""
    full = missing_pixels("training", pixels_of(class_1=1), TABLE, FIRST, for_training=True)
    assert "every valid pixel of the training images is b" in full and "one.png" in full
    both = pixels_of(class_0=1, class_1=1)
    assert missing_pixels("training", both, TABLE, FIRST, for_training=True) == ""

"""Reads label files with a class table: stored numbers or colours become classes."""

from pathlib import Path

import numpy as np
from PIL import Image

from src.errors import UserError
from src.image_io import (
    IGNORE,
    MANY_CLASSES,
    list_values,
    numbers_of,
    open_image,
    packed_colours,
    read_binary,
)
from train_utils.data.class_table import EXAMPLE, UNKNOWN, ClassTable
from train_utils.data.instance_labels import looks_like_instances

MAX_SMALL_ID = 31  # two different foreground values up to this one are taken for class ids
MAX_ORGANS = 15  # up to so many ids of one region each may be classes, too
MIN_OBJECT_PIXELS = 50  # on average, of objects that have a colour each
MAX_STRAY_VALUES = 8  # a label with more values outside the table is taken for a smoothed one


def read_label(
    path: Path, table: ClassTable, max_pixels: int | None = None
) -> tuple[np.ndarray, str]:
    """(target uint8 [H, W] of classes and IGNORE, name of the encoding that the label was read by).

    A palette or RGB image is read by its colours if all of them are in the table, else by its
    numbers (palette indices, or the value that all channels share). A grey image is read by its
    numbers, else by its greys as colours. With two classes 0/255 is read like 0/1.

    max_pixels: largest image that is decoded; None: Pillow's limit.
    UserError names the file and lists the values or colours outside the table with their counts.
    If the label holds one id an object, it says so instead.
    """
    try:
        return read_classes(path, table, max_pixels)
    except UserError:
        hint = instances_hint(path, table, max_pixels)
        if hint:
            raise UserError(f"{path}: {hint}") from None
        raise


def read_classes(path: Path, table: ClassTable, max_pixels: int | None) -> tuple[np.ndarray, str]:
    """read_label() without a look at labels of objects."""
    if table.any_pair:
        mask, values = read_binary(path, "label", max_pixels)
        return mask.astype(np.uint8), pair_name(values)
    image = open_image(path, max_pixels)
    numbers = numbers_of(path, image)
    colours = packed_colours(image)
    by_number = classes_by_number(numbers, table)
    by_colour = classes_by_colour(colours, table)
    in_numbers = by_number is not None and not (by_number == UNKNOWN).any()
    in_colours = by_colour is not None and not (by_colour == UNKNOWN).any()
    prefers_colours = image.mode.startswith(("P", "RGB"))
    if in_colours and (prefers_colours or not in_numbers):
        return by_colour, colour_encoding(image)
    if in_numbers:
        return by_number, number_encoding(image, numbers, table)
    if likely_colours(by_number, by_colour):
        raise UserError(unknown_colours(path, table, colours, by_colour))
    raise UserError(unknown_numbers(path, numbers, by_number))


def conflicting_encodings(encodings: dict[str, tuple[int, str | Path]]) -> str:
    """What is wrong with a dataset whose labels hold any two values; "" if nothing is.

    In each file the smaller value is the background and the larger one the foreground. A value may
    thus be background in one file and foreground in another, or stand for two classes.

    encodings: {"0/255": (number of labels, path of one of them), "1 alone": …}.
    """
    pairs, single = {}, {}
    for name in encodings:
        if "/" in name:
            low, high = name.split("/")
            pairs[name] = int(low), int(high)
        elif name.endswith(" alone"):
            single[int(name.removesuffix(" alone"))] = name
    for name, (low, high) in pairs.items():
        if low and low in single:
            return (
                f"{encodings[single[low]][1]} holds {low} alone, which would be foreground, but in "
                f"{encodings[name][1]}, with {low} and {high}, it is background; {MANY_CLASSES}, "
                "or save masks as 0 and 255"
            )
    for name, (low, high) in pairs.items():
        for other, (other_low, other_high) in pairs.items():
            class_ids = high != other_high and max(high, other_high) <= MAX_SMALL_ID
            if high == other_low or class_ids:
                return (
                    f"{encodings[name][1]} holds {low} and {high}, "
                    f"{encodings[other][1]} holds {other_low} and {other_high}: "
                    f"a value would mean two things; {MANY_CLASSES}, or save masks as 0 and 255"
                )
    return ""


# --- numbers and colours → classes ---------------------------------------------------------------


def classes_by_number(numbers: np.ndarray | None, table: ClassTable) -> np.ndarray | None:
    """uint8 [H, W]: classes of stored numbers, UNKNOWN outside the table; None without numbers."""
    if numbers is None:
        return None
    if is_0_and_255(numbers, table):
        return (numbers > 0).astype(np.uint8)
    classes = table.class_of_number[numbers.clip(0, 65535)]
    return np.where((numbers < 0) | (numbers > 65535), UNKNOWN, classes).astype(np.uint8)


def classes_by_colour(colours: np.ndarray | None, table: ClassTable) -> np.ndarray | None:
    """uint8 [H, W]: classes of packed colours, UNKNOWN outside the table.

    None if the image or the table has no colours.
    """
    if colours is None or not table.palette:
        return None
    return table.class_of_colour[colours]


def is_0_and_255(numbers: np.ndarray, table: ClassTable) -> bool:
    """Whether a table of the ids 0 and 1, without 255, meets a mask of 0 and 255."""
    stored = [value for value, index in table.numbers.items() if index != IGNORE]
    if stored != [0, 1] or 255 in table.numbers:
        return False
    is_255 = numbers == 255
    return bool(is_255.any() and (is_255 | (numbers == 0)).all())


# --- names of encodings --------------------------------------------------------------------------


def pair_name(values: list[int]) -> str:
    """Name of the encoding of a mask with one or two values: "0/255", "0 alone"."""
    if len(values) == 2:
        return f"{values[0]}/{values[1]}"
    return f"{values[0]} alone"


def colour_encoding(image: Image.Image) -> str:
    """Name of the encoding of a label that was read by its colours."""
    if image.mode.startswith("P"):
        return "palette colours"
    if image.mode.startswith("R"):
        return "RGB colours"
    return "grey colours"


def number_encoding(image: Image.Image, numbers: np.ndarray, table: ClassTable) -> str:
    """Name of the encoding of a label that was read by its numbers."""
    if is_0_and_255(numbers, table):
        return "0/255"
    if image.mode.startswith("P"):
        return "palette indices"
    return "ids"


# --- labels that do not match the table ----------------------------------------------------------


def instances_hint(path: Path, table: ClassTable, max_pixels: int | None) -> str:
    """What to do about a label that cannot be read if it holds one id an object; else ""."""
    try:
        image = open_image(path, max_pixels)
        is_colour = numbers_of(path, image) is None
        objects = count_objects(path, image)
    except UserError:
        return ""
    has_classes = table.any_pair or len(table.names) > 2
    may_be_classes = has_classes and objects <= MAX_ORGANS
    if objects == 0 or may_be_classes and (is_colour or not table.any_pair):
        return ""
    if is_colour:
        return (
            f"holds {objects + 1} colours, nearly all with one region; these labels hold a colour "
            "for each object: save ids in a 16-bit grey image, and give --label-kind instances"
        )
    hint = (
        f"holds {objects} ids beside 0, nearly all with one region; these labels hold one id an "
        "object: give --label-kind instances (predict.py: --instances)"
    )
    return f"{hint}, or {MANY_CLASSES}" if may_be_classes else hint


def count_objects(path: Path, image: Image.Image) -> int:
    """The number of objects if a label looks like one with an id or a colour for each; else 0."""
    numbers = numbers_of(path, image)
    if numbers is None:
        colours, numbers = np.unique(packed_colours(image), return_inverse=True)
        numbers = numbers.reshape(image.height, image.width)
        if len(colours) * MIN_OBJECT_PIXELS > numbers.size:  # a photograph
            return 0
    return len(np.unique(numbers)) - 1 if looks_like_instances(numbers) else 0


def likely_colours(by_number: np.ndarray | None, by_colour: np.ndarray | None) -> bool:
    """Whether a label that does not match the table is rather one of colours than of numbers."""
    if by_number is None:
        return True
    if by_colour is None:
        return False
    return bool((by_colour == UNKNOWN).sum() < (by_number == UNKNOWN).sum())


def unknown_colours(
    path: Path, table: ClassTable, colours: np.ndarray, by_colour: np.ndarray | None
) -> str:
    """The message about a label with colours outside the table."""
    if by_colour is None:
        return (
            f"{path}: is a colour picture, but the class table has no colours; "
            f"give it a colour for each class ({EXAMPLE})"
        )
    packed, counts = values_by_count(colours[by_colour == UNKNOWN])
    found = [(value >> 16, value >> 8 & 255, value & 255) for value in packed]
    return unknown_values(path, "colour", found, counts)


def unknown_numbers(path: Path, numbers: np.ndarray, by_number: np.ndarray) -> str:
    """The message about a label with numbers outside the table."""
    found, counts = values_by_count(numbers[by_number == UNKNOWN])
    return unknown_values(path, "value", found, counts)


def values_by_count(values: np.ndarray) -> tuple[list[int], list[int]]:
    """(different values, count of each), the most frequent first."""
    found, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return found[order].tolist(), counts[order].tolist()


def unknown_values(path: Path, kind: str, found: list, counts: list[int]) -> str:
    """The message that lists `found` (of the kind "value" or "colour") with their counts."""
    if len(found) > MAX_STRAY_VALUES:
        remedy = (
            "so many look like JPEG or smoothed edges: "
            "save labels as PNG, drawn and resized without smoothing"
        )
    else:
        what = "them" if len(found) > 1 else "it"
        remedy = f"add {what} to the table (with ignore = 1 to ignore the pixels) or fix the label"
    plural = "s" if len(found) > 1 else ""
    return (
        f"{path}: holds {len(found)} {kind}{plural} outside the class table: "
        f"{list_values(found, counts)}; {remedy}"
    )

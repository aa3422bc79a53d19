"""The class table: which stored numbers and colours mean which class, and the reading of labels by it."""

import csv
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

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

UNKNOWN = (
    254  # in the look-up tables: no entry of the class table; so there are at most 254 classes
)
MAX_CLASSES = 254
TABLE_NAMES = ("classes.csv", "classes.json")
TRUE, FALSE = {"1", "true", "yes", "y", "x"}, {"", "0", "false", "no", "n"}
EXAMPLE = "id,name,colour,ignore / 0,background,#000000, / 1,crack,#ffffff,"


@dataclass(frozen=True)
class ClassTable:
    """Classes 0 … K−1 in the order of their stored ids, and how labels say them.

    names: of the K classes.
    colours: ((r, g, b) or None) of each: what pictures are drawn in.
    numbers: {stored id: class or IGNORE}.
    palette: {(r, g, b): class or IGNORE}; several colours may mean one class.
    any_pair: read a label of any two values (0/1, 0/255, 3/253 …) as background and foreground, and no colours.
    """

    names: tuple
    colours: tuple
    numbers: dict
    palette: dict = field(default_factory=dict)
    any_pair: bool = False

    @property
    def ids(self):
        """The stored id of each class, a list."""
        return sorted(value for value, index in self.numbers.items() if index != IGNORE)

    @cached_property
    def of_number(self):
        """uint8 [65536]: number → class, IGNORE or UNKNOWN."""
        lookup = np.full(65536, UNKNOWN, np.uint8)
        for value, index in self.numbers.items():
            lookup[value] = index
        return lookup

    @cached_property
    def of_colour(self):
        """uint8 [2²⁴]: colour as r·65536 + g·256 + b → class, IGNORE or UNKNOWN."""
        lookup = np.full(1 << 24, UNKNOWN, np.uint8)
        for (red, green, blue), index in self.palette.items():
            lookup[red << 16 | green << 8 | blue] = index
        return lookup

    def describe(self):
        """One line a class: the ids and colours that are read as it."""
        lines = []
        for index, name in [*enumerate(self.names), (IGNORE, "ignored")]:
            stored = [f"id {value}" for value, meant in self.numbers.items() if meant == index]
            stored += [
                f"colour {colour}" for colour, meant in self.palette.items() if meant == index
            ]
            if stored:
                lines.append(f"{index} {name}: {', '.join(stored)}")
        return lines


# --- the built-in tables ----------------------------------------------------------------------------------------------


def two_classes(foreground):
    """The table of data sets whose labels have two values."""
    return ClassTable(("background", foreground), (None, None), {0: 0, 1: 1}, any_pair=True)


BINARY = two_classes("foreground")

# The 11 classes of SegNet (Badrinarayanan et al. 2017) in its order and colours, 11 being void; and the 32 colours of the
# original labels (Brostow et al. 2009), grouped into the 11 as Sturgess et al. 2009 and MathWorks' CamVid example do.
CAMVID_CLASSES = {
    "sky": [(128, 128, 128)],
    "building": [
        (128, 0, 0),
        (0, 128, 64),
        (64, 192, 0),
        (64, 0, 64),
        (192, 0, 128),
    ],  # bridge, wall, tunnel, archway
    "pole": [(192, 192, 128), (0, 0, 64)],  # traffic cone
    "road": [(128, 64, 128), (128, 0, 192), (192, 0, 64)],  # lane markings
    "pavement": [
        (60, 40, 222),
        (0, 0, 192),
        (64, 192, 128),
        (128, 128, 192),
    ],  # sidewalk, parking block, road shoulder
    "tree": [(128, 128, 0), (192, 192, 0)],  # other vegetation
    "sign": [(192, 128, 128), (128, 128, 64), (0, 64, 64)],  # text, traffic light
    "fence": [(64, 64, 128)],
    "car": [
        (64, 0, 128),
        (64, 128, 192),
        (192, 128, 192),
        (192, 64, 128),
        (128, 64, 64),
    ],  # pick-up, lorry, train, other
    "pedestrian": [
        (64, 64, 0),
        (192, 128, 64),
        (64, 0, 192),
        (64, 128, 64),
    ],  # child, luggage, animal
    "bicyclist": [(0, 128, 192), (192, 0, 192)],  # motorcycle
}
CAMVID = ClassTable(
    tuple(CAMVID_CLASSES),
    tuple(colours[0] for colours in CAMVID_CLASSES.values()),
    {**{i: i for i in range(11)}, 11: IGNORE, 255: IGNORE},
    {
        **{colour: i for i, colours in enumerate(CAMVID_CLASSES.values()) for colour in colours},
        (0, 0, 0): IGNORE,
    },
)


# --- tables in files --------------------------------------------------------------------------------------------------


def find_table(root, file, default):
    """The table of `file`, else of classes.csv or classes.json in the folder of the data, else `default`."""
    if file:
        return read_table(Path(file))
    folder = Path(root) if Path(root).is_dir() else Path(root).parent
    found = [folder / name for name in TABLE_NAMES if (folder / name).is_file()]
    if len(found) > 1:
        raise UserError(
            f"{found[0]} and {found[1]} are both there; keep one, or name one by --classes"
        )
    return read_table(found[0]) if found else default


def read_table(path):
    """The ClassTable of a .csv (columns id, name, colour, ignore) or a .json (a list of such objects).

    Rows of one id are further colours of its class; an ignored row's pixels become IGNORE. UserError names the row.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            rows = json.loads(text)
            rows = rows.get("classes") if isinstance(rows, dict) else rows
        else:
            rows = list(csv.DictReader(text.splitlines(), skipinitialspace=True))
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such class table") from None
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(
            f"{path}: cannot be read as a class table ({error}); it is like: {EXAMPLE}"
        ) from None
    if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
        rows = [{str(key).strip().lower(): value for key, value in row.items()} for row in rows]
    if (
        not isinstance(rows, list)
        or not rows
        or not all(isinstance(row, dict) and "id" in row for row in rows)
    ):
        raise UserError(
            f"{path}: is no class table; it is a list of rows with an id each, like: {EXAMPLE}"
        )
    return build_table([read_row(path, number, row) for number, row in enumerate(rows, 1)], path)


def read_row(path, number, row):
    """(id, name, colour or None, ignored) of one row; UserError if something in it cannot be."""

    def refuse(what):
        raise UserError(f"{path}: row {number}: {what}")

    try:
        value = int(str(row["id"]).strip())
    except ValueError:
        value = -1
    if not 0 <= value <= 65535:
        refuse(f"the id {row['id']!r} is no number from 0 to 65535")
    ignored = str(row.get("ignore") or "").strip().lower()
    if ignored not in TRUE | FALSE:
        refuse(
            f"ignore is {row['ignore']!r}; give 1 for a class that does not count, nothing for one that does"
        )
    text = row.get("colour") or row.get("color")
    if not text and {"r", "g", "b"} <= row.keys():
        text = [row["r"], row["g"], row["b"]]
    colour = read_colour(text) if text else None
    if text and colour is None:
        refuse(f"the colour {text!r} is not like #ff8000 or 255 128 0")
    return value, str(row.get("name") or "").strip() or f"class {value}", colour, ignored in TRUE


def read_colour(text):
    """(r, g, b) of "#ff8000", "255 128 0", "(255, 128, 0)" or [255, 128, 0]; None for anything else."""
    if isinstance(text, str):
        text = text.strip()
        base = 16 if len(text) == 7 and text[0] == "#" else 10
        text = (
            [text[i : i + 2] for i in (1, 3, 5)]
            if base == 16
            else text.strip("()[]").replace(",", " ").split()
        )
    else:
        base = 10
    try:
        colour = tuple(int(str(part), base) for part in text)
    except (TypeError, ValueError):
        return None
    return colour if len(colour) == 3 and all(0 <= part <= 255 for part in colour) else None


def build_table(rows, path):
    """The ClassTable of (id, name, colour, ignored) rows; UserError where they contradict each other."""
    ignored = {value for value, _, _, skip in rows if skip}
    counted = {}  # id → first row of it
    for value, name, colour, skip in rows:
        if not skip:
            counted.setdefault(value, (name, colour))
    if ignored & counted.keys():
        raise UserError(f"{path}: the id {min(ignored & counted.keys())} is both ignored and not")
    if not 2 <= len(counted) <= MAX_CLASSES:
        raise UserError(
            f"{path}: has {len(counted)} classes that count; it takes 2 to {MAX_CLASSES}, the background "
            "included"
        )
    names = [counted[value][0] for value in sorted(counted)]
    if len(set(names)) < len(names):
        raise UserError(
            f"{path}: two classes are called {max(names, key=names.count)!r}; rows of one class have one id"
        )
    numbers = {value: index for index, value in enumerate(sorted(counted))} | dict.fromkeys(
        sorted(ignored), IGNORE
    )
    palette = {}
    for value, _, colour, _ in rows:
        if colour is not None and palette.setdefault(colour, numbers[value]) != numbers[value]:
            raise UserError(f"{path}: the colour {colour} stands for two classes")
    colours = [counted[value][1] for value in sorted(counted)]
    return ClassTable(tuple(names), tuple(colours), numbers, palette)


# --- labels -----------------------------------------------------------------------------------------------------------


def read_label(path, table, max_pixels=None):
    """(target uint8 [H, W] of classes and IGNORE, the name of the encoding it was read by).

    A palette or RGB picture is read by its colours if all of them are in the table, else by its numbers (palette
    indices; equal channels); a grey picture by its numbers, else by its greys as colours. With two classes 0/255 is read
    like 0/1. UserError lists the values or colours that the table lacks, how many pixels have each, and the file.
    """
    if table.any_pair:
        mask, found = read_binary(path, "label", max_pixels)
        return mask.astype(np.uint8), f"{found[0]}/{found[1]}" if len(
            found
        ) == 2 else f"{found[0]} alone"
    image = open_image(path, max_pixels)
    numbers, colours = numbers_of(path, image), packed_colours(image)
    readings = {"numbers": by_number(numbers, table), "colours": by_colour(colours, table)}
    order = (
        ("colours", "numbers") if image.mode.startswith(("P", "RGB")) else ("numbers", "colours")
    )
    for kind in order:
        if readings[kind] is not None and not (readings[kind] == UNKNOWN).any():
            return readings[kind], encoding_name(image.mode, kind, numbers, table)
    raise UserError(unknown_values(path, table, numbers, colours, readings))


def contradiction(encodings):
    """What is wrong with labels read as any pair of values, from {"0/255": [count, example path], …}; "" if nothing is.

    Each file names its own background and foreground, so a value may be both in two files, or stand for two classes.
    """
    pairs = {name: tuple(map(int, name.split("/"))) for name in encodings if "/" in name}
    for name, (low, high) in pairs.items():
        for other, (other_low, other_high) in pairs.items():
            if high == other_low or (
                high != other_high and max(high, other_high) < 32
            ):  # small ones are class ids
                return (
                    f"{encodings[name][1]} holds {low} and {high}, {encodings[other][1]} holds {other_low} and "
                    f"{other_high}: a value would mean two things; {MANY_CLASSES}, or save masks as 0 and 255"
                )
    return ""


def by_number(numbers, table):
    """Classes [H, W] of stored numbers, UNKNOWN for those outside the table; None where there are no numbers."""
    if numbers is None:
        return None
    if zero_255(numbers, table):
        return (numbers > 0).astype(np.uint8)
    return np.where(
        (numbers < 0) | (numbers > 65535), UNKNOWN, table.of_number[numbers.clip(0, 65535)]
    ).astype(np.uint8)


def zero_255(numbers, table):
    """Whether numbers are the 0 and 255 of a mask: two classes stored as 0 and 1, 255 not being in the table."""
    counted = [value for value, index in table.numbers.items() if index != IGNORE]
    return (
        counted == [0, 1]
        and 255 not in table.numbers
        and (numbers == 255).any()
        and bool(((numbers == 0) | (numbers == 255)).all())
    )


def by_colour(colours, table):
    """Classes [H, W] of packed colours, UNKNOWN for those outside the table; None where there are none."""
    return None if colours is None or not table.palette else table.of_colour[colours]


def encoding_name(mode, kind, numbers, table):
    if kind == "colours":
        return {"P": "palette colours", "R": "RGB colours"}.get(mode[0], "grey colours")
    if zero_255(numbers, table):
        return "0/255"
    return "palette indices" if mode.startswith("P") else "ids"


def unknown_values(path, table, numbers, colours, readings):
    """The sentence about a label that neither its numbers nor its colours explain, about the likelier of the two."""
    coloured = numbers is None or (
        readings["colours"] is not None
        and (readings["colours"] == UNKNOWN).sum() < (readings["numbers"] == UNKNOWN).sum()
    )
    if coloured and not table.palette:
        return (
            f"{path}: is a colour picture, but the class table has no colours; give one with a colour for each class "
            f"({EXAMPLE})"
        )
    values, reading = (colours, readings["colours"]) if coloured else (numbers, readings["numbers"])
    found, counts = np.unique(values[reading == UNKNOWN], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    found, counts = found[order].tolist(), counts[order].tolist()
    if coloured:
        found = [(value >> 16, value >> 8 & 255, value & 255) for value in found]
    what = "colour" if coloured else "value"
    if len(found) > 8:
        remedy = "so many look like JPEG or smoothed edges: save labels as PNG, drawn and resized without smoothing"
    else:
        remedy = (
            f"add {'them' if len(found) > 1 else 'it'} to the table (ignore = 1 for pixels that do not count) or "
            "correct the label"
        )
    return (
        f"{path}: holds {len(found)} {what}{'s' if len(found) > 1 else ''} outside the class table: "
        f"{list_values(found, counts)}; {remedy}"
    )

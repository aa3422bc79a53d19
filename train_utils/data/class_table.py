"""The class table: which stored ids and colours mean which class. labels.py reads files with it."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import numpy as np

from src.errors import UserError
from src.image_io import IGNORE

UNKNOWN = 254  # marks values outside the table in the lookup arrays, so 254 classes is the maximum
MAX_CLASSES = 254
TABLE_NAMES = ("classes.csv", "classes.json")
TRUE = {"1", "true", "yes", "y", "x"}
FALSE = {"", "0", "false", "no", "n"}
EXAMPLE = "id,name,colour,ignore / 0,background,#000000, / 1,crack,#ffffff,"

Colour = tuple[int, int, int]
Row = tuple[int, str, Colour | None, bool]  # id, name, colour, ignored


@dataclass(frozen=True)
class ClassTable:
    """Classes 0 … K−1, in the order of their stored ids, and how label files encode them.

    names: K names.
    colours: for each class (r, g, b) or None: the colour it is drawn in.
    numbers: {stored id: class or IGNORE}.
    palette: {(r, g, b): class or IGNORE}. Several colours may mean one class.
    any_pair: read labels of any two values (0/1, 0/255, 3/253 …) as background and foreground.
        Colours are then not read.
    """

    names: tuple[str, ...]
    colours: tuple[Colour | None, ...]
    numbers: dict[int, int]
    palette: dict[Colour, int] = field(default_factory=dict)
    any_pair: bool = False

    @property
    def ids(self) -> list[int]:
        """The stored id of each class."""
        return sorted(value for value, index in self.numbers.items() if index != IGNORE)

    @cached_property
    def class_of_number(self) -> np.ndarray:
        """uint8 [65536]: class, IGNORE or UNKNOWN of each number."""
        lookup = np.full(1 << 16, UNKNOWN, np.uint8)
        for value, index in self.numbers.items():
            lookup[value] = index
        return lookup

    @cached_property
    def class_of_colour(self) -> np.ndarray:
        """uint8 [2²⁴]: class, IGNORE or UNKNOWN of each colour r·65536 + g·256 + b."""
        lookup = np.full(1 << 24, UNKNOWN, np.uint8)
        for (red, green, blue), index in self.palette.items():
            lookup[red << 16 | green << 8 | blue] = index
        return lookup

    def describe(self) -> list[str]:
        """One line for each class: the ids and colours that are read as this class."""
        lines = []
        for index, name in [*enumerate(self.names), (IGNORE, "ignored")]:
            stored = [f"id {value}" for value, read_as in self.numbers.items() if read_as == index]
            for colour, read_as in self.palette.items():
                if read_as == index:
                    stored.append(f"colour {colour}")
            if stored:
                lines.append(f"{index} {name}: {', '.join(stored)}")
        return lines

    def to_dict(self) -> dict:
        """The table as dicts, lists, strings, numbers and None, for checkpoints and JSON."""
        return {
            "names": list(self.names),
            "colours": [None if colour is None else list(colour) for colour in self.colours],
            "numbers": [[value, index] for value, index in self.numbers.items()],
            "palette": [[list(colour), index] for colour, index in self.palette.items()],
            "any_pair": self.any_pair,
        }

    @classmethod
    def from_dict(cls, values: dict) -> "ClassTable":
        """The table that to_dict() was called on."""
        return cls(
            names=tuple(values["names"]),
            colours=tuple(None if rgb is None else tuple(rgb) for rgb in values["colours"]),
            numbers=dict(values["numbers"]),
            palette={tuple(rgb): index for rgb, index in values["palette"]},
            any_pair=values["any_pair"],
        )


def two_classes(foreground: str) -> ClassTable:
    """The table of a dataset whose labels have two values."""
    return ClassTable(("background", foreground), (None, None), {0: 0, 1: 1}, any_pair=True)


BINARY = two_classes("foreground")


# --- tables in files -----------------------------------------------------------------------------


def find_table(root: str | Path, file: str | Path, default: ClassTable | None) -> ClassTable | None:
    """The table in `file`; without one, in classes.csv, classes.json or dataset.json in the data.

    dataset.json is read beside imagesTr/: it then describes a dataset in the format of the Medical
    Segmentation Decathlon or nnU-Net. Returns `default` if there is none. UserError if there are
    both classes.csv and classes.json, or for a bad table.
    """
    if file:
        return read_table(Path(file))
    folder = Path(root)
    if not folder.is_dir():
        folder = folder.parent
    found = [folder / name for name in TABLE_NAMES if (folder / name).is_file()]
    if len(found) > 1:
        raise UserError(f"{found[0]} and {found[1]} both exist; keep one, or choose with --classes")
    if found:
        return read_table(found[0])
    if (folder / "imagesTr").is_dir():  # elsewhere a file of that name may describe anything
        return read_described_labels(folder / "dataset.json") or default
    return default


def read_described_labels(path: Path) -> ClassTable | None:
    """The table of the "labels" in a dataset.json; None without such a file or labels in it.

    The Decathlon writes {"0": "background", "1": "cancer"}, nnU-Net {"background": 0, "cancer": 1}.
    Labels called "ignore" are ignored. UserError for anything else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        labels = content["labels"]
        rows = []
        for key, value in labels.items():
            number, name = (key, value) if str(key).isdigit() else (value, key)
            rows.append((int(number), str(name), None, name == "ignore"))
    except (FileNotFoundError, KeyError):
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: its labels cannot be read ({error}); write them like "
            '{"labels": {"0": "background", "1": "cancer"}}, or add a classes.csv'
        ) from None
    return build_table(rows, path)


def read_table(path: Path) -> ClassTable:
    """Reads a .csv (columns id, name, colour, ignore) or a .json (a list of such objects).

    Rows with the same id give further colours of one class. Pixels of an ignored row become
    IGNORE. UserError names the row that is wrong.
    """
    try:
        rows = parse_rows(path)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such class table") from None
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(
            f"{path}: cannot be read as a class table ({error}); write it like: {EXAMPLE}"
        ) from None
    if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
        rows = [{str(key).strip().lower(): value for key, value in row.items()} for row in rows]
        if rows and all("id" in row for row in rows):
            return build_table([read_row(path, i, row) for i, row in enumerate(rows, 1)], path)
    raise UserError(
        f"{path}: is no class table; it needs a list of rows with an id each, like: {EXAMPLE}"
    )


def parse_rows(path: Path) -> object:
    """The rows of a .csv or .json file: a list of dicts, or whatever else the JSON holds."""
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() != ".json":
        return list(csv.DictReader(text.splitlines(), skipinitialspace=True))
    rows = json.loads(text)
    if isinstance(rows, dict):
        return rows.get("classes")
    return rows


def read_row(path: Path, number: int, row: dict) -> Row:
    """(id, name, colour or None, ignored) of one row; UserError for values that are not valid."""

    def refuse(reason: str) -> NoReturn:
        raise UserError(f"{path}: row {number}: {reason}")

    try:
        value = int(str(row["id"]).strip())
    except ValueError:
        value = -1
    if not 0 <= value <= 65535:
        refuse(f"the id {row['id']!r} is no number from 0 to 65535")
    ignored = str(row.get("ignore") or "").strip().lower()
    if ignored not in TRUE | FALSE:
        refuse(f"ignore is {row['ignore']!r}; write 1 to ignore the class, else leave it empty")
    text = row.get("colour") or row.get("color")
    if not text and {"r", "g", "b"} <= row.keys():
        text = [row["r"], row["g"], row["b"]]
    colour = parse_colour(text) if text else None
    if text and colour is None:
        refuse(f"the colour {text!r} is not like #ff8000 or 255 128 0")
    name = str(row.get("name") or "").strip() or f"class {value}"
    return value, name, colour, ignored in TRUE


def parse_colour(text: str | Sequence) -> Colour | None:
    """(r, g, b) of "#ff8000", "255 128 0", "(255, 128, 0)" or [255, 128, 0]; else None."""
    base, parts = 10, text
    if isinstance(text, str):
        text = text.strip()
        if len(text) == 7 and text[0] == "#":
            base, parts = 16, [text[1:3], text[3:5], text[5:7]]
        else:
            parts = text.strip("()[]").replace(",", " ").split()
    try:
        colour = tuple(int(str(part), base) for part in parts)
    except (TypeError, ValueError):
        return None
    if len(colour) == 3 and all(0 <= part <= 255 for part in colour):
        return colour
    return None


def build_table(rows: list[Row], path: str | Path) -> ClassTable:
    """The ClassTable of (id, name, colour, ignored) rows; UserError if they conflict."""
    classes = {}  # id → name and colour in its first row
    for value, name, colour, ignored in rows:
        if not ignored:
            classes.setdefault(value, (name, colour))
    ids = sorted(classes)
    ignored_ids = sorted({value for value, _, _, ignored in rows if ignored})
    for value in ignored_ids:
        if value in classes:
            raise UserError(f"{path}: the id {value} is both ignored and not ignored")
    if not 2 <= len(ids) <= MAX_CLASSES:
        raise UserError(
            f"{path}: has {len(ids)} classes that are not ignored; "
            f"give 2 to {MAX_CLASSES}, with the background"
        )
    names = [classes[value][0] for value in ids]
    if len(set(names)) < len(names):
        name = max(names, key=names.count)
        raise UserError(f"{path}: two classes are called {name!r}; give rows of one class one id")
    numbers = {value: index for index, value in enumerate(ids)}
    numbers |= {value: IGNORE for value in ignored_ids}
    palette = {}
    for value, _, colour, _ in rows:
        if colour is not None and palette.setdefault(colour, numbers[value]) != numbers[value]:
            raise UserError(f"{path}: the colour {colour} stands for two classes")
    colours = [classes[value][1] for value in ids]
    return ClassTable(tuple(names), tuple(colours), numbers, palette)

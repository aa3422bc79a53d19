"""The tables that predict.py writes beside its files: predictions.csv and objects.csv."""

import csv
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path

import numpy as np

from train_utils.atomic import replacing
from train_utils.reporting.png import naming
from train_utils.reporting.text_files import TEXT


class CsvTable:
    """A CSV file with rows for each image or volume, which are appended when they are known.

    Args:
        path: of the file.
        columns: their names; the first one is the image's.
        keep: keep the rows that the file of an earlier call has, if it has all these columns.

    Attributes: `lines`, the rows of each image as text, by its name.
    """

    def __init__(self, path: Path, columns: Sequence[str], keep: bool) -> None:
        self.path, self.columns = path, list(columns)
        self.lines = {}
        if keep and path.is_file():
            self.lines = self._earlier_lines()
        self._start()

    def _start(self) -> None:
        """Writes the rows so far, without a line that a kill cut short; more may follow."""
        self._write_all(self.lines.values())
        self._file = open(self.path, "a", **TEXT)

    def __contains__(self, name: str) -> bool:
        return name in self.lines

    def rows_of(self, name: str) -> list[dict[str, str]]:
        """The rows of an image."""
        text = StringIO(self.lines.get(name, ""), newline="")
        return list(csv.DictReader(text, self.columns))

    def row(self, name: str) -> dict[str, str]:
        """The only row of an image."""
        return self.rows_of(name)[0]

    def append(self, name: str, rows: Iterable[Sequence]) -> None:
        """Adds the rows of an image, without its name."""
        self.lines[name] = csv_text([name, *row] for row in rows)
        with naming(self.path):
            self._file.write(self.lines[name])
            self._file.flush()

    def drop(self, names: Iterable[str]) -> None:
        """Removes the earlier rows of images that are done again."""
        for name in names:
            self.lines.pop(name, None)
        self._file.close()
        self._start()

    def close(self, order: Sequence[str]) -> None:
        """Writes the file anew, with the images in this order and then the others."""
        with naming(self.path):
            self._file.close()
        names = dict.fromkeys([*order, *self.lines])
        self._write_all(self.lines[name] for name in names if name in self.lines)

    def _write_all(self, lines: Iterable[str]) -> None:
        with naming(self.path), replacing(self.path) as new, open(new, "w", **TEXT) as file:
            file.write(csv_text([self.columns]))
            file.writelines(lines)

    def _earlier_lines(self) -> dict[str, str]:
        """{image: its rows} of the file as it is, without a last row that a kill cut short."""
        with open(self.path, **TEXT) as file:
            text = file.read()
        rows = list(csv.reader(StringIO(text, newline="")))
        if not text.endswith("\n"):
            rows = rows[:-1]
        header = rows[0] if rows else []
        if not set(self.columns) <= set(header):
            return {}
        wanted, found = [header.index(name) for name in self.columns], {}
        for row in rows[1:]:
            if len(row) == len(header):
                found.setdefault(row[0], []).append([row[index] for index in wanted])
        return {name: csv_text(rows) for name, rows in found.items()}


def csv_text(rows: Iterable[Sequence]) -> str:
    """The rows as lines of a CSV file."""
    text = StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()


class ObjectTable(CsvTable):
    """objects.csv: one row for each object, with its id, its area in px, its centroid in px."""

    def __init__(self, folder: str | Path, keep: bool) -> None:
        super().__init__(Path(folder) / "objects.csv", ["image", "id", "area", "x", "y"], keep)

    def add(self, name: str, objects: Iterable[dict]) -> None:
        """Adds the objects of an image, see src.instances.object_table()."""
        rows = []
        for each in objects:
            rows.append([each["id"], each["area"], round(each["x"], 2), round(each["y"], 2)])
        self.append(name, rows)


class ImageTable(CsvTable):
    """predictions.csv: one row for each image, written when the files of the image are there.

    Columns: image, width, height, share_<class> in 0–1, seconds of computing; with objects also
    objects, their number, and mean_area in px, and objects.csv is written, too.

    Args:
        folder: of the table.
        keep: keep the rows that the tables of an earlier call have.
        with_objects: whether images have objects.
    """

    def __init__(
        self, folder: str | Path, class_names: Sequence[str], keep: bool, with_objects: bool = False
    ) -> None:
        columns = ["image", "width", "height", *(f"share_{name}" for name in class_names)]
        if with_objects:
            columns += ["objects", "mean_area"]
        super().__init__(Path(folder) / "predictions.csv", [*columns, "seconds"], keep)
        self.objects = None
        if with_objects:
            self.objects = ObjectTable(folder, keep)
            self.drop(self._incomplete())

    def add(
        self,
        name: str,
        size: tuple[int, int],
        pixels: np.ndarray,
        seconds: float,
        objects: Sequence[dict] = (),
    ) -> None:
        """Adds the row of an image of `size` (height, width), and the rows of its objects.

        pixels: int64 [K], of each class. objects: of src.instances.object_table().
        """
        row = [size[1], size[0], *(pixels / pixels.sum()).round(9).tolist()]
        if self.objects:
            self.objects.add(name, objects)  # first: an image with a row here is complete
            areas = [each["area"] for each in objects]
            row += [len(areas), round(sum(areas) / len(areas), 2) if areas else ""]
        self.append(name, [[*row, round(seconds, 4)]])

    def drop(self, names: Iterable[str]) -> None:
        """Removes the earlier rows of images that are done again, and of their objects."""
        names = list(names)
        super().drop(names)
        if self.objects:
            self.objects.drop(names)

    def close(self, order: Sequence[str]) -> None:
        """Writes both files anew, with the images in this order and then the others."""
        super().close(order)
        if self.objects:
            self.objects.close(order)

    def _incomplete(self) -> list[str]:
        """The images in one of the two tables whose objects are not all in objects.csv."""
        found = []
        for name in {**self.lines, **self.objects.lines}:
            number = str(len(self.objects.rows_of(name)))
            if name not in self or self.row(name)["objects"] != number:
                found.append(name)
        return found


class VolumeTable(CsvTable):
    """predictions.csv: one row for each volume, written when the files of the volume are there.

    Columns: image, width, height, depth, share_<class> in 0–1, seconds of reading, computing and
    writing.

    Args:
        folder: of the table.
        keep: keep the rows that the table of an earlier call has.
    """

    def __init__(self, folder: str | Path, class_names: Sequence[str], keep: bool) -> None:
        shares = [f"share_{name}" for name in class_names]
        columns = ["image", "width", "height", "depth", *shares, "seconds"]
        super().__init__(Path(folder) / "predictions.csv", columns, keep)

    def add(self, name: str, shape: Sequence[int], voxels: np.ndarray, seconds: float) -> None:
        """Adds the row of a volume of the shape (D, H, W). voxels: int64 [K], of each class."""
        shares = (voxels / voxels.sum()).round(9).tolist()
        self.append(name, [[*reversed(shape), *shares, round(seconds, 4)]])

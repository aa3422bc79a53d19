"""PNG and .npy files that are written by strips of rows, so that memory does not grow with them."""

import math
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from os import SEEK_END
from pathlib import Path
from types import TracebackType

import numpy as np

from src.errors import UserError
from train_utils.atomic import replacing

# Kind of a PNG → (bits of a channel, colour type in the file, channels).
KINDS = {"grey": (8, 0, 1), "grey16": (16, 0, 1), "rgb": (8, 2, 3), "palette": (8, 3, 1)}
UP = 2  # the filter "Up": each row is stored as its difference from the row above
LEVEL = 4  # of zlib: with UP at most 1.25 times the size of Pillow's files, in less time
BLOCK_BYTES = 1 << 20  # that are filtered and compressed at a time


class StripWriter(ABC):
    """A file that appears when all its rows are written, and not at all if anything fails.

    Use it as a context manager, and give write() the rows from top to bottom. UserError if the
    file cannot be written. ValueError for rows that do not fit, or if there are not `height` of
    them in the end.
    """

    def __init__(self, path: str | Path, height: int) -> None:
        self.path, self.height, self.rows_written = Path(path), height, 0

    def __enter__(self) -> "StripWriter":
        with naming(self.path), ExitStack() as stack:
            temporary = stack.enter_context(replacing(self.path))
            self._file = stack.enter_context(open(temporary, "wb"))
            self._begin()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            with naming(self.path):
                self._stack.__exit__(kind, error, trace)  # removes the temporary file
            return
        with naming(self.path), self._stack:
            if self.rows_written != self.height:
                raise ValueError(f"{self.path}: {self.rows_written} of {self.height} rows written")
            self._end()

    def write(self, rows: np.ndarray) -> None:
        """Appends rows; see the subclass for their shape and type."""
        count = self._check(rows)
        if self.rows_written + count > self.height:
            raise ValueError(f"{self.path}: more than {self.height} rows")
        with naming(self.path):
            self._append(rows)
        self.rows_written += count

    @abstractmethod
    def _begin(self) -> None:
        """Writes what comes before the rows."""

    @abstractmethod
    def _check(self, rows: np.ndarray) -> int:
        """The number of rows; ValueError if they do not fit."""

    @abstractmethod
    def _append(self, rows: np.ndarray) -> None:
        """Writes checked rows."""

    @abstractmethod
    def _end(self) -> None:
        """Writes what comes after the rows."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turns an OSError into a UserError that names the file."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); free some space or choose "
            "another folder. An earlier file of that name is untouched"
        ) from error


class PngWriter(StripWriter):
    """Writes a PNG (https://www.w3.org/TR/png-3/) by strips of rows.

    Args:
        path: of the file.
        width, height: in pixels, at least 1.
        kind: what write() takes. "grey": uint8 [h, width]; "palette": the same, indices of the
            palette; "grey16": uint16 [h, width]; "rgb": uint8 [h, width, 3].
        palette: colours [1..256, 3] uint8 for the kind "palette".
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        kind: str,
        palette: np.ndarray | None = None,
    ) -> None:
        super().__init__(path, height)
        if (kind == "palette") != (palette is not None):
            raise ValueError(f"a PNG of the kind palette has a palette, others none; got {kind}")
        self.width, self.palette = width, palette
        self.bits, self.colour_type, self.channels = KINDS[kind]
        self._compressor = zlib.compressobj(LEVEL)
        self._row_above = np.zeros(width * self.channels * self.bits // 8, np.uint8)

    def _begin(self) -> None:
        self._file.write(b"\x89PNG\r\n\x1a\n")
        header = (self.width, self.height, self.bits, self.colour_type, 0, 0, 0)
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", *header))
        if self.palette is not None:
            self._chunk(b"PLTE", np.asarray(self.palette, np.uint8).tobytes())

    def _check(self, rows: np.ndarray) -> int:
        shape = [len(rows), self.width]
        if self.channels == 3:
            shape.append(3)
        dtype = np.uint16 if self.bits == 16 else np.uint8
        if rows.shape != tuple(shape) or rows.dtype != dtype:
            raise ValueError(
                f"{self.path}: rows must be {np.dtype(dtype)} {shape}, got {rows.dtype} "
                f"{list(rows.shape)}"
            )
        return len(rows)

    def _append(self, rows: np.ndarray) -> None:
        step = max(BLOCK_BYTES // len(self._row_above), 1)
        for start in range(0, len(rows), step):
            block = self._filter(rows[start : start + step])
            self._chunk(b"IDAT", self._compressor.compress(block))

    def _end(self) -> None:
        self._chunk(b"IDAT", self._compressor.flush())
        self._file.write(END_OF_PNG)

    def _filter(self, rows: np.ndarray) -> np.ndarray:
        """The bytes of the rows, each after its filter's number and minus the row above."""
        if self.bits == 16:
            rows = rows.astype(">u2")
        values = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1)
        filtered = np.empty((len(values), values.shape[1] + 1), np.uint8)
        filtered[:, 0] = UP
        filtered[0, 1:] = values[0] - self._row_above
        np.subtract(values[1:], values[:-1], out=filtered[1:, 1:])
        self._row_above = values[-1].copy()
        return filtered

    def _chunk(self, kind: bytes, content: bytes) -> None:
        """Writes a chunk, unless it is empty."""
        if content:
            self._file.write(chunk(kind, content))


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG: length, kind, content and check sum."""
    check_sum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check_sum)


END_OF_PNG = chunk(b"IEND", b"")


class NpyWriter(StripWriter):
    """Writes a NumPy file (.npy) of float16 [classes, height, *row] by strips of rows.

    row: (width,); of a volume, whose slices are its rows, (H, W) with D as the height. write()
    takes floats [classes, h, *row].
    """

    def __init__(self, path: str | Path, classes: int, height: int, *row: int) -> None:
        super().__init__(path, height)
        self.classes, self.row = classes, row

    def _begin(self) -> None:
        shape = (self.classes, self.height, *self.row)
        header = {"descr": "<f2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._start = self._file.tell()

    def _check(self, rows: np.ndarray) -> int:
        if rows.ndim < 2 or (len(rows), *rows.shape[2:]) != (self.classes, *self.row):
            wanted = ", ".join(str(side) for side in (self.classes, "h", *self.row))
            raise ValueError(f"{self.path}: rows must be [{wanted}], got {list(rows.shape)}")
        return rows.shape[1]

    def _append(self, rows: np.ndarray) -> None:
        row_bytes = 2 * math.prod(self.row)
        for index, part in enumerate(rows):
            row = index * self.height + self.rows_written
            self._file.seek(self._start + row * row_bytes)
            self._file.write(part.astype("<f2").tobytes())

    def _end(self) -> None:
        """Nothing comes after the rows."""


def is_complete(path: str | Path) -> bool:
    """Whether a .png or .npy file exists and is not truncated."""
    path = Path(path)
    try:
        if path.suffix == ".npy":
            np.load(path, mmap_mode="r")  # maps the whole file
            return True
        with open(path, "rb") as file:
            file.seek(-len(END_OF_PNG), SEEK_END)
            return file.read() == END_OF_PNG
    except (OSError, ValueError, EOFError):
        return False

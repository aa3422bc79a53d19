"""Opens image files with Pillow, and refuses those that are broken or too large."""

import gzip
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import UserError

MAX_PIXELS = 89_478_485  # Pillow's limit; a small file with more may unpack to gigabytes
# What Pillow's formats raise for broken files. A TIFF without a width: TypeError.
CANNOT_DECODE = (OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError)
CANNOT_DECODE += (EOFError, MemoryError, OverflowError, struct.error, zlib.error)


class PillowsLimitOff:
    """Context manager: Pillow's own limit on pixels is off while any thread is inside."""

    def __init__(self) -> None:
        self.lock, self.inside, self.limit = Lock(), 0, None

    def __enter__(self) -> None:
        with self.lock:
            if self.inside == 0:
                self.limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self.inside += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                Image.MAX_IMAGE_PIXELS = self.limit


PILLOWS_LIMIT_OFF = PillowsLimitOff()


def open_image(path: str | Path, max_pixels: int | None = None) -> Image.Image:
    """The decoded file as a PIL image, EXIF orientation applied.

    Raises UserError if the file is missing, not an image or truncated, holds several pictures, or
    has more than `max_pixels` pixels (None: MAX_PIXELS).
    """
    try:
        with undecoded(path) as file:
            check_header(path, file, max_pixels or MAX_PIXELS)
            ImageOps.exif_transpose(file, in_place=True)  # decodes it, too
            return file
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except UserError:
        raise
    except CANNOT_DECODE as error:
        reason = str(error)
        if isinstance(error, UnidentifiedImageError):  # its text names the opened stream
            reason = "its format is unknown" if Path(path).stat().st_size else "it is empty"
        raise UserError(
            f"{path}: cannot be read as an image ({reason}); replace or remove it"
        ) from None


def count_pixels(path: str | Path) -> int:
    """The pixels of a file by its header; 0 for a file that cannot be read."""
    try:
        with undecoded(path) as file:
            return file.width * file.height
    except CANNOT_DECODE:
        return 0


@contextmanager
def undecoded(path: str | Path) -> Iterator[Image.Image]:
    """The opened file as a PIL image whose pixels are not decoded yet.

    Pillow's own limit on pixels does not apply until it is closed: check_header() applies ours.
    """
    opener = gzip.open if str(path).endswith(".gz") else open
    with opener(path, "rb") as stream, PILLOWS_LIMIT_OFF, Image.open(stream) as file:
        yield file


def check_header(path: str | Path, file: Image.Image, max_pixels: int) -> None:
    """Raises UserError for a file that should not be decoded: too many pixels, or pictures."""
    width, height = file.size
    if width * height > max_pixels:
        raise UserError(
            f"{path}: has {width}×{height} = {width * height:,} pixels, the limit is "
            f"{max_pixels:,}; if the size is right, give --max-pixels {width * height}"
        )
    frames = getattr(file, "n_frames", 1)  # few of Pillow's formats have it
    # Photographs of phones (MPO) hold a preview beside the picture.
    if frames > 1 and file.format != "MPO":
        raise UserError(f"{path}: holds {frames} pictures; save each as a file of its own")

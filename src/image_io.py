"""From files to arrays: images, and masks as they are stored."""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from .errors import UserError

IGNORE = 255  # target value of ignored pixels: no loss, metric or statistic includes them
IMAGE_SUFFIXES = set(
    ".bmp .gif .jfif .jp2 .jpeg .jpg .pbm .pgm .png .pnm .ppm .tga .tif .tiff .webp".split()
)
PNM_SUFFIXES = {".pgm", ".pnm", ".ppm"}  # Pillow scales their depths above 8 bits to 16 bits
MAX_PIXELS = 89_478_485  # Pillow's limit; a small file with more may unpack to gigabytes
EXIF_ORIENTATION = 0x0112
MANY_CLASSES = (
    "for class ids put a classes.csv beside the data (rows id,name such as 0,background and 1,road)"
)


# --- files --------------------------------------------------------------------------------------


def image_files(folder: Path) -> list[Path]:
    """The image files in the folder, sorted, without hidden ones; [] if there is no such folder.

    Files compressed with gzip, such as x.ppm.gz, are included.
    """
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and without_gz(path).suffix.lower() in IMAGE_SUFFIXES
    )


def stem_of(path: Path) -> str:
    """The file's name without its suffix, and without .gz."""
    return without_gz(path).stem


def without_gz(path: Path) -> Path:
    """The path without the suffix .gz, if it has it."""
    return path.with_suffix("") if path.suffix == ".gz" else path


def open_image(path: str | Path, max_pixels: int | None = None) -> Image.Image:
    """The decoded file as a PIL image, EXIF orientation applied.

    Raises UserError if the file is missing, not an image or truncated, holds several pictures, or
    has more than `max_pixels` pixels (None: MAX_PIXELS).
    """
    try:
        with undecoded(path) as file:
            check_header(path, file, max_pixels or MAX_PIXELS)
            return ImageOps.exif_transpose(file)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except UserError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, zlib.error) as error:
        raise UserError(
            f"{path}: cannot be read as an image ({error}); replace or remove it"
        ) from None


def stored_mode(path: str | Path) -> str:
    """Pillow's mode of the file, such as RGB or I;16, and whether EXIF rotates it.

    Reads the header only.
    """
    with undecoded(path) as file:
        rotated = file.getexif().get(EXIF_ORIENTATION, 1) != 1
        return file.mode + (" turned by EXIF" if rotated else "")


@contextmanager
def undecoded(path: str | Path) -> Iterator[Image.Image]:
    """The opened file as a PIL image whose pixels are not decoded yet.

    Pillow's own limit on pixels is off meanwhile: check_header() applies ours.
    """
    opener = gzip.open if str(path).endswith(".gz") else open
    with opener(path, "rb") as stream:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            with Image.open(stream) as file:
                yield file
        finally:
            Image.MAX_IMAGE_PIXELS = limit


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


# --- images -------------------------------------------------------------------------------------


def read_image(path: str | Path, channels: int = 3, max_pixels: int | None = None) -> Tensor:
    """The image as uint8 [channels, H, W]; 16 bits are scaled to 8.

    channels: 3 repeats the channel of a grey image, 1 takes the luma of a colour image, both
    without alpha; any other number must be that of the file's channels. UserError otherwise.
    """
    image = open_image(path, max_pixels)
    if image.mode == "F":
        raise UserError(f"{path}: holds floating-point values; save it with 8 or 16 bits a channel")
    if image.mode.startswith("I"):  # Pillow's convert() would clip 16-bit values at 255
        image = Image.fromarray(to_eight_bits(path, image))
    if channels == 1:
        values = np.array(image.convert("L"))
    elif channels == 3:
        values = np.array(image.convert("RGB"))
    else:
        values = np.array(image)
        if values.ndim != 3 or values.shape[2] != channels or values.dtype != np.uint8:
            raise UserError(
                f"{path}: has {len(image.getbands())} channels ({image.mode}), --in-channels asks "
                f"for {channels}"
            )
    values = values.reshape(*values.shape[:2], channels)
    return torch.from_numpy(values).permute(2, 0, 1).contiguous()


def to_eight_bits(path: str | Path, image: Image.Image) -> np.ndarray:
    """uint8 [H, W] of an image of integers: 0–65535 is scaled to 0–255."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise UserError(
            f"{path}: holds values {values.min()} to {values.max()}; save it with 8 or 16 bits"
        )
    is_pnm = Path(path).suffix.lower() in PNM_SUFFIXES
    if image.mode == "I" and values.max() <= 255 and not is_pnm:
        return values.astype(np.uint8)  # 8 bits in a 32-bit file
    return (values // 257).astype(np.uint8)


def resize_image(image: Tensor, size: Sequence[int]) -> Tensor:
    """uint8 [C, H, W] at size (height, width), bilinear with antialiasing."""
    return F.resize(image, list(size), antialias=True)


def resize_target(target: Tensor, size: Sequence[int]) -> Tensor:
    """Integers [H, W] at size (height, width): each pixel takes the old pixel at its centre."""
    return F.resize(target[None], list(size), interpolation=InterpolationMode.NEAREST_EXACT)[0]


# --- masks --------------------------------------------------------------------------------------


def read_binary(
    path: str | Path, what: str, max_pixels: int | None = None
) -> tuple[np.ndarray, list[int]]:
    """A two-valued mask as bool [H, W], True at the larger value, and the sorted values found.

    Any two values are accepted: 0/255, 0/1, or 3/253 as in masks of DRIVE's second observer. A
    file with one value is all False for 0 and all True for 1 or 255. Raises UserError for anything
    else; `what` says what the mask is ("label", "ROI mask").
    """
    values = read_values(path, max_pixels)
    found, counts = np.unique(values, return_counts=True)
    if len(found) > 2 or (len(found) == 1 and found[0] not in (0, 1, 255)):
        remedy = "redraw or threshold it, and save it as PNG, not as JPEG"
        if what == "label" and len(found) > 2 and found[-1] < 32:  # small numbers are class ids
            remedy = MANY_CLASSES
        raise UserError(
            f"{path}: a {what} holds two values, 0 and 255 or 0 and 1; this one holds "
            f"{len(found)}: {list_values(found, counts)}; {remedy}"
        )
    mask = values == found[-1] if len(found) == 2 else values > 0
    return mask, found.tolist()


def read_values(path: str | Path, max_pixels: int | None = None) -> np.ndarray:
    """The numbers a mask file stores, int64 [H, W]: 0/1 for mode "1", otherwise palette indices.

    A palette of black and white in either order gives 0 and 255. Raises UserError for colours.
    """
    image = open_image(path, max_pixels)
    values = numbers_of(path, image)
    if values is None:
        raise UserError(
            f"{path}: is a colour picture; a mask has one channel with two values, 0 and 255 (for "
            "labels in colours give a class table)"
        )
    if image.mode == "P":
        colours = packed_colours(image)
        if set(np.unique(colours)) == {0, 0xFFFFFF}:
            return colours & 255
    return values


def numbers_of(path: str | Path, image: Image.Image) -> np.ndarray | None:
    """The numbers that a PIL image stores, int64 [H, W], or None if its colour channels differ."""
    if image.mode == "F":
        raise UserError(
            f"{path}: holds fractions; a mask holds whole numbers, 0 and 255, or class ids"
        )
    values = np.asarray(image).astype(np.int64)
    if values.ndim == 2:
        return values
    channels = [values[..., i] for i, band in enumerate(image.getbands()) if band not in ("A", "a")]
    if any((channel != channels[0]).any() for channel in channels[1:]):
        return None
    return channels[0]


def packed_colours(image: Image.Image) -> np.ndarray | None:
    """Colours as r·65536 + g·256 + b, int64 [H, W]; None for mode "1" and 16 bits, without any."""
    if image.mode == "1" or image.mode.startswith("I"):
        return None
    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")).astype(np.int64), 2, 0)
    return red << 16 | green << 8 | blue


def list_values(found: Sequence[int], counts: Sequence[int], shown: int = 8) -> str:
    """ "0 (30 pixels), 255 (15 pixels), …": the first values and how often each occurs."""
    pairs = zip(found[:shown], counts[:shown], strict=True)
    words = ", ".join(f"{value} ({count} pixels)" for value, count in pairs)
    return words + (", …" if len(found) > shown else "")

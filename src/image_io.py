"""Decoding of image files: what a file stores, in the one form that the rest works with."""

import gzip
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from .errors import UserError

IGNORE = 255  # a target pixel that no loss, metric or statistic counts
MANY_CLASSES = (
    "for class ids put a classes.csv beside the data (rows id,name such as 0,background and 1,road)"
)
PNM = {".pgm", ".pnm", ".ppm"}  # of these Pillow scales every depth above 8 bits to 16
IMAGE_SUFFIXES = {
    ".bmp",
    ".gif",
    ".jfif",
    ".jp2",
    ".jpeg",
    ".jpg",
    ".pbm",
    ".pgm",
    ".png",
    ".pnm",
    ".ppm",
    ".tga",
    ".tif",
    ".tiff",
    ".webp",
}
MAX_PIXELS = (
    89_478_485  # Pillow's own limit: beyond it a small file may be a bomb that unpacks to gigabytes
)


def image_files(folder):
    """The image files in the folder, sorted, hidden ones left out; [] if there is no such folder. x.ppm.gz counts too."""
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.name[0] != "."
        and (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()
        in IMAGE_SUFFIXES
    )


def stem_of(path):
    """The file's name without its suffix, and without .gz."""
    return (path.with_suffix("") if path.suffix == ".gz" else path).stem


@contextmanager
def unlimited():
    """Switches Pillow's limit off while a file is opened, whose head check_head() looks at; then puts it back."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def open_image(path, max_pixels=None):
    """Decodes the file as a PIL image, EXIF orientation applied.

    UserError if it is not one, is cut short, holds several pictures, or has more than `max_pixels` (None: MAX_PIXELS).
    """
    try:
        opener = gzip.open if str(path).endswith(".gz") else open
        with opener(path, "rb") as stream, unlimited(), Image.open(stream) as file:
            check_head(path, file, max_pixels or MAX_PIXELS)
            return ImageOps.exif_transpose(file)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except UserError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, zlib.error) as error:
        raise UserError(
            f"{path}: cannot be read as an image ({error}); replace or remove it"
        ) from None


def stored_mode(path):
    """Pillow's name for what the file stores, such as RGB or I;16, and whether an EXIF note turns it. Nothing is decoded."""
    opener = gzip.open if str(path).endswith(".gz") else open
    with opener(path, "rb") as stream, unlimited(), Image.open(stream) as file:
        return file.mode + (" turned by EXIF" if file.getexif().get(0x0112, 1) != 1 else "")


def check_head(path, file, max_pixels):
    """UserError for what should not be decoded at all."""
    width, height = file.size
    if width * height > max_pixels:
        raise UserError(
            f"{path}: has {width}×{height} = {width * height:,} pixels, the limit is {max_pixels:,}; if it is "
            f"what it should be, give --max-pixels {width * height}"
        )
    frames = getattr(file, "n_frames", 1)
    if (
        frames > 1 and file.format != "MPO"
    ):  # photographs of telephones hold a preview beside the picture
        raise UserError(f"{path}: holds {frames} pictures; save each as a file of its own")


def read_image(path, channels=3, max_pixels=None):
    """The image as uint8 [channels, H, W]: 16 bits are scaled to 8, alpha is dropped.

    channels: 3 repeats a grey image, 1 takes the luma of a coloured one; any other number must be that of the file's
    own bands.
    """
    image = open_image(path, max_pixels)
    if image.mode == "F":
        raise UserError(f"{path}: holds floating-point values; save it with 8 or 16 bits a channel")
    if image.mode.startswith("I"):  # Pillow's convert() would clip 16-bit values at 255
        image = Image.fromarray(eight_bits(path, image))
    if channels in (1, 3):
        values = np.array(image.convert("L" if channels == 1 else "RGB"))
    else:
        values = np.array(image)
        if values.ndim != 3 or values.shape[2] != channels or values.dtype != np.uint8:
            raise UserError(
                f"{path}: has {len(image.getbands())} channels ({image.mode}), --in-channels asks for "
                f"{channels}"
            )
    return (
        torch.from_numpy(values.reshape(*values.shape[:2], channels)).permute(2, 0, 1).contiguous()
    )


def eight_bits(path, image):
    """uint8 [H, W] of an image of whole numbers: 0–65535 is scaled to 0–255."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise UserError(
            f"{path}: holds values {values.min()} to {values.max()}; save it with 8 or 16 bits"
        )
    if (
        image.mode == "I" and values.max() <= 255 and Path(path).suffix.lower() not in PNM
    ):  # 8 bits in a 32-bit file
        values = values * 257
    return (values // 257).astype(np.uint8)


def read_values(path, max_pixels=None):
    """The numbers a mask file stores, [H, W]: palette indices, but 0 and 255 for a palette of black and white in whatever
    order; 0/1 for mode "1"."""
    image = open_image(path, max_pixels)
    values = numbers_of(path, image)
    if values is None:
        raise UserError(
            f"{path}: is a colour picture; a mask has one channel with two values, 0 and 255 (for labels in "
            "colours give a class table)"
        )
    if image.mode == "P":
        colours = packed_colours(image)
        if set(np.unique(colours)) == {0, 0xFFFFFF}:
            return colours & 255
    return values


def numbers_of(path, image):
    """The numbers that a PIL image stores, int64 [H, W], or None if its colour channels differ."""
    if image.mode == "F":
        raise UserError(
            f"{path}: holds fractions; a mask holds whole numbers, 0 and 255, or class ids"
        )
    values = np.asarray(image).astype(np.int64)
    if values.ndim == 3:
        values, *others = (
            values[..., i] for i, band in enumerate(image.getbands()) if band not in ("A", "a")
        )
        if any((other != values).any() for other in others):
            return None
    return values


def packed_colours(image):
    """Colours as r·65536 + g·256 + b, int64 [H, W]; None for a picture that has none (mode 1, 16 bits)."""
    if image.mode == "1" or image.mode.startswith("I"):
        return None
    values = np.asarray(image.convert("RGB")).astype(np.int64)
    return values[..., 0] << 16 | values[..., 1] << 8 | values[..., 2]


def read_binary(path, what, max_pixels=None):
    """A two-valued mask as bool [H, W], the larger value being True, and the sorted list of values found.

    0/255, 0/1 and any other pair (DRIVE's second observer: 3/253) are read alike; a file with one value is all False
    for 0 and all True for 1 or 255. UserError for anything else, naming `what` the mask is ("label", "ROI mask").
    """
    values = read_values(path, max_pixels)
    found, counts = np.unique(values, return_counts=True)
    if len(found) > 2 or (len(found) == 1 and found[0] not in (0, 1, 255)):
        ids = what == "label" and len(found) > 2 and found[-1] < 32
        remedy = MANY_CLASSES if ids else "redraw or threshold it, and save it as PNG, not as JPEG"
        raise UserError(
            f"{path}: a {what} holds two values, 0 and 255 or 0 and 1; this one holds {len(found)}: "
            f"{list_values(found, counts)}; {remedy}"
        )
    mask = values == found[-1] if len(found) == 2 else values > 0
    return mask, found.tolist()


def list_values(found, counts, shown=8):
    """ "0 (30 pixels), 255 (15 pixels), …": the first of the values and how often each occurs."""
    words = [f"{value} ({count} pixels)" for value, count in zip(found[:shown], counts[:shown])]
    return ", ".join(words) + (", …" if len(found) > shown else "")


def resize_image(image, size):
    """uint8 [C, H, W] at size (height, width), bilinear with antialiasing."""
    return F.resize(image, list(size), antialias=True)


def resize_target(target, size):
    """Integers [H, W] at size (height, width): each pixel is one of the old ones, that under its centre."""
    return F.resize(target[None], list(size), interpolation=InterpolationMode.NEAREST_EXACT)[0]

"""From files to arrays: images, and masks as they are stored."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from .errors import UserError
from .image_decoding import open_image, undecoded

IGNORE = 255  # target value of ignored pixels: no loss, metric or statistic includes them
IMAGE_SUFFIXES = set(
    ".bmp .gif .jfif .jp2 .jpeg .jpg .pbm .pgm .png .pnm .ppm .tga .tif .tiff .webp".split()
)
PNM_SUFFIXES = {".pgm", ".pnm", ".ppm"}  # Pillow scales their depths above 8 bits to 16 bits
STRIP_PIXELS = 1 << 20  # that are converted at a time; more would be another copy of the image
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


def stored_mode(path: str | Path) -> str:
    """Pillow's mode of the file, such as RGB or I;16, and whether EXIF rotates it.

    Reads the header only.
    """
    with undecoded(path) as file:
        rotated = file.getexif().get(EXIF_ORIENTATION, 1) != 1
        return file.mode + (" turned by EXIF" if rotated else "")


# --- images -------------------------------------------------------------------------------------


def read_image(path: str | Path, channels: int = 3, max_pixels: int | None = None) -> Tensor:
    """The image as uint8 [channels, H, W]; 16 bits are scaled to 8.

    channels: 3 repeats the channel of a grey image, 1 takes the luma of a colour image, both
    without alpha; any other number must be that of the file's channels. UserError otherwise.
    """
    image = open_image(path, max_pixels)
    if image.mode == "F":
        raise UserError(f"{path}: holds floating-point values; save it with 8 or 16 bits a channel")
    if channels not in (1, 3) and channels != len(image.getbands()):
        raise UserError(
            f"{path}: has {len(image.getbands())} channels ({image.mode}), the model takes "
            f"{channels} (--in-channels of its training); leave it out or convert it"
        )
    divisor = divisor_to_eight_bits(path, image)
    mode = image.mode
    if channels == 1:
        mode = "L"
    elif channels == 3:
        mode = "RGB"
    values = torch.empty(channels, image.height, image.width, dtype=torch.uint8)
    for rows, strip in strips_of(image):
        if image.mode.startswith("I"):  # Pillow's convert() would clip 16-bit values at 255
            strip = Image.fromarray((np.asarray(strip) // divisor).astype(np.uint8))
        if strip.mode != mode:
            strip = strip.convert(mode)
        pixels = np.asarray(strip).reshape(strip.height, strip.width, channels)
        values.numpy()[:, rows] = pixels.transpose(2, 0, 1)
    return values


def strips_of(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """(rows, these rows of the image) from top to bottom, in strips of STRIP_PIXELS."""
    step = max(STRIP_PIXELS // image.width, 1)
    for top in range(0, image.height, step):
        bottom = min(top + step, image.height)
        strip = image
        if image.height > step:
            strip = image.crop((0, top, image.width, bottom))
        yield slice(top, bottom), strip


def divisor_to_eight_bits(path: str | Path, image: Image.Image) -> int:
    """What scales the values of an image to 0–255: 257 for 16 bits, 1 for 8 bits."""
    if not image.mode.startswith("I"):
        return 1
    extrema = []
    for _, strip in strips_of(image):
        numbers = np.asarray(strip)
        extrema += [int(numbers.min()), int(numbers.max())]
    lowest, highest = min(extrema), max(extrema)
    if lowest < 0 or highest > 65535:
        raise UserError(f"{path}: holds values {lowest} to {highest}; save it with 8 or 16 bits")
    is_pnm = Path(path).suffix.lower() in PNM_SUFFIXES
    if image.mode == "I" and highest <= 255 and not is_pnm:
        return 1  # 8 bits in a 32-bit file
    return 257


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
    found, counts = count_values(values)
    if len(found) > 2 or (len(found) == 1 and found[0] not in (0, 1, 255)):
        remedy = "redraw or threshold it, and save it as PNG, not as JPEG"
        if what == "label" and len(found) > 2 and found[-1] < 32:  # small numbers are class ids
            remedy = (
                f"{MANY_CLASSES}, for one id an object give --label-kind instances "
                "(predict.py: --instances)"
            )
        raise UserError(
            f"{path}: a {what} holds two values, 0 and 255 or 0 and 1; this one holds "
            f"{len(found)}: {list_values(found, counts)}; {remedy}"
        )
    mask = values == found[-1] if len(found) == 2 else values > 0
    return mask, found


def count_values(values: np.ndarray) -> tuple[list[int], list[int]]:
    """(different values of an array [H, W], sorted; number of pixels of each)."""
    counts = Counter()
    step = max(STRIP_PIXELS // values.shape[1], 1)
    for top in range(0, len(values), step):
        found, numbers = np.unique(values[top : top + step], return_counts=True)
        counts.update(dict(zip(found.tolist(), numbers.tolist(), strict=True)))
    found = sorted(counts)
    return found, [counts[value] for value in found]


def read_values(path: str | Path, max_pixels: int | None = None) -> np.ndarray:
    """The numbers a mask file stores, [H, W]: 0/1 for mode "1", otherwise palette indices.

    A palette of black and white in either order gives 0 and 255. Raises UserError for colours.
    Returns uint8, or int32 for files of more than 8 bits.
    """
    image = open_image(path, max_pixels)
    dtype = np.int32 if image.mode.startswith("I") else np.uint8
    values = numbers_of(path, image, dtype)
    if values is None:
        raise UserError(
            f"{path}: is a colour picture; a mask has one channel with two values, 0 and 255 (for "
            "labels in colours give a class table)"
        )
    if image.mode == "P":
        every_index = image.crop((0, 0, 256, 1))
        every_index.putdata(bytes(range(256)))
        colours = packed_colours(every_index)[0]
        if set(colours[count_values(values)[0]]) == {0, 0xFFFFFF}:
            return (colours & 255).astype(np.uint8)[values]
    return values


def numbers_of(path: str | Path, image: Image.Image, dtype: type = np.int32) -> np.ndarray | None:
    """The numbers that a PIL image stores, [H, W], or None if its colour channels differ."""
    if image.mode == "F":
        raise UserError(
            f"{path}: holds fractions; a mask holds whole numbers, 0 and 255, or class ids"
        )
    numbers = np.empty((image.height, image.width), dtype)
    is_colour = [band not in ("A", "a") for band in image.getbands()]
    for rows, strip in strips_of(image):
        values = np.asarray(strip)
        if values.ndim == 3:
            channels = values[..., is_colour]
            values = channels[..., 0]
            if (channels != values[..., None]).any():
                return None
        numbers[rows] = values
    return numbers


def packed_colours(image: Image.Image) -> np.ndarray | None:
    """Colours as r·65536 + g·256 + b, int32 [H, W]; None for mode "1" and 16 bits, without any."""
    if image.mode == "1" or image.mode.startswith("I"):
        return None
    colours = np.empty((image.height, image.width), np.int32)
    for rows, strip in strips_of(image):
        red, green, blue = np.moveaxis(np.asarray(strip.convert("RGB"), np.int32), 2, 0)
        colours[rows] = red << 16 | green << 8 | blue
    return colours


def list_values(found: Sequence[int], counts: Sequence[int], shown: int = 8) -> str:
    """ "0 (30 pixels), 255 (15 pixels), …": the first values and how often each occurs."""
    pairs = zip(found[:shown], counts[:shown], strict=True)
    words = ", ".join(f"{value} ({count} pixels)" for value, count in pairs)
    return words + (", …" if len(found) > shown else "")

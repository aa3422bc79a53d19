"""Labels with one id an object: files become ids, and what a label says about its objects."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.errors import UserError
from src.image_decoding import MAX_PIXELS
from src.image_io import image_files, numbers_of, open_image, read_binary
from src.instances import import_ndimage

MAX_ID = 65535  # the largest number of a 16-bit file
MIN_OBJECTS = 3  # a label of fewer ids is taken for a label of classes
NEARLY_ALL = 0.9

# What numpy raises for files that are cut short or hold something else.
CANNOT_LOAD = (OSError, EOFError, ValueError, TypeError, MemoryError, SyntaxError)


@dataclass(frozen=True)
class IdFacts:
    """What a label says about its objects.

    objects: how many there are. touching: how many of them have a pixel beside one of another
    object, along axes and diagonals. scattered: ids in two or more separate places.
    """

    objects: int
    touching: int
    scattered: list[int]


# --- files --------------------------------------------------------------------------------------


def instance_files(folder: Path) -> list[Path]:
    """The labels in the folder, sorted, without hidden ones; [] if there is no such folder.

    They are image files, .npy files, and folders that hold one mask an object.
    """
    if not folder.is_dir():
        return []
    found = set(image_files(folder))
    for path in folder.iterdir():
        if not path.name.startswith(".") and (path.is_dir() or path.suffix.lower() == ".npy"):
            found.add(path)
    return sorted(found)


def read_instances(path: str | Path, max_pixels: int | None = None) -> np.ndarray:
    """The ids of a label, int32 [H, W]: 0 is background, every other id is one object.

    path: an image with 8 or 16 bits or a palette, whose numbers are the ids; a .npy file of
        integers; or a folder with one mask an object, of any two values each. These get the ids
        1 … N in the order of their names; where they overlap the later one wins.
    max_pixels: largest image that is decoded; None: Pillow's limit.

    UserError for colours, fractions, ids below 0 or above 65,535, an array that is not [H, W], and
    masks of different sizes.
    """
    path = Path(path)
    if path.is_dir():
        ids = read_masks(path, max_pixels)
    elif path.suffix.lower() == ".npy":
        ids = read_id_array(path, max_pixels)
    else:
        ids = read_id_image(path, max_pixels)
    lowest, highest = int(ids.min()), int(ids.max())
    if lowest < 0 or highest > MAX_ID:
        wrong = lowest if lowest < 0 else highest
        raise UserError(
            f"{path}: holds the id {wrong}; ids are 0 for background and 1 to {MAX_ID} for "
            "objects; renumber the objects"
        )
    return ids.astype(np.int32)


def read_masks(folder: Path, max_pixels: int | None) -> np.ndarray:
    """read_instances() of a folder with one mask an object."""
    ids = None
    for index, path in enumerate(image_files(folder), 1):
        mask, _ = read_binary(path, "mask of one object", max_pixels)
        if ids is None:
            ids, first = np.zeros(mask.shape, np.int32), path
        if mask.shape != ids.shape:
            raise UserError(
                f"{path}: is {mask.shape[1]}×{mask.shape[0]} pixels, {first.name} beside it is "
                f"{ids.shape[1]}×{ids.shape[0]}; masks of one image have its size"
            )
        ids[mask] = index
    if ids is None:
        raise UserError(
            f"{folder}: holds no image files; put one mask an object into it, or remove it"
        )
    return ids


def read_id_image(path: Path, max_pixels: int | None) -> np.ndarray:
    """The numbers [H, W] of an image."""
    image = open_image(path, max_pixels)
    if image.mode == "F":
        raise UserError(
            f"{path}: holds floating-point values; ids are whole numbers, save them with 16 bits"
        )
    ids = numbers_of(path, image)
    if ids is None:
        raise UserError(
            f"{path}: is a colour picture; ids are the numbers of one channel, save them as a "
            "grey image with 16 bits"
        )
    return ids


def read_id_array(path: Path, max_pixels: int | None) -> np.ndarray:
    """The integers [H, W] of a .npy file."""
    ids = read_flat_npy(path, max_pixels)
    if ids.dtype.kind not in "bui":
        raise UserError(
            f"{path}: holds {ids.dtype} values; ids are whole numbers, save them as uint16 or int32"
        )
    return ids


def read_flat_npy(path: Path, max_pixels: int | None = None) -> np.ndarray:
    """An array [H, W] of real numbers in a .npy file; UserError for anything else."""
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except CANNOT_LOAD as error:
        reason = str(error).partition("\n")[0][:100]
        raise UserError(
            f"{path}: cannot be read as an array of numbers ({reason}); save it with numpy.save"
        ) from None
    if not isinstance(values, np.ndarray):
        raise UserError(f"{path}: is an archive (.npz); save one array with numpy.save")
    if values.ndim != 2 or values.dtype.kind not in "buif" or 0 in values.shape:
        raise UserError(
            f"{path}: holds {values.dtype} of shape {values.shape}; save an array of numbers "
            "[height, width]"
        )
    limit = max_pixels or MAX_PIXELS
    if values.size > limit:
        raise UserError(
            f"{path}: has {values.size:,} pixels, the limit is {limit:,}; if the size is right, "
            f"give --max-pixels {values.size}"
        )
    return np.array(values)


# --- what a label says about its objects -----------------------------------------------------


def describe_ids(ids: np.ndarray) -> IdFacts:
    """Facts about the objects of a label, int [H, W]."""
    ndimage = import_ndimage()
    objects, scattered = 0, []
    for index, box in enumerate(ndimage.find_objects(ids), 1):
        if box is None:  # no object has this id
            continue
        objects += 1
        _, places = ndimage.label(ids[box] == index, np.ones((3, 3)))
        if places > 1:
            scattered.append(index)
    return IdFacts(objects, count_touching(ids), scattered)


def count_touching(ids: np.ndarray) -> int:
    """How many objects have a pixel beside one of another object, along axes and diagonals."""
    neighbours = (
        (ids[:, :-1], ids[:, 1:]),
        (ids[:-1], ids[1:]),
        (ids[:-1, :-1], ids[1:, 1:]),
        (ids[:-1, 1:], ids[1:, :-1]),
    )
    touching = set()
    for one, other in neighbours:
        meet = (one != other) & (one > 0) & (other > 0)
        touching.update(np.unique(one[meet]).tolist(), np.unique(other[meet]).tolist())
    return len(touching)


def looks_like_instances(numbers: np.ndarray) -> bool:
    """Whether the numbers of a label, int [H, W], are ids of objects rather than of classes.

    They are if 0 is among them, the others are 1 … N with at most a tenth left out, N ≥ 3, and
    nine of ten are one region without holes.
    """
    if numbers.min() != 0 or numbers.max() > MAX_ID:
        return False
    found = np.unique(numbers)[1:]
    if len(found) < MIN_OBJECTS or len(found) < NEARLY_ALL * found[-1]:
        return False
    return bool((euler_numbers(numbers)[found] == 1).mean() >= NEARLY_ALL)


def euler_numbers(numbers: np.ndarray) -> np.ndarray:
    """int64 [largest number + 1]: for each number its regions less their holes; 0 is no use.

    Regions are 8-connected. With pixels as squares, this is squares − edges + corners, each edge
    and corner counted once for each number that it is part of.
    """
    size = int(numbers.max()) + 1
    padded = np.pad(numbers, 1)

    def count(values: np.ndarray) -> np.ndarray:
        return np.bincount(values.ravel(), minlength=size)

    edges = 0
    for one, other in ((padded[:, :-1], padded[:, 1:]), (padded[:-1], padded[1:])):
        edges = edges + count(one) + count(other[other != one])
    a, b, c, d = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    corners = count(a) + count(b[b != a]) + count(c[(c != a) & (c != b)])
    corners += count(d[(d != a) & (d != b) & (d != c)])
    return count(padded) - edges + corners

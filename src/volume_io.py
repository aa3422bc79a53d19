"""From files to volumes and back: NIfTI, TIFF stacks and .npy files.

A volume is float32 [C, D, H, W], a label [D, H, W]. NIfTI volumes are turned to one orientation
when they are read: D runs from inferior to superior, H from posterior to anterior, W from left to
right. write_volume() turns them back. The other formats store no orientation; their axes stay.
"""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from .errors import UserError
from .nifti import describe_nifti, nifti_spacing, read_nifti, write_nifti
from .tiff_stacks import read_tiff
from .volumes import Geometry

NIFTI_SUFFIXES = (".nii", ".nii.gz")
TIFF_SUFFIXES = (".tif", ".tiff")
VOLUME_SUFFIXES = (*NIFTI_SUFFIXES, *TIFF_SUFFIXES, ".npy")
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
FORMATS = "save it as .nii.gz, as a .tif stack or as .npy"

# What truncated or wrong files raise in nibabel, Pillow, numpy and gzip.
UNREADABLE = (OSError, EOFError, MemoryError, ValueError, TypeError, KeyError, SyntaxError)
UNREADABLE += (struct.error, zlib.error, Image.DecompressionBombError)


# --- files ----------------------------------------------------------------------------------------


def volume_suffix(path: str | Path) -> str:
    """The suffix of VOLUME_SUFFIXES that the file name ends with; "" for any other file."""
    name = Path(path).name.lower()
    found = [suffix for suffix in VOLUME_SUFFIXES if name.endswith(suffix)]
    return max(found, key=len, default="")


def volume_files(folder: Path) -> list[Path]:
    """The volumes in the folder, sorted, without hidden ones; [] if there is no such folder.

    UserError if it holds DICOM files in place of volumes.
    """
    found = list_volumes(folder)
    if not found:
        for path in visible_paths(folder):
            refuse_dicom(path)
    return found


def list_volumes(folder: Path) -> list[Path]:
    """volume_files() of a folder that may hold DICOM files."""
    return [path for path in visible_paths(folder) if volume_suffix(path)]


def visible_paths(folder: Path) -> list[Path]:
    """What is in the folder, sorted, without hidden files; [] if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def refuse_dicom(path: Path) -> None:
    """UserError if the file is a slice in DICOM format, or a folder of such."""
    if path.is_dir():
        suffixes = {each.suffix.lower() for each in path.iterdir()}
        is_dicom = not suffixes.isdisjoint(DICOM_SUFFIXES)
    else:
        is_dicom = path.suffix.lower() in DICOM_SUFFIXES or has_dicom_mark(path)
    if is_dicom:
        raise UserError(
            f"{path}: is DICOM, which is not read; convert each series to one .nii.gz, "
            "for example with dcm2niix"
        )


def has_dicom_mark(path: Path) -> bool:
    """Whether the bytes 128 to 131 of the file are "DICM"."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


# --- reading --------------------------------------------------------------------------------------


def read_volume(path: str | Path, channels: int | None = None) -> tuple[np.ndarray, Geometry]:
    """(the volume as float32 [C, D, H, W], its geometry).

    The channels are the fourth axis of NIfTI, the colours or channels of a TIFF stack, the first of
    four axes of .npy. channels: the number that is expected; None: any. UserError for another
    number, for voxels that are not finite, and for a file that cannot be read.
    """
    values, geometry = read_array(path)
    bad = count_not_finite(values)
    if bad:
        raise UserError(
            f"{path}: holds {bad:,} voxels that are NaN or infinite; replace them, by 0 where "
            "nothing was measured"
        )
    with np.errstate(over="ignore"):
        values = values.astype(np.float32, order="C")
    bad = count_not_finite(values)
    if bad:
        raise UserError(
            f"{path}: holds {bad:,} voxels beyond ±3.4e38, the range of float32; divide all by one "
            "number"
        )
    if channels not in (None, len(values)):
        raise UserError(
            f"{path}: has {len(values)} channels, the model takes {channels} (--in-channels of its "
            "training); leave it out or convert it"
        )
    return values, geometry


def count_not_finite(values: np.ndarray) -> int:
    """How many of the numbers are NaN or infinite."""
    return values.size - np.count_nonzero(np.isfinite(values))


def read_label_volume(path: str | Path) -> tuple[np.ndarray, Geometry]:
    """(the whole numbers of a label or an ROI volume as int32 [D, H, W], its geometry).

    Whole numbers may be stored as floating-point numbers. UserError for fractions, for several
    channels, and for a file that cannot be read.
    """
    values, geometry = read_array(path)
    if len(values) != 1:
        raise UserError(
            f"{path}: is a label of {len(values)} volumes (four dimensions); save one volume of "
            "class ids"
        )
    values = values[0]
    if values.dtype.kind == "f":
        whole = np.rint(values)
        if not (np.abs(values - whole) < 1e-3).all():
            raise UserError(
                f"{path}: holds fractions or NaN; a label holds whole numbers, the class ids "
                "(resample labels by nearest neighbour)"
            )
        values = whole
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > 65535:
        raise UserError(f"{path}: holds {lowest} to {highest}; class ids are 0 to 65535")
    return values.astype(np.int32, order="C"), geometry


def read_array(path: str | Path) -> tuple[np.ndarray, Geometry]:
    """(the numbers [C, D, H, W] as they are stored, the geometry) of a file of any format."""
    path, suffix = Path(path), volume_suffix(path)
    if not path.exists():
        raise UserError(f"{path}: there is no such file")
    if not suffix:
        refuse_dicom(path)
        raise UserError(f"{path}: is no volume that can be read; {FORMATS}")
    try:
        if suffix in NIFTI_SUFFIXES:
            return read_nifti(path)
        values = read_tiff(path) if suffix in TIFF_SUFFIXES else read_npy(path)
    except UserError:
        raise
    except UNREADABLE as error:
        reason = str(error).partition("\n")[0][:100]
        raise UserError(
            f"{path}: cannot be read as a volume ({reason}); replace or remove it"
        ) from None
    return values, Geometry(values.shape[1:])


def stored_spacing(path: str | Path) -> tuple[float, float, float] | None:
    """The size (D, H, W) of a voxel of a file, from its header alone; None if it does not say."""
    if volume_suffix(path) not in NIFTI_SUFFIXES:
        return None
    return nifti_spacing(path)


def describe_header(path: str | Path) -> str:
    """How a file that can be read stores a volume: its type and, of NIfTI, its orientation."""
    suffix = volume_suffix(path)
    if suffix in NIFTI_SUFFIXES:
        return describe_nifti(path)
    if suffix in TIFF_SUFFIXES:
        with Image.open(path) as file:
            return f"TIFF {file.mode}"
    return f"npy {np.load(path, mmap_mode='r').dtype}"


def read_npy(path: Path) -> np.ndarray:
    """read_array() of [D, H, W] or [C, D, H, W] in a .npy file."""
    values = np.load(path, allow_pickle=False)
    if not isinstance(values, np.ndarray):
        raise UserError(f"{path}: is an archive (.npz); save one array with numpy.save")
    if values.ndim not in (3, 4) or values.dtype.kind not in "buif" or 0 in values.shape:
        raise UserError(
            f"{path}: holds {values.dtype} of shape {values.shape}; a volume holds numbers "
            "[D, H, W] or [C, D, H, W]"
        )
    return values if values.ndim == 4 else values[None]


# --- writing --------------------------------------------------------------------------------------


def write_volume(
    path: str | Path, values: np.ndarray, like: Geometry, suffix: str | None = None
) -> None:
    """Writes a volume [D, H, W] of integers or float32.

    Args:
        like: the geometry of the image that the values belong to. A NIfTI file gets this image's
            affine, header, orientation and shape.
        suffix: of VOLUME_SUFFIXES, the format; None: that of the path.

    ValueError for another shape than the image's, UserError for NIfTI when the image was none.
    """
    if values.shape != like.shape:
        raise ValueError(f"values {values.shape} do not have the image's shape {like.shape}")
    suffix = suffix or volume_suffix(path)
    if suffix in NIFTI_SUFFIXES:
        write_nifti(path, values, like, suffix)
    elif suffix in TIFF_SUFFIXES:
        pages = [Image.fromarray(page) for page in values]
        options = {"format": "TIFF", "compression": "tiff_deflate"}
        pages[0].save(path, save_all=True, append_images=pages[1:], **options)
    else:
        with open(path, "wb") as file:
            np.save(file, values)

"""NIfTI files: read in one orientation, and written in that of another file.

Right, anterior and superior are the canonical directions of the axes x, y and z. Volumes are
[C, D, H, W] with D along z, H along y and W along x.
"""

import gzip
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np

from .errors import UserError
from .volumes import Geometry

NIFTI2_HEADER = 540  # bytes, which a file of version 2 begins with


def import_nibabel() -> ModuleType:
    """The package that reads NIfTI; UserError if it is not installed."""
    try:
        import nibabel
    except ImportError:
        raise UserError("NIfTI volumes need the package nibabel: pip install nibabel") from None
    return nibabel


def read_nifti(path: Path) -> tuple[np.ndarray, Geometry]:
    """(the numbers [C, D, H, W] as they are stored, the geometry) of a file.

    The channels are on the fourth axis, or on the fifth. UserError, ValueError and what gzip raises
    for a file that cannot be read.
    """
    nibabel = import_nibabel()
    image = load_nifti(path)
    values = np.asanyarray(image.dataobj)
    while values.ndim > 3 and values.shape[3] == 1:  # time, or nothing
        values = values.squeeze(3)
    if values.ndim not in (3, 4) or 0 in values.shape:
        raise UserError(f"{path}: has the shape {image.shape}; a volume has three axes, or four")
    if values.dtype.kind not in "buif":
        raise UserError(
            f"{path}: holds {image.get_data_dtype()}; a volume holds real numbers, with channels "
            "on a fourth axis"
        )
    orientation, affine = canonical_axes(path, image)
    values = nibabel.apply_orientation(values, orientation)
    if values.ndim == 3:
        values = values[..., None]
    values = values.transpose(3, 2, 1, 0)
    return values, Geometry(values.shape[1:], spacing_of(affine), affine, image.header)


def canonical_axes(path: Path, image: object) -> tuple[np.ndarray, np.ndarray]:
    """(the turn from the stored axes to right, anterior, superior; the affine after it).

    UserError if the affine of the nibabel image is not invertible.
    """
    nibabel = import_nibabel()
    spacing, orientation = nibabel.affines.voxel_sizes(image.affine), None
    if np.isfinite(image.affine).all() and spacing.min() > 0:
        orientation = nearest_axes(image.affine)
    if orientation is None or np.isnan(orientation).any():
        raise UserError(f"{path}: its affine has an axis without length; correct the header")
    turn = nibabel.orientations.inv_ornt_aff(orientation, image.shape[:3])
    return orientation, image.affine @ turn


def nearest_axes(affine: np.ndarray) -> np.ndarray:
    """nibabel's orientation [3, 2] of an affine whose axes have lengths.

    Directions are rounded: at 45° between two axes the image and its label, whose headers differ in
    the last digit, must be turned alike.
    """
    nibabel, rounded = import_nibabel(), np.eye(4)
    rounded[:3, :3] = np.round(affine[:3, :3] / nibabel.affines.voxel_sizes(affine), 4)
    return nibabel.io_orientation(rounded)


def spacing_of(affine: np.ndarray) -> tuple[float, float, float]:
    """The size (D, H, W) of a voxel, from a canonical affine."""
    return tuple(import_nibabel().affines.voxel_sizes(affine)[::-1].tolist())


def load_nifti(path: Path) -> object:
    """The nibabel image in the file, all of which is in memory.

    The whole of a .gz is unpacked: only its end shows whether it is complete and undamaged.
    """
    nibabel = import_nibabel()
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rb") as file:
        content = file.read()
    kind = nibabel.Nifti1Image
    if NIFTI2_HEADER in (int.from_bytes(content[:4], order) for order in ("little", "big")):
        kind = nibabel.Nifti2Image
    try:
        return kind.from_bytes(content)
    except (nibabel.spatialimages.HeaderDataError, nibabel.wrapstruct.WrapStructError) as error:
        raise ValueError(error) from None


def nifti_spacing(path: str | Path) -> tuple[float, float, float] | None:
    """spacing_of() the header of a file; None where only reading all of it says what is wrong."""
    nibabel = import_nibabel()
    wrong = nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError
    wrong += OSError, EOFError, ValueError, zlib.error, nibabel.wrapstruct.WrapStructError
    try:
        image = nibabel.load(path)
        return spacing_of(canonical_axes(path, image)[1])
    except wrong:
        return None


def describe_nifti(path: str | Path) -> str:
    """The type and the orientation of a file, such as "NIfTI int16 LPS"."""
    nibabel = import_nibabel()
    image = nibabel.load(path)
    return f"NIfTI {image.get_data_dtype()} {''.join(nibabel.aff2axcodes(image.affine))}"


def write_nifti(path: str | Path, values: np.ndarray, like: Geometry, suffix: str) -> None:
    """Writes [D, H, W] as NIfTI, turned back to the orientation of the image's file."""
    if like.header is None:
        raise UserError(f"{path}: the image is no NIfTI file, so its prediction cannot be one")
    nibabel, header = import_nibabel(), like.header.copy()
    affine = header.get_best_affine()
    canonical = np.stack([np.arange(3), np.ones(3)], axis=1)
    back = nibabel.orientations.ornt_transform(canonical, nearest_axes(affine))
    values = nibabel.apply_orientation(values.transpose(2, 1, 0), back)
    header.set_data_dtype(values.dtype)
    header["cal_min"] = header["cal_max"] = 0  # the range in which the image is displayed
    kind = nibabel.Nifti1Image
    if isinstance(header, nibabel.Nifti2Header):
        kind = nibabel.Nifti2Image
    image = kind(values, affine, header)
    with open(path, "wb") as file:
        if suffix == ".nii":
            image.to_stream(file)
            return
        # Without name and time the same prediction gives the same bytes.
        with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed:
            image.to_stream(packed)

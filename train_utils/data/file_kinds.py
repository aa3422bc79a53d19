"""The kinds of files that predict.py reads: images, volumes, and labels with ids of objects."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from src.errors import UserError
from src.image_io import IMAGE_SUFFIXES, image_files
from src.volume_io import (
    FORMATS,
    VOLUME_SUFFIXES,
    list_volumes,
    refuse_dicom,
    volume_files,
    volume_suffix,
)
from train_utils.data.folders import visible_folders
from train_utils.data.instance_labels import instance_files


def refuse_volume(path: Path) -> None:
    """UserError if an input of a model for images is a volume."""
    if volume_suffix(path) in (".nii", ".nii.gz", ".npy"):
        raise UserError(
            f"{path}: is a volume, but the weights are of a model for images; give weights of "
            "a unet_3d, or save its slices as PNG"
        )


def check_is_volume(path: Path) -> None:
    """UserError if an input of a model for volumes is something else."""
    if not volume_suffix(path):
        refuse_dicom(path)
        raise UserError(
            f"{path}: is no volume that can be read, and the weights are of a model for "
            f"volumes; {FORMATS}"
        )


@dataclass(frozen=True)
class FileKind:
    """One kind of files.

    noun: what messages call them, in the plural.
    suffixes: of the files.
    files_of: lists those of a folder; UserError if it holds DICOM in their place.
    list_files: the same without the error.
    check: raises UserError for an input that the model cannot take; None: all are taken.
    """

    noun: str
    suffixes: tuple[str, ...]
    files_of: Callable[[Path], list[Path]]
    list_files: Callable[[Path], list[Path]]
    check: Callable[[Path], None] | None = None

    def below(self, folder: Path) -> list[Path]:
        """The files of the folder and its sub-folders, without hidden ones.

        UserError if there are none, but DICOM.
        """
        places = visible_folders(folder)
        paths = [path for place in places for path in self.list_files(place)]
        if not paths:
            for place in places:
                self.files_of(place)
        return paths


IMAGES = FileKind("images", tuple(sorted(IMAGE_SUFFIXES)), image_files, image_files, refuse_volume)
VOLUMES = FileKind("volumes", VOLUME_SUFFIXES, volume_files, list_volumes, check_is_volume)
# Labels alone: ids of objects, as an image, an array, or a folder with one mask an object.
INSTANCES = FileKind("labels", (*IMAGES.suffixes, ".npy"), instance_files, instance_files)

INPUTS_OF_DIMS = {2: IMAGES, 3: VOLUMES}  # what a model of so many dimensions takes

"""Folders without files that can be read: what they hold instead, and what to give."""

from collections.abc import Callable, Container
from pathlib import Path

from src.errors import UserError
from src.image_io import IMAGE_SUFFIXES, image_files
from src.volume_io import VOLUME_SUFFIXES, volume_files, volume_suffix


def refuse_unreadable(
    folder: Path | None, list_files: Callable[[Path], list[Path]] = image_files
) -> None:
    """UserError if the folder has files, of which `list_files` finds none; None is no folder.

    list_files: image_files or volume_files.
    """
    if not folder or list_files(folder) or not visible_files(folder):
        return
    if list_files is volume_files:
        refuse_images(folder)
    else:
        refuse_volumes(folder)


def refuse_inner_folder(root: Path, names: Container[str]) -> None:
    """UserError if the folder of --data-path has one of the names: it is one level too deep."""
    path = root.resolve()
    if path.name in names and path.is_dir():
        raise UserError(
            f"{root}: is the folder {path.name}/ itself; --data-path must name the folder that "
            f"contains it: {path.parent}"
        )


def refuse_empty(folder: Path, list_files: Callable[[Path], list[Path]] = image_files) -> None:
    """UserError because there is no image or volume in the folder, or no such folder."""
    noun = "volumes" if list_files is volume_files else "images"
    raise UserError(
        f"{folder}: no {noun} there; --data-path must name a folder with images/ and masks/ or "
        "instances/ (and roi/ if pixels are to be ignored), or with train/images/, train/masks/ "
        "and the same for val and test"
    )


def refuse_images(folder: Path) -> None:
    """UserError for a folder without volumes."""
    remedy = "save each volume as one of these"
    if image_files(folder):
        remedy = "for images give --dataset folder, without --model unet_3d"
    endings = ", ".join(VOLUME_SUFFIXES)
    raise UserError(f"{folder}: no volumes there, which end in {endings}; {remedy}")


def refuse_volumes(folder: Path) -> None:
    """UserError for a folder without images."""
    remedy = "save each image as one of these"
    if any(volume_suffix(path) for path in visible_files(folder)):
        remedy = "for volumes give --model unet_3d, without --dataset folder"
    endings = ", ".join(sorted(IMAGE_SUFFIXES))
    raise UserError(f"{folder}: no images there, which end in {endings}; {remedy}")


def visible_files(folder: Path) -> list[Path]:
    """The files in the folder, without hidden ones and sub-folders."""
    return [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]

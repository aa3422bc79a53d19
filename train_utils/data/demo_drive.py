"""Writes a small synthetic dataset in DRIVE's layout, to try the code without real images."""

from pathlib import Path

import numpy as np
from PIL import Image

from train_utils.data.demo_images import draw_fundus


def write_demo_drive(
    root: str | Path,
    num_training: int = 20,
    num_test: int = 8,
    size: tuple[int, int] = (292, 282),
    seed: int = 0,
) -> Path:
    """Writes a synthetic dataset in DRIVE's layout to root/DRIVE and returns root as a Path.

    size: (height, width) in pixels, each at least 64.

    Training images are numbered from 21, test images from 01, as in DRIVE. An image depends only
    on (seed, its number, size). A complete dataset is left as it is, an incomplete one is
    completed. Nothing is deleted, and only files of a dataset with the same parameters are written
    again.

    FileExistsError if root/DRIVE holds anything else. ValueError for a size below 64 pixels, a
    negative number or seed, or num_test > 20 (number 21 is a training image).
    """
    size = (int(size[0]), int(size[1]))
    if min(size) < 64 or num_training < 0 or not 0 <= num_test <= 20 or seed < 0:
        raise ValueError(
            "need size at least (64, 64), num_training >= 0, 0 <= num_test <= 20 and seed >= 0, "
            f"got {size}, {num_training}, {num_test} and {seed}"
        )
    folder = Path(root) / "DRIVE"
    marker = folder / "demo.txt"
    # Demo datasets on users' disks are recognized by this very text.
    complete = f"synthetic demo set: {num_training=} {num_test=} {size=} {seed=}\n"
    unfinished = "unfinished " + complete
    found = marker.read_text() if marker.exists() else "no demo.txt"
    if folder.exists() and any(folder.iterdir()) and found not in (complete, unfinished):
        raise FileExistsError(
            f"{folder} holds other files than this demo dataset ({found.strip()}); "
            "they are left untouched: move the folder away"
        )
    paths = {}
    for number in range(21, 21 + num_training):
        paths[number] = sample_paths(folder, "training", number)
    for number in range(1, 1 + num_test):
        paths[number] = sample_paths(folder, "test", number)
    if found == complete and all(path.exists() for three in paths.values() for path in three):
        return Path(root)
    folder.mkdir(parents=True, exist_ok=True)
    # The marker says "unfinished" to the end, so that an interrupted dataset is completed later.
    marker.write_text(unfinished)
    for number, three in paths.items():
        save_sample(draw_fundus(np.random.default_rng([seed, number]), size), three)
    marker.write_text(complete)
    return Path(root)


def refuse_other_files(root: Path) -> None:
    """FileExistsError if the folder holds files, but no demo dataset."""
    if (root / "DRIVE" / "demo.txt").exists() or not root.exists():
        return
    if any(root.iterdir()):
        raise FileExistsError(
            f"{root} holds other files than the demo's; they are left untouched: give another "
            "--data-path"
        )


def sample_paths(folder: Path, split: str, number: int) -> tuple[Path, Path, Path]:
    """Paths of a sample's image, vessel label and field-of-view mask, as DRIVE names them."""
    return (
        folder / split / "images" / f"{number:02d}_{split}.tif",
        folder / split / "1st_manual" / f"{number:02d}_manual1.gif",
        folder / split / "mask" / f"{number:02d}_{split}_mask.gif",
    )


def save_sample(arrays: tuple[np.ndarray, ...], paths: tuple[Path, ...]) -> None:
    """Writes the three arrays of draw_fundus() to the three sample_paths()."""
    for array, path in zip(arrays, paths, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        # A GIF's optimized palette would store 255 as index 1; without it, 0 and 255 are stored.
        Image.fromarray(array).save(path, optimize=False)

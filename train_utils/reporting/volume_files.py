"""The files that predict.py writes for each volume: masks, probabilities, overlays."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from src.volume_io import volume_suffix, write_volume
from src.volumes import Geometry
from train_utils.atomic import replacing
from train_utils.data.inputs import Input
from train_utils.reporting.image_files import Strip
from train_utils.reporting.pictures import as_rgb, enlarged, overlay
from train_utils.reporting.png import NpyWriter, naming
from train_utils.reporting.slices import slices_of

OVERLAY_WIDTH = 256  # px, at least; smaller overlays are enlarged


class VolumeFiles:
    """Writes the requested files of each volume. A file appears when it is complete.

    Args:
        folder: output folder. The files of a volume `name` are folder/name_mask.nii.gz and so on,
            in the format of the input; NIfTI is compressed.
        class_names: of all classes.
        colours: [K, 3] uint8 of the classes.
        class_ids: the stored id of each class.
        spacing: size of a voxel (D, H, W), for overlays of volumes that do not say theirs.
        save_prob: also write the probabilities.
        save_overlay: also write three slices with the prediction over the volume.
    """

    def __init__(
        self,
        folder: str | Path,
        class_names: Sequence[str],
        colours: Sequence,
        class_ids: Sequence[int],
        spacing: Sequence[float],
        save_prob: bool = False,
        save_overlay: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.class_names, self.class_ids = list(class_names), list(class_ids)
        self.colours, self.spacing = np.asarray(colours, np.uint8), spacing
        self.save_prob, self.save_overlay = save_prob, save_overlay

    def mask_path(self, source: Input) -> Path:
        """Where the mask of a volume goes."""
        return self.folder / f"{source.name}_mask{output_suffix(source.path)}"

    def prob_path(self, source: Input) -> Path:
        """Where its probabilities go."""
        suffix = output_suffix(source.path) if len(self.class_names) == 2 else ".npy"
        return self.folder / f"{source.name}_prob{suffix}"

    def overlay_path(self, source: Input) -> Path:
        """Where the slices with the prediction go."""
        return self.folder / f"{source.name}_overlay.png"

    def optional_paths(self, source: Input) -> dict[str, Path]:
        """{flag: path} of the requested files beside the mask."""
        paths = {}
        if self.save_prob:
            paths["save_prob"] = self.prob_path(source)
        if self.save_overlay:
            paths["overlay"] = self.overlay_path(source)
        return paths

    def are_complete(self, source: Input) -> bool:
        """Whether all requested files of the volume exist."""
        paths = self.mask_path(source), *self.optional_paths(source).values()
        return all(path.exists() for path in paths)

    def write(
        self, source: Input, image: Tensor, geometry: Geometry, strips: Iterable[Strip]
    ) -> np.ndarray:
        """Writes the files of one volume, and returns the voxels of each class, int64 [K].

        image: float [C, D, H, W]. geometry: that of the input. strips: slices from first to last
        (slices, class ids uint8 [d, H, W], probabilities float32 [K, d, H, W]). UserError if a
        file cannot be written.
        """
        self.mask_path(source).parent.mkdir(parents=True, exist_ok=True)
        classes = len(self.class_names)
        voxels, mask = np.zeros(classes, np.int64), np.empty(geometry.shape, np.uint8)
        path = self.prob_path(source)
        with ProbabilityFile(path, classes, geometry, self.save_prob) as probabilities:
            for part, ids, probs in strips:
                voxels += np.bincount(ids.ravel(), minlength=classes)
                mask[part] = ids
                probabilities.add(part, probs)
        self._write_mask(source, mask, geometry)
        if self.save_overlay:
            self._write_overlay(source, image, mask, geometry)
        return voxels

    def _write_mask(self, source: Input, mask: np.ndarray, geometry: Geometry) -> None:
        """Writes the ids of the classes, in the space of the input."""
        ids = np.array(self.class_ids)
        ids = ids.astype(np.uint8 if ids.max() < 256 else np.uint16)
        path = self.mask_path(source)
        with naming(path), replacing(path) as temporary:
            write_volume(temporary, ids[mask], geometry, output_suffix(source.path))

    def _write_overlay(
        self, source: Input, image: Tensor, mask: np.ndarray, geometry: Geometry
    ) -> None:
        """Writes three slices through the prediction, in the classes' colours."""
        classes = torch.from_numpy(mask)
        slices = slices_of(image, classes, classes, geometry.spacing or self.spacing)
        drawn = overlay(as_rgb(slices.image), slices.prediction.numpy(), self.colours)
        picture = slices.on_white(drawn)
        picture = enlarged(picture, math.ceil(OVERLAY_WIDTH / picture.shape[1]))
        path = self.overlay_path(source)
        with naming(path), replacing(path) as temporary:
            Image.fromarray(picture).save(temporary, "PNG")


class ProbabilityFile:
    """x_prob of a volume, written strip by strip.

    With two classes the probability of class 1, as a float32 volume in the input's space. With more
    float16 [K, D, H, W] in a .npy file, which is on the disk, not in memory. D runs from inferior
    to superior, H from posterior to anterior, W from left to right.

    Args:
        path: of the file.
        classes: their number.
        geometry: that of the input.
        wanted: False: nothing is written.
    """

    def __init__(self, path: Path, classes: int, geometry: Geometry, wanted: bool) -> None:
        self.path, self.classes, self.geometry, self.wanted = path, classes, geometry, wanted
        self.values = self.writer = None

    def __enter__(self) -> "ProbabilityFile":
        if self.wanted and self.classes == 2:
            self.values = np.empty(self.geometry.shape, np.float32)
        elif self.wanted:
            self.writer = NpyWriter(self.path, self.classes, *self.geometry.shape)
            self.writer.__enter__()
        return self

    def add(self, part: slice, probs: np.ndarray | None) -> None:
        """Adds the next slices: probs [K, d, H, W]; None if nothing is written."""
        if self.writer:
            self.writer.write(probs)
        elif self.values is not None:
            self.values[part] = probs[1]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.writer:
            self.writer.__exit__(kind, error, trace)
        elif self.values is not None and error is None:
            with naming(self.path), replacing(self.path) as temporary:
                write_volume(temporary, self.values, self.geometry, volume_suffix(self.path))


def output_suffix(path: Path) -> str:
    """The format of what is written for an input."""
    suffix = volume_suffix(path)
    if suffix == ".nii":
        return ".nii.gz"
    if suffix == ".tiff":
        return ".tif"
    return suffix

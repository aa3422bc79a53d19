"""predict.py on volumes: a volume in, a volume of class ids out, in the space of the input."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from src.errors import UserError
from src.inference import decide, predict_strips
from src.tiles import Tiling
from src.volume_io import (
    FORMATS,
    VOLUME_SUFFIXES,
    read_volume,
    refuse_dicom,
    volume_files,
    volume_suffix,
    write_volume,
)
from src.volumes import (
    Geometry,
    Strips,
    normalize_volume,
    resampled_shape,
    resampled_strips,
    resize_volume,
    size_text,
)
from train_utils.atomic import replacing
from train_utils.data.inputs import FileKind
from train_utils.data.volumes import read_roi
from train_utils.metrics import check_finite
from train_utils.reporting.pictures import overlay
from train_utils.reporting.slices import slices_of


@dataclass(frozen=True)
class VolumePredictor:
    """How volumes are segmented, and what is written for each.

    Args:
        model: in eval mode, on the device.
        checkpoint: of the model; says its classes, their ids and colours, and its voxels.
        threshold: on the probability of class 1, for two classes.
        output: the folder.
        save_prob, overlay: also write probabilities, a picture of three slices.
    """

    model: nn.Module
    checkpoint: dict
    device: torch.device
    amp_dtype: torch.dtype | None
    threshold: float
    output: Path
    save_prob: bool = False
    overlay: bool = False
    tiling: Tiling | None = None

    def __call__(self, path: Path, name: str, roi_path: Path | None = None) -> np.ndarray:
        """Segments the volume, writes its files, prints a line; returns the classes [D, H, W].

        name: that of the outputs, without their endings. Outside the ROI all is background.
        """
        start = time.perf_counter()
        channels = self.checkpoint["model_kwargs"]["in_channels"]
        values, geometry = read_volume(path, channels)
        roi = None
        if roi_path:
            roi = torch.from_numpy(read_roi(roi_path, path, geometry))
        image = normalize_volume(torch.from_numpy(values), roi)
        mask = np.empty(geometry.shape, np.uint8)
        with ProbabilityFile(self, path, name, geometry) as probabilities:
            for part, probs in self.strips(image, geometry):
                check_finite(probs)
                if roi is not None:
                    probs[0, ~roi[part]] = 1
                    probs[1:, ~roi[part]] = 0
                mask[part] = decide(probs[None], self.threshold)[0].numpy()
                probabilities.add(part, probs)
        seconds = time.perf_counter() - start
        target = self.save(path, name, mask, geometry)
        if self.overlay:
            self.save_overlay(name, image, mask, geometry)
        self.report(path, target, mask, seconds)
        return mask

    def strips(self, image: Tensor, geometry: Geometry) -> Strips:
        """Probabilities on the CPU, slices after slices, at the volume's own size."""
        spacing = self.checkpoint["spacing"]
        shape = resampled_shape(geometry.shape, geometry.spacing or spacing, spacing)
        if shape:
            image = resize_volume(image, shape)
        strips = predict_strips(self.model, image, self.device, self.amp_dtype, self.tiling)
        strips = ((part, probs.cpu()) for part, probs in strips)
        if shape:
            return resampled_strips(strips, shape, geometry.shape)
        return strips

    def file(self, name: str, ending: str, suffix: str) -> Path:
        """The output file of the volume `name`; makes its folder."""
        path = self.output / f"{name}_{ending}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def save(self, path: Path, name: str, mask: np.ndarray, geometry: Geometry) -> Path:
        """Writes x_mask in the format of the input, NIfTI compressed: the ids of the classes."""
        ids = np.array(self.checkpoint["class_ids"])
        ids = ids.astype(np.uint8 if ids.max() < 256 else np.uint16)
        suffix = output_suffix(path)
        target = self.file(name, "mask", suffix)
        with replacing(target) as temporary:
            write_volume(temporary, ids[mask], geometry, suffix)
        return target

    def save_overlay(self, name: str, image: Tensor, mask: np.ndarray, geometry: Geometry) -> None:
        """Writes x_overlay.png: three slices through the prediction, in the classes' colours."""
        classes = torch.from_numpy(mask)
        spacing = geometry.spacing or self.checkpoint["spacing"]
        grey, classes, _ = slices_of(image, classes, classes, spacing)
        picture = grey[0].numpy()[..., None].repeat(3, axis=2)
        colours = np.array(self.checkpoint["class_colours"], np.uint8)
        with replacing(self.file(name, "overlay", ".png")) as temporary:
            Image.fromarray(overlay(picture, classes.numpy(), colours)).save(temporary, "PNG")

    def report(self, path: Path, target: Path, mask: np.ndarray, seconds: float) -> None:
        """Prints what was written for an input, and the share of each class."""
        names = self.checkpoint["class_names"]
        shares = 100 * np.bincount(mask.ravel(), minlength=len(names)) / mask.size
        text = ", ".join(f"{name} {share:.1f} %" for name, share in zip(names, shares, strict=True))
        print(f"{path} -> {target}  {size_text(mask.shape)}  {seconds:.2f} s  {text}", flush=True)


class ProbabilityFile:
    """x_prob of a volume, written strip by strip.

    Of two classes the probability of class 1 as a float32 volume in the input's space; of more
    float16 [K, D, H, W] in a .npy file, which is on the disk, not in memory. D runs from inferior
    to superior, H from posterior to anterior, W from left to right.
    """

    def __init__(
        self, predictor: VolumePredictor, path: Path, name: str, geometry: Geometry
    ) -> None:
        self.wanted, self.geometry = predictor.save_prob, geometry
        self.classes = len(predictor.checkpoint["class_names"])
        self.suffix = output_suffix(path) if self.classes == 2 else ".npy"
        self.target = predictor.file(name, "prob", self.suffix)
        self.partial = self.target.with_name(f".{self.target.name}.part")
        self.values = None

    def __enter__(self) -> "ProbabilityFile":
        if self.wanted and self.classes == 2:
            self.values = np.empty(self.geometry.shape, np.float32)
        elif self.wanted:
            shape = self.classes, *self.geometry.shape
            self.values = np.lib.format.open_memmap(self.partial, "w+", np.float16, shape)
        return self

    def add(self, part: slice, probs: Tensor) -> None:
        """Adds slices: probs [K, d, H, W]."""
        if self.values is None:
            return
        if self.classes == 2:
            self.values[part] = probs[1].numpy()
        else:
            self.values[:, part] = probs.numpy()

    def __exit__(self, kind: type | None, *error: object) -> None:
        if self.values is None:
            return
        if self.classes > 2:
            self.values.flush()
            if kind is None:
                self.partial.replace(self.target)
            self.partial.unlink(missing_ok=True)
        elif kind is None:
            with replacing(self.target) as temporary:
                write_volume(temporary, self.values, self.geometry, self.suffix)


# --- files ----------------------------------------------------------------------------------------


VOLUMES = FileKind("volumes", VOLUME_SUFFIXES, volume_files)


def check_are_volumes(paths: Iterable[Path]) -> None:
    """UserError if one of the inputs of a model for volumes is something else."""
    for path in paths:
        if not volume_suffix(path):
            refuse_dicom(path)
            raise UserError(
                f"{path}: is no volume that can be read, and the weights are of a model for "
                f"volumes; {FORMATS}"
            )


def refuse_volumes(paths: Iterable[Path]) -> None:
    """UserError if one of the inputs of a model for images is a volume."""
    for path in paths:
        if volume_suffix(path) in (".nii", ".nii.gz", ".npy"):
            raise UserError(
                f"{path}: is a volume, but the weights are of a model for images; give weights of "
                "a unet_3d, or save its slices as PNG"
            )


def output_suffix(path: Path) -> str:
    """The format of what is written for an input."""
    suffix = volume_suffix(path)
    if suffix == ".nii":
        return ".nii.gz"
    if suffix == ".tiff":
        return ".tif"
    return suffix

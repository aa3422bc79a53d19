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
from src.image_io import IGNORE
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
from train_utils.data.class_table import ClassTable
from train_utils.data.inputs import FileKind
from train_utils.data.reading import Job
from train_utils.data.volumes import read_roi, read_target
from train_utils.metrics import SegmentationCounts, check_finite
from train_utils.reporting.pictures import as_rgb, overlay
from train_utils.reporting.slices import slices_of
from train_utils.reporting.volume_files import ProbabilityFile
from train_utils.volume_results import VolumeScores, VolumeTable


@dataclass(frozen=True)
class VolumePredictor:
    """How volumes are segmented, and what is written for each.

    Args:
        model: in eval mode, on the device.
        checkpoint: of the model; says its classes, their ids and colours, and its voxels.
        threshold: on the probability of class 1, for two classes.
        output: the folder.
        save_prob, overlay: also write probabilities, a picture of three slices.
        table: gets a row for each volume.
        scores: get the counts of each volume that has a label.
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
    table: VolumeTable | None = None
    scores: VolumeScores | None = None

    def __call__(
        self, path: Path, name: str, roi_path: Path | None = None, label_path: Path | None = None
    ) -> np.ndarray:
        """Segments the volume, writes its files, prints a line; returns the classes [D, H, W].

        name: that of the outputs, without their endings. Outside the ROI all is background, and
        nothing is scored.
        """
        start = time.perf_counter()
        channels = self.checkpoint["model_kwargs"]["in_channels"]
        values, geometry = read_volume(path, channels)
        roi = target = None
        if roi_path:
            roi = torch.from_numpy(read_roi(roi_path, path, geometry))
        if label_path:
            target = self.read_label(label_path, path, geometry, roi)
        image = normalize_volume(torch.from_numpy(values), roi)
        mask = np.empty(geometry.shape, np.uint8)
        counts = SegmentationCounts(len(self.checkpoint["class_names"]))
        with self.probability_file(path, name, geometry) as probabilities:
            for part, probs in self.strips(image, geometry):
                check_finite(probs, path)
                if target is not None:
                    counts.add_strip(target[part], decide(probs[None])[0], probs)
                if roi is not None:
                    probs[0, ~roi[part]] = 1
                    probs[1:, ~roi[part]] = 0
                mask[part] = decide(probs[None], self.threshold)[0].numpy()
                probabilities.add(part, probs)
        seconds = time.perf_counter() - start
        self.save(path, name, mask, geometry)
        if self.overlay:
            self.save_overlay(name, image, mask, geometry)
        if target is not None:
            counts.end_image()
            self.scores.add(name, counts)
        self.report(path, name, mask, seconds)
        return mask

    def predict_all(self, jobs: Iterable[Job]) -> dict[str, str]:
        """Segments the volumes, each with its ROI and its label, if there are any.

        Returns {path: reason} of those that cannot be used.
        """
        failed = {}
        for job in jobs:
            try:
                self(job.input.path, job.input.name, job.roi_path, job.label_path)
            except UserError as error:
                failed[str(job.input.path)] = str(error)
        return failed

    def read_label(
        self, label_path: Path, path: Path, geometry: Geometry, roi: Tensor | None
    ) -> Tensor:
        """The label of the volume, as read in training; voxels outside the ROI are ignored."""
        classes = ClassTable.from_dict(self.checkpoint["class_table"])
        target, encoding = read_target(label_path, classes, path, geometry)
        self.scores.encodings.setdefault(encoding, [0, label_path])[0] += 1
        target = torch.from_numpy(target)
        if roi is None:
            return target
        return target.masked_fill(~roi, IGNORE)

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

    def is_done(self, job: Job) -> bool:
        """Whether the volume has its row in the table and all its files, which appear whole."""
        path, name = job.input.path, job.input.name
        files = [self.file(name, "mask", output_suffix(path))]
        if self.save_prob:
            files.append(self.prob_path(path, name))
        if self.overlay:
            files.append(self.file(name, "overlay", ".png"))
        return name in self.table and all(file.exists() for file in files)

    def prob_path(self, path: Path, name: str) -> Path:
        """Where the probabilities of an input go."""
        two_classes = len(self.checkpoint["class_names"]) == 2
        return self.file(name, "prob", output_suffix(path) if two_classes else ".npy")

    def probability_file(self, path: Path, name: str, geometry: Geometry) -> ProbabilityFile:
        """The file that gets the probabilities of an input, if they are wanted."""
        classes = len(self.checkpoint["class_names"])
        return ProbabilityFile(self.prob_path(path, name), classes, geometry, self.save_prob)

    def file(self, name: str, ending: str, suffix: str) -> Path:
        """The output file of the volume `name`; makes its folder."""
        path = self.output / f"{name}_{ending}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def save(self, path: Path, name: str, mask: np.ndarray, geometry: Geometry) -> None:
        """Writes x_mask in the format of the input, NIfTI compressed: the ids of the classes."""
        ids = np.array(self.checkpoint["class_ids"])
        ids = ids.astype(np.uint8 if ids.max() < 256 else np.uint16)
        suffix = output_suffix(path)
        with replacing(self.file(name, "mask", suffix)) as temporary:
            write_volume(temporary, ids[mask], geometry, suffix)

    def save_overlay(self, name: str, image: Tensor, mask: np.ndarray, geometry: Geometry) -> None:
        """Writes x_overlay.png: three slices through the prediction, in the classes' colours."""
        classes = torch.from_numpy(mask)
        spacing = geometry.spacing or self.checkpoint["spacing"]
        slices = slices_of(image, classes, classes, spacing)
        colours = np.array(self.checkpoint["class_colours"], np.uint8)
        picture = overlay(as_rgb(slices.image), slices.prediction.numpy(), colours)
        with replacing(self.file(name, "overlay", ".png")) as temporary:
            Image.fromarray(slices.on_white(picture)).save(temporary, "PNG")

    def report(self, path: Path, name: str, mask: np.ndarray, seconds: float) -> None:
        """Prints what was written for an input, and the share of each class; adds its row."""
        names = self.checkpoint["class_names"]
        shares = np.bincount(mask.ravel(), minlength=len(names)) / mask.size
        if self.table is not None:
            self.table.add(name, shares, mask.shape, seconds)
        text = ", ".join(f"{each} {100 * n:.1f} %" for each, n in zip(names, shares, strict=True))
        written = self.file(name, "mask", output_suffix(path))
        print(f"{path} -> {written}  {size_text(mask.shape)}  {seconds:.2f} s  {text}", flush=True)


# --- files ----------------------------------------------------------------------------------------


VOLUMES = FileKind("volumes", VOLUME_SUFFIXES, volume_files)


def check_kind(paths: Iterable[Path], dims: int) -> None:
    """UserError if one of the inputs is no volume for a model of 3 dimensions, or one for 2."""
    for path in paths:
        if dims == 3:
            check_is_volume(path)
        else:
            refuse_volume(path)


def check_is_volume(path: Path) -> None:
    """UserError if an input of a model for volumes is something else."""
    if not volume_suffix(path):
        refuse_dicom(path)
        raise UserError(
            f"{path}: is no volume that can be read, and the weights are of a model for "
            f"volumes; {FORMATS}"
        )


def refuse_volume(path: Path) -> None:
    """UserError if an input of a model for images is a volume."""
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

"""predict.py on volumes: a volume in, a volume of class ids out, in the space of the input."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from src.errors import UserError
from src.predictor import Predictor
from src.volumes import Strips, resampled_shape, resampled_strips, resize_volume, size_text
from train_utils.data.inputs import Job
from train_utils.data.reading import Scan
from train_utils.prediction import finished_strips
from train_utils.prediction_scores import VolumeScores
from train_utils.reporting.prediction_summary import shares_text
from train_utils.reporting.prediction_tables import VolumeTable
from train_utils.reporting.volume_files import VolumeFiles

MAX_GROWTH = 100  # times its voxels that a volume may be resampled to; more is a wrong header


@dataclass(frozen=True)
class VolumePredictor:
    """How volumes are segmented, and what is written for each.

    predictor: the model, on the device.
    read: reads the files of a job.
    spacing: size of the voxels (D, H, W) that the model sees; volumes are resampled to them.
    threshold: on the probability of class 1, for two classes.
    files: writes the masks and what else was asked for.
    table: gets a row for each volume.
    scores: get the counts of each volume; None without labels.
    """

    predictor: Predictor
    read: Callable[[Job], Scan]
    spacing: Sequence[float]
    threshold: float
    files: VolumeFiles
    table: VolumeTable
    scores: VolumeScores | None = None

    def is_done(self, job: Job) -> bool:
        """Whether the volume has its row in the table and all its files."""
        return job.input.name in self.table and self.files.are_complete(job.input)

    def outputs_of(self, job: Job) -> dict[str, str]:
        """{flag: name} of the files that are written beside the mask."""
        return {flag: path.name for flag, path in self.files.optional_paths(job.input).items()}

    def predict_all(self, jobs: Iterable[Job]) -> dict[str, str]:
        """Segments and writes all volumes; returns {path: reason} of those that failed."""
        failed = {}
        for job in jobs:
            try:
                self.segment(job)
            except UserError as error:
                failed[str(job.input.path)] = str(error)
        return failed

    def segment(self, job: Job) -> None:
        """Segments one volume, writes its files, adds its row to the table, and prints a line."""
        start = time.perf_counter()
        scan = self.read(job)
        strips = self.predict_strips(scan)
        keep_probs = self.files.save_prob
        strips = finished_strips(strips, scan, self.threshold, self.scores, keep_probs)
        voxels = self.files.write(job.input, scan.image, scan.geometry, strips)
        seconds = time.perf_counter() - start
        shape = scan.geometry.shape
        self.table.add(job.input.name, shape, voxels, seconds)
        line = f"{job.input.path} -> {self.files.mask_path(job.input)}  {size_text(shape)}  "
        text = shares_text(self.files.class_names, voxels)
        print(f"{line}{seconds:.2f} s  {text}", flush=True)

    def predict_strips(self, scan: Scan) -> Strips:
        """Probabilities on the CPU, slices after slices, at the volume's own size.

        UserError for a volume that check_growth() refuses.
        """
        image, own = scan.image, scan.geometry
        shape = resampled_shape(own.shape, own.spacing or self.spacing, self.spacing)
        if shape:
            check_growth(scan, shape, self.spacing)
            image = resize_volume(image, shape)
        strips = self.predictor.predict_strips(image)
        strips = ((part, probs.cpu()) for part, probs in strips)
        if shape:
            return resampled_strips(strips, shape, own.shape)
        return strips


def check_growth(scan: Scan, shape: Sequence[int], spacing: Sequence[float]) -> None:
    """UserError if the volume, resampled to `shape` by voxels of `spacing`, grows absurdly."""
    growth = math.prod(shape) / math.prod(scan.geometry.shape)
    if growth > MAX_GROWTH:
        own, models = (
            "×".join(f"{size:.5g}" for size in each) for each in (scan.geometry.spacing, spacing)
        )
        raise UserError(
            f"{scan.job.input.path}: has voxels of {own} mm, the model {models} mm; resampled to "
            f"those it would have {growth:,.0f} times as many; correct the voxel size in its "
            "header, which may be in micrometres"
        )

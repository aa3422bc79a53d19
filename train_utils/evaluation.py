"""How images are evaluated, and the final evaluation, on the test images.

The functions are handed values, datasets and loaders; they know no flags.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from src.inference import Flips, optimize_for_inference
from src.tiles import Tiling
from train_utils.distributed_utils import is_main_process, log
from train_utils.metrics import SegmentationCounts, summarize
from train_utils.reporting import report, text_files
from train_utils.reporting.grids import draw_predictions
from train_utils.reporting.pictures import as_rgb, with_default_colours
from train_utils.reporting.provenance import provenance
from train_utils.reporting.report_data import ReportData
from train_utils.train_and_eval import evaluate


@dataclass(frozen=True)
class Evaluator:
    """How models are evaluated.

    Args:
        device: where the model computes.
        amp_dtype: dtype of autocast, None for full precision.
        tolerance: distance in px of the tolerant F1; 0: none.
        tiling: how large images are cut into tiles.
        make_loader: function of a dataset that gives a loader of its whole images.
    """

    device: torch.device
    amp_dtype: torch.dtype | None
    tolerance: int
    tiling: Tiling
    make_loader: Callable[[Dataset], DataLoader]

    def options(self) -> dict:
        """How evaluate() evaluates: its keyword arguments."""
        return {
            "amp_dtype": self.amp_dtype,
            "tolerance": self.tolerance,
            "tiling": self.tiling,
        }

    def __call__(
        self, model: nn.Module, dataset: Dataset, callback: ReportData | None = None
    ) -> SegmentationCounts:
        """Evaluates the model on the dataset."""
        loader, num_classes = self.make_loader(dataset), len(dataset.classes.names)
        options = self.options()
        counts, _ = evaluate(model, loader, self.device, num_classes, callback=callback, **options)
        return counts

    def check_tiles(self, model: nn.Module) -> None:
        """UserError if the model cannot evaluate in tiles of the size that is asked for."""
        side = self.tiling.size or 1
        self.tiling.grid(model, [1] + [side] * model.dims)

    def prepare(self, model: nn.Module, flips: bool = False) -> nn.Module:
        """The model, averaged over its flips if wanted; see optimize_for_inference()."""
        if flips:
            model = Flips(model)
        return optimize_for_inference(model, self.device)

    def draw(self, model: nn.Module, dataset: Dataset, path: str | Path) -> None:
        """Draws predictions on the first images of the dataset, on rank 0."""
        if is_main_process():
            classes = dataset.classes
            draw_predictions(
                path,
                model,
                dataset,
                self.device,
                self.amp_dtype,
                classes.names,
                with_default_colours(classes.colours),
                tiling=self.tiling,
            )


def log_validation(checkpoint: dict, nouns: tuple[str, str]) -> None:
    """Logs the validation scores of the checkpoint's epoch, if there are any.

    They describe nothing but the choice of the epoch. nouns: see score_table().
    """
    row = next(row for row in checkpoint["history"] if row["epoch"] == checkpoint["epoch"])
    scores = {
        name.removeprefix("val_"): value for name, value in row.items() if name.startswith("val_")
    }
    if scores:
        names, threshold = checkpoint["class_names"], checkpoint["threshold"]
        table = text_files.score_table(scores, names, threshold, nouns)
        log(f"epoch {row['epoch']} on the validation {nouns[0]}, which chose it:\n{table}")


def score_test(
    evaluator: Evaluator,
    model: nn.Module,
    dataset: Dataset,
    threshold: float | None,
    origin: dict,
    start: float,
    output_dir: str | Path,
    report_dir: str | Path = "",
    title: str = "",
) -> None:
    """Evaluates the model on the test dataset, once; writes test_scores.json and prints the scores.

    threshold: the chosen one, scored beside 0.5. origin: result of describe_origin(). start:
    time.perf_counter() at the start of the script. report_dir: folder for report.html, with this
    title, and images.csv; "" for none.
    """
    report_data = collect_report_data(dataset) if report_dir else None
    counts = evaluator(model, dataset, report_data)
    scores = summarize(counts, threshold, choose_threshold=False)
    if is_main_process():
        names = [sample.name for sample in dataset.samples]
        content = {
            **provenance(evaluator.device, evaluator.amp_dtype, time.perf_counter() - start),
            **origin,
            "threshold": threshold,
            "scores": scores,
            "images": text_files.image_rows(names, counts),
        }
        text_files.write_json(Path(output_dir) / "test_scores.json", content)
        if report_data:
            report.save(
                report_dir,
                title,
                content,
                report_data,
                dataset.classes.names,
                lambda index: picture_of(dataset.read(index)[0]),
            )
    log(text_files.score_table(scores, dataset.classes.names, threshold, dataset.nouns))


def picture_of(image: Tensor) -> np.ndarray | Tensor:
    """What the report shows of an image: uint8 [H, W, 3]; of a volume the float [C, D, H, W]."""
    if image.ndim == 4:
        return image
    return as_rgb(image)


def collect_report_data(dataset: Dataset) -> ReportData:
    """What evaluate() fills for the report, with the targets that it compares with.

    These are the dataset's own, the labels of the whole frame without ROI, and the second
    observer's labels, where there are any.
    """
    samples = dataset.samples
    frame = dataset.with_samples([replace(sample, roi=None) for sample in samples])
    second = dataset.with_samples([replace(sample, label=sample.second) for sample in samples])
    indices = range(len(dataset))
    return ReportData(
        len(dataset.classes.names),
        [dataset.read(index)[1] for index in indices],
        [frame.read(index)[1] for index in indices],
        [second.read(index)[1] if samples[index].second else None for index in indices],
        spacing=dataset.spacing,
    )

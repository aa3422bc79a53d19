"""The scores of predictions whose labels are known: what evaluate() computes, while predicting."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from src.inference import decide
from train_utils.data.class_table import ClassTable
from train_utils.metrics import SegmentationCounts, summarize
from train_utils.reporting import text_files
from train_utils.reporting.report_data import ReportData


class PredictionScores:
    """Compares predictions with labels, strip by strip.

    Args:
        classes: of the model.
        with_report: collect what the HTML report shows. It needs the memory for the probabilities
            of a whole image.

    Attributes: `names` of the images so far, and `counts`, their SegmentationCounts.
    """

    def __init__(self, classes: ClassTable, with_report: bool) -> None:
        self.class_names = list(classes.names)
        self.counts = SegmentationCounts(len(classes.names))
        self.names = []
        self.report_data = None
        if with_report:
            self.report_data = ReportData(len(classes.names), [], [])
        self._probs = []

    def add_strip(self, target: Tensor, probs: Tensor) -> None:
        """Adds rows of an image: target uint8 [h, W] with ignored pixels, probs [K, h, W]."""
        target = target.to(probs.device)
        self.counts.add_strip(target, decide(probs[None])[0], probs)
        if self.report_data:
            self._probs.append(probs.cpu().clone())  # the caller changes it

    def end_image(self, name: str, target: Tensor, label: Tensor) -> None:
        """Ends an image. target, label: uint8 [H, W], inside the ROI and of the whole frame."""
        self.counts.end_image()
        self.names.append(name)
        if self.report_data:
            self.report_data.targets.append(target)
            self.report_data.frames.append(label)
            self.report_data.second_labels.append(None)
            self.report_data(torch.cat(self._probs, dim=1))
            self._probs = []

    def save(
        self,
        folder: str | Path,
        threshold: float,
        origin: dict,
        report_dir: str,
        image_of: Callable[[int], np.ndarray],
    ) -> None:
        """Prints the scores and writes scores.json; with a report_dir also the report.

        origin: what the files say of the weights and the run. image_of: gives the picture of an
        image, uint8 [H, W, 3], by its index in `names`.
        """
        scores = summarize(self.counts, threshold)
        # The best threshold on these images is not a score: it would be chosen on them.
        scores = {name: value for name, value in scores.items() if not name.startswith("best_")}
        rows = text_files.image_rows(self.names, self.counts)
        content = {**origin, "threshold": threshold, "scores": scores, "images": rows}
        text_files.write_json(Path(folder) / "scores.json", content)
        print(text_files.score_table(scores, self.class_names, threshold))
        if self.report_data:
            from train_utils.reporting import report  # imports matplotlib

            title = f"Predictions on {len(self.names)} images"
            report.save(report_dir, title, content, self.report_data, self.class_names, image_of)

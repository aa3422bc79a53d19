"""The scores of predictions whose labels are known: what evaluate() computes, while predicting."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from src.image_io import IGNORE
from src.inference import decide
from src.instances import label_objects
from train_utils.data.reading import Picture
from train_utils.instance_metrics import object_counts, object_scores
from train_utils.metrics import SegmentationCounts, summarize
from train_utils.reporting import text_files
from train_utils.reporting.report_data import ReportData


class PredictionScores:
    """Compares predictions with labels, strip by strip.

    Pixels and objects are scored at probability 0.5, as by evaluate(), and at the threshold.

    Args:
        class_names: of the model.
        threshold: the chosen one, on the probability of class 1.
        with_objects: also compare the objects of two classes. It needs the memory for the masks of
            a whole image.
        with_report: collect what the HTML report shows. It needs the memory for the probabilities
            of a whole image.

    Attributes: `names` of the images so far, and `counts`, their SegmentationCounts.
    """

    def __init__(
        self, class_names: Sequence[str], threshold: float, with_objects: bool, with_report: bool
    ) -> None:
        self.class_names, self.threshold = list(class_names), threshold
        self.counts = SegmentationCounts(len(self.class_names))
        self.names = []
        self.with_objects = with_objects
        self._objects_at_threshold = []  # rows of object_counts()
        self.report_data = None
        if with_report:
            self.report_data = ReportData(len(self.class_names), [], [])
        self._start_image()

    def _start_image(self) -> None:
        self._probs, self._masks, self._masks_at_threshold = [], [], []

    def add_strip(self, target: Tensor, probs: Tensor) -> None:
        """Adds rows of an image: target uint8 [h, W] with ignored pixels, probs [K, h, W]."""
        target = target.to(probs.device)
        pred = decide(probs[None])[0]
        self.counts.add_strip(target, pred, probs)
        if self.with_objects:
            valid = target != IGNORE
            at_threshold = decide(probs[None], self.threshold)[0]
            self._masks.append(((pred == 1) & valid).cpu())
            self._masks_at_threshold.append(((at_threshold == 1) & valid).cpu())
        if self.report_data:
            self._probs.append(probs.cpu().clone())  # the caller changes it

    def end_image(self, picture: Picture) -> None:
        """Ends the image that the strips so far are of."""
        target = picture.target
        self.counts.end_image()
        self.names.append(picture.job.input.name)
        if self.with_objects:
            truth = picture.instances.masked_fill(target == IGNORE, 0).numpy()
            self._add_objects(truth)
        if self.report_data:
            self.report_data.targets.append(target)
            self.report_data.frames.append(picture.label)
            self.report_data.second_labels.append(None)
            self.report_data(torch.cat(self._probs, dim=1))
        self._start_image()

    def _add_objects(self, truth: np.ndarray) -> None:
        """Adds the objects of an image, whose true ids are int [H, W]."""
        predicted = label_objects(torch.cat(self._masks).numpy())
        self.counts.add_objects(truth, predicted)
        at_threshold = self.counts.objects[-1]
        if self.threshold != 0.5:
            predicted = label_objects(torch.cat(self._masks_at_threshold).numpy())
            at_threshold = object_counts(truth, predicted)
        self._objects_at_threshold.append(at_threshold)

    def scores(self) -> dict:
        """All scores: those of summarize(), but those that were chosen on these images."""
        scores = summarize(self.counts, self.threshold)
        if self.with_objects:
            at_threshold = object_scores(torch.stack(self._objects_at_threshold))
            scores["object_ap_at_threshold"] = at_threshold["object_ap"]
        return {name: value for name, value in scores.items() if not name.startswith("best_")}

    def save(
        self,
        folder: str | Path,
        origin: dict,
        report_dir: str,
        image_of: Callable[[int], np.ndarray],
    ) -> None:
        """Prints the scores and writes scores.json; with a report_dir also the report.

        origin: what the files say of the weights and the run. image_of: gives the picture of an
        image, uint8 [H, W, 3], by its index in `names`.
        """
        scores = self.scores()
        rows = text_files.image_rows(self.names, self.counts)
        content = {**origin, "threshold": self.threshold, "scores": scores, "images": rows}
        text_files.write_json(Path(folder) / "scores.json", content)
        print(text_files.score_table(scores, self.class_names, self.threshold))
        if self.with_objects:
            self._warn_of_masks()
        if self.report_data:
            from train_utils.reporting import report  # imports matplotlib

            title = f"Predictions on {len(self.names)} images"
            report.save(report_dir, title, content, self.report_data, self.class_names, image_of)

    def _warn_of_masks(self) -> None:
        """Warns of labels that are masks of two classes rather than ids."""
        most, most_predicted = self.counts.objects[:, :2].amax(0).tolist()
        if most == 1 < most_predicted:
            print(
                "warning: no label holds more than one id; if they are masks of two classes, leave "
                "out --instances"
            )

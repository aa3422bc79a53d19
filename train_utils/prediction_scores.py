"""The scores of predictions whose labels are known: what evaluate() computes, while predicting."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from src.image_io import IGNORE, read_image
from src.inference import decide
from src.instances import label_objects
from train_utils.data.reading import Picture, Scan
from train_utils.data.volumes import doubtful_255
from train_utils.instance_metrics import object_counts, object_scores
from train_utils.metrics import SegmentationCounts, summarize
from train_utils.plurals import counted
from train_utils.reporting import text_files
from train_utils.reporting.pictures import as_rgb
from train_utils.reporting.report_data import ReportData


class PredictionScores:
    """Compares predictions with labels, strip by strip: begin(), add_strip() for each strip, end().

    An image that is begun and not ended, because it failed, is not scored. Pixels are scored at
    probability 0.5, as by evaluate(), and at the threshold.

    Args:
        class_names: of the model.
        threshold: the chosen one, on the probability of class 1.

    Attributes: `names` of the images so far, and `counts`, their SegmentationCounts.
    """

    nouns = ("images", "pixels")

    def __init__(self, class_names: Sequence[str], threshold: float) -> None:
        self.class_names, self.threshold = list(class_names), threshold
        self.names, self.counts = [], SegmentationCounts(len(self.class_names))
        self.begin()

    def begin(self) -> None:
        """Begins an image."""
        self._counts = SegmentationCounts(len(self.class_names))

    def add_strip(self, target: Tensor, probs: Tensor) -> None:
        """Adds rows of the image: target uint8 [h, W] with ignored pixels, probs [K, h, W]."""
        target = target.to(probs.device)
        self._counts.add_strip(target, decide(probs[None])[0], probs)

    def end(self, picture: Picture | Scan) -> None:
        """Ends the image that the strips so far are of."""
        self._counts.end_image()
        self.names.append(picture.job.input.name)
        self.counts = self.counts + self._counts

    def scores(self) -> dict:
        """The scores of summarize(), without those of the threshold that is best on these images.

        It would be chosen on the images that it is scored on.
        """
        return summarize(self.counts, self.threshold, choose_threshold=False)

    def save(self, folder: str | Path, origin: dict) -> dict:
        """Prints the scores, writes scores.json, and returns what is in it.

        origin: what the file says of the weights and the run.
        """
        scores = self.scores()
        rows = text_files.image_rows(self.names, self.counts)
        content = {**origin, "threshold": self.threshold, "scores": scores, "images": rows}
        text_files.write_json(Path(folder) / "scores.json", content)
        print(text_files.score_table(scores, self.class_names, self.threshold, self.nouns))
        return content


class ImageScores(PredictionScores):
    """The scores of images, with those of objects and the HTML report where they are asked for.

    Args:
        class_names, threshold: see PredictionScores.
        with_objects: also compare the objects of two classes. It needs the memory for the masks of
            a whole image.
        report_dir: folder of the report; "" for none. It needs the memory for the probabilities of
            a whole image.
        max_pixels: of the largest image that is read again for the report; None: Pillow's limit.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        threshold: float,
        with_objects: bool = False,
        report_dir: str = "",
        max_pixels: int | None = None,
    ) -> None:
        super().__init__(class_names, threshold)
        self.with_objects = with_objects
        self._objects_at_threshold = []  # rows of object_counts()
        self.report_dir, self.max_pixels, self.paths = report_dir, max_pixels, []
        self.report_data = None
        if report_dir:
            self.report_data = ReportData(len(self.class_names), [], [])

    def begin(self) -> None:
        """Begins an image."""
        super().begin()
        self._probs, self._masks, self._masks_at_threshold = [], [], []

    def add_strip(self, target: Tensor, probs: Tensor) -> None:
        """Adds rows of the image: target uint8 [h, W] with ignored pixels, probs [K, h, W]."""
        super().add_strip(target, probs)
        if self.with_objects:
            valid = target.to(probs.device) != IGNORE
            objects = decide(probs[None])[0] == 1
            at_threshold = decide(probs[None], self.threshold)[0] == 1
            self._masks.append((objects & valid).cpu())
            self._masks_at_threshold.append((at_threshold & valid).cpu())
        if self.report_data:
            self._probs.append(probs.cpu().clone())  # the caller changes it

    def end(self, picture: Picture) -> None:
        """Ends the image that the strips so far are of."""
        target = picture.target
        if self.with_objects:
            truth = picture.instances.masked_fill(target == IGNORE, 0).numpy()
            self._add_objects(truth)
        super().end(picture)
        if self.report_data:
            self.paths.append(picture.job.input.path)
            self.report_data.targets.append(target)
            self.report_data.frames.append(picture.label)
            self.report_data.second_labels.append(None)
            self.report_data(torch.cat(self._probs, dim=1))

    def _add_objects(self, truth: np.ndarray) -> None:
        """Adds the objects of the image, whose true ids are int [H, W]."""
        predicted = label_objects(torch.cat(self._masks).numpy())
        self._counts.add_objects(truth, predicted)
        at_threshold = self._counts.objects[-1]
        if self.threshold != 0.5:
            predicted = label_objects(torch.cat(self._masks_at_threshold).numpy())
            at_threshold = object_counts(truth, predicted)
        self._objects_at_threshold.append(at_threshold)

    def scores(self) -> dict:
        """See PredictionScores; with objects also their average precision at the threshold."""
        scores = super().scores()
        if self.with_objects:
            at_threshold = object_scores(torch.stack(self._objects_at_threshold))
            scores["object_ap_at_threshold"] = at_threshold["object_ap"]
        return scores

    def save(self, folder: str | Path, origin: dict) -> dict:
        """See PredictionScores; also writes the report if there is a folder for it."""
        content = super().save(folder, origin)
        if self.with_objects:
            self._warn_of_masks()
        if self.report_data:
            from train_utils.reporting import report  # imports matplotlib

            title = f"Predictions on {counted(len(self.names), 'images')}"
            data, names = self.report_data, self.class_names
            report.save(self.report_dir, title, content, data, names, self._picture_of)
        return content

    def _picture_of(self, index: int) -> np.ndarray:
        """uint8 [H, W, 3] of an image, by its index in `names`."""
        return as_rgb(read_image(self.paths[index], 3, self.max_pixels))

    def _warn_of_masks(self) -> None:
        """Warns of labels that are masks of two classes rather than ids."""
        most, most_predicted = self.counts.objects[:, :2].amax(0).tolist()
        if most == 1 < most_predicted:
            print(
                "warning: no label holds more than one id; if they are masks of two classes, leave "
                "out --instances"
            )


class VolumeScores(PredictionScores):
    """The scores of volumes, at their own size.

    Attributes: see PredictionScores; and `encodings` of the labels, {name: (number of labels, path
    of one)}.
    """

    nouns = ("volumes", "voxels")

    def __init__(self, class_names: Sequence[str], threshold: float) -> None:
        super().__init__(class_names, threshold)
        self.encodings = {}

    def end(self, scan: Scan) -> None:
        """Ends the volume that the strips so far are of."""
        super().end(scan)
        number, path = self.encodings.get(scan.encoding, (0, scan.job.label_path))
        self.encodings[scan.encoding] = number + 1, path

    def save(self, folder: str | Path, origin: dict) -> dict:
        """See PredictionScores; also warns of labels in which 255 may mean two things."""
        content = super().save(folder, origin)
        doubt = doubtful_255(self.encodings)
        if doubt:
            print(doubt)
        return content

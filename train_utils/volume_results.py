"""What predict.py says of volumes beside their files: predictions.csv, and scores.json."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from train_utils.data.volumes import doubtful_255
from train_utils.metrics import SegmentationCounts, summarize
from train_utils.reporting import text_files
from train_utils.reporting.prediction_tables import ImageTable


class VolumeTable(ImageTable):
    """predictions.csv: one row for each volume, written when the files of the volume are there.

    Columns: image, width, height, depth, share_<class> in 0–1, seconds.

    Args:
        folder: of the table.
        keep: keep the rows that the table of an earlier call has.
    """

    def __init__(self, folder: str | Path, class_names: Sequence[str], keep: bool) -> None:
        shares = [f"share_{name}" for name in class_names]
        columns = ["image", "width", "height", "depth", *shares, "seconds"]
        super().__init__(Path(folder) / "predictions.csv", columns, keep)

    def add(self, name: str, shares: np.ndarray, shape: Sequence[int], seconds: float) -> None:
        """Adds the row of a volume of the shape (D, H, W). shares: [K], of each class."""
        row = [*reversed(shape), *shares.round(9).tolist(), round(seconds, 4)]
        self.append(name, [row])

    def row(self, name: str) -> dict[str, str]:
        """The row of a volume."""
        return self.rows_of(name)[0]


class VolumeScores:
    """The scores of predictions whose labels are known, at the volumes' own size.

    Attributes: `names` of the volumes so far, `counts`, their SegmentationCounts, and `encodings`
    of their labels, {name: [number of labels, path of one]}.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names, self.names, self.encodings = list(class_names), [], {}
        self.counts = SegmentationCounts(len(self.class_names))

    def add(self, name: str, counts: SegmentationCounts) -> None:
        """Adds the counts of one volume."""
        self.names.append(name)
        self.counts = self.counts + counts

    def save(self, folder: str | Path, threshold: float, origin: dict) -> None:
        """Prints the scores and writes scores.json.

        origin: what the file says of the weights and the run.
        """
        scores = summarize(self.counts, threshold, choose_threshold=False)
        rows = text_files.image_rows(self.names, self.counts)
        content = {**origin, "threshold": threshold, "scores": scores, "images": rows}
        text_files.write_json(Path(folder) / "scores.json", content)
        nouns = ("volumes", "voxels")
        print(text_files.score_table(scores, self.class_names, threshold, nouns))
        doubt = doubtful_255(self.encodings)
        if doubt:
            print(doubt)

"""The files that predict.py writes: masks, probabilities, overlays, and predictions.csv."""

import csv
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from torch import Tensor

from train_utils.atomic import replacing
from train_utils.reporting.pictures import as_rgb, mask_style, overlay
from train_utils.reporting.png import NpyWriter, PngWriter, is_whole, naming

TABLE_NAME = "predictions.csv"
# Names of files need not be valid UTF-8: their bytes are written as they are.
TEXT = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
Strip = tuple[slice, np.ndarray, np.ndarray]  # rows, class ids [h, W], probabilities [K, h, W]


class PredictionFiles:
    """Writes the requested files of each image, strip by strip.

    Args:
        folder: output folder. The files of an image `name` are folder/name_mask.png and so on.
        class_names: of all classes.
        colours: [K, 3] uint8 of the classes.
        class_ids: the stored id of each class.
        save_prob: also write the probabilities.
        save_overlay: also write the prediction over the image.
    """

    def __init__(
        self,
        folder: str | Path,
        class_names: Sequence[str],
        colours: Sequence,
        class_ids: Sequence[int],
        save_prob: bool = False,
        save_overlay: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.class_names, self.class_ids = list(class_names), list(class_ids)
        self.colours = np.asarray(colours, np.uint8)
        self.save_prob, self.save_overlay = save_prob, save_overlay

    def mask_path(self, name: str) -> Path:
        """Where the mask of the image `name` goes."""
        return self.folder / f"{name}_mask.png"

    def prob_path(self, name: str) -> Path:
        """Where its probabilities go."""
        suffix = "png" if len(self.class_names) == 2 else "npy"
        return self.folder / f"{name}_prob.{suffix}"

    def overlay_path(self, name: str) -> Path:
        """Where the prediction over the image goes."""
        return self.folder / f"{name}_overlay.png"

    def are_whole(self, name: str) -> bool:
        """Whether all requested files of the image exist and none of them is cut short."""
        paths = [self.mask_path(name)]
        if self.save_prob:
            paths.append(self.prob_path(name))
        if self.save_overlay:
            paths.append(self.overlay_path(name))
        return all(is_whole(path) for path in paths)

    def write(self, name: str, image: Tensor, strips: Iterable[Strip]) -> np.ndarray:
        """Writes the files of one image. They appear when the last strip is written.

        image: uint8 [C, H, W]. strips: from top to bottom (rows, class ids uint8 [h, W],
        probabilities float32 [K, h, W]). Returns int64 [K], the pixels of each class. UserError if
        a file cannot be written.
        """
        self.mask_path(name).parent.mkdir(parents=True, exist_ok=True)
        height, width = image.shape[1:]
        pixels = np.zeros(len(self.class_names), np.int64)
        kind, palette, values = mask_style(self.colours, self.class_ids)
        with ExitStack() as stack:
            masks = PngWriter(self.mask_path(name), width, height, kind, palette)
            stack.enter_context(masks)
            if self.save_prob:
                probabilities = stack.enter_context(self._prob_writer(name, height, width))
            if self.save_overlay:
                overlays = PngWriter(self.overlay_path(name), width, height, "rgb")
                stack.enter_context(overlays)
            for rows, mask, probs in strips:
                pixels += np.bincount(mask.ravel(), minlength=len(pixels))
                masks.write(values[mask])
                if self.save_prob:
                    probabilities.write(self._stored(probs))
                if self.save_overlay:
                    overlays.write(overlay(as_rgb(image[:, rows]), mask, self.colours))
        return pixels

    def _prob_writer(self, name: str, height: int, width: int) -> PngWriter | NpyWriter:
        path, classes = self.prob_path(name), len(self.class_names)
        if classes == 2:
            return PngWriter(path, width, height, "grey16")
        return NpyWriter(path, classes, height, width)

    def _stored(self, probs: np.ndarray) -> np.ndarray:
        """What is stored of the probabilities [K, h, W]: with two classes, uint16 of class 1."""
        if len(probs) == 2:
            return (probs[1] * 65535).round().astype(np.uint16)
        return probs


class PredictionTable:
    """predictions.csv: one row for each image, written when the files of the image are there.

    Columns: image, width, height, share_<class> in 0–1, seconds of computing.

    Args:
        folder: of the table.
        keep: keep the rows that the table of an earlier call has.
    """

    def __init__(self, folder: str | Path, class_names: Sequence[str], keep: bool) -> None:
        self.path = Path(folder) / TABLE_NAME
        shares = [f"share_{name}" for name in class_names]
        self.columns = ["image", "width", "height", *shares, "seconds"]
        self.rows = {}
        if keep:
            self.rows = {row["image"]: row for row in self._earlier_rows()}
        self._write_all(self.rows.values())  # without a line that a kill cut short
        self._file = open(self.path, "a", **TEXT)
        self._writer = csv.DictWriter(self._file, self.columns)

    def add(self, name: str, size: tuple[int, int], pixels: np.ndarray, seconds: float) -> None:
        """Adds the row of an image of `size` (height, width)."""
        values = (pixels / pixels.sum()).round(9).tolist()
        row = [name, size[1], size[0], *values, round(seconds, 4)]
        row = dict(zip(self.columns, row, strict=True))
        self.rows[name] = row
        with naming(self.path):
            self._writer.writerow(row)
            self._file.flush()

    def drop(self, names: Iterable[str]) -> None:
        """Removes the earlier rows of images that are done again."""
        for name in names:
            self.rows.pop(name, None)

    def close(self, order: Sequence[str]) -> None:
        """Writes the table anew, with the images in this order and then the others."""
        with naming(self.path):
            self._file.close()
        names = dict.fromkeys([*order, *self.rows])
        self._write_all(self.rows[name] for name in names if name in self.rows)

    def _write_all(self, rows: Iterable[dict]) -> None:
        with naming(self.path), replacing(self.path) as new, open(new, "w", **TEXT) as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)

    def _earlier_rows(self) -> list[dict]:
        """The whole rows of the table as it is, if it has the same columns."""
        if not self.path.is_file():
            return []
        with open(self.path, **TEXT) as file:
            lines = [line for line in file if line.endswith("\n")]
        reader = csv.DictReader(lines)
        if reader.fieldnames != self.columns:
            return []
        return [row for row in reader if None not in row.values() and None not in row]

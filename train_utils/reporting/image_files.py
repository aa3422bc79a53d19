"""The files that predict.py writes for each image: masks, objects, probabilities, overlays."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from src.instances import connected_objects, label_objects, object_table
from train_utils.reporting.object_outlines import object_edges, outlined
from train_utils.reporting.pictures import as_rgb, mask_style, overlay
from train_utils.reporting.png import NpyWriter, PngWriter, is_complete

MAX_OBJECTS = 65535  # in a 16-bit file
STRIP_PIXELS = 1 << 20  # of a whole image that are written at a time
Strip = tuple[slice, np.ndarray, np.ndarray]  # rows, class ids [h, W], probabilities [K, h, W]


@dataclass(frozen=True)
class Saved:
    """What was written of an image.

    pixels: int64 [K], of each class. objects: of src.instances.object_table(), [] where none are
    asked for. problem: why they could not be written; "" if they were.
    """

    pixels: np.ndarray
    objects: Sequence[dict] = ()
    problem: str = ""


class ImageFiles:
    """Writes the requested files of each image, strip by strip.

    Args:
        folder: output folder. The files of an image `name` are folder/name_mask.png and so on.
        class_names: of all classes.
        colours: [K, 3] uint8 of the classes.
        class_ids: the stored id of each class.
        save_prob: also write the probabilities.
        save_overlay: also write the prediction over the image; objects are outlined.
        save_instances: also write the ids of objects, which are those of class 1 of two.
    """

    def __init__(
        self,
        folder: str | Path,
        class_names: Sequence[str],
        colours: Sequence,
        class_ids: Sequence[int],
        save_prob: bool = False,
        save_overlay: bool = False,
        save_instances: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.class_names, self.class_ids = list(class_names), list(class_ids)
        self.colours = np.asarray(colours, np.uint8)
        self.save_prob, self.save_overlay = save_prob, save_overlay
        self.save_instances = save_instances

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

    def instances_path(self, name: str) -> Path:
        """Where the ids of its objects go."""
        return self.folder / f"{name}_instances.png"

    def optional_paths(self, name: str) -> dict[str, Path]:
        """{flag: path} of the requested files beside the mask."""
        paths = {}
        if self.save_prob:
            paths["save_prob"] = self.prob_path(name)
        if self.save_overlay:
            paths["overlay"] = self.overlay_path(name)
        if self.save_instances:
            paths["instances"] = self.instances_path(name)
        return paths

    def are_complete(self, name: str) -> bool:
        """Whether all requested files of the image exist and none of them is cut short."""
        paths = self.mask_path(name), *self.optional_paths(name).values()
        return all(is_complete(path) for path in paths)

    def write(self, name: str, image: Tensor, strips: Iterable[Strip]) -> Saved:
        """Writes the files of one image. They appear when the last strip is written.

        A strip is compressed by another thread while the caller's computes the next one.

        image: uint8 [C, H, W]. strips: from top to bottom (rows, class ids uint8 [h, W],
        probabilities float32 [K, h, W]). UserError if a file cannot be written.
        """
        self.mask_path(name).parent.mkdir(parents=True, exist_ok=True)
        height, width = image.shape[1:]
        pixels = np.zeros(len(self.class_names), np.int64)
        kind, palette, values = mask_style(self.colours, self.class_ids)
        if self.save_instances:
            foreground = np.empty((height, width), bool)
        with ExitStack() as stack:
            masks = PngWriter(self.mask_path(name), width, height, kind, palette)
            stack.enter_context(masks)
            if self.save_prob:
                probabilities = stack.enter_context(self._prob_writer(name, height, width))
            if self.save_overlay and not self.save_instances:
                overlays = PngWriter(self.overlay_path(name), width, height, "rgb")
                stack.enter_context(overlays)

            def add(rows: slice, mask: np.ndarray, probs: np.ndarray | None) -> None:
                pixels[:] += np.bincount(mask.ravel(), minlength=len(pixels))
                masks.write(values[mask])
                if self.save_prob:
                    probabilities.write(self._stored(probs))
                if self.save_instances:
                    foreground[rows] = mask == 1
                elif self.save_overlay:
                    overlays.write(overlay(as_rgb(image[:, rows]), mask, self.colours))

            for_each_behind(add, strips)
        if self.save_instances:
            return self._write_objects(name, image, foreground, pixels)
        return Saved(pixels)

    def _write_objects(
        self, name: str, image: Tensor, foreground: np.ndarray, pixels: np.ndarray
    ) -> Saved:
        """Writes the ids of the objects in the foreground, bool [H, W], and their outlines."""
        height, width = foreground.shape
        # Counted before they are grown back, which takes minutes for a million specks.
        number = int(connected_objects(foreground).max())
        if number > MAX_OBJECTS:
            problem = (
                f"{number:,} objects, more than the {MAX_OBJECTS:,} of a 16-bit file; raise "
                "--threshold, or cut the image into smaller ones"
            )
            return Saved(pixels, problem=problem)
        ids = label_objects(foreground)
        with PngWriter(self.instances_path(name), width, height, "grey16") as writer:
            for rows in strips_of_rows(height, width):
                writer.write(ids[rows].astype(np.uint16))
        if self.save_overlay:
            edges = object_edges(ids)
            with PngWriter(self.overlay_path(name), width, height, "rgb") as writer:
                for rows in strips_of_rows(height, width):
                    writer.write(outlined(as_rgb(image[:, rows]), ids[rows], edges[rows]))
        return Saved(pixels, object_table(ids))

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


def for_each_behind(function: Callable[..., object], items: Iterable[tuple]) -> None:
    """Calls function(*item) for each item, in another thread while this one makes the next item."""
    with ThreadPoolExecutor(1) as pool:
        last = None
        for item in items:
            if last:
                last.result()
            last = pool.submit(function, *item)
        if last:
            last.result()


def strips_of_rows(height: int, width: int) -> Iterator[slice]:
    """Rows from top to bottom, in strips of STRIP_PIXELS."""
    step = max(STRIP_PIXELS // width, 1)
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))

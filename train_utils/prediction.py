"""The loop of predict.py: pictures are read ahead, segmented in batches, and written by threads."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from tqdm import tqdm

from src.device import synchronize
from src.errors import UserError
from src.image_io import read_image
from src.inference import decide
from src.instances import import_ndimage
from src.predictor import Predictor
from train_utils.data.reading import Job, Picture, equal_sizes, read_ahead
from train_utils.metrics import check_finite
from train_utils.prediction_scores import PredictionScores
from train_utils.reporting.pictures import as_rgb
from train_utils.reporting.prediction_files import PredictionFiles, Strip
from train_utils.reporting.prediction_tables import PredictionTable

WORKERS = 4  # threads that read and write files
MAX_WRITING = 16  # images whose files are being written while others are computed
MAX_WRITING_PIXELS = 32 * 1024**2  # and no more pixels than this, unless it is one image


@dataclass(frozen=True)
class Written:
    """A picture whose files are being written. saved: what was written, when it is."""

    job: Job
    size: tuple[int, int]
    seconds: float
    saved: Future


@dataclass(frozen=True)
class ImagePredictor:
    """How images are segmented, and what is written for each.

    predictor: the model, on the device.
    read: reads the files of a job.
    threshold: on the probability of class 1, for two classes.
    files: writes the masks and what else was asked for.
    table: gets a row for each image.
    scores: get the counts of each image; None without labels.
    """

    predictor: Predictor
    read: Callable[[Job], Picture]
    threshold: float
    files: PredictionFiles
    table: PredictionTable
    scores: PredictionScores | None = None

    def is_done(self, job: Job) -> bool:
        """Whether the image has its row in the table and all its files."""
        return job.input.name in self.table and self.files.are_complete(job.input.name)

    def predict_all(self, jobs: list[Job]) -> dict[str, str]:
        """Segments and writes all images; returns {path: reason} of those that failed."""
        failed, writing = {}, deque()
        pool = ThreadPoolExecutor(WORKERS)
        bar = tqdm(total=len(jobs), unit="image", leave=False, disable=None)
        try:
            for group in equal_sizes(read_ahead(pool, self.read, jobs, failed)):
                writing += self.segment(group, pool, failed)
                while writing and (writing[0].saved.done() or is_too_much(writing)):
                    self.finish(writing.popleft(), failed)
                bar.update(len(group))
                del group  # or its images would be in memory while the next ones are read
            while writing:
                self.finish(writing.popleft(), failed)
        finally:
            bar.close()
            pool.shutdown(cancel_futures=True)
        return failed

    def segment(
        self, group: list[Picture], pool: ThreadPoolExecutor, failed: dict[str, str]
    ) -> list[Written]:
        """Segments images of one size, and has their files written by the pool.

        An image with probabilities that are not finite is noted in `failed`. An image in tiles is
        written by this thread, strip by strip, as it is computed; there such probabilities raise
        the UserError, because a part of the image may have been scored.
        """
        if self.predictor.is_cut(group[0].image):
            return [self.segment_in_tiles(picture) for picture in group]
        start = time.perf_counter()
        batch = self.predictor.predict_untiled([picture.image for picture in group])
        synchronize(self.predictor.device)
        seconds = (time.perf_counter() - start) / len(group)
        written = []
        for picture, probs in zip(group, batch, strict=True):
            strip = slice(0, len(probs[0])), probs
            try:
                strips = list(self.finished_strips([strip], picture))
            except UserError as error:
                failed[str(picture.job.input.path)] = str(error)
                continue
            name, image = picture.job.input.name, picture.image
            saved = pool.submit(self.files.write, name, image, strips)
            written.append(Written(picture.job, tuple(image.shape[1:]), seconds, saved))
        return written

    def segment_in_tiles(self, picture: Picture) -> Written:
        """Segments and writes one image, strip by strip."""
        start, saved = time.perf_counter(), Future()
        name, image = picture.job.input.name, picture.image
        with tqdm(desc=name, unit="tile", leave=False, disable=None) as bar:

            def show(done: int, tiles: int) -> None:
                bar.total = tiles
                bar.update(done - bar.n)

            strips = self.finished_strips(self.predictor.predict_strips(image, show), picture)
            saved.set_result(self.files.write(name, image, strips))
        seconds = time.perf_counter() - start
        return Written(picture.job, tuple(image.shape[1:]), seconds, saved)

    def finished_strips(
        self, strips: Iterable[tuple[slice, Tensor]], picture: Picture
    ) -> Iterator[Strip]:
        """Class ids, and probabilities if they are to be saved, with background outside the ROI.

        Scores count what the model predicts inside the ROI. UserError for a probability that is
        not finite.
        """
        for rows, probs in strips:
            check_finite(probs, picture.job.input.path)
            if self.scores:
                self.scores.add_strip(picture.target[rows], probs)
            if picture.roi is not None:
                outside = ~picture.roi[rows].to(probs.device)
                probs.masked_fill_(outside, 0)
                probs[0].masked_fill_(outside, 1)
            mask = decide(probs[None], self.threshold)[0].cpu().numpy()
            yield rows, mask, probs.cpu().numpy() if self.files.save_prob else None
        if self.scores:
            self.scores.end_image(picture)

    def finish(self, written: Written, failed: dict[str, str]) -> None:
        """Waits for the files of an image, adds its row to the table, and prints a line.

        An image whose objects could not be written gets no row, and is noted in `failed`.
        """
        name, path = written.job.input.name, written.job.input.path
        saved, (height, width) = written.saved.result(), written.size
        if saved.problem:
            failed[str(path)] = f"{path}: {saved.problem}"
            return
        self.table.add(name, written.size, saved.pixels, written.seconds, saved.objects)
        names, shares = self.files.class_names, 100 * saved.pixels / saved.pixels.sum()
        parts = [f"{each} {share:.1f} %" for each, share in zip(names, shares, strict=True)]
        if self.files.save_instances:
            parts.append(f"{len(saved.objects)} objects")
        line = f"{path} -> {self.files.mask_path(name)}  {width}x{height}  "
        tqdm.write(f"{line}{written.seconds:.3f} s  {', '.join(parts)}")
        sys.stdout.flush()


def is_too_much(writing: Iterable[Written]) -> bool:
    """Whether to wait for files before the next images are computed: all stay in memory."""
    pixels = [height * width for height, width in (each.size for each in writing)]
    too_large = len(pixels) > 1 and sum(pixels) > MAX_WRITING_PIXELS
    return too_large or len(pixels) > MAX_WRITING


def picture_reader(
    jobs: Iterable[Job], names: Sequence[str], max_pixels: int | None
) -> Callable[[int], np.ndarray]:
    """A function that reads the picture of an image, uint8 [H, W, 3], by its index in `names`."""
    path_of = {job.input.name: job.input.path for job in jobs}
    return lambda index: as_rgb(read_image(path_of[names[index]], 3, max_pixels))


def check_instances(class_names: list[str]) -> None:
    """UserError if a model with these classes has no objects, or scipy is missing."""
    if len(class_names) > 2:
        raise UserError(
            f"--instances: is for two classes, background and objects, but the model has "
            f"{len(class_names)} ({', '.join(class_names)}); leave it out"
        )
    import_ndimage()

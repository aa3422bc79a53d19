"""predict.py on images: they are read ahead, segmented in batches, and written by threads."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from torch import Tensor
from tqdm import tqdm

from src.device import synchronize
from src.predictor import Predictor
from train_utils.data.inputs import Job
from train_utils.data.reading import Picture, equal_sizes, read_ahead
from train_utils.metrics import NonFiniteProbsError
from train_utils.plurals import counted
from train_utils.prediction import finished_strips
from train_utils.prediction_scores import ImageScores
from train_utils.reporting.image_files import ImageFiles, Strip
from train_utils.reporting.prediction_summary import shares_text
from train_utils.reporting.prediction_tables import ImageTable
from train_utils.reporting.progress import tile_bar

WORKERS = 4  # threads that read and write files
MAX_WRITING = 16  # images whose files are being written while others are computed
MAX_WRITING_PIXELS = 32 * 1024**2  # and no more pixels than this, unless it is one image


@dataclass(frozen=True)
class Written:
    """An image whose files are being written.

    size: (height, width).
    seconds: of computing.
    saved: what was written, when it is.
    """

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
    files: ImageFiles
    table: ImageTable
    scores: ImageScores | None = None

    def is_done(self, job: Job) -> bool:
        """Whether the image has its row in the table and all its files."""
        return job.input.name in self.table and self.files.are_complete(job.input.name)

    def outputs_of(self, job: Job) -> dict[str, str]:
        """{flag: name} of the files that are written beside the mask."""
        return {flag: path.name for flag, path in self.files.optional_paths(job.input.name).items()}

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
        """Segments images of one size, and has their files written.

        An image with probabilities that are not finite is noted in `failed`.
        """
        if not self.predictor.is_cut(group[0].image):
            return self.segment_batch(group, pool, failed)
        written = []
        for picture in group:
            try:
                written.append(self.segment_in_tiles(picture))
            except NonFiniteProbsError as error:
                failed[str(picture.job.input.path)] = str(error)
        return written

    def segment_batch(
        self, group: list[Picture], pool: ThreadPoolExecutor, failed: dict[str, str]
    ) -> list[Written]:
        """segment() of images without tiles: together. The pool writes their files."""
        start = time.perf_counter()
        batch = self.predictor.predict_untiled([picture.image for picture in group])
        synchronize(self.predictor.device)
        seconds = (time.perf_counter() - start) / len(group)
        written = []
        for picture, probs in zip(group, batch, strict=True):
            name, image = picture.job.input.name, picture.image
            rows = slice(0, image.shape[1])
            try:
                strips = list(self.finished_strips([(rows, probs)], picture))
            except NonFiniteProbsError as error:
                failed[str(picture.job.input.path)] = str(error)
                continue
            saved = pool.submit(self.files.write, name, image, strips)
            written.append(Written(picture.job, tuple(image.shape[1:]), seconds, saved))
        return written

    def segment_in_tiles(self, picture: Picture) -> Written:
        """segment() of one image in tiles. Its files are written strip by strip meanwhile."""
        start, saved = time.perf_counter(), Future()
        name, image = picture.job.input.name, picture.image
        with tile_bar(name) as show:
            strips = self.predictor.predict_strips(image, show)
            saved.set_result(self.files.write(name, image, self.finished_strips(strips, picture)))
        seconds = time.perf_counter() - start
        return Written(picture.job, tuple(image.shape[1:]), seconds, saved)

    def finished_strips(
        self, strips: Iterable[tuple[slice, Tensor]], picture: Picture
    ) -> Iterator[Strip]:
        """What is written of an image, see train_utils.prediction; its scores are added."""
        keep_probs = self.files.save_prob
        return finished_strips(strips, picture, self.threshold, self.scores, keep_probs)

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
        text = shares_text(self.files.class_names, saved.pixels)
        if self.files.save_instances:
            text += f", {counted(len(saved.objects), 'objects')}"
        line = f"{path} -> {self.files.mask_path(name)}  {width}x{height}  "
        tqdm.write(f"{line}{written.seconds:.3f} s  {text}")
        sys.stdout.flush()


def is_too_much(writing: Iterable[Written]) -> bool:
    """Whether to wait for files before the next images are computed: all stay in memory."""
    pixels = [height * width for height, width in (each.size for each in writing)]
    too_large = len(pixels) > 1 and sum(pixels) > MAX_WRITING_PIXELS
    return too_large or len(pixels) > MAX_WRITING

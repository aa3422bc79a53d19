"""The loop of predict.py: pictures are read ahead, segmented in batches, and written by threads."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from torch import Tensor
from tqdm import tqdm

from src.device import synchronize
from src.inference import decide
from src.predictor import Predictor
from train_utils.data.reading import Job, Picture, equal_sizes, read_ahead
from train_utils.metrics import check_finite
from train_utils.prediction_scores import PredictionScores
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


def predict_all(
    predictor: Predictor,
    read: Callable[[Job], Picture],
    jobs: list[Job],
    threshold: float,
    files: PredictionFiles,
    table: PredictionTable,
    scores: PredictionScores | None,
) -> dict[str, str]:
    """Segments and writes all images; returns {path: reason} of those that failed."""
    failed, writing = {}, deque()
    pool = ThreadPoolExecutor(WORKERS)
    bar = tqdm(total=len(jobs), unit="image", leave=False, disable=None)
    try:
        for group in equal_sizes(read_ahead(pool, read, jobs, failed)):
            writing += segment(predictor, group, threshold, files, scores, pool)
            while writing and (writing[0].saved.done() or is_too_much(writing)):
                finish(writing.popleft(), files, table, failed)
            bar.update(len(group))
            del group  # or its images would be in memory while the next ones are read
        while writing:
            finish(writing.popleft(), files, table, failed)
    finally:
        bar.close()
        pool.shutdown(cancel_futures=True)
    return failed


def is_too_much(writing: Iterable[Written]) -> bool:
    """Whether to wait for files before the next images are computed: all stay in memory."""
    pixels = [height * width for height, width in (each.size for each in writing)]
    too_large = len(pixels) > 1 and sum(pixels) > MAX_WRITING_PIXELS
    return too_large or len(pixels) > MAX_WRITING


def segment(
    predictor: Predictor,
    group: list[Picture],
    threshold: float,
    files: PredictionFiles,
    scores: PredictionScores | None,
    pool: ThreadPoolExecutor,
) -> list[Written]:
    """Segments images of one size, and has their files written by the pool.

    An image in tiles is written by this thread, strip by strip, as it is computed.
    """
    if predictor.is_cut(group[0].image):
        return [segment_in_tiles(predictor, each, threshold, files, scores) for each in group]
    start = time.perf_counter()
    batch = predictor.whole([picture.image for picture in group])
    synchronize(predictor.device)
    seconds = (time.perf_counter() - start) / len(group)
    written = []
    for picture, probs in zip(group, batch, strict=True):
        strip = slice(0, len(probs[0])), probs
        strips = list(finished_strips([strip], picture, threshold, files.save_prob, scores))
        name, image = picture.job.item.name, picture.image
        saved = pool.submit(files.write, name, image, strips)
        written.append(Written(picture.job, tuple(image.shape[1:]), seconds, saved))
    return written


def segment_in_tiles(
    predictor: Predictor,
    picture: Picture,
    threshold: float,
    files: PredictionFiles,
    scores: PredictionScores | None,
) -> Written:
    """Segments and writes one image, strip by strip."""
    start, saved = time.perf_counter(), Future()
    name, image = picture.job.item.name, picture.image
    with tqdm(desc=name, unit="tile", leave=False, disable=None) as bar:

        def show(done: int, tiles: int) -> None:
            bar.total = tiles
            bar.update(done - bar.n)

        strips = predictor.strips(image, show)
        strips = finished_strips(strips, picture, threshold, files.save_prob, scores)
        saved.set_result(files.write(name, image, strips))
    return Written(picture.job, tuple(image.shape[1:]), time.perf_counter() - start, saved)


def finished_strips(
    strips: Iterable[tuple[slice, Tensor]],
    picture: Picture,
    threshold: float,
    save_prob: bool,
    scores: PredictionScores | None,
) -> Iterator[Strip]:
    """Class ids, and probabilities if they are to be saved, with background outside the ROI.

    Scores count what the model predicts inside the ROI. UserError for a probability that is not
    finite.
    """
    for rows, probs in strips:
        check_finite(probs, picture.job.item.path)
        if scores:
            scores.add_strip(picture.target[rows], probs)
        if picture.roi is not None:
            outside = ~picture.roi[rows].to(probs.device)
            probs.masked_fill_(outside, 0)
            probs[0].masked_fill_(outside, 1)
        mask = decide(probs[None], threshold)[0].cpu().numpy()
        yield rows, mask, probs.cpu().numpy() if save_prob else None
    if scores:
        scores.end_image(picture)


def finish(
    written: Written, files: PredictionFiles, table: PredictionTable, failed: dict[str, str]
) -> None:
    """Waits for the files of an image, adds its row to the table, and prints a line.

    An image whose objects could not be written gets no row, and is noted in `failed`.
    """
    name, path, (height, width) = written.job.item.name, written.job.item.path, written.size
    saved = written.saved.result()
    if saved.problem:
        failed[str(path)] = f"{path}: {saved.problem}"
        return
    table.add(name, written.size, saved.pixels, written.seconds, saved.objects)
    shares = 100 * saved.pixels / saved.pixels.sum()
    parts = [f"{each} {share:.1f} %" for each, share in zip(files.class_names, shares, strict=True)]
    if files.save_instances:
        parts.append(f"{len(saved.objects)} objects")
    line = f"{path} -> {files.mask_path(name)}  {width}x{height}  {written.seconds:.3f} s  "
    tqdm.write(line + ", ".join(parts))
    sys.stdout.flush()

"""From probabilities to what is written and scored, for images and volumes alike."""

from collections.abc import Iterable, Iterator

from torch import Tensor

from src.inference import decide
from train_utils.data.reading import Picture, Scan
from train_utils.metrics import check_finite
from train_utils.prediction_scores import PredictionScores
from train_utils.reporting.image_files import Strip


def finished_strips(
    strips: Iterable[tuple[slice, Tensor]],
    picture: Picture | Scan,
    threshold: float,
    scores: PredictionScores | None,
    keep_probs: bool,
) -> Iterator[Strip]:
    """(rows, class ids, probabilities or None) of an image, with background outside the ROI.

    Args:
        strips: (rows, probabilities [K, h, W]) from top to bottom; slices [K, d, H, W] of a volume.
        picture: the image or volume, with its ROI and label.
        threshold: on the probability of class 1, for two classes.
        scores: get what the model predicts inside the ROI; None without labels.
        keep_probs: whether probabilities are yielded, too.

    NonFiniteProbsError for probabilities that are not finite; the image is not scored then.
    """
    if scores:
        scores.begin()
        target = picture.target
    for rows, probs in strips:
        check_finite(probs, picture.job.input.path)
        if scores:
            scores.add_strip(target[rows], probs)
        if picture.roi is not None:
            outside = ~picture.roi[rows].to(probs.device)
            probs.masked_fill_(outside, 0)
            probs[0].masked_fill_(outside, 1)
        ids = decide(probs[None], threshold)[0].cpu().numpy()
        yield rows, ids, probs.cpu().numpy() if keep_probs else None
    if scores:
        scores.end(picture)

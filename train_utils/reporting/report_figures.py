"""The curves and pictures of a report, as HTML for the placeholders of report.html."""

import html
import math
from collections.abc import Callable

import numpy as np

from train_utils.metrics import summarize
from train_utils.reporting.curves import rank_curve_svg
from train_utils.reporting.pictures import (
    as_rgb,
    default_colours,
    error_colours,
    error_overlay,
)
from train_utils.reporting.report_data import ReportData, rank_curves
from train_utils.reporting.report_elements import figure, legend, number
from train_utils.reporting.slices import slices_of

BLUE = (0, 114, 178)


def curves(scores: dict, report_data: ReportData, class_names: list[str]) -> str:
    """ROC and precision-recall curves of the foreground classes."""
    colours = [BLUE]
    if not report_data.binary:
        colours = default_colours(len(class_names))[1:] * 0.75  # darker, on white
    roc, precision_recall = [], []
    histograms = report_data.roi.counts.histograms
    for name, colour, histogram in zip(class_names[1:], colours, histograms, strict=True):
        curve = rank_curves(*histogram)
        if curve is not None:
            false, true, precision = curve
            roc.append((name, colour, np.r_[0, false], np.r_[0, true]))
            precision_recall.append((name, colour, true, precision))
    points = []
    if report_data.binary:
        points.append(("p > 0.5", "o", scores))
    if report_data.observer.images:
        points.append(("second observer", "D", summarize(report_data.observer.counts)))
    roc_svg = rank_curve_svg(
        f"ROC, AUC {number(scores['auc'])}",
        "1 − specificity",
        "sensitivity",
        roc,
        [(name, marker, 1 - at["specificity"], at["sensitivity"]) for name, marker, at in points],
        diagonal=True,
    )
    precision_recall_svg = rank_curve_svg(
        f"Precision and recall, AP {number(scores['average_precision'])}",
        "recall",
        "precision",
        precision_recall,
        [(name, marker, at["sensitivity"], at["precision"]) for name, marker, at in points],
    )
    return (
        f'<figure role="img" aria-label="ROC curve">{roc_svg}</figure>\n'
        f'<figure role="img" aria-label="precision-recall curve">{precision_recall_svg}</figure>'
    )


def extremes(
    rows: list[dict],
    report_data: ReportData,
    class_names: list[str],
    image_of: Callable[[int], np.ndarray],
) -> str:
    """The two best and the two worst images by Dice: the photograph, and the errors over it."""
    scored = [i for i, row in enumerate(rows) if not math.isnan(row["dice"])]
    ascending = sorted(scored, key=lambda i: rows[i]["dice"])
    # With few images none is both among the best and among the worst.
    best = ascending[::-1][: min(2, (len(scored) + 1) // 2)]
    worst = ascending[: min(2, len(scored) // 2)]
    # Black is left out of the legend: the photograph shows in its place.
    visible = {name: c for name, c in error_colours(len(class_names)).items() if any(c)}
    parts = [legend(visible)]
    for kind, i in [*(("Best", i) for i in best), *(("Worst", i) for i in worst)]:
        photograph, errors = photograph_and_errors(i, report_data, len(class_names), image_of)
        parts += [
            f"<h3>{kind}: {html.escape(rows[i]['name'])}, Dice {number(rows[i]['dice'])}</h3>",
            '<div class="figures">',
            figure(photograph, "slices" if report_data.spacing else "photograph", photograph=True),
            figure(errors, "errors", photograph=False),
            "</div>",
        ]
    return "\n".join(parts)


def photograph_and_errors(
    index: int,
    report_data: ReportData,
    num_classes: int,
    image_of: Callable[[int], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Two pictures [H, W, 3] uint8 of an image, or of three slices through a volume."""
    photograph, finish = image_of(index), None
    target, prediction = report_data.targets[index], report_data.predictions[index]
    if report_data.spacing:
        slices = slices_of(photograph, target, prediction, report_data.spacing)
        photograph, target, prediction, _ = slices
        photograph, finish = as_rgb(photograph), slices.on_white
    target, prediction = target.numpy(), prediction.numpy()
    errors = error_overlay(photograph, target, prediction, num_classes, report_data.ignore_index)
    if finish:
        return finish(photograph), finish(errors)
    return photograph, errors

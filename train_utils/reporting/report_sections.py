"""The text and tables of a report, as HTML. Each function fills one placeholder of report.html.

What has a meaning for two classes only (threshold, thin and thick structures, second observer) is
left out for more.
"""

import html
from collections.abc import Sequence

import torch

from train_utils.metrics import summarize
from train_utils.reporting import report_objects
from train_utils.reporting.report_data import THICK, ReportData, bootstrap
from train_utils.reporting.report_elements import (
    MISSING,
    card,
    mean_and_sd,
    note,
    number,
    table,
)
from train_utils.reporting.score_names import PER_CLASS, SCORE_NAMES

RESAMPLES, SEED = 2000, 0  # of the bootstrap
# The scores of one image; its F1 is its Dice.
PER_IMAGE = (
    "dice",
    "sensitivity",
    "specificity",
    "precision",
    "accuracy",
    "mean_iou",
    "auc",
    "average_precision",
)
OBSERVED = ("f1", "dice", "accuracy", "sensitivity", "specificity", "precision", "mean_iou")


def summary(content: dict, class_names: list[str], spacing: Sequence[float] | None) -> str:
    """What was evaluated on what. spacing: (D, H, W) of volumes, None for images."""
    models = len(content["weights"])
    text = f"An ensemble of {models} models" if models > 1 else "A single model"
    if content["flips"]:
        text += f", averaged over {'eight' if spacing else 'four'} flips of each image"
    else:
        text += ", without flips at test time"
    scores = content["scores"]
    images, pixels = ("volumes", "voxels") if spacing else ("images", "pixels")
    text += f": {scores['images']} {images}, {scores['pixels']:,} valid {pixels}, "
    text += f"{len(class_names)} classes ({', '.join(class_names)})."
    if spacing:
        size = "×".join(f"{side:g}" for side in spacing)
        text += (
            f" The images of this page are volumes with voxels of {size} (D×H×W), the size at which"
            " the model works, and its pixels are voxels. Pictures show three slices through the "
            "structure."
        )
    return html.escape(text)


def cards(
    scores: dict, threshold: float | None, report_data: ReportData, class_names: list[str]
) -> str:
    """The scores inside the ROI, F1 and Dice with confidence intervals."""
    intervals = bootstrap(report_data.roi.counts.image_mats, RESAMPLES, seed=SEED)
    bounds = {
        key: f"95 % interval {number(low)} to {number(high)}"
        for key, (low, high) in intervals.items()
    }
    f1_title = "F1, pooled; mean of the foreground classes"
    if report_data.binary:
        f1_title = "F1, pooled over all pixels"
    dice_title = f"Dice, mean ± {number(scores['dice_sd'])} of the images"
    boxes = [
        card(f1_title, number(scores["f1"]), bounds["f1"], wide=True),
        card(dice_title, number(scores["dice"]), bounds["dice"], wide=True),
    ]
    for key in PER_IMAGE:
        if key != "dice":
            boxes.append(card(SCORE_NAMES[key].full, number(scores[key])))
    if report_data.binary:
        for name, value in zip(class_names, scores["iou_per_class"], strict=True):
            boxes.append(card(f"IoU, {name}", number(value)))
    if "f1_at_threshold" in scores:
        value = number(scores["f1_at_threshold"])
        boxes.append(card("F1 at the chosen threshold", value, f"p > {threshold:.3f}"))
    if "object_ap" in scores:
        boxes += report_objects.cards(scores, threshold)
    return "\n".join(boxes)


def score_note(scores: dict, report_data: ReportData, class_names: list[str]) -> str:
    """How the scores and their intervals are computed."""
    if report_data.binary:
        text = f"A pixel is “{class_names[1]}” where its probability exceeds 0.5."
    else:
        text = (
            "Each pixel gets its most probable class. Sensitivity, specificity, precision, AUC and "
            "average precision are means over the foreground classes. A class that is neither in "
            "the truth nor in the prediction has no score and is left out."
        )
    text += (
        f" Intervals: percentile bootstrap over the {scores['images']} images ({RESAMPLES:,} "
        f"resamples with replacement, seed {SEED}). Each resample is scored as all images are: F1 "
        "from its added pixels, Dice as the mean of its images. The intervals show how much the "
        "choice of images matters, not how much the seed of the training does. ± is the standard "
        "deviation over images"
    )
    if scores["images_without_foreground"]:
        text += f"; {scores['images_without_foreground']} images without foreground have no Dice"
    text += "."
    if "object_ap" in scores:
        text += f" {report_objects.NOTE}"
    return html.escape(text)


def conventions(report_data: ReportData) -> str:
    """Scores inside the ROI and over the whole frame, pooled and per image."""
    views = {"inside the ROI": report_data.roi}
    text = "No pixel lies outside an ROI, so inside the ROI and whole frame are the same."
    if report_data.has_outside():
        views["whole frame"] = report_data.frame
        views["whole frame, raw"] = report_data.raw
        text = (
            "Inside the ROI: only its pixels are scored. Whole frame: all pixels are scored, with "
            "the label of the file and a prediction of background outside the ROI. That is right "
            "nearly everywhere, so accuracy, specificity and AUC are higher and cannot be compared "
            "with those inside the ROI. Raw: the model’s own output outside the ROI, where it was "
            "never trained."
        )
    text += " Pooled: the pixels of all images are added up. Per image: mean ± standard deviation."
    header = [""]
    for name in views:
        header += [f"{name}, pooled", f"{name}, per image"]
    pooled = {name: summarize(scored.counts) for name, scored in views.items()}
    rows = []
    for key in PER_IMAGE:
        row = ["Dice = F1" if key == "dice" else SCORE_NAMES[key].full]
        for name, scored in views.items():
            row.append(number(pooled[name]["f1" if key == "dice" else key]))
            row.append(mean_and_sd(*scored.mean_and_sd(key)))
        rows.append(row)
    return table(header, rows) + note(text)


def structures(scores: dict, report_data: ReportData, class_names: list[str]) -> str:
    """Recall on thin and thick structures, and a second observer beside the model.

    With its heading, because only images of two classes have this section; "" for others.
    """
    if not report_data.has_structures:
        return ""
    foreground = class_names[1]
    title = f"Thin and thick {foreground}"
    columns = {"model, p > 0.5": (scores, report_data.found)}
    observed = len(report_data.observer.images)
    if observed:
        title = f"A second observer, thin and thick {foreground}"
        columns[f"second observer, {observed} images"] = (
            summarize(report_data.observer.counts),
            report_data.observer_found,
        )
    titles = {"f1": "F1, pooled", "dice": "Dice, mean of images"}
    rows = []
    for key in OBSERVED:
        title_of_row = titles.get(key, SCORE_NAMES[key].full)
        rows.append([title_of_row, *(number(each[key]) for each, _ in columns.values())])
    for index, kind in enumerate(("thin", "thick")):
        recalls = [_recall(found[index]) for _, found in columns.values()]
        rows.append([f"recall, {kind} {foreground}", *map(number, recalls)])
    thin, thick = report_data.found[:, 1].tolist()
    text = (
        f"Inside the ROI. A label pixel is thick if a {THICK} × {THICK} square of label pixels "
        "contains it (morphological opening), and thin if none does: a structure of "
        f"{THICK - 1} px or less is thin. {thin:,} pixels are thin, {thick:,} thick."
    )
    if observed:
        text += (
            " The second observer’s label is scored against the first observer’s, by the same "
            "functions as a prediction."
        )
    return f"<h2>{html.escape(title)}</h2>\n{table(['', *columns], rows)}{note(text)}"


def _recall(found: torch.Tensor) -> float:
    """Of (pixels found, pixels in all); NaN if there are none."""
    return (found[0] / found[1]).item()


def classes(scores: dict, class_names: list[str]) -> str:
    """Precision, recall, Dice and IoU of each class."""
    rows = []
    for index, name in enumerate(class_names):
        values = [scores[f"{key}_per_class"][index] for key in PER_CLASS]
        rows.append([name, *map(number, values)])
    return table(["", "precision", "recall", "Dice = F1", "IoU"], rows)


def images(rows: list[dict], report_data: ReportData) -> str:
    """The scores of each image, and those of its objects, if there are any."""
    header = ["image", *(SCORE_NAMES[key].full for key in PER_IMAGE)]
    with_objects = bool(rows) and "object_ap" in rows[0]
    if with_objects:
        header += report_objects.COLUMNS.values()
    lines = []
    for row, scores in zip(rows, report_data.roi.images, strict=True):
        line = [row["name"], *(number(scores[key]) for key in PER_IMAGE)]
        if with_objects:
            line += report_objects.cells(row)
        lines.append(line)
    return table(header, lines)


def provenance(content: dict) -> str:
    """All of test_scores.json but the scores themselves."""
    with_units = {
        "seconds": "wall time, s",
        "training_seconds": "training of all epochs, s",
        "peak_memory_mb": "peak memory, MB",
    }
    facts = []
    for name, value in content.items():
        if name not in ("scores", "images"):
            facts.append((with_units.get(name, name), fact(value)))
    return table([], facts, kind="facts")


def fact(value: object) -> str:
    """A value of test_scores.json as one line of text."""
    if isinstance(value, dict):
        return "; ".join(f"{name}: {fact(item)}" for name, item in value.items())
    if isinstance(value, list):
        if not value:
            return "none"
        separator = " | " if isinstance(value[0], (dict, list)) else ", "
        return separator.join(map(fact, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return MISSING
    return str(value)

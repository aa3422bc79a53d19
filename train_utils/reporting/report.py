"""The report of an evaluation: one HTML page that needs no other file, and images.csv."""

import html
from collections.abc import Callable
from pathlib import Path
from string import Template

import numpy as np

from train_utils.atomic import replacing
from train_utils.reporting import report_figures as figures
from train_utils.reporting import report_sections as sections
from train_utils.reporting.report_data import ReportData
from train_utils.reporting.text_files import write_csv

TEMPLATE = Path(__file__).with_name("report.html")


def save(
    folder: str | Path,
    title: str,
    content: dict,
    report_data: ReportData,
    class_names: list[str],
    image_of: Callable[[int], np.ndarray],
) -> None:
    """Write folder/report.html and folder/images.csv (the scores of each image inside the ROI).

    For the arguments see page(). OSError if the folder is not writable.
    """
    folder = Path(folder)
    rows = [
        csv_row(row, scores)
        for row, scores in zip(content["images"], report_data.roi.images, strict=True)
    ]
    write_csv(folder / "images.csv", rows)
    text = page(title, content, report_data, class_names, image_of)
    with replacing(folder / "report.html") as temporary:
        # Names of files need not be valid UTF-8, but a page is.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def csv_row(row: dict, scores: dict) -> dict:
    """A line of images.csv: pixels and scores of one image.

    row: of image_rows(), whose lists begin with class 1. scores: of summarize(), whose lists begin
    with the background, class 0; they are left out with two classes.
    """
    line = {}
    for name, value in row.items():
        if isinstance(value, list):
            for class_id, pixels in enumerate(value, start=1):
                line[f"{name}_{class_id}"] = pixels
        else:
            line[name] = value
    for name in sections.PER_IMAGE:
        line[name] = scores[name]
    for name, value in scores.items():
        if name.endswith("_per_class") and len(value) > 2:
            line[name] = value
    return line


def page(
    title: str,
    content: dict,
    report_data: ReportData,
    class_names: list[str],
    image_of: Callable[[int], np.ndarray],
) -> str:
    """The page as text.

    Args:
        title: of the page.
        content: what test_scores.json holds: scores, images, threshold, and their provenance.
        report_data: of the same evaluation.
        class_names: of all classes, the background first.
        image_of: gives the picture of an image, uint8 [H, W, 3], or a volume, float [C, D, H, W],
            by its index. It is called for the few images that the page shows.
    """
    scores, threshold = content["scores"], content["threshold"]
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        summary=sections.summary(content, class_names, report_data.spacing),
        selection=html.escape(content["selection"]),
        cards=sections.cards(scores, threshold, report_data, class_names),
        score_note=sections.score_note(scores, report_data, class_names),
        conventions=sections.conventions(report_data),
        curves=figures.curves(scores, report_data, class_names),
        structures=sections.structures(scores, report_data, class_names),
        classes=sections.classes(scores, class_names),
        extremes=figures.extremes(content["images"], report_data, class_names, image_of),
        images=sections.images(content["images"], report_data),
        provenance=sections.provenance(content),
    )

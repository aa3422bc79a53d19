"""Grids of pictures with a legend: predictions beside their targets, and a dataset's labels.

Only matplotlib's object-oriented part is used, as in curves.py.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from src.image_io import IGNORE
from src.inference import decide, predict_strips
from src.tiles import Tiling
from train_utils.atomic import replacing
from train_utils.data.border_weights import border_weights
from train_utils.data.class_table import ClassTable
from train_utils.data.doctor_sample import Finding
from train_utils.metrics import SegmentationCounts
from train_utils.reporting.object_pictures import object_picture, weight_picture
from train_utils.reporting.pictures import (
    IGNORED_COLOUR,
    as_rgb,
    check_class_ids,
    class_picture,
    default_colours,
    error_colours,
    error_map,
    resized_for_display,
    with_default_colours,
)
from train_utils.reporting.slices import slices_of

DPI = 200
MAX_SIDE = 600  # px, to which larger pictures are reduced before they are shown
LEGEND_COLUMNS = 5
COLUMNS = 6  # of the contact sheet; a sample takes two, with weights three
LEGEND_LINE = 0.19  # inches
TITLE_HEIGHT = 0.25  # inches
FONT_SIZE = 9


class Cell(NamedTuple):
    """One picture of a grid."""

    title: str
    picture: np.ndarray | None  # [H, W, 3] uint8; None shows "no label"
    photograph: bool = False  # may be smoothed when it is resized; others keep their exact colours


def draw_predictions(
    path: str | Path,
    model: torch.nn.Module,
    dataset: torch.utils.data.Dataset,
    device: torch.device,
    amp_dtype: torch.dtype | None,
    class_names: Sequence[str],
    colours: np.ndarray | None = None,
    count: int = 4,
    ignore_index: int = IGNORE,
    tiling: Tiling | None = None,
) -> None:
    """Predict the first `count` images of the dataset and save them with save_prediction_grid().

    dataset: a SegmentationDataset; read(i) gives the raw image and target, [i] the model's input,
    samples[i].name the title. Ignored pixels are shown as background in the prediction. Of a volume
    three slices are shown. tiling: as for predict_strips().
    """
    rows = []
    for i, sample in enumerate(dataset.samples[:count]):
        image, target, *_ = dataset.read(i)
        prediction, counts = torch.empty_like(target), SegmentationCounts(len(class_names))
        for part, probs in predict_strips(model, dataset[i][0], device, amp_dtype, tiling):
            prediction[part] = decide(probs[None])[0].cpu()
            prediction[part].masked_fill_(target[part] == ignore_index, 0)
            counts.add_strip(target[part], prediction[part], probs.cpu())
        counts.end_image()
        row = {"name": sample.name, "score": counts.mean_dice()}
        if target.ndim == 3:
            slices = slices_of(image, target, prediction, dataset.spacing)
            image, target, prediction, _ = slices
            row["finish"] = slices.on_white
        row |= {"image": as_rgb(image), "target": target.numpy()}
        rows.append(row | {"prediction": prediction.numpy()})
    save_prediction_grid(path, rows, class_names, colours, ignore_index)


def save_prediction_grid(
    path: str | Path,
    rows: Sequence[dict],
    class_names: Sequence[str],
    colours: np.ndarray | None = None,
    ignore_index: int = IGNORE,
) -> None:
    """Save image, truth, prediction and errors side by side, one line for each row.

    Args:
        rows: dicts of `name`, `image` [H, W, 3] uint8, `target` [H, W] uint8 or None,
            `prediction` [H, W] uint8 and `score` (Dice, NaN or None); and `finish`, if each picture
            [H, W, 3] uint8 is changed before it is shown.
        colours: [K, 3] uint8 of the classes; None for default_colours().

    ValueError for no rows, wrong shapes or unknown class ids; OSError if path is not writable.
    """
    if not rows:
        raise ValueError("a prediction grid needs at least one row")
    if colours is None:
        colours = default_colours(len(class_names))
    cells = [_prediction_cells(row, colours, ignore_index) for row in rows]
    classes = list(zip(class_names, colours, strict=True))
    errors = list(error_colours(len(colours)).items())
    legends = {"outside upper left": classes, "outside lower left": errors}
    _save_grid(path, cells, legends, cell_width=3)


def _prediction_cells(row: dict, colours: np.ndarray, ignore_index: int) -> list[Cell]:
    image = np.asarray(row["image"])
    prediction = check_class_ids(row["prediction"], len(colours), image)
    truth = errors = None
    if row["target"] is not None:
        truth = class_picture(row["target"], colours, ignore_index)
        errors = error_map(row["target"], prediction, len(colours), ignore_index)
    title = "prediction"
    score = row.get("score")
    if score is not None and math.isfinite(score):
        title += f", Dice {score:.3f}"
    cells = [
        Cell(_shorten(row["name"], 36), image, photograph=True),
        Cell("truth", truth),
        Cell(title, class_picture(prediction, colours, ignore_index)),
        Cell("errors", errors),
    ]
    if "finish" in row:
        return [cell._replace(picture=row["finish"](cell.picture)) for cell in cells]
    return cells


def save_contact_sheet(path: str | Path, findings: Sequence[Finding], table: ClassTable) -> None:
    """Save images of a dataset, each beside its label in the colours of the class table.

    Labels with one id an object show each object in another colour than those beside it, and then
    the border weights. A weight map of the dataset is shown in place of these.

    findings: of the label doctor, with image and target. OSError if path is not writable.
    """
    colours = with_default_colours(table.colours)
    cells = [_sample_cells(finding, colours) for finding in findings]
    per_line, lines = COLUMNS // max(len(sample) for sample in cells), []
    for start in range(0, len(cells), per_line):
        lines.append([cell for sample in cells[start : start + per_line] for cell in sample])
    legend = [*zip(table.names, colours, strict=True), ("ignored", IGNORED_COLOUR)]
    if findings[0].objects is not None:
        del legend[1]  # objects have many colours
    _save_grid(path, lines, {"outside lower left": legend}, cell_width=1.6)


def _sample_cells(finding: Finding, colours: np.ndarray) -> list[Cell]:
    """Image, label and, if there are any, weights of a sample."""
    title = _shorten(f"{finding.split}: {finding.sample.name}", 40)
    cells = [Cell(title, as_rgb(finding.image), photograph=True)]
    weight, what = finding.weight, "weight"
    if finding.objects is None:
        cells.append(Cell("", class_picture(finding.target, colours)))
    else:
        picture = object_picture(finding.objects.ids)
        picture[finding.target == IGNORE] = IGNORED_COLOUR
        cells.append(Cell(f"{finding.objects.count} objects", picture))
        if weight is None:
            weight, what = border_weights(finding.objects.ids), "border weight"
    if weight is not None:
        title = f"{what} {weight.min():.3g} to {weight.max():.3g}"
        cells.append(Cell(title, weight_picture(weight)))
    return cells


def _save_grid(
    path: str | Path,
    lines: Sequence[Sequence[Cell]],
    legends: dict[str, list[tuple]],
    cell_width: float,
) -> None:
    """Save lines of pictures as a PNG.

    legends: where → entries, see _add_legend(). cell_width: inches; a cell is at most as high as it
    is wide, and pictures keep their proportions.
    """
    columns = max(len(line) for line in lines)
    heights = [cell_width * _relative_height(line) + TITLE_HEIGHT for line in lines]
    legend_lines = sum(math.ceil(len(entries) / LEGEND_COLUMNS) for entries in legends.values())
    height = sum(heights) + LEGEND_LINE * (legend_lines + len(legends))
    figure = Figure(figsize=(columns * cell_width, height), layout="constrained")
    all_axes = figure.subplots(len(lines), columns, squeeze=False, height_ratios=heights)
    for line, line_axes in zip(lines, all_axes, strict=True):
        for axes in line_axes:
            axes.set_axis_off()
        for cell, axes in zip(line, line_axes, strict=False):  # the last line may be shorter
            _show(axes, cell)
    for where, entries in legends.items():
        _add_legend(figure, entries, where)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, facecolor="white")


def _relative_height(line: Sequence[Cell]) -> float:
    """The height of the highest picture of a line for a width of 1, between 0.2 and 1."""
    ratios = [
        cell.picture.shape[0] / cell.picture.shape[1] for cell in line if cell.picture is not None
    ]
    return min(1, max(0.2, *ratios))


def _show(axes: Axes, cell: Cell) -> None:
    """One picture and its title; the title begins at the left edge of the picture."""
    axes.set_title(cell.title, loc="left", fontsize=FONT_SIZE, parse_math=False)
    if cell.picture is None:
        axes.text(0.5, 0.5, "no label", transform=axes.transAxes, ha="center", color="grey")
        return
    picture = resized_for_display(cell.picture, MAX_SIDE, cell.photograph)
    axes.imshow(picture, interpolation="antialiased" if cell.photograph else "nearest")
    axes.set_anchor("NW")


def _add_legend(figure: Figure, entries: Sequence[tuple], where: str) -> None:
    """A patch and the name of each (name, RGB colour 0..255), five to a line."""
    patches = []
    for name, colour in entries:
        # The blank is for names that begin with "_", which a legend would leave out.
        label = f" {_shorten(name, 24)}"
        patches.append(Patch(facecolor=np.array(colour) / 255, edgecolor="grey", label=label))
    columns = min(LEGEND_COLUMNS, len(entries))
    legend = figure.legend(
        handles=patches, loc=where, ncols=columns, fontsize=FONT_SIZE, frameon=False
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # "$" in a name starts no formula


def _shorten(name: str, length: int) -> str:
    """At most `length` characters of the name, the last one … if some are missing."""
    if len(name) <= length:
        return name
    return name[: length - 1] + "…"

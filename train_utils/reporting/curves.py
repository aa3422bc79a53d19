"""Training curves, prediction grids, and the curves of a report.

The only file of the project that imports matplotlib, and only its object-oriented part: without pyplot there is no
backend to choose and no state shared between two figures. All arrays are numpy, files PNG.
"""

import io

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from PIL import Image

from train_utils.atomic import replacing
from train_utils.reporting.pictures import (
    MANY_CLASS_ERRORS,
    TWO_CLASS_ERRORS,
    check_class_ids,
    default_colours,
    error_map,
)

# Key -> name, colour, line width. Binary Dice and F1 may coincide: the wide line shows below the thin.
SCORES = {
    "val_dice": ("Dice", "#56b4e9", 4),
    "val_f1": ("F1", "#d55e00", 1.5),
    "val_mean_iou": ("mean IoU", "#009e73", 1.5),
    "val_auc": ("AUC", "#cc79a7", 1.5),
}
GRID_DPI = 64  # a power of two: pixels / dpi * dpi is exact, so no row or column of pixels is lost


def save_curves(path, history, measure="val_dice"):
    """Plot loss, validation scores and learning rate over the epochs.

    history is a list of dicts with `epoch`, `train_loss`, `lr` and any of SCORES; a value that is
    missing, None or not finite is left out. `measure`, one of SCORES, gets a star at its best epoch.
    OSError if path is not writable.
    """
    figure = Figure(figsize=(15, 4.6), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12)
    panels = figure.subplots(1, 3)
    _plot_loss(panels[0], history)
    _plot_scores(panels[1], history, measure)
    _plot_line(panels[2], *_series(history, "lr"), color="#d55e00")
    panels[2].set(title="Learning rate", ylabel="learning rate")
    for axes in panels:
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if history:
            epochs = [row["epoch"] for row in history]
            axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
        if axes.lines:
            axes.grid(alpha=0.3)
        else:
            axes.set_yticks([])
            axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", color="grey")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, facecolor="white")


def save_prediction_grid(path, rows, class_names, colours=None, max_side=600, ignore_index=255):
    """Draw image, truth, prediction and errors side by side, one line of pictures for each row.

    rows: dicts of `name`, `image` [H, W, 3] uint8, `target` [H, W] uint8 or None, `prediction`
    [H, W] uint8, `score` (Dice or None). A picture is drawn pixel for pixel, one longer than
    max_side pixels is reduced to it, a small one enlarged by a whole factor. colours: [K, 3] uint8 of
    the classes, None for default_colours. ValueError for no rows, wrong shapes or unknown class ids;
    OSError if path is not writable.
    """
    if not rows:
        raise ValueError("a prediction grid needs at least one row")
    colours = (
        default_colours(len(class_names)) if colours is None else np.asarray(colours, np.uint8)
    )
    lines = [_row_pictures(row, colours, max_side, ignore_index) for row in rows]
    cell = max(200, max(line[0].shape[1] for line in lines))
    text = cell // 16  # pixels; grows with the pictures, to be legible when all is scaled down
    classes = list(zip(class_names, colours))
    errors = list((TWO_CLASS_ERRORS if len(colours) == 2 else MANY_CLASS_ERRORS).items())
    blocks = [_titles_block(cell, text)]
    blocks += [_pictures_block(_row_label(row), line, cell, text) for row, line in zip(rows, lines)]
    blocks += [_legend_block(classes, cell, text), _legend_block(errors, cell, text)]
    _save_blocks(path, blocks, text)


def rank_curve_svg(title, xlabel, ylabel, lines, points=(), diagonal=False):
    """A ROC or precision-recall curve in the unit square, as the text of an SVG element to stand in a page.

    lines: (name, colour, x, y) with arrays in 0-1; points: (name, marker, x, y) of single working points. `diagonal` draws
    what guessing would reach.
    """
    figure = Figure(figsize=(4.4, 4.4), layout="constrained")
    axes = figure.subplots()
    if diagonal:
        axes.plot([0, 1], [0, 1], ":", color="grey", linewidth=1)
    for (
        name,
        colour,
        x,
        y,
    ) in lines:  # matplotlib leaves out points that lie on the line between their neighbours
        axes.plot(x, y, color=np.array(colour) / 255, linewidth=1.6, label=f" {name}")
    for (name, marker, x, y), colour in zip(points, ("#d55e00", "#009e73", "#cc79a7")):
        axes.plot(
            x, y, marker, color=colour, markersize=8, markeredgecolor="white", label=f" {name}"
        )
    axes.set(
        title=title,
        xlabel=xlabel,
        ylabel=ylabel,
        xlim=(-0.01, 1.01),
        ylim=(-0.01, 1.01),
        aspect="equal",
    )
    axes.grid(alpha=0.3)
    if lines or points:
        legend = axes.legend(loc="lower right" if diagonal else "lower left", fontsize=8)
        for text in (
            legend.get_texts()
        ):  # names are no formulas; the blank before them is for those that begin with "_"
            text.set_parse_math(False)
    text = io.StringIO()
    figure.savefig(
        text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
    )
    return text.getvalue()[text.getvalue().index("<svg") :]


def _row_pictures(row, colours, max_side, ignore_index):
    """Return [image, truth, prediction, errors], each [h, w, 3] uint8 or None, all the same size."""
    image = np.asarray(row["image"])
    prediction = check_class_ids(row["prediction"], len(colours), image)
    paint = np.full((256, 3), TWO_CLASS_ERRORS["not judged"], np.uint8)  # whatever is no class
    paint[: len(colours)] = colours
    truth = errors = None
    if row["target"] is not None:
        target = np.asarray(row["target"])
        errors = _fit(
            error_map(target, prediction, ignore_index, num_classes=len(colours)), max_side
        )
        check_class_ids(np.where(target == ignore_index, 0, target), len(colours))
        truth = _fit(paint[target], max_side)
    # Class pictures keep their exact colours; only the photograph may be averaged when it shrinks.
    return [
        _fit(image, max_side, Image.Resampling.BOX),
        truth,
        _fit(paint[prediction], max_side),
        errors,
    ]


def _fit(picture, max_side, shrink=Image.Resampling.NEAREST):
    """Shrink [H, W, 3] to at most max_side, or repeat its pixels until about half of max_side."""
    side = max(picture.shape[:2])
    if side > max_side:
        size = [max(1, round(length * max_side / side)) for length in picture.shape[1::-1]]
        return np.asarray(Image.fromarray(picture).resize(size, shrink))
    times = max(1, max_side // 2 // side)
    return picture.repeat(times, axis=0).repeat(times, axis=1)


# A block is a strip of the sheet, as wide as four cells and the gaps of one text height around them:
# its canvas [h, W, 3] uint8 and its words [(x, y, string, style)], x and y in pixels from its top left.


def _blank(height, cell, text):
    return np.full((height, 4 * cell + 5 * text, 3), 255, np.uint8)


def _lefts(cell, text):
    return [text + column * (cell + text) for column in range(4)]


def _titles_block(cell, text):
    titles = zip(_lefts(cell, text), ("image", "truth", "prediction", "errors"))
    words = [
        (left + cell / 2, text, title, {"ha": "center", "weight": "bold"}) for left, title in titles
    ]
    return _blank(2 * text, cell, text), words


def _pictures_block(label, pictures, cell, text):
    """One row of the grid: its label, the four pictures below it, a margin."""
    tall, wide = pictures[0].shape[:2]
    canvas, words = _blank(tall + 3 * text, cell, text), [(text, text, label, {})]
    for left, picture in zip(_lefts(cell, text), pictures):
        if picture is None:
            style = {"ha": "center", "color": "grey"}
            words.append((left + cell / 2, 2 * text + tall / 2, "no label", style))
        else:
            start = left + (cell - wide) // 2
            canvas[2 * text : 2 * text + tall, start : start + wide] = picture
    return canvas, words


def _legend_block(entries, cell, text):
    """A framed patch and a name for each (name, colour), five to a line, lines 1.5 text heights apart."""
    pitch, lines = 3 * text // 2, -(-len(entries) // 5)
    canvas, words = _blank(lines * pitch + text, cell, text), []
    for index, (name, colour) in enumerate(entries):
        x = text + index % 5 * (canvas.shape[1] - text) // 5
        y = text // 4 + index // 5 * pitch
        canvas[y : y + text, x : x + 2 * text] = 128
        canvas[y + 1 : y + text - 1, x + 1 : x + 2 * text - 1] = colour
        words.append((x + 2.5 * text, y + text / 2, _short(name, 16), {}))
    return canvas, words


def _save_blocks(path, blocks, text):
    """Stack the blocks, write their words, save the PNG."""
    canvas = np.concatenate([block for block, _ in blocks])
    height, width = canvas.shape[:2]
    figure = Figure(figsize=(width / GRID_DPI, height / GRID_DPI), dpi=GRID_DPI)
    figure.figimage(canvas)  # pixel for pixel: nothing is resampled
    top = 0
    for block, words in blocks:
        for x, y, string, style in words:
            figure.text(
                x / width,
                1 - (top + y) / height,
                string,
                va="center_baseline",
                size=text * 72 / GRID_DPI,
                parse_math=False,
                **style,
            )
        top += len(block)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=GRID_DPI, facecolor="white")


def _row_label(row):
    score = _number(row.get("score"))
    return _short(row["name"], 40) + (f"    Dice {score:.3f}" if np.isfinite(score) else "")


def _short(name, length):
    return name if len(name) <= length else name[: length - 1] + "…"


def _plot_loss(axes, history):
    epochs, values = _series(history, "train_loss")
    _plot_line(axes, epochs, values, color="#0072b2")
    axes.set(title="Training loss", ylabel="loss, mean of the epoch")
    if len(values) and min(values) > 0 and max(values) > 10 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(
            LogLocator(subs=(1, 2, 5) if max(values) < 1000 * min(values) else (1,))
        )
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    if len(values) < len(history):  # a diverged epoch must not pass unseen
        axes.set_title(f"Training loss (epochs without a value: {len(history) - len(values)})")


def _plot_scores(axes, history, measure):
    axes.set(title="Validation scores", ylabel="score, 0 to 1")
    shown = []
    for key, (name, colour, width) in SCORES.items():
        epochs, values = _series(history, key)
        _plot_line(axes, epochs, values, color=colour, linewidth=width, label=name)
        shown.extend(values)
        if key == measure and len(values):
            best = values.argmax()
            axes.plot(
                epochs[best],
                values[best],
                "*",
                color="black",
                markersize=13,
                zorder=5,
                clip_on=False,
                label=f"best {name} {values[best]:.4f}, epoch {epochs[best]}",
            )
    if shown:
        margin = max(0.02, 0.08 * (max(shown) - min(shown)))
        axes.set_ylim(max(0, min(shown) - margin), min(1, max(shown) + margin))
        axes.legend(loc="best")


def _plot_line(axes, epochs, values, color, linewidth=1.5, **options):
    """Draw one curve, nothing if it has no values; few points get markers, so that one is visible."""
    if len(values):
        marker = "o" if len(values) <= 40 else ""
        axes.plot(
            epochs,
            values,
            marker=marker,
            markersize=3 + linewidth,
            clip_on=False,
            color=color,
            linewidth=linewidth,
            **options,
        )


def _series(history, key):
    """Return the epochs and values, two 1-D arrays, where `key` has a finite value."""
    epochs = np.array([row["epoch"] for row in history])
    values = np.array([_number(row.get(key)) for row in history])
    return epochs[np.isfinite(values)], values[np.isfinite(values)]


def _number(value):
    return float("nan") if value is None else float(value)

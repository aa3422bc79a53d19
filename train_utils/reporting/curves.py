"""Curves over the epochs as a PNG, and the ROC and precision-recall curves of a report as SVG.

Only matplotlib's object-oriented part is used: without pyplot there is no backend to choose and no
state shared between two figures.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from train_utils.atomic import replacing
from train_utils.reporting.score_names import SCORE_NAMES

BLUE, RED, GREEN, PINK = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
# Score → colour and line width. Dice and F1 may coincide: the wide line shows below the thin one.
VALIDATION_CURVES = {
    "dice": ("#56b4e9", 4),
    "f1": (RED, 1.5),
    "mean_iou": (GREEN, 1.5),
    "auc": (PINK, 1.5),
    "object_ap": ("#e69f00", 1.5),
}


def save_curves(path: str | Path, history: list[dict], measure: str = "val_dice") -> None:
    """Plot training loss, validation scores and learning rate over the epochs, as a PNG.

    history: one dict an epoch with `epoch`, `train_loss`, `lr` and scores such as `val_dice`.
    Values that are missing, None or not finite are left out. measure: the score whose best epoch
    gets a star. OSError if path is not writable.
    """
    figure = Figure(figsize=(15, 4.6), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12)
    loss_axes, score_axes, lr_axes = figure.subplots(1, 3)
    _plot_loss(loss_axes, history)
    _plot_scores(score_axes, history, measure)
    _plot_line(lr_axes, *_series(history, "lr"), color=RED)
    lr_axes.set(title="Learning rate", ylabel="learning rate")
    for axes in (loss_axes, score_axes, lr_axes):
        _format_epochs(axes, history)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, facecolor="white")


def _plot_loss(axes: Axes, history: list[dict]) -> None:
    epochs, values = _series(history, "train_loss")
    _plot_line(axes, epochs, values, color=BLUE)
    axes.set(title="Training loss", ylabel="loss, mean of the epoch")
    if len(values) and min(values) > 0 and max(values) > 10 * min(values):
        axes.set_yscale("log")
        few_decades = max(values) < 1000 * min(values)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few_decades else (1,)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    missing = len(history) - len(values)
    if missing:  # such as a diverged epoch
        axes.set_title(f"Training loss (epochs without a value: {missing})")


def _plot_scores(axes: Axes, history: list[dict], measure: str) -> None:
    axes.set(title="Validation scores", ylabel="score, 0 to 1")
    shown = []
    for key, (color, width) in VALIDATION_CURVES.items():
        name = SCORE_NAMES[key].full
        epochs, values = _series(history, f"val_{key}")
        _plot_line(axes, epochs, values, color=color, linewidth=width, label=name)
        shown.extend(values)
        if f"val_{key}" == measure and len(values):
            best = values.argmax()
            label = f"best {name} {values[best]:.4f}, epoch {epochs[best]}"
            star = {"color": "black", "markersize": 13, "zorder": 5, "clip_on": False}
            axes.plot(epochs[best], values[best], "*", label=label, **star)
    if shown:
        margin = max(0.02, 0.08 * (max(shown) - min(shown)))
        axes.set_ylim(max(0, min(shown) - margin), min(1, max(shown) + margin))
        axes.legend(loc="best")


def _plot_line(
    axes: Axes,
    epochs: np.ndarray,
    values: np.ndarray,
    color: str,
    linewidth: float = 1.5,
    label: str | None = None,
) -> None:
    """Plot one curve, if it has values. Few points get markers, so that a single one is visible."""
    if len(values):
        marker = "o" if len(values) <= 40 else ""
        style = {"color": color, "linewidth": linewidth, "markersize": 3 + linewidth}
        axes.plot(epochs, values, marker=marker, clip_on=False, label=label, **style)


def _format_epochs(axes: Axes, history: list[dict]) -> None:
    """Whole epochs on the x-axis, the same range in every panel, and a note if it is empty."""
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


def _series(history: list[dict], key: str) -> tuple[np.ndarray, np.ndarray]:
    """The epochs and the values, two 1-D arrays, where `key` has a finite value."""
    epochs = np.array([row["epoch"] for row in history])
    values = np.array([row.get(key) for row in history], dtype=float)  # None becomes NaN
    return epochs[np.isfinite(values)], values[np.isfinite(values)]


def rank_curve_svg(
    title: str,
    xlabel: str,
    ylabel: str,
    lines: Sequence[tuple],
    points: Sequence[tuple] = (),
    diagonal: bool = False,
) -> str:
    """A ROC or precision-recall curve in the unit square, as the text of an SVG element.

    Args:
        lines: (name, RGB colour 0..255, x, y) with 1-D arrays in 0..1.
        points: (name, matplotlib marker, x, y) of single working points.
        diagonal: whether to show what guessing reaches.
    """
    figure = Figure(figsize=(4.4, 4.4), layout="constrained")
    axes = figure.subplots()
    if diagonal:
        axes.plot([0, 1], [0, 1], ":", color="grey", linewidth=1)
    # The blank in the labels is for names that begin with "_", which a legend would leave out.
    for name, colour, x, y in lines:  # matplotlib itself drops points that change nothing visible
        axes.plot(x, y, color=np.array(colour) / 255, linewidth=1.6, label=f" {name}")
    style = {"markersize": 8, "markeredgecolor": "white"}
    for (name, marker, x, y), color in zip(points, (RED, GREEN, PINK), strict=False):
        axes.plot(x, y, marker, color=color, label=f" {name}", **style)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.grid(alpha=0.3)
    if lines or points:
        legend = axes.legend(loc="lower right" if diagonal else "lower left", fontsize=8)
        for text in legend.get_texts():
            text.set_parse_math(False)  # "$" in a name starts no formula
    return _as_svg(figure)


def _as_svg(figure: Figure) -> str:
    """The <svg> element alone, without the XML prologue and without the date."""
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata=no_metadata)
    svg = text.getvalue()
    return svg[svg.index("<svg") :]

"""The text of a run: results<timestamp>.txt, results.csv, JSON files, and the console's scores."""

import csv
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from train_utils.atomic import replacing
from train_utils.instance_metrics import image_object_rows
from train_utils.metrics import SegmentationCounts, score_lines
from train_utils.plurals import counted
from train_utils.reporting.score_names import PER_CLASS, SCORE_NAMES

# Of CSV files. Names of images need not be valid UTF-8: their bytes are written as they are.
TEXT = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
# The scores that have a line of their own in score_table(). All others share one.
OBJECT_SCORES = ("object_ap", "object_ap_50", "object_ap_75", "aji")
OWN_LINE = ("f1", "dice", "f1_tolerant", "mean_iou", *OBJECT_SCORES)


def epoch_block(row: dict) -> str:
    """One epoch's block of results<timestamp>.txt, from its row of the history.

    Without validation scores it has only the first three lines.
    """
    lines = [
        f"[epoch: {row['epoch']}]",
        f"train_loss: {row['train_loss']:.4f}",
        f"lr: {row['lr']:.6f}",
    ]
    if "val_dice" in row:
        lines += [
            f"dice coefficient: {row['val_dice']:.3f}",
            score_lines(row["val_accuracy"], row["val_recall_per_class"], row["val_iou_per_class"]),
        ]
    return "\n".join(lines) + "\n\n"


def epoch_line(row: dict, epochs: int, is_best: bool = False) -> str:
    """One epoch on one line, for the console, marked if it is the best in the validation.

    epochs: number of epochs in the run.
    """
    parts = [
        f"epoch {row['epoch']}/{epochs - 1}",
        f"loss {row['train_loss']:.4f}",
        f"lr {row['lr']:.6f}",
    ]
    for key, name in SCORE_NAMES.items():
        if name.short and f"val_{key}" in row:
            parts.append(f"{name.short} {row[f'val_{key}']:.4f}")
    parts += [f"{row['seconds']:.1f} s", f"{row['crops_per_second']:.1f} crops/s"]
    if is_best and "val_dice" in row:
        parts.append("*best")
    return "  ".join(parts)


def score_table(
    scores: dict,
    class_names: list[str],
    threshold: float | None,
    nouns: tuple[str, str] = ("images", "pixels"),
) -> str:
    """The scores of an evaluation, for the console: the overall ones, then a table of the classes.

    scores: result of summarize(). threshold: the chosen one, of `f1_at_threshold`. nouns: what was
    evaluated, and what it consists of; ("volumes", "voxels") of volumes.
    """
    images, pixels = nouns
    lines = [
        f"F1 = Dice pooled over {scores['pixels']:,} valid {pixels}   {scores['f1']:.4f}",
        _dice_line(scores, images),
        _other_scores(scores),
    ]
    if "f1_at_threshold" in scores:
        lines.append(
            f"F1 at the chosen threshold {threshold:.3f}   {scores['f1_at_threshold']:.4f}"
        )
    if "f1_tolerant" in scores:
        lines.append(_tolerance_line(scores))
    lines += _class_lines(scores, class_names)
    if len(class_names) > 2:
        lines.append(_class_dice_line(scores, class_names, images))
    lines.append(f"mean IoU {scores['mean_iou']:.4f}, over the classes that occur")
    if "object_ap" in scores:
        lines += _object_lines(scores, threshold)
    return "\n".join(lines)


def _dice_line(scores: dict, images: str) -> str:
    without = scores["images_without_foreground"]
    line = f"Dice, mean of {counted(scores['images'] - without, images)}   "
    line += f"{scores['dice']:.4f} ± {scores['dice_sd']:.4f}"
    if without:
        line += f"   ({counted(without, images)} without foreground left out)"
    return line


def _class_dice_line(scores: dict, class_names: list[str], images: str) -> str:
    """Dice of each foreground class as mean over the images, where the class occurs."""
    means, deviations = scores["image_dice_per_class"], scores["image_dice_sd_per_class"]
    rows = zip(class_names, means, deviations, strict=True)
    parts = [
        f"{name} absent" if math.isnan(mean) else f"{name} {mean:.4f} ± {sd:.4f}"
        for name, mean, sd in list(rows)[1:]
    ]
    return f"Dice, mean of {images}   {'   '.join(parts)}"


def _other_scores(scores: dict) -> str:
    """The scores without a line of their own, in the order of SCORE_NAMES."""
    shown = [key for key in SCORE_NAMES if key in scores and key not in OWN_LINE]
    return "   ".join(f"{SCORE_NAMES[key].full} {scores[key]:.4f}" for key in shown)


def _tolerance_line(scores: dict) -> str:
    line = f"within {scores['tolerance']} px"
    for key in ("f1", "precision", "recall"):
        line += f"   {SCORE_NAMES[key].full} {scores[f'{key}_tolerant']:.4f}"
    return line


def _object_lines(scores: dict, threshold: float | None) -> list[str]:
    """Average precision of objects, and what became of them."""
    lines = [
        f"objects at p > 0.5: AP {scores['object_ap']:.4f} "
        f"(at IoU 0.5 {scores['object_ap_50']:.4f}, at 0.75 {scores['object_ap_75']:.4f})   "
        f"AJI {scores['aji']:.4f}",
        f"  {scores['objects']} true, {scores['objects_predicted']} predicted, "
        f"{scores['objects_found']} found, {scores['objects_merged']} merged, "
        f"{scores['objects_split']} split",
    ]
    if "object_ap_at_threshold" in scores:
        value = scores["object_ap_at_threshold"]
        lines.append(f"objects: AP at the chosen threshold {threshold:.3f}   {value:.4f}")
    return lines


def _class_lines(scores: dict, class_names: list[str]) -> list[str]:
    """A header, then precision, recall, Dice and IoU of each class.

    "absent": the class is in neither truth nor prediction, so that its IoU is NaN. "–": it is in
    one of them, and this score has no value, such as the precision of what was never predicted.
    """
    lines = [f"{'class':<16}" + "".join(f"{SCORE_NAMES[key].full:>10}" for key in PER_CLASS)]
    for index, class_name in enumerate(class_names):
        is_absent = math.isnan(scores["iou_per_class"][index])
        missing = "absent" if is_absent else "–"
        line = f"{class_name:<16}"
        for key in PER_CLASS:
            value = scores[f"{key}_per_class"][index]
            text = f"{value:.4f}"
            if math.isnan(value):
                text = missing
            line += f"{text:>10}"
        lines.append(line)
    return lines


def write_history(folder: str | Path, text_name: str, history: list[dict]) -> None:
    """Write `text_name` (one block an epoch) and results.csv (all numbers) from all rows so far.

    Both files are written anew each time, so that after a resume each epoch is in them once.
    """
    with replacing(Path(folder) / text_name) as temporary:
        temporary.write_text("".join(epoch_block(row) for row in history), encoding="utf-8")
    write_csv(Path(folder) / "results.csv", history)


def write_csv(path: str | Path, rows: Iterable[dict]) -> None:
    """Write one line for each dict, see flatten(). The header has every name that occurs."""
    rows = [flatten(row) for row in rows]
    names = {}  # a dict, because it keeps the order
    for row in rows:
        names |= dict.fromkeys(row)
    with replacing(path) as temporary, open(temporary, "w", **TEXT) as file:
        writer = csv.DictWriter(file, fieldnames=list(names))
        writer.writeheader()
        writer.writerows(rows)


def flatten(row: dict) -> dict:
    """{"iou_per_class": [a, b]} → {"iou_0": a, "iou_1": b}; other entries stay as they are."""
    flat = {}
    for name, value in row.items():
        if isinstance(value, list):
            prefix = name.removesuffix("_per_class")
            for i, item in enumerate(value):
                flat[f"{prefix}_{i}"] = item
        else:
            flat[name] = value
    return flat


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON, with null for NaN and infinity, which JSON does not have."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(without_nan(content), indent=1) + "\n", encoding="utf-8")


def without_nan(value: Any) -> Any:
    """The same nested dicts and lists, with None for floats that are not finite."""
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def image_rows(names: list[str], counts: SegmentationCounts) -> list[dict]:
    """One dict for each image: its name, Dice, and pixels TP, FP, FN, TN of the foreground.

    With two classes the pixels are integers, with more they are lists over the foreground classes.
    Scores of objects follow, where there are any.
    """
    rows = []
    dice_per_image = counts.dice_per_image().tolist()
    for name, dice, matrix in zip(names, dice_per_image, counts.image_mats, strict=True):
        tp = matrix.diag()
        fp = matrix.sum(0) - tp
        fn = matrix.sum(1) - tp
        tn = matrix.sum() - tp - fp - fn
        row = {"name": name, "dice": dice}
        for cell, pixels in (("tp", tp), ("fp", fp), ("fn", fn), ("tn", tn)):
            foreground = pixels[1:].tolist()
            row[cell] = foreground[0] if len(foreground) == 1 else foreground
        rows.append(row)
    if len(counts.objects):
        for row, scores in zip(rows, image_object_rows(counts.objects), strict=True):
            row |= scores
    return rows

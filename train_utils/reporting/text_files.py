"""The text files of a run: results<timestamp>.txt, results.csv and test_scores.json."""

import csv
import json
import math
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import numpy
import torch
import torchvision

from train_utils.atomic import replacing
from train_utils.metrics import score_lines


def epoch_block(row):
    """The tutorials' block of one epoch from its row of the history; without validation only its first three lines."""
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


def epoch_line(row, epochs):
    """One epoch in one line, for the console."""
    line = f"epoch {row['epoch']}/{epochs - 1}  loss {row['train_loss']:.4f}  lr {row['lr']:.6f}"
    for name, title in (
        ("dice", "dice"),
        ("f1", "f1"),
        ("sensitivity", "sens"),
        ("specificity", "spec"),
        ("precision", "prec"),
        ("f1_tolerant", "F1 near"),
        ("mean_iou", "mIoU"),
        ("auc", "auc"),
    ):
        if f"val_{name}" in row:
            line += f"  {title} {row[f'val_{name}']:.4f}"
    return f"{line}  {row['seconds']:.1f} s  {row['images_per_second']:.1f} images/s"


def score_table(scores, class_names, threshold):
    """The scores of a judgement for the console: the headline, then precision, recall, Dice and IoU of each class."""
    lines = [
        f"F1 = Dice pooled over {scores['pixels']:,} judged pixels   {scores['f1']:.4f}",
        f"Dice, mean of {scores['images'] - scores['images_without_foreground']} images   "
        f"{scores['dice']:.4f} ± {scores['dice_sd']:.4f}"
        + (
            f"   ({scores['images_without_foreground']} images without foreground left out)"
            if scores["images_without_foreground"]
            else ""
        ),
        f"AUC {scores['auc']:.4f}   average precision {scores['average_precision']:.4f}   accuracy {scores['accuracy']:.4f}"
        f"   sensitivity {scores['sensitivity']:.4f}   specificity {scores['specificity']:.4f}",
    ]
    if "f1_at_threshold" in scores:
        lines.append(
            f"F1 at the chosen threshold {threshold:.3f}   {scores['f1_at_threshold']:.4f}"
        )
    if "f1_tolerant" in scores:
        lines.append(
            f"within {scores['tolerance']} px   F1 {scores['f1_tolerant']:.4f}   precision "
            f"{scores['precision_tolerant']:.4f}   recall {scores['recall_tolerant']:.4f}"
        )
    lines.append(f"{'class':<16}{'precision':>10}{'recall':>10}{'Dice':>10}{'IoU':>10}")
    columns = [scores[f"{name}_per_class"] for name in ("precision", "recall", "dice", "iou")]
    for name, *values in zip(class_names, *columns):
        lines.append(
            f"{name:<16}"
            + "".join(f"{'absent' if math.isnan(v) else f'{v:.4f}':>10}" for v in values)
        )
    lines.append(f"mean IoU {scores['mean_iou']:.4f}, over the classes that occur")
    return "\n".join(lines)


def write_history(folder, text_name, history):
    """Writes `text_name` (the tutorials' blocks) and results.csv (every number) anew from all rows of the history.

    Rewriting keeps both files right after a resume: each epoch stands in them once.
    """
    with replacing(Path(folder) / text_name) as temporary:
        temporary.write_text("".join(epoch_block(row) for row in history), encoding="utf-8")
    write_csv(Path(folder) / "results.csv", history)


def write_csv(path, rows):
    """Writes one line a dict, see flatten(); the header has every name that occurs."""
    rows = [flatten(row) for row in rows]
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(
            file, fieldnames=list(dict.fromkeys(name for row in rows for name in row))
        )
        writer.writeheader()
        writer.writerows(rows)


def flatten(row):
    """{"iou_per_class": [a, b]} → {"iou_0": a, "iou_1": b}; other entries as they are."""
    flat = {}
    for name, value in row.items():
        if isinstance(value, list):
            flat |= {f"{name.removesuffix('_per_class')}_{i}": item for i, item in enumerate(value)}
        else:
            flat[name] = value
    return flat


def write_json(path, content):
    """Writes JSON with null for what is NaN, which JSON cannot say."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(without_nan(content), indent=1) + "\n", encoding="utf-8")


def without_nan(value):
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def image_rows(names, counts):
    """One dict an image: its name, Dice, and for each foreground class its pixels TP, FP, FN, TN."""
    rows = []
    for name, dice, matrix in zip(names, counts.dice_per_image().tolist(), counts.confusion):
        hits, truth, predicted = matrix.diag(), matrix.sum(1), matrix.sum(0)
        cells = {
            "tp": hits,
            "fp": predicted - hits,
            "fn": truth - hits,
            "tn": matrix.sum() - truth - predicted + hits,
        }
        if len(hits) == 2:
            cells = {cell: value[1].item() for cell, value in cells.items()}
        else:
            cells = {cell: value[1:].tolist() for cell, value in cells.items()}
        rows.append({"name": name, "dice": dice, **cells})
    return rows


def provenance(device, seconds):
    """How a number came about: command, commit, versions, machine, wall time in seconds, peak memory in MB."""
    return {
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "commit": source_commit(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "numpy": numpy.__version__,
        },
        "machine": machine_name(device),
        "seconds": round(seconds, 1),
        "peak_memory_mb": round(peak_memory_mb(device)),
    }


def source_commit():
    """The git commit of this source tree, with "+changes" if files differ from it; None outside of a repository."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+changes" if changed else "")


def machine_name(device):
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def peak_memory_mb(device):
    """Largest memory so far: what PyTorch allocated on a GPU, else what the process held (0 where no one counts it)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3

"""What predict.py prints of images or volumes: their classes, how many, how fast, what failed."""

import sys
from collections.abc import Sequence

import numpy as np

from train_utils.plurals import counted, first_names


def shares_text(class_names: Sequence[str], pixels: np.ndarray) -> str:
    """ "background 91.2 %, vessel 8.8 %" for the pixels of each class, int64 [K]."""
    shares = 100 * pixels / pixels.sum()
    parts = [f"{name} {share:.1f} %" for name, share in zip(class_names, shares, strict=True)]
    return ", ".join(parts)


def warn_of_one_class(
    rows: Sequence[dict], class_names: Sequence[str], noun: str = "images"
) -> None:
    """Warns of images that were predicted as one class alone.

    rows: of predictions.csv. noun: "images" or "volumes", here and below.
    """
    uniform = []
    for row in rows:
        for name in class_names:
            if float(row[f"share_{name}"]) == 1:
                uniform.append(f"{row['image']} (all {name})")
    if uniform:
        print(
            f"warning: only one class was predicted in {len(uniform)} of "
            f"{counted(len(rows), noun)}: "
            f"{first_names(uniform)}; are these {noun} like those of the "
            "training, and was the training long enough?"
        )


def left_out_line(number: int, noun: str = "images") -> str:
    """How many images --skip-existing left out."""
    verb = "was" if number == 1 else "were"
    return f"{counted(number, noun)} {verb} left out: all outputs are there"


def rule_text(class_names: Sequence[str], threshold: float | None) -> str:
    """How the class of a pixel is decided. threshold: used with two classes."""
    if len(class_names) == 2:
        return f"threshold {threshold:.3f}"
    return "the most probable class"


def summary_line(
    rows: Sequence[dict], rule: str, seconds: float, output: str, noun: str = "images"
) -> str:
    """How many images, how fast, by which rule. rows: of predictions.csv. rule: of rule_text()."""
    computing = sum(float(row["seconds"]) for row in rows) / max(len(rows), 1)
    text = f"{counted(len(rows), noun)}, {computing:.3f} s each, {rule}; "
    if rows and "objects" in rows[0]:
        text += f"{counted(sum(int(row['objects']) for row in rows), 'objects')}; "
    return f"{text}{seconds:.1f} s in all; written to {output}/"


def say_how_to_continue(done: int, images: int, noun: str = "images") -> None:
    """Says after Ctrl-C how many of the images are done, and which command does the others."""
    print(
        f"predict.py: stopped after {done} of {counted(images, noun)}; the same command with "
        "--skip-existing does the others",
        file=sys.stderr,
    )


def end_with_failures(failed: dict[str, str], images: int, noun: str = "images") -> None:
    """Names the files that could not be segmented; ends the script with exit code 1."""
    print(f"predict.py: {len(failed)} of {counted(images, noun)} failed:", file=sys.stderr)
    for reason in failed.values():
        print(f"  {reason}", file=sys.stderr)
    sys.exit(1)

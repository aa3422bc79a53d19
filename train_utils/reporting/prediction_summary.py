"""The last lines that predict.py prints: how many images, how fast, and what looks wrong."""

import sys
from collections.abc import Sequence

NAMES_SHOWN = 8  # of a list of images in a message


def warn_of_one_class(
    rows: Sequence[dict], class_names: Sequence[str], noun: str = "images"
) -> None:
    """Warns of images that were predicted as one class alone. rows: of predictions.csv."""
    uniform = []
    for row in rows:
        for name in class_names:
            if float(row[f"share_{name}"]) == 1:
                uniform.append(f"{row['image']} (all {name})")
    if uniform:
        more = ", …" if len(uniform) > NAMES_SHOWN else ""
        print(
            f"warning: only one class was predicted in {len(uniform)} of {len(rows)} {noun}: "
            f"{', '.join(uniform[:NAMES_SHOWN])}{more}; are these {noun} like those of the "
            "training, and was the training long enough?"
        )


def summary_line(
    rows: Sequence[dict],
    class_names: Sequence[str],
    threshold: float,
    seconds: float,
    output: str,
    noun: str = "images",
) -> str:
    """How many images or volumes, how fast, by which rule. rows: of predictions.csv."""
    rule = "the most probable class"
    if len(class_names) == 2:
        rule = f"threshold {threshold:.3f}"
    computing = sum(float(row["seconds"]) for row in rows) / max(len(rows), 1)
    text = f"{len(rows)} {noun}, {computing:.3f} s each, {rule}; "
    if rows and "objects" in rows[0]:
        text += f"{sum(int(row['objects']) for row in rows):,} objects; "
    return f"{text}{seconds:.1f} s in all; written to {output}/"


def say_how_to_continue(done: int, images: int, noun: str = "images") -> None:
    """After Ctrl-C."""
    print(
        f"predict.py: stopped after {done} of {images} {noun}; the same command with "
        "--skip-existing does the others",
        file=sys.stderr,
    )


def end_with_failures(failed: dict[str, str], images: int, noun: str = "images") -> None:
    """Names the files that could not be segmented; ends the script with exit code 1."""
    print(f"predict.py: {len(failed)} of {images} {noun} failed:", file=sys.stderr)
    for reason in failed.values():
        print(f"  {reason}", file=sys.stderr)
    sys.exit(1)

"""What is said of the labels of a dataset that were read: the log's lines, and what is missing."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from src.image_io import IGNORE
from train_utils.data.class_table import ClassTable
from train_utils.plurals import counted

USUAL_PAIRS = ("0/255", "0/1")  # of background and foreground


def describe(
    names: Sequence[str],
    nouns: tuple[str, str],
    pixels: Tensor,
    classes: ClassTable,
    encodings: dict[str, tuple[int, Path]],
) -> str:
    """Text on what was read: samples, shares of the classes, label encodings.

    names: of the samples. nouns: ("images", "pixels") or those of volumes. pixels: int64 [256], of
    each class id. encodings: {how labels are encoded: (number of labels, path of the first)}.
    """
    valid = int(pixels[:IGNORE].sum())
    shares = ", ".join(
        f"{100 * int(count) / max(1, valid):.1f} % {name}"
        for count, name in zip(pixels, classes.names, strict=False)
    )
    named = names[0]
    if len(names) > 1:
        named += f" to {names[-1]}"
    samples_noun, pixels_noun = nouns
    lines = [
        f"{counted(len(names), samples_noun)} ({named}), {valid:,} valid {pixels_noun}: {shares}"
    ]
    for encoding, (count, path) in encodings.items():
        line = f"  {counted(count, 'labels')} read as {encoding}, such as {path}"
        if classes.any_pair and "/" in encoding and encoding not in USUAL_PAIRS:
            line += ": the larger value is read as class 1"
        lines.append(line)
    if len(encodings) > 1 and not classes.any_pair:
        lines.append(
            "  warning: labels of several encodings; check that each is intended "
            "(python my_dataset.py check)"
        )
    return "\n".join(lines)


def missing_pixels(
    title: str,
    pixels: Tensor,
    classes: ClassTable,
    encodings: dict[str, tuple[int, Path]],
    for_training: bool,
) -> str:
    """What is wrong with the labels if they have too few kinds of pixels; "" if nothing is.

    title: of the dataset. pixels, encodings: see describe(). for_training: whether there must be a
    foreground pixel, and pixels of two classes.
    """
    _, first_label = next(iter(encodings.values()))
    if not pixels[:IGNORE].any():
        return (
            f"every pixel of the {title} images is ignored: their labels, such as {first_label}, "
            "hold nothing but what the class table ignores"
        )
    if for_training and not pixels[1:IGNORE].any():
        return (
            f"no pixel of the {title} images is foreground: their labels, such as "
            f"{first_label}, hold nothing but {classes.names[0]}; check the labels "
            "with: python my_dataset.py check"
        )
    if for_training and pixels[:IGNORE].count_nonzero() == 1:
        only = classes.names[int(pixels[:IGNORE].argmax())]
        return (
            f"every valid pixel of the {title} images is {only}: there is nothing to train on; "
            f"check the labels, such as {first_label}, with: python my_dataset.py check"
        )
    return ""

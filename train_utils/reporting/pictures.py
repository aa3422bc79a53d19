"""Class ids as pictures: masks, overlays and error maps, as numpy arrays and PNG files.

predict.py imports this module, so it must not import matplotlib.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from src.image_io import IGNORE
from train_utils.atomic import replacing

Colour = tuple[int, int, int]

# Legend name → colour. Orange against blue stays apart under every common colour blindness.
IGNORED_COLOUR = (80, 80, 80)
TWO_CLASS_ERRORS = {
    "true positive": (240, 240, 240),
    "false positive": (240, 110, 0),
    "false negative": (50, 140, 255),
    "true negative": (0, 0, 0),
    "ignored": IGNORED_COLOUR,
}
MANY_CLASS_ERRORS = {"correct": (0, 0, 0), "wrong": (230, 60, 30), "ignored": IGNORED_COLOUR}
OVERLAY_COLOUR = (0, 230, 200)  # of the foreground, where white would vanish on bright tissue

# Black, then the seven hues of Okabe and Ito, the usual colour-blind-safe palette.
BASE_COLOURS = [
    (0, 0, 0),
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
]


def default_colours(num_classes: int) -> np.ndarray:
    """Distinct colours [num_classes, 3] uint8, the first one black; black and white for 2 classes.

    Above 2, a class keeps its colour whatever the number of classes. ValueError outside 2..255.
    """
    if not 2 <= num_classes <= 255:
        raise ValueError(f"num_classes must be 2..255, got {num_classes}")
    if num_classes == 2:
        return np.array([(0, 0, 0), (255, 255, 255)], np.uint8)
    steps = np.linspace(0, 255, 8).round()
    pool = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    # Lightness, blue-yellow, and a weak red-green axis: the one that colour-blind eyes lose.
    axes = np.array([(0.3, 0.6, 0.1), (-0.5, -0.5, 1.0), (0.3, -0.3, 0.0)]).T
    colours = [np.array(colour) for colour in BASE_COLOURS[:num_classes]]
    while len(colours) < num_classes:  # the next one is the farthest from all colours so far
        gaps = np.linalg.norm((pool[:, None] - np.array(colours)) @ axes, axis=2).min(axis=1)
        colours.append(pool[gaps.argmax()])
    return np.array(colours, np.uint8)


def with_default_colours(colours: Sequence[Colour | None]) -> np.ndarray:
    """The colours of a class table as [K, 3] uint8, with the default colour in place of None."""
    filled = default_colours(len(colours))
    for index, colour in enumerate(colours):
        if colour is not None:
            filled[index] = colour
    return filled


def error_colours(num_classes: int) -> dict[str, Colour]:
    """Legend name → colour of the error maps with this number of classes."""
    if num_classes == 2:
        return TWO_CLASS_ERRORS
    return MANY_CLASS_ERRORS


def save_legend(path: str | Path, class_names: Sequence[str], colours: np.ndarray) -> None:
    """Save a picture with one line for each class: a patch of its colour and its name.

    colours: [K, 3] uint8. OSError if path is not writable.
    """
    font = ImageFont.load_default(size=16)
    pitch = 26  # px from line to line
    width = 60 + max(int(font.getlength(name)) for name in class_names)
    picture = Image.new("RGB", (width, pitch * len(class_names) + 8), "white")
    draw = ImageDraw.Draw(picture)
    for index, (name, colour) in enumerate(zip(class_names, colours, strict=True)):
        top = 6 + index * pitch
        patch = (8, top, 36, top + pitch - 8)
        draw.rectangle(patch, fill=tuple(int(part) for part in colour), outline=(128, 128, 128))
        draw.text((46, top + (pitch - 8) / 2), name, fill="black", font=font, anchor="lm")
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")


def mask_style(
    colours: np.ndarray, ids: Sequence[int] | None = None
) -> tuple[str, np.ndarray | None, np.ndarray]:
    """How a mask is written so that a person sees the classes.

    Two classes give a grey PNG of 0 and 255. More give an indexed PNG: its pixels are the `ids` of
    the classes and its palette holds `colours` [K, 3] uint8 there. Without ids, or if one exceeds
    255, they are 0..K-1.

    Returns (kind and palette for PngWriter, uint8 [K] pixel value of each class).
    """
    if len(colours) == 2:
        return "grey", None, np.array([0, 255], np.uint8)
    if ids is None or max(ids) > 255:
        ids = range(len(colours))
    values = np.array(ids, np.uint8)
    palette = np.zeros((max(ids) + 1, 3), np.uint8)
    palette[values] = colours
    return "palette", palette, values


def overlay(
    image: np.ndarray,
    mask: np.ndarray,
    colours: np.ndarray,
    alpha: float = 0.5,
    ignore_index: int = IGNORE,
) -> np.ndarray:
    """Blend the colours [K, 3] of the foreground classes of mask [H, W] into image [H, W, 3] uint8.

    Pixels of class 0 and of ignore_index keep their value. alpha, 0..1, is the share of the class
    colour. Black and white are shown in OVERLAY_COLOUR. Returns [H, W, 3] uint8. Each pixel depends
    on itself alone, so a large image may be given by strips of rows. ValueError for other class ids
    or shapes.
    """
    mask = np.where(np.asarray(mask) == ignore_index, 0, mask)
    mask = check_class_ids(mask, len(colours), image)
    if np.array_equal(colours, default_colours(2)):
        colours = [(0, 0, 0), OVERLAY_COLOUR]
    drawn = image.copy()
    foreground = mask > 0
    blend = (1 - alpha) * image[foreground] + alpha * np.asarray(colours)[mask[foreground]]
    drawn[foreground] = np.rint(blend)
    return drawn


def class_picture(mask: np.ndarray, colours: np.ndarray, ignore_index: int = IGNORE) -> np.ndarray:
    """The mask [H, W] in the colours [K, 3] of its classes, and ignored pixels in IGNORED_COLOUR.

    Returns [H, W, 3] uint8. ValueError for other class ids.
    """
    ignored = np.asarray(mask) == ignore_index
    mask = check_class_ids(np.where(ignored, 0, mask), len(colours))
    picture = np.asarray(colours, np.uint8)[mask]
    picture[ignored] = IGNORED_COLOUR
    return picture


def error_map(
    target: np.ndarray, prediction: np.ndarray, num_classes: int, ignore_index: int = IGNORE
) -> np.ndarray:
    """Where target and prediction, both [H, W] class ids, agree and differ: [H, W, 3] uint8.

    The colours are those of error_colours(). ValueError if the shapes differ.
    """
    target, prediction = np.asarray(target), np.asarray(prediction)
    if target.shape != prediction.shape:
        raise ValueError(f"target {target.shape} and prediction {prediction.shape} differ in shape")
    if num_classes == 2:
        regions = {
            "true positive": (target == 1) & (prediction == 1),
            "false positive": (target == 0) & (prediction == 1),
            "false negative": (target == 1) & (prediction == 0),
            "true negative": (target == 0) & (prediction == 0),
        }
    else:
        regions = {"correct": target == prediction, "wrong": target != prediction}
    regions["ignored"] = target == ignore_index  # last, so that it covers the others
    picture = np.zeros((*target.shape, 3), np.uint8)
    for name, colour in error_colours(num_classes).items():
        picture[regions[name]] = colour
    return picture


def error_overlay(
    image: np.ndarray,
    target: np.ndarray,
    prediction: np.ndarray,
    num_classes: int,
    ignore_index: int = IGNORE,
) -> np.ndarray:
    """error_map() with the dimmed grey image [H, W, 3] uint8 where the map is black."""
    errors = error_map(target, prediction, num_classes, ignore_index)
    black = (errors == 0).all(axis=2, keepdims=True)
    dimmed = (image.mean(axis=2, keepdims=True) * 0.6).astype(np.uint8)
    return np.where(black, dimmed, errors)


def resized_for_display(
    picture: np.ndarray, max_side: int, photograph: bool = False
) -> Image.Image:
    """The picture [H, W, 3] uint8 reduced to at most max_side px, or enlarged to about half of it.

    Small pictures are enlarged by a whole factor. Only a photograph is averaged when it is reduced;
    other pictures keep their exact colours.
    """
    factor = max(1, max_side // 2 // max(picture.shape[:2]))
    resized = Image.fromarray(enlarged(picture, factor))
    method = Image.Resampling.BOX if photograph else Image.Resampling.NEAREST
    resized.thumbnail((max_side, max_side), method)
    return resized


def enlarged(picture: np.ndarray, factor: int) -> np.ndarray:
    """The picture [H, W, 3], each pixel repeated `factor` times in both directions."""
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def check_class_ids(
    mask: np.ndarray, num_classes: int, image: np.ndarray | None = None
) -> np.ndarray:
    """The mask as [H, W] uint8. ValueError unless it holds class ids and fits the image, if any."""
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype.kind not in "bui":
        raise ValueError(f"a mask is [H, W] of integers, got {mask.dtype} of shape {mask.shape}")
    if mask.size and not 0 <= mask.min() <= mask.max() < num_classes:
        raise ValueError(f"class ids must be 0..{num_classes - 1}, got {mask.min()}..{mask.max()}")
    if image is not None and (image.shape != (*mask.shape, 3) or image.dtype != np.uint8):
        raise ValueError(f"image must be {(*mask.shape, 3)} uint8, got {image.shape} {image.dtype}")
    return mask.astype(np.uint8, copy=False)


def as_rgb(image: torch.Tensor) -> np.ndarray:
    """uint8 [C, H, W] as [H, W, 3]: the first three channels, or the first one three times."""
    if len(image) < 3:
        image = image[:1].expand(3, -1, -1)
    return image[:3].permute(1, 2, 0).numpy()

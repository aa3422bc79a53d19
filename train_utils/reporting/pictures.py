"""Class ids as pictures that a person can see: masks, overlays, error maps. Arrays are numpy, files PNG."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from train_utils.atomic import replacing

# Legend name -> colour. Orange against blue stays apart under every common colour blindness.
TWO_CLASS_ERRORS = {
    "true positive": (240, 240, 240),
    "false positive": (240, 110, 0),
    "false negative": (50, 140, 255),
    "true negative": (0, 0, 0),
    "not judged": (80, 80, 80),
}
MANY_CLASS_ERRORS = {"correct": (0, 0, 0), "wrong": (230, 60, 30), "not judged": (80, 80, 80)}
OVERLAY_COLOUR = (0, 230, 200)  # for black and white: white would vanish on bright tissue

# Black, then the seven hues of Okabe and Ito, the usual colour-blind-safe set.
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


def default_colours(num_classes):
    """Return [num_classes, 3] uint8; black and white for 2 classes, else distinct hues after black.

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
    while len(colours) < num_classes:  # next is always the colour farthest from all so far
        gaps = np.linalg.norm((pool[:, None] - np.array(colours)) @ axes, axis=2).min(axis=1)
        colours.append(pool[gaps.argmax()])
    return np.array(colours, np.uint8)


def with_default_colours(colours):
    """[K, 3] uint8 of a class table's colours [(r, g, b) or None]: what is None gets its default colour."""
    default = default_colours(len(colours))
    return np.array(
        [standard if colour is None else colour for colour, standard in zip(colours, default)],
        np.uint8,
    )


def save_legend(path, class_names, colours):
    """Save a picture that says which colour is which class: a line with a patch and the name for each."""
    font, pitch = ImageFont.load_default(size=16), 26
    width = 60 + max(int(font.getlength(name)) for name in class_names)
    picture = Image.new("RGB", (width, pitch * len(class_names) + 8), "white")
    draw_legend(ImageDraw.Draw(picture), (8, 6), class_names, colours, font, pitch)
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")


def draw_legend(draw, corner, class_names, colours, font, pitch):
    """Draw a framed patch and a name for each class, one below the other, from the corner (x, y) on, `pitch` px apart."""
    left, top = corner
    for index, (name, colour) in enumerate(zip(class_names, colours)):
        y = top + index * pitch
        fill = tuple(int(part) for part in colour)
        draw.rectangle((left, y, left + 28, y + pitch - 8), fill=fill, outline=(128, 128, 128))
        draw.text((left + 38, y + (pitch - 8) / 2), name, fill="black", font=font, anchor="lm")


def save_mask(path, mask, colours, ids=None):
    """Save mask [H, W] of classes 0..K-1 so that a person sees something; colours is [K, 3] uint8.

    K = 2 gives a greyscale PNG of 0 and 255, larger K an indexed PNG: pixels are the `ids` of the classes (default, and
    where one exceeds 255: 0..K-1), the palette holds `colours` there. ValueError for a class outside 0..K-1, OSError if
    not writable.
    """
    mask = check_class_ids(mask, len(colours))
    if len(colours) == 2:
        picture = Image.fromarray(mask * np.uint8(255))
    else:
        ids = np.arange(len(colours)) if ids is None or max(ids) > 255 else np.asarray(ids)
        palette = np.zeros((max(ids) + 1, 3), np.uint8)
        palette[ids] = colours
        picture = Image.fromarray(ids.astype(np.uint8)[mask])
        picture.putpalette(palette.tobytes())
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")


def overlay(image, mask, colours, alpha=0.5, ignore_index=255):
    """Blend class colours into image [H, W, 3] uint8 where mask [H, W] is not background.

    Returns [H, W, 3] uint8. alpha is the share of the class colour, 0..1. Pixels of class 0 and of
    ignore_index keep their value. Black and white are drawn with OVERLAY_COLOUR. ValueError for other ids or shapes.
    """
    drawn = check_class_ids(
        np.where(np.asarray(mask) == ignore_index, 0, mask), len(colours), image
    )
    plain = np.array_equal(colours, default_colours(2))
    paint = np.asarray([(0, 0, 0), OVERLAY_COLOUR] if plain else colours)[drawn]
    blend = np.rint((1 - alpha) * image + alpha * paint).astype(np.uint8)
    return np.where(drawn[..., None] > 0, blend, image)


def error_map(target, prediction, ignore_index=255, num_classes=None):
    """Compare target and prediction, both [H, W] class ids; returns [H, W, 3] uint8.

    Colours are those of TWO_CLASS_ERRORS, or of MANY_CLASS_ERRORS above two classes. Without
    num_classes the largest judged id decides. ValueError if the shapes differ.
    """
    target, prediction = np.asarray(target), np.asarray(prediction)
    if target.shape != prediction.shape:
        raise ValueError(f"target {target.shape} and prediction {prediction.shape} differ in shape")
    judged = target != ignore_index
    if num_classes is None:
        num_classes = 1 + max(int(ids[judged].max(initial=0)) for ids in (target, prediction))
    if num_classes > 2:
        legend, code = MANY_CLASS_ERRORS, (target != prediction).astype(int)
    else:  # positions in the legend: TP, FP, FN, TN
        legend, code = TWO_CLASS_ERRORS, 2 * (prediction == 0) + (target == 0)
    return np.array(list(legend.values()), np.uint8)[np.where(judged, code, -1)]


def error_overlay(image, target, prediction, ignore_index=255, num_classes=None):
    """The colours of error_map() over the dimmed grey image [H, W, 3] uint8, which takes the place of black."""
    errors = error_map(target, prediction, ignore_index, num_classes)
    dimmed = (image.mean(axis=2, keepdims=True) * 0.6).astype(np.uint8)
    return np.where((errors == 0).all(axis=2, keepdims=True), dimmed, errors)


def check_class_ids(mask, num_classes, image=None):
    """Return mask as [H, W] uint8; ValueError unless it holds class ids and fits the image, if any."""
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype.kind not in "bui":
        raise ValueError(f"a mask is [H, W] of integers, got {mask.dtype} of shape {mask.shape}")
    if mask.size and not 0 <= mask.min() <= mask.max() < num_classes:
        raise ValueError(f"class ids must be 0..{num_classes - 1}, got {mask.min()}..{mask.max()}")
    if image is not None and (image.shape != (*mask.shape, 3) or image.dtype != np.uint8):
        raise ValueError(f"image must be {(*mask.shape, 3)} uint8, got {image.shape} {image.dtype}")
    return mask.astype(np.uint8)


def as_rgb(image):
    """uint8 [C, H, W] as [H, W, 3]: the first three channels, or the first one three times."""
    return (image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)).permute(1, 2, 0).numpy()

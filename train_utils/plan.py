"""The plan of a recipe from the data: crop, batch, steps, width, class weights, augmentation.

make_plan() is a pure function of a summary of the training images, the model and a memory class, so
the same data give the same plan on every machine. The numbers below come from two recipes that were
measured, DRIVE (20 images of 565×584 px, two classes) and CamVid (367 of 480×360 px, eleven
classes); between them the rules are simple and monotone. volume_plan.py has those of volumes.
"""

import math
import statistics
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from train_utils.class_weights import plan_class_weights
from train_utils.plurals import counted
from train_utils.training_memory import (
    MEMORY,
    PLAIN_UNET,
    ModelNeeds,
    activation_limit,
    fitting_batch,
    pixel_bytes,
    step_bytes,
)

GRID = 32  # px; sides of crops are its multiples
WHOLE_SIDE = 256  # px; of images up to this side the crop is all
EPOCHS = 40  # after each the model is evaluated and saved
# Two classes: as many pixels a step as on DRIVE. More classes: about as many as on CamVid.
STEP_PIXELS = (2 * 288**2, 4 * 352**2)
BATCH_RANGE = (2, 16)
STEPS_PER_IMAGE = 300
STEP_RANGE = (2_000, 20_000)
TWO_CLASS_STEPS = 6_000
STEPS_PER_CLASS = 250  # for each class beyond two


@dataclass(frozen=True)
class Augmentation:
    """The random changes of crops for images of one orientation.

    share: part of an image's shorter side that a crop covers. scale, rotate, mirror: values of the
    flags of these names. reason: why they are these.
    """

    share: float
    scale: tuple[float, float]
    rotate: float
    mirror: str
    reason: str


# {orientation of the images: the changes of their crops}
AUGMENTATIONS = {
    "free": Augmentation(
        0.5, (0.85, 1.2), 180.0, "both", "no up and no down, as in microscopy, fundus, aerial"
    ),
    "upright": Augmentation(
        0.7, (0.5, 1.5), 10.0, "horizontal", "upright images, as of streets and rooms"
    ),
}


@dataclass(frozen=True)
class DataSummary:
    """What a plan knows of the training images or volumes.

    images: number of training images. read: number of those that were read, which give the other
    fields.
    median: (height, width) of the image whose shorter side is the median; of volumes the median
    (D, H, W) of each axis.
    channels: number of channels. pixels: number of valid pixels of each class.
    spacing: size (D, H, W) of a voxel; None for images.
    """

    images: int
    read: int
    median: tuple[float, ...]
    channels: int
    pixels: tuple[int, ...]
    spacing: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Plan:
    """The planned values, named like their flags.

    crop_size: side of a square in px, of volumes the sides (D, H, W). reasons: words for the log
    about each value, and the augmentation's own reason, see reason_lines().
    """

    crop_size: int | tuple[int, ...]
    batch_size: int
    steps: int
    base_c: int
    class_weights: tuple[float, ...]
    scale: tuple[float, float]
    rotate: float
    mirror: str
    reasons: dict[str, str]


def summarize_data(
    sizes: Iterable[Sequence[int]],
    images: int,
    channels: int,
    pixels: Sequence[int],
    spacing: Sequence[float] | None = None,
) -> DataSummary:
    """The DataSummary of the training images or volumes.

    sizes: sizes of those that were read. images: number of all of them. pixels: number of valid
    pixels of each class. spacing: size (D, H, W) of a voxel, for volumes.
    """
    ordered = sorted((tuple(size) for size in sizes), key=lambda size: (min(size), size))
    median = ordered[len(ordered) // 2]
    if spacing:
        median = tuple(statistics.median(sides) for sides in zip(*ordered, strict=True))
    return DataSummary(
        images=images,
        read=len(ordered),
        median=median,
        channels=channels,
        pixels=tuple(int(count) for count in pixels),
        spacing=tuple(spacing) if spacing else None,
    )


def make_plan(
    summary: DataSummary,
    model: ModelNeeds = PLAIN_UNET,
    memory: str = "small",
    crop_size: int | None = None,
    batch_size: int | None = None,
    orientation: str = "free",
) -> Plan:
    """The plan for images; the functions below state its rules.

    memory: a name of MEMORY. crop_size: side in px, batch_size: crops in a batch; None: to be
    planned. orientation: a name of AUGMENTATIONS.
    """
    augmentation, classes = AUGMENTATIONS[orientation], len(summary.pixels)
    base_c = model.base_c or plan_width(classes)
    bytes_each = pixel_bytes(model, base_c, summary.channels, classes)
    wanted = wanted_crop(min(summary.median), augmentation.share)
    crop = min(wanted, largest_crop(batch_size or BATCH_RANGE[0], bytes_each, memory))
    crop = crop_size or max(crop, math.ceil(max(model.least) / GRID) * GRID)
    batch = batch_size or plan_batch(crop, classes, bytes_each, memory)
    steps = plan_steps(summary.images, classes)
    weights = plan_class_weights(summary.pixels, sampled=summary.read < summary.images)
    width = f"base_c {base_c} (of the flag or the model)" if model.base_c else f"base_c {base_c}"
    reasons = {
        "crop_size": crop_reason(summary, crop, wanted, memory, crop_size),
        "batch_size": f"batch {batch}{mark(batch_size)}: {batch * crop**2:,} px a step; "
        + memory_reason(step_bytes(crop, batch, bytes_each), memory),
        "base_c": width,
        "class_weights": weights_reason(weights),
        "steps": f"steps {steps:,}: {counted(summary.images, 'images')}, {classes} classes",
        **augmentation_reasons(augmentation),
    }
    return Plan(
        crop_size=crop,
        batch_size=batch,
        steps=steps,
        base_c=base_c,
        class_weights=weights,
        scale=augmentation.scale,
        rotate=augmentation.rotate,
        mirror=augmentation.mirror,
        reasons=reasons,
    )


def plan_width(classes: int) -> int:
    """Channels of the first level: 16 for two classes, 32 for more."""
    return 16 if classes <= 2 else 32


def wanted_crop(shorter: float, share: float) -> int:
    """The side of a crop, in multiples of GRID: a share of the shorter side of the images.

    Of small images it is all, up to WHOLE_SIDE.
    """
    side = max(share * shorter, min(shorter, WHOLE_SIDE))
    return max(GRID, math.floor(side / GRID + 0.5) * GRID)


def largest_crop(batch: int, bytes_each: int, memory: str) -> int:
    """The largest crop of which such a batch fits into the memory class, at least GRID."""
    pixels = activation_limit(memory) / batch / bytes_each
    return max(GRID, min(MEMORY[memory][1], math.isqrt(int(pixels)) // GRID * GRID))


def plan_batch(crop: int, classes: int, bytes_each: int, memory: str) -> int:
    """Crops in a batch: about STEP_PIXELS in a step, within BATCH_RANGE and the memory class.

    A single crop where a larger batch of given crops, or of the model's smallest, does not fit.
    """
    least, most = BATCH_RANGE
    batch = math.floor(STEP_PIXELS[classes > 2] / crop**2 + 0.5)
    batch = min(max(batch, least), most)
    return fitting_batch(crop, batch, bytes_each, memory)


def plan_steps(images: int, classes: int) -> int:
    """Optimizer steps, a multiple of EPOCHS: 300 for each image, from 2,000 up to a limit.

    The limit is 6,000 for two classes and 250 more for each further one, at most 20,000. Of two
    classes it is reached at 20 images, so more images take no longer. With fewer, such as the 16 in
    a fold of DRIVE, an epoch takes as many crops of each image as with 20.
    """
    least, most = STEP_RANGE
    limit = min(TWO_CLASS_STEPS + STEPS_PER_CLASS * (classes - 2), most)
    steps = min(max(STEPS_PER_IMAGE * images, least), limit)
    return EPOCHS * math.ceil(steps / EPOCHS)


# --- reasons --------------------------------------------------------------------------------------


# The lines of the log: the names of the values in one, and of the reason that they share.
LINES = {
    ("crop_size",): None,
    ("batch_size",): None,
    ("base_c", "class_weights"): None,
    ("steps",): None,
    ("scale", "rotate", "mirror"): "augmentation",
}


def reason_lines(reasons: dict[str, str], left_out: Collection[str] = ()) -> list[str]:
    """The lines of the log. reasons: those of a Plan. left_out: names of values not to be told."""
    lines = []
    for names, reason in LINES.items():
        words = ", ".join(reasons[name] for name in names if name not in left_out)
        if words:
            lines.append(f"{words}: {reasons[reason]}" if reason else words)
    return lines


def mark(given: object) -> str:
    """What is said of a value that a flag gives; "" for None."""
    return "" if given is None else " (given, not planned)"


def weights_reason(weights: Sequence[float]) -> str:
    """Why these class weights."""
    text = f"class weights {', '.join(f'{weight:g}' for weight in weights)}"
    if len(weights) <= 2:
        return f"{text}: two classes"
    return f"{text}: {len(weights)} classes, the square roots of median frequency balancing"


def crop_reason(
    summary: DataSummary, crop: int, wanted: int, memory: str, given: int | None
) -> str:
    """Why this crop. given: value of the flag, or None."""
    height, width = summary.median
    text = f"crop {crop} px{mark(given)}: the images' median size is {width}×{height} px"
    if summary.read < summary.images:
        text += f" (of {summary.read:,} of {summary.images:,} images)"
    if crop < wanted and given is None:
        text += f", {wanted} px would exceed the largest crop of the memory class {memory}"
    return text


def memory_reason(needed: int, memory: str) -> str:
    """The memory of a training step. needed: its bytes, see step_bytes()."""
    text = f"training takes about {needed / 1e9:.1f} GB"
    if needed > activation_limit(memory):
        text += f", more than the memory class {memory} is for"
    return text


def augmentation_reasons(augmentation: Augmentation) -> dict[str, str]:
    """The random changes of the crops, and why."""
    least, most = augmentation.scale
    return {
        "scale": f"scale {least:g} to {most:g}",
        "rotate": f"rotation up to {augmentation.rotate:g}°",
        "mirror": f"mirror {augmentation.mirror}",
        "augmentation": augmentation.reason,
    }

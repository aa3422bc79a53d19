"""The plan of a recipe from the data: crop, batch, steps, width, class weights, augmentation.

make_plan() is a pure function of a summary of the training images and of a named memory class, so
the same data give the same plan on every machine. The numbers below come from two recipes that were
measured, DRIVE (20 images of 565×584 px, two classes) and CamVid (367 of 480×360 px, eleven
classes); between them the rules are simple and monotone.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# {memory class: (bytes, largest crop)}. The largest crop also bounds the time of a step.
MEMORY = {"small": (4e9, 512), "medium": (12e9, 768), "large": (40e9, 1024)}
# Of the memory class, for activations and gradients. The rest is for weights, the optimizer, the
# images and the workspace of convolutions.
SHARE = 0.5
# The activations and gradients that a U-Net keeps for each pixel and channel of its first level:
# 90 bytes in float32, counted with src.memory.LiveBytes.
CHANNEL_BYTES = 100

GRID = 32  # px; sides of crops are its multiples
WHOLE_SIDE = 256  # px; of images up to this side the crop is all
EPOCHS = 40  # an epoch is what is evaluated and saved
# Two classes: as many pixels a step as on DRIVE. More classes: as many as on CamVid.
STEP_PIXELS = (2 * 288**2, 4 * 352**2)
BATCH_RANGE = (2, 16)
STEPS_PER_IMAGE = 300
STEP_RANGE = (2_000, 20_000)
TWO_CLASS_STEPS = 6_000
STEPS_PER_CLASS = 250  # for each class beyond two
TWO_CLASS_WEIGHTS = (1.0, 1.25)


@dataclass(frozen=True)
class Augmentation:
    """The random changes of crops for one kind of picture.

    share: of the shorter side that a crop covers. scale, rotate, mirror: as the flags. reason: why.
    """

    share: float
    scale: tuple[float, float]
    rotate: float
    mirror: str
    reason: str


KINDS = {
    "free": Augmentation(
        0.5, (0.85, 1.2), 180.0, "both", "no up and no down, as in microscopy, fundus, aerial"
    ),
    "scenes": Augmentation(
        1.0, (0.5, 1.5), 10.0, "horizontal", "upright pictures, as of streets and rooms"
    ),
}


@dataclass(frozen=True)
class DataSummary:
    """What a plan knows of the training images.

    images: their number. read: how many of them the other fields are from.
    median: (height, width) of the image whose shorter side is the median.
    pixels: of each class, valid ones.
    """

    images: int
    read: int
    median: tuple[int, ...]
    channels: int
    pixels: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """The planned values, named like their flags. reasons: a line for the log on each."""

    crop_size: int
    batch_size: int
    accumulate: int
    steps: int
    epochs: int
    base_c: int
    class_weights: tuple[float, ...]
    scale: tuple[float, float]
    rotate: float
    mirror: str
    reasons: tuple[str, ...]


def summarize_data(
    sizes: Iterable[Sequence[int]],
    images: int,
    channels: int,
    pixels: Sequence[int],
) -> DataSummary:
    """The summary of `images` images, of which those that were read have these sizes."""
    ordered = sorted((tuple(size) for size in sizes), key=lambda size: (min(size), size))
    return DataSummary(
        images=images,
        read=len(ordered),
        median=ordered[len(ordered) // 2],
        channels=channels,
        pixels=tuple(int(count) for count in pixels),
    )


def make_plan(
    summary: DataSummary, kind: str = "free", memory: str = "small", least_crop: int = GRID
) -> Plan:
    """The plan for images; the functions below state its rules.

    kind: a name of KINDS. memory: a name of MEMORY. least_crop: the smallest crop that the model
    can be trained on, in px.
    """
    look, classes = KINDS[kind], len(summary.pixels)
    base_c = plan_width(classes)
    wanted = wanted_crop(min(summary.median), look.share)
    crop = min(wanted, largest_crop(base_c, summary.channels, memory))
    crop = max(crop, math.ceil(least_crop / GRID) * GRID)
    batch = plan_batch(crop, base_c, classes, summary.channels, memory)
    steps = plan_steps(summary.images, classes)
    weights = plan_class_weights(summary)
    reasons = (
        crop_reason(summary, crop, wanted, memory),
        f"batch {batch}: {batch * crop**2:,} px a step; training takes about "
        f"{training_bytes(crop, batch, base_c, summary.channels) / 1e9:.1f} GB",
        f"base_c {base_c}, class weights {', '.join(f'{weight:g}' for weight in weights)}: "
        + weights_reason(classes),
        f"steps {steps:,}: {summary.images:,} images, {classes} classes",
        f"scale {look.scale[0]:g} to {look.scale[1]:g}, rotation up to {look.rotate:g}°, mirror "
        f"{look.mirror}: kind {kind}, {look.reason}",
    )
    return Plan(
        crop_size=crop,
        batch_size=batch,
        accumulate=1,
        steps=steps,
        epochs=EPOCHS,
        base_c=base_c,
        class_weights=weights,
        scale=look.scale,
        rotate=look.rotate,
        mirror=look.mirror,
        reasons=reasons,
    )


def plan_width(classes: int) -> int:
    """Channels of the first level: 16 for two classes, 32 for more."""
    return 16 if classes <= 2 else 32


def wanted_crop(shorter: int, share: float) -> int:
    """The side of a crop, in multiples of GRID: a share of the shorter side of the images.

    Of small images it is all, up to WHOLE_SIDE.
    """
    side = max(share * shorter, min(shorter, WHOLE_SIDE))
    return max(GRID, math.floor(side / GRID + 0.5) * GRID)


def largest_crop(base_c: int, channels: int, memory: str) -> int:
    """The largest crop of which the smallest batch fits into the memory class."""
    total, limit = MEMORY[memory]
    pixels = SHARE * total / BATCH_RANGE[0] / pixel_bytes(base_c, channels)
    return max(GRID, min(limit, math.isqrt(int(pixels)) // GRID * GRID))


def plan_batch(crop: int, base_c: int, classes: int, channels: int, memory: str) -> int:
    """Crops in a batch: about STEP_PIXELS in a step, within BATCH_RANGE and the memory class."""
    least, most = BATCH_RANGE
    batch = math.floor(STEP_PIXELS[classes > 2] / crop**2 + 0.5)
    batch = min(max(batch, least), most)
    limit = SHARE * MEMORY[memory][0]
    while batch > 1 and training_bytes(crop, batch, base_c, channels) > limit:
        batch -= 1
    return batch


def pixel_bytes(base_c: int, channels: int) -> int:
    """The memory of a training step for each pixel: activations, float32 image, int64 target."""
    return CHANNEL_BYTES * base_c + 4 * channels + 8


def training_bytes(crop: int, batch: int, base_c: int, channels: int = 3) -> int:
    """The estimated memory of a training step of the plain U-Net, without its weights."""
    return batch * crop**2 * pixel_bytes(base_c, channels)


def plan_steps(images: int, classes: int) -> int:
    """Optimizer steps, a multiple of EPOCHS: 300 for each image, from 2,000 up to a limit.

    The limit is 6,000 for two classes and 250 more for each further one, at most 20,000. So twenty
    images and twenty thousand take the same time, and a fold of DRIVE takes each image as often in
    an epoch as a run on all its images.
    """
    least, most = STEP_RANGE
    limit = min(TWO_CLASS_STEPS + STEPS_PER_CLASS * (classes - 2), most)
    steps = min(max(STEPS_PER_IMAGE * images, least), limit)
    return EPOCHS * math.ceil(steps / EPOCHS)


def plan_class_weights(summary: DataSummary) -> tuple[float, ...]:
    """Weights of the cross entropy: fixed for two classes, median frequency balancing for more.

    A class that no image has gets 0 (arXiv:1411.4734). If only a part of the images was read, it
    gets the largest weight of the others instead: it may occur in the rest.
    """
    pixels = summary.pixels
    if len(pixels) <= 2:
        return TWO_CLASS_WEIGHTS[: len(pixels)]
    found = sorted(count for count in pixels if count)
    if not found:
        return (1.0,) * len(pixels)
    median = (found[(len(found) - 1) // 2] + found[len(found) // 2]) / 2
    unseen = median / found[0] if summary.read < summary.images else 0.0
    weights = (median / count if count else unseen for count in pixels)
    return tuple(round(weight, 4) for weight in weights)


def weights_reason(classes: int) -> str:
    """Why these class weights."""
    if classes <= 2:
        return "two classes"
    return f"{classes} classes, median frequency balancing"


def crop_reason(summary: DataSummary, crop: int, wanted: int, memory: str) -> str:
    """Why this crop."""
    height, width = summary.median
    text = f"crop {crop} px: the images' median size is {width}×{height} px"
    if summary.read < summary.images:
        text += f" (of {summary.read:,} of {summary.images:,} images)"
    if crop < wanted:
        text += f", {wanted} px would exceed the largest crop of the memory class {memory}"
    return text

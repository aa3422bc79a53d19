"""The plan of a recipe for volumes. Its rules for steps and memory are those of plan.py."""

import math
from collections.abc import Sequence

from src.volumes import size_text
from train_utils.class_weights import plan_volume_class_weights
from train_utils.data.volumes import choose_crop
from train_utils.plan import (
    Augmentation,
    DataSummary,
    Plan,
    augmentation_reasons,
    mark,
    memory_reason,
    plan_steps,
)
from train_utils.plurals import counted
from train_utils.training_memory import (
    ModelNeeds,
    activation_limit,
    fitting_batch,
    pixel_bytes,
    step_bytes,
)

# {memory class: side of the largest cube}. It bounds the time of a step, and grows from class to
# class as the largest crop of images does.
LARGEST_CUBE = {"small": 64, "medium": 96, "large": 128}
BATCH = 2  # with valid convolutions 1, as published: their crops are larger
# On training volumes of the hippocampus (Task04), after 300 steps, the mean Dice was .83 with these
# and .70 with all flips, rotations of 30° and scales of 0.8 to 1.25: a flip exchanges the anterior
# and the posterior part.
AUGMENTATION = Augmentation(
    share=1.0,
    scale=(0.85, 1.15),
    rotate=15.0,
    mirror="none",
    reason="all are scanned the same way round, and a flip may exchange structures",
)


def make_volume_plan(
    summary: DataSummary,
    model: ModelNeeds,
    memory: str = "small",
    crop_size: int | Sequence[int] | None = None,
    batch_size: int | None = None,
) -> Plan:
    """The plan for volumes, as pure a function as make_plan().

    model: needs of a model with a known base_c. memory: a name of MEMORY. crop_size: three sides,
    or a single number that is cut to the volumes, see choose_crop(); batch_size: crops in a batch;
    None: to be planned.
    """
    classes = len(summary.pixels)
    bytes_each = pixel_bytes(model, model.base_c, summary.channels, classes)
    wanted = wanted_sides(summary.median, model)
    batch = batch_size or (1 if any(model.margins) else BATCH)
    if crop_size is None:
        most = int(activation_limit(memory) / batch / bytes_each)
        crop = shrink(wanted, model, most, LARGEST_CUBE[memory] ** 3)
    else:
        crop = tuple(choose_crop(crop_size, [summary.median], model.margins))
    batch = batch_size or fitting_batch(crop, batch, bytes_each, memory)
    steps = plan_steps(summary.images, classes)
    weights = plan_volume_class_weights(classes)
    reasons = {
        "crop_size": crop_reason(summary, model, crop, wanted, memory, crop_size),
        "batch_size": f"batch {batch}{mark(batch_size)}: "
        f"{batch * math.prod(crop):,} voxels a step; "
        + memory_reason(step_bytes(crop, batch, bytes_each), memory),
        "base_c": f"base_c {model.base_c}",
        "class_weights": f"class weights {', '.join(f'{weight:g}' for weight in weights)}: "
        f"{classes} classes, and a third of the crops is centred on foreground",
        "steps": f"steps {steps:,}: {counted(summary.images, 'volumes')}, {classes} classes",
        **augmentation_reasons(AUGMENTATION),
    }
    return Plan(
        crop_size=crop,
        batch_size=batch,
        steps=steps,
        base_c=model.base_c,
        class_weights=weights,
        scale=AUGMENTATION.scale,
        rotate=AUGMENTATION.rotate,
        mirror=AUGMENTATION.mirror,
        reasons=reasons,
    )


def wanted_sides(median: Sequence[float], model: ModelNeeds) -> tuple[int, ...]:
    """The sides (D, H, W) of a crop that shows a volume of the median size.

    Each is the nearest number (of two equally near ones the smaller) that the poolings divide
    without remainder: for a padded model a multiple of its stride, which is 8, or less on the axis
    of long voxels. With valid convolutions the crop has their margins around the volume.
    """
    sides = []
    for axis, side in enumerate(median):
        least, stride = model.least[axis], model.strides[axis]
        over = side + 2 * model.margins[axis] - least
        sides.append(least + stride * max(0, math.ceil(over / stride - 0.5)))
    return tuple(sides)


def shrink(
    wanted: Sequence[int], model: ModelNeeds, most: int, most_inside: int
) -> tuple[int, ...]:
    """The sides, the longest one made smaller by the model's stride until the crop is small enough.

    A volume of few slices therefore keeps them.

    most: largest number of voxels of the crop. most_inside: largest number of those without the
    margins, that the loss is computed on.
    """
    sides = list(wanted)
    while math.prod(sides) > most or inside(sides, model.margins) > most_inside:
        larger = [axis for axis in range(3) if sides[axis] > model.least[axis]]
        if not larger:
            break
        longest = max(larger, key=lambda axis: sides[axis])
        sides[longest] -= model.strides[longest]
    return tuple(sides)


def inside(sides: Sequence[int], margins: Sequence[int]) -> int:
    """Number of voxels of a crop without its margins."""
    return math.prod(side - 2 * margin for side, margin in zip(sides, margins, strict=True))


def crop_reason(
    summary: DataSummary,
    model: ModelNeeds,
    crop: Sequence[int],
    wanted: Sequence[int],
    memory: str,
    given: int | Sequence[int] | None,
) -> str:
    """Why this crop. given: value of the flag, see make_volume_plan()."""
    cut = isinstance(given, int)
    origin = f" ({given} as given, cut to the volumes)" if cut else mark(given)
    median = size_text([f"{side:g}" for side in summary.median])
    text = f"crop {size_text(crop)} voxels{origin}: the volumes' median size is {median}"
    if any(model.margins):
        text += f", and valid convolutions remove {size_text(model.margins)} at each border"
    if tuple(crop) != tuple(wanted) and given is None:
        text += f"; {size_text(wanted)} would exceed the largest crop of the memory class {memory}"
    return text

"""The flags of train.py about training: the length of a run, the optimizer, the loss, the device.

With each flag stands its default, whether a resumed run takes it from the checkpoint, and its help.
"""

from train_utils.cli.parser import (
    FROM_DATA,
    LOCAL,
    RUN,
    SHARED_HELP,
    SWITCH,
    Flag,
    class_weights,
    flag,
    number,
)
from train_utils.cli.presets import PRESET, PRESETS
from train_utils.training_memory import MEMORY


def recipe_flags() -> list[Flag]:
    """The preset, and how long a run is."""
    return [
        flag(
            "--preset",
            RUN,
            "best",
            "the recipe: defaults of many other flags. best: the most accurate, planned from the "
            "data, for volumes and for images without an up and a down; scenes: the same for "
            "upright images, the default of --dataset camvid; classic: the tutorials'; fast: best "
            "with small crops, under three minutes on two CPU cores; original: that of the U-Net "
            "paper, with unet_original",
            choices=sorted(PRESETS),
        ),
        flag(
            "--memory",
            RUN,
            "small",
            "the memory that a planned recipe may use: small 4 GB, medium 12 GB, large 40 GB; "
            "raise it if the printed plan says that memory limits the crop",
            choices=list(MEMORY),
        ),
        flag(
            "--steps",
            RUN,
            None,
            "optimizer steps of the whole run, divided into --epochs; with N processes a step "
            "takes the batches of all of them",
            "planned from the data; with --crops those of --epochs",
            type=number(int, minimum=1),
        ),
        flag(
            "--minutes",
            LOCAL,
            None,
            "choose the steps so that the run takes this long, by the speed of its first "
            "steps; at least 20 steps",
            "no limit",
            type=number(float, above=0),
        ),
        flag(
            "--epochs",
            RUN,
            PRESET,
            "number of epochs. An epoch is a share of the steps, after which the run is evaluated "
            "and saved; it is a pass over the images only with --crops. Fewer epochs than 40 make "
            "a planned run shorter, more make it longer",
            type=number(int, minimum=1),
        ),
        flag(
            "-b/--batch-size",
            RUN,
            PRESET,
            "crops in a batch, on each device",
            FROM_DATA,
            type=number(int, minimum=1),
        ),
        flag(
            "--accumulate",
            RUN,
            1,
            "batches in an optimizer step, whose gradients are averaged",
            "1, more where a planned batch exceeds the free memory",
            type=number(int, minimum=1),
            metavar="N",
        ),
        flag(
            "--seed",
            RUN,
            0,
            "seed of the initial weights, the order of the images and the augmentation",
            type=number(int, minimum=0, maximum=2**32 - 1),
        ),
    ]


def optimizer_flags() -> list[Flag]:
    """The optimizer and its learning rate."""
    return [
        flag("--optimizer", RUN, PRESET, "the optimizer", choices=["sgd", "adamw"]),
        flag("--lr", RUN, PRESET, "highest learning rate", type=number(float, above=0)),
        flag("--momentum", RUN, PRESET, "momentum of SGD", type=number(float, minimum=0, below=1)),
        flag(
            "--wd/--weight-decay",
            RUN,
            PRESET,
            "weight decay: L2 for SGD, decoupled for AdamW",
            type=number(float, minimum=0),
        ),
        flag(
            "--warmup-epochs",
            RUN,
            PRESET,
            "epochs of linear warm-up; after it the learning rate falls as (1 - progress)^0.9",
            "a tenth of the run; with --crops 4",
            type=number(float, minimum=0),
        ),
        flag(
            "--clip-grad",
            RUN,
            PRESET,
            "largest norm of the gradient; 0: no limit",
            type=number(float, minimum=0),
            metavar="NORM",
        ),
    ]


def loss_flags() -> list[Flag]:
    """The loss and its weights."""
    return [
        flag(
            "--class-weights",
            RUN,
            "preset",
            "class weights of the cross entropy. preset: those of the plan, for images of three "
            "or more classes the square roots of auto's; classic and fast have fixed ones for two "
            "classes, and none for more; original has none. auto: median frequency balancing, "
            "within 0.05 and 20. none: no weights. LIST: one weight for each class, such as 1,2",
            type=class_weights,
            metavar="preset|none|auto|LIST",
        ),
        flag(
            "--border-weight",
            RUN,
            PRESET,
            "weight in the cross entropy of the background between two objects, so that objects "
            "that touch are separated: w0 in equation 2 of the U-Net paper, there 10, times the "
            "background's class weight; 0: off. Objects are those of --label-kind instances, else "
            "the connected regions of class 1",
            type=number(float, minimum=0),
            metavar="W0",
        ),
        flag(
            "--border-sigma",
            RUN,
            5.0,
            "how far the border weight reaches: sigma of equation 2, in px",
            type=number(float, above=0),
            metavar="PX",
        ),
        flag("--dice", RUN, PRESET, "add the Dice loss to the cross entropy", **SWITCH),
        flag(
            "--batch-dice",
            RUN,
            PRESET,
            "Dice loss over the foreground of the whole batch; --no-batch-dice: mean over images "
            "and classes",
            **SWITCH,
        ),
    ]


def device_flags() -> list[Flag]:
    """Where and with which precision a run computes."""
    return [
        flag("--device", LOCAL, "auto", SHARED_HELP["device"][0]),
        flag("--amp", RUN, True, SHARED_HELP["amp"][0], **SWITCH),
        flag(
            "--deterministic",
            RUN,
            False,
            "on CUDA: slower, but every run and every resumed run ends with the same bits; without "
            "it weights differ by rounding, from the same images, crops and rates. On the CPU the "
            "bits are the same without it",
            **SWITCH,
        ),
        flag("--compile", RUN, False, "compile the model with torch.compile", **SWITCH),
    ]

"""The flags of train.py and train_multi_GPU.py, in the groups of `--help`.

With each flag stands its default, whether a resumed run takes it from the checkpoint, and its help.
The flags about data and about the model are in data_flags.py and model_flags.py. How defaults,
presets, checkpoints and the command line are put together is in defaults.py.
"""

from train_utils.cli.data_flags import crop_flags, data_flags, loading_flags, split_flags
from train_utils.cli.model_flags import model_flags
from train_utils.cli.parser import (
    FROM_DATA,
    LOCAL,
    ON,
    RUN,
    SWITCH,
    Flag,
    class_weights,
    flag,
    number,
)
from train_utils.cli.presets import PRESET, PRESETS
from train_utils.training_memory import MEMORY


def train_flags(datasets: dict) -> dict[str, list[Flag]]:
    """{group title: flags}. datasets: the table DATASETS of my_dataset.py."""
    return {
        "data": data_flags(datasets) + split_flags() + loading_flags(),
        "crops": crop_flags(),
        "model": model_flags(),
        "training": training_flags(),
        "resuming": resuming_flags(),
        "evaluation": evaluation_flags(),
        "output": output_flags(),
        "several processes (torchrun train_multi_GPU.py)": process_flags(),
    }


def training_flags() -> list[Flag]:
    """The recipe: schedule, optimizer, loss, precision."""
    return [
        flag(
            "--preset",
            RUN,
            "best",
            "the recipe, that is the defaults of many flags. best: the most accurate, planned from "
            "the data, for volumes and for images without an up and a down; scenes: the same for "
            "upright images, the default of datasets of streets; classic: the tutorials'; fast: "
            "best with small crops, under three minutes on two CPU cores; original: that of the "
            "U-Net paper, with unet_original",
            choices=sorted(PRESETS),
        ),
        flag(
            "--memory",
            RUN,
            "small",
            "the memory that a planned recipe may use: small 4 GB, medium 12 GB, large 40 GB. "
            "It matters where the printed plan says that this class limits the crop",
            choices=list(MEMORY),
        ),
        flag(
            "--steps",
            RUN,
            None,
            "optimizer steps of the whole run, divided into --epochs. With N processes a step "
            "takes N times the crops",
            "planned from the data; with --crops those of --epochs",
            type=number(int, minimum=1),
        ),
        flag(
            "--minutes",
            LOCAL,
            None,
            "plan the steps so that the run takes this long, by the speed of its first ten steps; "
            "at least 20 steps",
            "no limit",
            type=number(float, above=0),
        ),
        flag(
            "--epochs",
            RUN,
            PRESET,
            "parts of the run that are each evaluated and saved; fewer than 40 make a planned run "
            "shorter, more make it longer; with --crops passes over the training images",
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
            "batches whose gradients are averaged for one optimizer step",
            "1, more where a planned batch exceeds the free memory",
            type=number(int, minimum=1),
            metavar="N",
        ),
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
            "epochs of linear warm-up; after it the rate falls as (1 - progress)^0.9",
            "a tenth of the run; 4 with --crops",
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
        flag(
            "--class-weights",
            RUN,
            "preset",
            "weights of the cross entropy. preset: the plan's, for classic and fast their own for "
            "two classes, none for more, for original none; auto: median frequency balancing, "
            "within 0.05 and 20; or a list such as 1,2",
            type=class_weights,
            metavar="preset|none|auto|LIST",
        ),
        flag(
            "--border-weight",
            RUN,
            PRESET,
            "weight of the background between two objects in the cross entropy, which separates "
            "objects that touch (w0 in equation 2 of the U-Net paper, there 10), as a multiple of "
            "the background's class weight; 0: off. Objects are those of --label-kind instances, "
            "else the connected regions of class 1",
            type=number(float, minimum=0),
            metavar="W0",
        ),
        flag(
            "--border-sigma",
            RUN,
            5.0,
            "how far the border weight reaches, sigma of equation 2 in px",
            type=number(float, above=0),
            metavar="PX",
        ),
        flag(
            "--dice",
            RUN,
            PRESET,
            "add the Dice loss to the cross entropy",
            **SWITCH,
        ),
        flag(
            "--batch-dice",
            RUN,
            PRESET,
            "Dice loss over the foreground of the whole batch; --no-batch-dice: mean over images "
            "and classes",
            **SWITCH,
        ),
        flag(
            "--seed",
            RUN,
            0,
            "seed of the initial weights, the order and the augmentation",
            type=number(int, minimum=0, maximum=2**32 - 1),
        ),
        flag(
            "--amp",
            RUN,
            True,
            "mixed precision: bf16 where the device supports it, fp16 on older GPUs; --no-amp: "
            "fp32, as the tutorials",
            **SWITCH,
        ),
        flag(
            "--deterministic",
            RUN,
            False,
            "on CUDA: the same bits in every run, and after resuming; slower. On the CPU it is "
            "always so",
            **SWITCH,
        ),
        flag("--compile", RUN, False, "compile the model with torch.compile", **SWITCH),
        flag("--device", LOCAL, "auto", "auto, cpu, mps, cuda or cuda:N"),
    ]


def resuming_flags() -> list[Flag]:
    """Where a run starts."""
    return [
        flag(
            "--resume",
            LOCAL,
            "",
            "continue a run with its own flags; auto: from last_model.pth in --output-dir, if it "
            "exists. A larger --epochs or --steps extends the schedule; --lr restarts it from that "
            "rate",
            "a new run",
            metavar="auto|FILE",
        ),
        flag(
            "--start-epoch",
            LOCAL,
            None,
            "number of the first epoch",
            "the one after the checkpoint's last",
            type=number(int, minimum=0),
        ),
        flag(
            "--weights",
            LOCAL,
            [],
            "start a new run from these weights; the tutorials' files load as well. With "
            "--test-only: evaluate them; of several files the probabilities are averaged, for "
            "which they need the same classes, mean, std and --resize",
            "random weights",
            nargs="+",
            metavar="FILE",
        ),
    ]


def evaluation_flags() -> list[Flag]:
    """What is evaluated, and how."""
    return [
        flag(
            "--test-only",
            LOCAL,
            False,
            "evaluate --weights on the test split and write test_scores.json",
            **ON,
        ),
        flag(
            "--held-out",
            LOCAL,
            False,
            "with --test-only: evaluate each file of --weights on the images that its own run held "
            "out, such as the folds of a cross-validation, and choose a threshold on them; the "
            "test split is not used",
            **ON,
        ),
        flag(
            "--tolerance",
            RUN,
            0,
            "also report F1 for thin structures: precision counts predicted pixels within this "
            "many px (rows, columns or diagonals) of a true one, recall the reverse; 0: off",
            type=number(int, minimum=0),
            metavar="PX",
        ),
        flag(
            "--tile",
            RUN,
            None,
            "evaluate whole images in tiles of this side in pixels; 0: never",
            "only images that need more than 4 GB, in tiles of up to 1024",
            type=number(int, minimum=0),
            metavar="SIZE",
        ),
        flag(
            "--overlap",
            RUN,
            None,
            "pixels that neighbouring tiles share",
            "a sixteenth of the tile",
            type=number(int, minimum=0),
            metavar="PX",
        ),
        flag(
            "--flips",
            LOCAL,
            False,
            "with --test-only: average the probabilities over the four flips of each image, the "
            "eight of a volume",
            **ON,
        ),
        flag(
            "--threshold",
            LOCAL,
            None,
            "with --test-only: the threshold on the probability of class 1 to score beside 0.5",
            "the checkpoint's, the mean of an ensemble's",
            type=number(float, minimum=0, below=1),
        ),
        flag(
            "--prune",
            LOCAL,
            None,
            "with --test-only: use only this depth, 1 to 4, of a unet_plus_plus",
            "4, all of it",
            type=number(int, minimum=1, maximum=4),
            metavar="LEVEL",
        ),
        flag(
            "--report",
            LOCAL,
            "",
            "with --test-only: write report.html to this folder, one self-contained page with "
            "intervals, curves, thin and thick structures, the second observer, best and worst "
            "images, and images.csv",
            "no report",
            metavar="DIR",
        ),
    ]


def output_flags() -> list[Flag]:
    """What a run writes."""
    return [
        flag("--output-dir", LOCAL, "save_weights", "folder for everything that the run writes"),
        flag(
            "--save-best",
            RUN,
            True,
            "keep the best and the last weights; --no-save-best: those of every epoch as well",
            **SWITCH,
        ),
        flag(
            "--print-freq",
            LOCAL,
            10,
            "log the loss every N steps",
            type=number(int, minimum=1),
            metavar="N",
        ),
        flag(
            "--profile",
            LOCAL,
            False,
            "time the stages of some training steps, write trace.json, and exit",
            **ON,
        ),
        flag(
            "--tensorboard", LOCAL, False, "also log scalars and pictures to TensorBoard", **SWITCH
        ),
        flag(
            "--list-models",
            LOCAL,
            False,
            "print the parameters, multiply-adds and paper of each model, and exit",
            **ON,
        ),
    ]


def process_flags() -> list[Flag]:
    """Several GPUs and machines."""
    return [
        flag(
            "--sync-bn",
            RUN,
            False,
            "BatchNorm statistics over all GPUs, for batches of one or two images on each",
            **SWITCH,
        ),
        flag("--scale-lr", RUN, False, "multiply --lr by the number of processes", **ON),
        flag(
            "--dist-timeout",
            LOCAL,
            600,
            "longest time in seconds that a process waits for the others to start, and in a "
            "training step for their gradients",
            type=number(float, above=0),
            metavar="SECONDS",
        ),
    ]

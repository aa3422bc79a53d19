"""The flags of train.py and train_multi_GPU.py, in the groups of `--help`.

With each flag stands its default, whether a resumed run takes it from the checkpoint, and its help.
More of them are in data_flags.py, model_flags.py and training_flags.py. How defaults, presets,
checkpoints and the command line are put together is in defaults.py.
"""

from train_utils.cli.data_flags import crop_flags, data_flags, loading_flags, split_flags
from train_utils.cli.model_flags import model_flags
from train_utils.cli.parser import LOCAL, ON, RUN, SHARED_HELP, SWITCH, Flag, flag, number
from train_utils.cli.training_flags import (
    device_flags,
    loss_flags,
    optimizer_flags,
    recipe_flags,
)


def train_flags(datasets: dict) -> dict[str, list[Flag]]:
    """{group title: flags}. datasets: the table DATASETS of my_dataset.py."""
    return {
        "data": data_flags(datasets) + split_flags() + loading_flags(),
        "crops": crop_flags(),
        "model": model_flags(),
        "recipe and length": recipe_flags(),
        "optimizer": optimizer_flags(),
        "loss": loss_flags(),
        "device": device_flags(),
        "resuming": resuming_flags(),
        "evaluation": evaluation_flags(),
        "output": output_flags(),
        "several processes (torchrun train_multi_GPU.py)": process_flags(),
    }


def resuming_flags() -> list[Flag]:
    """Where a run starts."""
    return [
        flag(
            "--resume",
            LOCAL,
            "",
            "continue the run of this checkpoint with its own flags; auto: that of last_model.pth "
            "in --output-dir, if there is one, else a new run. A larger --epochs or --steps "
            "extends the schedule from its present rate, which is almost 0 where a run has ended; "
            "another --lr restarts it from that rate",
            "a new run",
            metavar="auto|FILE",
        ),
        flag(
            "--start-epoch",
            LOCAL,
            None,
            "number of the first epoch, from 0",
            "the one after the checkpoint's last",
            type=number(int, minimum=0),
        ),
        flag(
            "--weights",
            LOCAL,
            [],
            "start a new run from these weights; the tutorials' files load as well. With "
            "--test-only: evaluate them. Of several files the probabilities are averaged; the "
            "models must have the same classes, mean, std and --resize",
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
            "out, such as its fold of a cross-validation, and choose one threshold on all of them; "
            "of runs with --split-file and --val none these are the test images, and they choose "
            "nothing; otherwise the test split is not used",
            **ON,
        ),
        flag(
            "--tolerance",
            RUN,
            0,
            "also report an F1 for thin structures: a predicted pixel is correct if a true one is "
            "within this many px (along rows, columns or diagonals), and the reverse for recall; "
            "0: off",
            type=number(int, minimum=0),
            metavar="PX",
        ),
        flag(
            "--tile",
            RUN,
            None,
            *SHARED_HELP["tile"],
            type=number(int, minimum=0),
            metavar="SIZE",
        ),
        flag(
            "--overlap",
            RUN,
            None,
            *SHARED_HELP["overlap"],
            type=number(int, minimum=0),
            metavar="PX",
        ),
        flag(
            "--flips",
            LOCAL,
            False,
            f"with --test-only: {SHARED_HELP['flips'][0]}",
            **ON,
        ),
        flag(
            "--threshold",
            LOCAL,
            None,
            f"with --test-only: {SHARED_HELP['threshold'][0]}; scores at 0.5 are written as well",
            SHARED_HELP["threshold"][1],
            type=number(float, minimum=0, below=1),
        ),
        flag(
            "--prune",
            LOCAL,
            None,
            f"with --test-only: {SHARED_HELP['prune'][0]}",
            SHARED_HELP["prune"][1],
            type=number(int, minimum=1, maximum=4),
            metavar="LEVEL",
        ),
        flag(
            "--report",
            LOCAL,
            "",
            "with --test-only: write images.csv and report.html into this folder. The page needs "
            "no other files; it has intervals, curves, thin and thick structures, the second "
            "observer, and the best and worst images",
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
            "keep the best and the last weights; --no-save-best: keep those of every epoch too",
            **SWITCH,
        ),
        flag(
            "--print-freq",
            LOCAL,
            10,
            "log the loss every N batches",
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
            "compute BatchNorm's statistics over all GPUs, for one or two images on each",
            **SWITCH,
        ),
        flag("--scale-lr", RUN, False, "multiply --lr by the number of processes", **ON),
        flag(
            "--dist-timeout",
            LOCAL,
            600,
            "longest time in seconds that a process waits for the others: for their start, and in "
            "each training step for their gradients",
            type=number(float, above=0),
            metavar="SECONDS",
        ),
    ]

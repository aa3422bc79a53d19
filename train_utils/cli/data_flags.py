"""The flags about data: what is read, how it is split and loaded, how crops are cut.

With each flag stands its default, whether a resumed run takes it from the checkpoint, and its help.
"""

from train_utils.cli.parser import (
    FROM_DATA,
    LOCAL,
    MODEL,
    ON,
    RUN,
    SWITCH,
    Flag,
    OneOrThree,
    flag,
    number,
)
from train_utils.cli.presets import PRESET


def data_flags(datasets: dict) -> list[Flag]:
    """Which data, and how they are read."""
    return [
        flag(
            "--data-path",
            RUN,
            "./",
            "folder that holds the dataset, such as DRIVE/; for --dataset list a text file",
        ),
        flag(
            "--dataset",
            RUN,
            "drive",
            "a row of DATASETS in my_dataset.py; folder: images/ and masks/ of your own; volumes: "
            "the same of NIfTI files or stacks, or the Decathlon's imagesTr/ and labelsTr/",
            choices=sorted(datasets),
        ),
        flag(
            "--demo",
            LOCAL,
            False,
            "create a small synthetic dataset in demo_data/, or demo_volumes/, and train on it for "
            "one to three minutes",
            **ON,
        ),
        flag(
            "--classes",
            RUN,
            "",
            "class table, .csv or .json, with the columns id, name, colour, ignore",
            "classes.csv or classes.json in --data-path, else the dataset's own",
            metavar="FILE",
        ),
        flag(
            "--label-kind",
            RUN,
            None,
            "classes: a label holds class ids, colours or two values; instances: one id an object, "
            "0 for the background (a 16-bit image, .npy, or a folder with one mask an object)",
            "instances if there is a folder instances/ and no other labels",
            choices=["classes", "instances"],
        ),
        flag(
            "--num-classes",
            RUN,
            None,
            "number of classes, the background included; it is checked against the class table",
            "that of the class table, 2 without one",
            type=number(int, minimum=2, maximum=254),
        ),
        flag(
            "--in-channels",
            MODEL,
            3,
            "1: read images as grey, 3: as RGB; any other number must be that of the files",
            type=number(int, minimum=1),
        ),
        flag(
            "--resize",
            RUN,
            None,
            "resize images and labels to this height and width when they are read; scores are at "
            "that size, and predict.py returns to the image's own",
            "their own size",
            type=number(int, minimum=16),
            nargs=2,
            metavar=("H", "W"),
        ),
        flag(
            "--max-pixels",
            RUN,
            None,
            "largest image in pixels; a larger one is refused before it is decoded",
            "Pillow's limit, 89 million",
            type=number(int, minimum=1),
        ),
        flag(
            "--mean",
            MODEL,
            None,
            "mean of each channel, of pixels in 0-1",
            "the dataset's, else that of all valid training pixels",
            type=number(float, minimum=0, maximum=1),
            nargs="+",
            metavar="M",
        ),
        flag(
            "--std",
            MODEL,
            None,
            "standard deviation of each channel, of pixels in 0-1",
            "the dataset's, else that of all valid training pixels",
            type=number(float, above=0),
            nargs="+",
            metavar="S",
        ),
    ]


def split_flags() -> list[Flag]:
    """Which images train, which validate, which are the test."""
    return [
        flag(
            "--val",
            RUN,
            "holdout",
            "what chooses the best epoch and the threshold. holdout: the dataset's validation "
            "images, else a part of the training images (DRIVE: 37-40); none: nothing, keep the "
            "last weights, and score the dataset's validation images once, like a test; test: "
            "the test images, as the tutorials do: the result is optimistic",
            choices=["holdout", "none", "test"],
        ),
        flag(
            "--val-fraction",
            RUN,
            0.2,
            "share of the training images that is held out for validation",
            type=number(float, above=0, below=1),
        ),
        flag(
            "--test-fraction",
            RUN,
            0.2,
            "share of a dataset without splits that becomes the test split; 0: none; "
            "1: all of it, with --test-only",
            type=number(float, minimum=0, maximum=1),
        ),
        flag(
            "--split-seed",
            RUN,
            0,
            "seed of the random split; the split is written to split.json",
            type=number(int, minimum=0),
        ),
        flag(
            "--split-file",
            LOCAL,
            "",
            "use the split of this split.json, or with --fold one of nnU-Net's splits in a file",
            "that of the run that is resumed, or evaluated on the same --data-path",
            metavar="FILE",
        ),
        flag(
            "--folds",
            RUN,
            None,
            "cross-validation: cut the training images into this many folds",
            "no cross-validation",
            type=number(int, minimum=2),
        ),
        flag(
            "--fold",
            RUN,
            None,
            "the fold of --folds or --split-file that validates, from 0; the test split is not "
            "scored",
            type=number(int, minimum=0),
        ),
    ]


def loading_flags() -> list[Flag]:
    """How images reach the training device."""
    return [
        flag("--cache", LOCAL, True, "keep decoded images in memory", **SWITCH),
        flag(
            "--cache-limit",
            LOCAL,
            4.0,
            "memory for the decoded images of each split, at most half of what is free on a GPU; "
            "beyond it images are read from files, each time one is used",
            type=number(float, minimum=0),
            metavar="GB",
        ),
        flag(
            "--workers",
            LOCAL,
            None,
            "processes that load images",
            "up to 8 for images read from files, or resized for a GPU; else 0",
            type=number(int, minimum=0),
        ),
        flag(
            "--prefetch",
            LOCAL,
            None,
            "batches that each worker keeps ready",
            "2",
            type=number(int, minimum=1),
        ),
        flag(
            "--pin-memory",
            LOCAL,
            None,
            "load images into page-locked memory",
            "on for CUDA",
            **SWITCH,
        ),
    ]


def crop_flags() -> list[Flag]:
    """Random crops and their augmentation."""
    return [
        flag(
            "--augment",
            RUN,
            PRESET,
            "affine: crops are cut on the training device, with random scale, rotation, flips and "
            "colours in one resampling; resize: the loader resizes, flips and crops each image",
            choices=["affine", "resize"],
        ),
        flag(
            "--base-size",
            RUN,
            PRESET,
            "length in px of the shorter side, which --scale multiplies; 0: the image's own",
            type=number(int, minimum=0),
        ),
        flag(
            "--scale",
            RUN,
            PRESET,
            "range of the random resize, relative to --base-size",
            FROM_DATA,
            type=number(float, above=0),
            nargs=2,
            metavar=("MIN", "MAX"),
        ),
        flag(
            "--crop-size",
            RUN,
            PRESET,
            "side of the square training crops in px, at least 32, for unet_original 188; of "
            "volumes in voxels: D H W, or one number that is cut on each axis to their median "
            "size, rounded up to a multiple of 8",
            FROM_DATA,
            type=number(int, minimum=1),
            nargs="+",
            action=OneOrThree,
            metavar="SIDE",
        ),
        flag(
            "--crops",
            RUN,
            PRESET,
            "crops of each image in an epoch, in place of --steps",
            "as many as the steps take",
            type=number(int, minimum=1),
        ),
        flag(
            "--rotate",
            RUN,
            PRESET,
            "largest angle in degrees; half of the crops are rotated",
            FROM_DATA,
            type=number(float, minimum=0, maximum=180),
        ),
        flag(
            "--mirror",
            RUN,
            "both",
            "random flips of the crops; horizontal: left-right only, for scenes with an up and a "
            "down",
            FROM_DATA,
            choices=["both", "horizontal", "none"],
        ),
        flag(
            "--elastic",
            RUN,
            PRESET,
            "elastic deformation: standard deviation in px of the random displacements of a 3 x 3 "
            "grid over the crop (10 in the U-Net paper); 0: off",
            type=number(float, minimum=0),
            metavar="PX",
        ),
        flag(
            "--jitter",
            RUN,
            PRESET,
            "brightness, contrast and saturation change by up to this share",
            type=number(float, minimum=0, below=1),
        ),
    ]

"""The flags about data: what is read, how it is split and loaded, how crops are cut.

With each flag stands its default, whether a resumed run takes it from the checkpoint, and its help.
"""

from train_utils.cli.parser import (
    FROM_DATA,
    LOCAL,
    MODEL,
    ON,
    RUN,
    SHARED_HELP,
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
            SHARED_HELP["data_path"][0],
        ),
        flag(
            "--dataset",
            RUN,
            "drive",
            "how the files are laid out: a row of DATASETS in my_dataset.py. folder: images/ and "
            "masks/ of your own; list: a text file of their paths; volumes: images/ and masks/ of "
            "NIfTI files or stacks, or the Decathlon's imagesTr/ and labelsTr/; the others are "
            "published datasets",
            choices=sorted(datasets),
        ),
        flag(
            "--demo",
            LOCAL,
            False,
            "create a small synthetic dataset in demo_data/, for unet_3d in demo_volumes/, and "
            "train on it for one to three minutes",
            **ON,
        ),
        flag(
            "--classes",
            RUN,
            "",
            "the class table, .csv or .json, with the columns id, name, colour and ignore",
            "classes.csv or classes.json in --data-path, else the dataset's own",
            metavar="FILE",
        ),
        flag(
            "--label-kind",
            RUN,
            None,
            "what labels hold. classes: class ids, colours or two values; instances: one id for "
            "each object and 0 for the background, as a 16-bit image, .npy, or a folder with one "
            "mask for each object",
            "instances if there is a folder instances/ and no other labels, else classes",
            choices=["classes", "instances"],
        ),
        flag(
            "--num-classes",
            RUN,
            None,
            "number of classes, the background included; an error if the class table has another",
            "that of the class table, 2 without one",
            type=number(int, minimum=2, maximum=254),
        ),
        flag(
            "--in-channels",
            MODEL,
            3,
            "1: read images as grey; 3: as RGB; any other number must be that of the files",
            type=number(int, minimum=1),
        ),
        flag(
            "--resize",
            RUN,
            None,
            "resize images and labels to this height and width when they are read. Scores are "
            "computed at that size; predict.py writes masks of the image's own size",
            "their own size",
            type=number(int, minimum=16),
            nargs=2,
            metavar=("H", "W"),
        ),
        flag(
            "--max-pixels",
            RUN,
            None,
            *SHARED_HELP["max_pixels"],
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
            "the images that choose the best epoch and the threshold. holdout: the dataset's "
            "validation images, else a part of its training images (DRIVE: 37-40). none: no "
            "images; the last weights are kept, and validation images that the dataset has are "
            "scored once, at the end. test: the test images, as in the tutorials; the result is "
            "optimistic",
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
            "--val-images",
            RUN,
            200,
            "largest number of validation images that are evaluated after each epoch, random ones, "
            "but always the same; 0: all",
            type=number(int, minimum=0),
        ),
        flag(
            "--test-fraction",
            RUN,
            0.2,
            "share of a dataset without splits that becomes the test split; 0: no test; 1: all of "
            "it, with --test-only",
            type=number(float, minimum=0, maximum=1),
        ),
        flag(
            "--split-seed",
            RUN,
            0,
            "seed of the random split, which is written to split.json",
            type=number(int, minimum=0),
        ),
        flag(
            "--split-file",
            LOCAL,
            "",
            "use the split in this split.json; with --fold, one of the splits in a file of nnU-Net",
            "split.json of the run that is resumed, or that is evaluated on the same --data-path",
            metavar="FILE",
        ),
        flag(
            "--folds",
            RUN,
            None,
            "cross-validation: divide the training images into this many folds",
            "no cross-validation",
            type=number(int, minimum=2),
        ),
        flag(
            "--fold",
            RUN,
            None,
            "number of the fold of --folds or --split-file that validates, from 0; the test split "
            "is not scored",
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
            "memory for the decoded images of each split; on a GPU at most half of what is free. "
            "If they need more, images are read from their files each time",
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
            "affine: the training device cuts the crops, with random scale, rotation, flips and "
            "colours, and resamples once; resize: the loader resizes, flips and crops each image, "
            "as in the tutorials",
            choices=["affine", "resize"],
        ),
        flag(
            "--base-size",
            RUN,
            PRESET,
            "length in px of an image's shorter side at scale 1; 0: its own length",
            type=number(int, minimum=0),
        ),
        flag(
            "--scale",
            RUN,
            PRESET,
            "range of the random scale factor",
            FROM_DATA,
            type=number(float, above=0),
            nargs=2,
            metavar=("MIN", "MAX"),
        ),
        flag(
            "--crop-size",
            RUN,
            PRESET,
            "side of the square training crops in px: at least 32, for unet_original 188. Of "
            "volumes in voxels: D H W, or one number, which is made smaller on the axes where the "
            "median volume is smaller, to that size rounded up to a multiple of 8",
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
            "crops of each image in an epoch; gives the length of the run in place of --steps",
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
            "random flips of the crops. both: along every axis; horizontal: left and right only, "
            "for upright images; none: no flips",
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

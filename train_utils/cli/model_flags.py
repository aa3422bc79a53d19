"""The flags of the architectures: each model in src.MODELS takes some of them as arguments."""

import argparse

import torch
from torch import nn

from src import MODELS, build_model, default_options
from train_utils.cli.parser import MODEL, RUN, SWITCH, Flag, Parser, flag, number
from train_utils.cli.presets import PLANNED_PRESETS, PRESET
from train_utils.plan import plan_width

# Keyword arguments of the classes in MODELS, and their flags.
MODEL_FLAGS = {
    "base_c": "--base-c",
    "bilinear": "--bilinear",
    "align_corners": "--align-corners",
    "norm": "--norm",
    "bias": "--bias",
    "deep_supervision": "--deep-supervision",
    "padded": "--padded",
    "spacing": "--spacing",
    "pretrain_backbone": "--pretrained",
}
PAPER = "the model's own, as in its paper"


def model_flags() -> list[Flag]:
    """The flags that choose and build the model."""
    return [
        flag(
            "--model",
            MODEL,
            "unet",
            "the architecture; --list-models describes them. unet_3d implies --dataset volumes, "
            "and the reverse",
            choices=sorted(MODELS),
        ),
        flag(
            "--base-c",
            MODEL,
            None,
            "channels of the first level",
            "16 for two classes, 32 for more; other models than unet have their own, as in the "
            "paper",
            type=number(int, minimum=1),
        ),
        flag(
            "--bilinear",
            MODEL,
            None,
            "bilinear upsampling; --no-bilinear: transposed convolutions (unet, attention_unet)",
            PAPER,
            **SWITCH,
        ),
        flag(
            "--align-corners",
            MODEL,
            PRESET,
            "bilinear upsampling as in the tutorials, by distances that depend on the size, which "
            "differ between crops and whole images (unet, attention_unet, vgg16_unet, "
            "mobilenetv3_unet)",
            **SWITCH,
        ),
        flag(
            "--norm",
            MODEL,
            None,
            "BatchNorm after each convolution (unet, attention_unet, unet_plus_plus, unet_3d)",
            "on",
            **SWITCH,
        ),
        flag(
            "--bias",
            MODEL,
            None,
            "convolutions with a bias (unet, attention_unet, unet_plus_plus, unet_3d)",
            "only without --norm",
            **SWITCH,
        ),
        flag(
            "--deep-supervision",
            MODEL,
            None,
            "a loss on each depth of unet_plus_plus: weight 1 for the whole network, 0.5 for each "
            "shallower one",
            "on",
            **SWITCH,
        ),
        flag(
            "--padded",
            MODEL,
            None,
            "padded convolutions; --no-padded: valid ones, as published (unet_3d)",
            "on",
            **SWITCH,
        ),
        flag(
            "--spacing",
            MODEL,
            None,
            "size of a voxel, in mm or any unit. The axes D H W are slices, rows and columns of a "
            "stack; of NIfTI inferior-superior, posterior-anterior and left-right. Volumes are "
            "resampled to it; files that do not say their size are taken to have it; axes with "
            "long voxels are pooled later (unet_3d)",
            "the median of the training volumes",
            type=number(float, above=0),
            nargs=3,
            metavar=("D", "H", "W"),
        ),
        flag(
            "--pretrained",
            RUN,
            None,
            "start with torchvision's ImageNet weights in the encoder; mean and std are then "
            "ImageNet's, unless --mean and --std are given (vgg16_unet, mobilenetv3_unet)",
            "off",
            action="store_const",
            const=True,
            dest="pretrain_backbone",
        ),
    ]


def check_model_flags(parser: Parser, args: argparse.Namespace, given: dict) -> None:
    """Ends the script where a given flag is not an option of the model."""
    options = default_options(args.model)
    for option, name in MODEL_FLAGS.items():
        if option in given and option not in options:
            own = [MODEL_FLAGS[option] for option in MODEL_FLAGS if option in options]
            parser.error(
                f"{name}: --model {args.model} has no such option; "
                f"it has {', '.join(own) or 'none'}"
            )
    if "align_corners" in given and not upsamples_bilinearly(args):
        parser.error("--align-corners: is of bilinear upsampling; give --bilinear as well")
    if "pretrain_backbone" in given:
        if args.weights:
            parser.error("--pretrained and --weights both choose the first weights; give one")
        if args.in_channels not in (1, 3):
            parser.error(
                "--pretrained: ImageNet weights fit images of 3 channels or 1, "
                f"not --in-channels {args.in_channels}"
            )
    smallest = MODELS[args.model].min_training_side
    if MODELS[args.model].dims == 3:  # it depends on the voxels, see values.make_volume_crops()
        return
    if args.crop_size is not None and args.crop_size < smallest and not args.test_only:
        parser.error(
            f"--crop-size {args.crop_size}: {args.model} trains on crops of at least {smallest} px"
        )


def upsamples_bilinearly(args: argparse.Namespace) -> bool:
    """Whether the model of the flags does, where it has the choice."""
    if args.bilinear is not None:
        return args.bilinear
    return default_options(args.model).get("bilinear", True)


def model_kwargs(
    args: argparse.Namespace, num_classes: int, spacing: list[float] | None = None
) -> dict:
    """The keyword arguments of build_model(): the flags', else the model's own defaults.

    spacing: size of a voxel of the training volumes; None: that of the flag, and for images.
    """
    kwargs = default_options(args.model)
    kwargs |= {"in_channels": args.in_channels, "num_classes": num_classes}
    for option in MODEL_FLAGS:
        if option in kwargs and getattr(args, option) is not None:
            kwargs[option] = getattr(args, option)
    if args.model == "unet" and args.base_c is None and args.preset in PLANNED_PRESETS:
        kwargs["base_c"] = plan_width(num_classes)
    if not kwargs.get("bilinear", True):
        kwargs.pop("align_corners")  # it says nothing of transposed convolutions
    if spacing:
        kwargs["spacing"] = spacing
    kwargs.pop("pretrain_backbone", None)  # it says where weights came from, not what the model is
    return kwargs


def model_without_weights(
    args: argparse.Namespace, num_classes: int, spacing: list[float] | None = None
) -> nn.Module:
    """The model of the flags on the meta device, for what it says of itself."""
    with torch.device("meta"):
        return build_model(args.model, **model_kwargs(args, num_classes, spacing))

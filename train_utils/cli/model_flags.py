"""The flags of the architectures: each of src.MODELS has some of them, as keyword arguments of its class."""

from argparse import BooleanOptionalAction as BOOL

from src import default_options
from train_utils.cli.parser import number

# Options of the architectures, each of some of them: keyword arguments of the classes in MODELS, and their flags.
MODEL_FLAGS = {
    "base_c": "--base-c",
    "bilinear": "--bilinear",
    "norm": "--norm",
    "bias": "--bias",
    "deep_supervision": "--deep-supervision",
    "pretrain_backbone": "--pretrained",
}


def add_model_flags(add, models):
    add("--model", default="unet", choices=sorted(models), help="name of a row of MODELS in src/")
    add(
        "--list-models",
        action="store_true",
        help="print each model's parameters, multiply-adds and paper, and end",
    )
    add(
        "--base-c",
        type=number(int, minimum=1),
        help="channels of the first level (the default is unet's; the others': their papers')",
    )
    add(
        "--bilinear",
        action=BOOL,
        help="bilinear upsampling; --no-bilinear: transposed convolutions (unet, attention_unet)",
    )
    add(
        "--norm",
        action=BOOL,
        help="BatchNorm after each convolution (unet, attention_unet, unet_plus_plus; default: on)",
    )
    add(
        "--bias",
        action=BOOL,
        help="convolutions with a bias (the same three; default: where there is no norm)",
    )
    add(
        "--deep-supervision",
        action=BOOL,
        help="a loss on each depth of unet_plus_plus (default: on)",
    )
    add(
        "--pretrained",
        action="store_const",
        const=True,
        dest="pretrain_backbone",
        help="begin with torchvision's ImageNet "
        "weights in the encoder, and with their --mean and --std (vgg16_unet, mobilenetv3_unet)",
    )


def check_model_flags(parser, args, explicit, min_side):
    """Ends the script where an explicit flag is none of the model's; sets those that it does not have to None."""
    options = default_options(args.model)
    for option, flag in MODEL_FLAGS.items():
        if option not in options:
            if getattr(explicit, option) is not None:
                own = [flag for option, flag in MODEL_FLAGS.items() if option in options]
                parser.error(
                    f"{flag}: --model {args.model} has no such option; it has {', '.join(own) or 'none'}"
                )
            setattr(args, option, None)
    if explicit.pretrain_backbone and args.weights:
        parser.error(
            "--pretrained and --weights both say which weights to begin with; give one of them"
        )
    if args.crop_size < min_side and not args.test_only:
        parser.error(
            f"--crop-size {args.crop_size}: {args.model} learns from crops of at least {min_side} px"
        )
    if explicit.pretrain_backbone and args.in_channels not in (1, 3):
        parser.error(
            f"--pretrained: ImageNet weights fit images of 3 channels or 1, not --in-channels {args.in_channels}"
        )


def describe_model(args):
    """What build_model() needs, as a checkpoint keeps it: the model's options are the flags' or its own defaults."""
    kwargs = default_options(args.model) | {
        "in_channels": args.in_channels,
        "num_classes": args.num_classes or 2,
    }
    kwargs |= {
        option: getattr(args, option) for option in MODEL_FLAGS if getattr(args, option) is not None
    }
    kwargs.pop("pretrain_backbone", None)  # it says where weights began, not what the model is
    return {"model_name": args.model, "model_kwargs": kwargs}

"""The flags of train.py and train_multi_GPU.py.

Every function is handed `datasets` and `models`, the tables of my_dataset and src, since flags name their rows.
"""

from argparse import BooleanOptionalAction as BOOL
from argparse import Namespace
from pathlib import Path

from src.device import pick_device
from src.encoder import IMAGENET_MEAN, IMAGENET_STD
from train_utils import checkpoint as checkpoints
from train_utils.cli.model_flags import MODEL_FLAGS, add_model_flags, check_model_flags
from train_utils.cli.parser import Parser, class_weights, number
from train_utils.cli.presets import DEMO, PRESETS
from train_utils.distributed_utils import broadcast_from_rank_zero, world_size

# Flags that say where and how to compute, not what: a resumed run takes them from the command line alone.
LOCAL_FLAGS = {
    "cache",
    "cache_limit",
    "demo",
    "device",
    "dist_timeout",
    "flips",
    "held_out",
    "list_models",
    "output_dir",
    "pin_memory",
    "prefetch",
    "print_freq",
    "prune",
    "report",
    "resume",
    "split_file",
    "start_epoch",
    "tensorboard",
    "test_only",
    "threshold",
    "weights",
    "workers",
}
# What a new run takes from the weights it starts from.
WEIGHTS_FLAGS = {"model", "in_channels", "mean", "std", *MODEL_FLAGS} - {"pretrain_backbone"}


ON = {"action": "store_true"}


def get_parser(prog, description, datasets, models):
    parser = Parser(prog=prog, usage="%(prog)s [flags]", description=description)
    add_data_flags(parser.add_argument_group("data").add_argument, datasets)
    add_crop_flags(parser.add_argument_group("training crops").add_argument)
    add_model_flags(parser.add_argument_group("model").add_argument, models)
    add_training_flags(parser.add_argument_group("training").add_argument)
    add_output_flags(parser.add_argument_group("going on, judging, output").add_argument)
    add_process_flags(
        parser.add_argument_group("several processes (torchrun train_multi_GPU.py)").add_argument
    )
    parser.set_defaults(**PRESETS[parser.get_default("preset")])
    return parser


def add_data_flags(add, datasets):
    add(
        "--data-path",
        default="./",
        help="folder that holds the data set, such as DRIVE/ (default: here); for list: a text "
        "file",
    )
    add(
        "--dataset",
        default="drive",
        choices=sorted(datasets),
        help="name of a row of DATASETS in my_dataset.py",
    )
    add(
        "--demo",
        **ON,
        help="draw a small synthetic set into demo_data/ and train on it for about a minute",
    )
    add(
        "--classes",
        default="",
        metavar="FILE",
        help="class table, .csv or .json: id, name, colour, ignore (default: "
        "classes.csv or .json in --data-path, else the data set's own)",
    )
    add(
        "--num-classes",
        type=number(int, minimum=2, maximum=254),
        help="classes, the background included; to be checked "
        "against the data set, which says it itself",
    )
    add(
        "--in-channels",
        type=number(int, minimum=1),
        default=3,
        help="1: images are read as grey, 3: as colours, or the files' own number",
    )
    add(
        "--resize",
        type=number(int, minimum=16),
        nargs=2,
        metavar=("H", "W"),
        help="resize images and labels to this size when read",
    )
    add(
        "--max-pixels",
        type=number(int, minimum=1),
        help="largest image that is decoded, in px (default: Pillow's limit, 89 million)",
    )
    add(
        "--val",
        default="holdout",
        choices=["holdout", "none", "test"],
        help="what chooses the best epoch and the threshold: the data set's validation images or, where it has none, a part "
        "of the training images (DRIVE: 37-40), nothing (keep the last weights; validation images that a set has are "
        "scored like a test), or the test images, as the tutorials do, which flatters the result",
    )
    add(
        "--val-fraction",
        type=number(float, above=0, below=1),
        default=0.2,
        help="share of the training images that is held out",
    )
    add(
        "--test-fraction",
        type=number(float, minimum=0, maximum=1),
        default=0.2,
        help="share that is drawn for the test from a set that comes in one piece; 0: none; 1: all, for --test-only",
    )
    add(
        "--split-seed",
        type=number(int, minimum=0),
        default=0,
        help="of what is drawn; the split is written to split.json",
    )
    add(
        "--split-file",
        default="",
        metavar="FILE",
        help="use the split of this split.json (default: that of the run that goes on)",
    )
    add(
        "--folds",
        type=number(int, minimum=2),
        help="cross-validation: cut the training images into this many folds",
    )
    add(
        "--fold",
        type=number(int, minimum=0),
        help="the fold that validates, counted from 0; the test split is not scored",
    )
    add(
        "--mean",
        type=number(float, minimum=0, maximum=1),
        nargs="+",
        metavar="M",
        help="of each channel in 0-1 (default: the data set's, else counted from the training images)",
    )
    add(
        "--std",
        type=number(float, above=0),
        nargs="+",
        metavar="S",
        help="standard deviation of each channel in 0-1",
    )
    add("--cache", action=BOOL, default=True, help="keep decoded images in memory")
    add(
        "--cache-limit",
        type=number(float, minimum=0),
        default=4.0,
        metavar="GB",
        help="of each part of the data; beyond it images are read from files anew each time",
    )
    add(
        "--workers",
        type=number(int, minimum=0),
        help="loader processes (default: up to 8 for a GPU or for images read "
        "from files, 0 for a CPU that has them in memory)",
    )
    add(
        "--prefetch",
        type=number(int, minimum=1),
        help="batches that each worker keeps ready (default: 2)",
    )
    add("--pin-memory", action=BOOL, help="load into page-locked memory (default: for CUDA)")


def add_crop_flags(add):
    add(
        "--augment",
        choices=["affine", "resize"],
        help="affine: crops are cut on the training device, each by one "
        "resampling with random scale, rotation, flips and colours; resize: the loader resizes, flips and crops image by image",
    )
    add(
        "--base-size",
        type=number(int, minimum=0),
        help="shorter side, in px, that --scale multiplies; 0: each image's own",
    )
    add(
        "--scale",
        type=number(float, above=0),
        nargs=2,
        metavar=("MIN", "MAX"),
        help="range of the random resize, times --base-size",
    )
    add(
        "--crop-size",
        type=number(int, minimum=32),
        help="side of the training crops in px, at least 32",
    )
    add("--crops", type=number(int, minimum=1), help="crops of each image an epoch")
    add(
        "--rotate",
        type=number(float, minimum=0, maximum=180),
        help="largest angle, in degrees, of the half that is rotated",
    )
    add(
        "--mirror",
        default="both",
        choices=["both", "horizontal", "none"],
        help="flips of the training crops; horizontal: left and right alone, for pictures that have an up and a down",
    )
    add(
        "--jitter",
        type=number(float, minimum=0, below=1),
        help="brightness, contrast and saturation change by up to this share",
    )


def add_training_flags(add):
    add(
        "--preset",
        default="best",
        choices=sorted(PRESETS),
        help="the recipe: defaults of the flags that say how to train",
    )
    add("--epochs", type=number(int, minimum=1), help="passes over the training images")
    add("-b", "--batch-size", type=number(int, minimum=1), help="images a step, on each device")
    add(
        "--accumulate",
        type=number(int, minimum=1),
        default=1,
        metavar="N",
        help="batches for one optimiser step",
    )
    add("--optimizer", choices=["sgd", "adamw"], help="which optimiser")
    add("--lr", type=number(float, above=0), help="highest learning rate")
    add("--momentum", type=number(float, minimum=0, below=1), default=0.9, help="of SGD")
    add(
        "--wd",
        "--weight-decay",
        type=number(float, minimum=0),
        dest="weight_decay",
        help="L2 (SGD) or decoupled (AdamW) decay of the weights",
    )
    add(
        "--warmup-epochs",
        type=number(float, minimum=0),
        help="of linear warm-up; then (1 - progress)^0.9",
    )
    add(
        "--clip-grad",
        type=number(float, minimum=0),
        metavar="NORM",
        help="largest gradient norm; 0: any",
    )
    add(
        "--class-weights",
        type=class_weights,
        metavar="none|auto|LIST",
        help="of the cross entropy; auto: median frequency balancing (default: the recipe's for two classes, else none)",
    )
    add(
        "--batch-dice",
        action=BOOL,
        help="Dice loss over the batch's foreground; --no-batch-dice: mean over images and classes",
    )
    add(
        "--seed",
        type=number(int, minimum=0, maximum=2**32 - 1),
        default=0,
        help="of weights, order and augmentation",
    )
    add(
        "--amp",
        action=BOOL,
        default=True,
        help="mixed precision where the device has it (default: on)",
    )
    add("--compile", action=BOOL, default=False, help="torch.compile the model")
    add("--device", default="auto", help="auto, cpu, mps, cuda or cuda:N")


def add_output_flags(add):
    add(
        "--resume",
        default="",
        metavar="auto|FILE",
        help="go on with a run, its flags included; auto: last_model.pth of "
        "--output-dir, if there is one. With a larger --epochs the schedule is planned anew from there",
    )
    add(
        "--start-epoch",
        type=number(int, minimum=0),
        help="count epochs from here (default: where the checkpoint ended)",
    )
    add(
        "--weights",
        default=[],
        nargs="+",
        metavar="FILE",
        help="weights to start from, or to judge with --test-only; of "
        "several files --test-only judges the ensemble, the mean of their probabilities",
    )
    add(
        "--tolerance",
        type=number(int, minimum=0),
        default=0,
        metavar="PX",
        help="also report F1 with this tolerance in px, for thin structures; 0: off",
    )
    add("--test-only", **ON, help="score --weights on the test split and write test_scores.json")
    add(
        "--held-out",
        **ON,
        help="with --test-only: judge each file of --weights on the images that its own run held out, such "
        "as the folds of a cross-validation, and choose a threshold by them; the test split is not touched",
    )
    add(
        "--prune",
        type=number(int, minimum=1, maximum=4),
        metavar="LEVEL",
        help="with --test-only: judge with the nested "
        "network of this depth, 1 to 4, of a unet_plus_plus",
    )
    add(
        "--flips",
        **ON,
        help="with --test-only: average the probabilities over the four flips of each image",
    )
    add(
        "--threshold",
        type=number(float, minimum=0, below=1),
        help="with --test-only: the chosen threshold on the "
        "probability of class 1 (default: the checkpoint's; of an ensemble the mean)",
    )
    add(
        "--report",
        default="",
        metavar="DIR",
        help="with --test-only: write report.html, a page that needs nothing but "
        "itself, and images.csv to this folder",
    )
    add("--output-dir", default="save_weights", help="folder for all that the run leaves")
    add(
        "--save-best",
        action=BOOL,
        default=True,
        help="keep the best and the last weights; --no-save-best: every epoch's too",
    )
    add(
        "--print-freq",
        type=number(int, minimum=1),
        default=10,
        help="steps between two looks at the loss",
    )
    add(
        "--tensorboard",
        action=BOOL,
        default=False,
        help="also log scalars and pictures for TensorBoard",
    )


def add_process_flags(add):
    add("--sync-bn", action=BOOL, default=False, help="BatchNorm statistics over all GPUs")
    add("--scale-lr", **ON, help="multiply --lr by the number of processes")
    add(
        "--dist-timeout",
        type=number(float, above=0),
        default=600,
        metavar="SECONDS",
        help="longest that one process waits for another",
    )


def parse_args(argv, prog, description, datasets, models):
    """The flags, checked. Defaults are the preset's, then --demo's, then those of the run that is resumed or judged."""
    parser = get_parser(prog, description, datasets, models)
    args = parser.parse_args(argv)
    parser.set_defaults(**PRESETS[args.preset])
    if (
        args.model != "unet"
    ):  # the recipes' options are the plain U-Net's; each other class has its own defaults
        parser.set_defaults(**dict.fromkeys(MODEL_FLAGS))
    if args.demo:
        parser.set_defaults(**DEMO)
    if args.weights and args.resume not in ("", "auto"):
        parser.error("--resume FILE goes on with the weights of that file; leave --weights out")
    resume = broadcast_from_rank_zero(lambda: resume_path(args))
    saved = set_saved_defaults(parser, args, resume)
    args = parser.parse_args(argv)
    args.resume = resume
    if resume and args.preset != saved.get("preset", args.preset):
        parser.error(f"--resume goes on with the recipe of its run, --preset {saved['preset']}")
    for name, table in (
        ("model", models),
        ("dataset", datasets),
    ):  # argparse does not check what a checkpoint says
        if getattr(args, name) not in table:
            parser.error(
                f"--{name} {getattr(args, name)}, as the checkpoint says: this version has only "
                f"{', '.join(sorted(table))}"
            )
    row = datasets[args.dataset]
    check_flags(parser, args)
    explicit = parser.parse_args(argv, Namespace(split_file="", **dict.fromkeys(MODEL_FLAGS)))
    if args.held_out and explicit.split_file:
        parser.error(
            "--split-file: --held-out judges what the checkpoints say that their runs held out"
        )
    if args.test_only and not same_data(args, saved):
        args.split_file = explicit.split_file  # the run's own split is of other images
    check_model_flags(parser, args, explicit, getattr(models[args.model], "min_training_side", 0))
    mean, std = (
        (IMAGENET_MEAN, IMAGENET_STD) if args.pretrain_backbone else (row["mean"], row["std"])
    )
    if args.in_channels == len(mean or []):
        args.mean, args.std = args.mean or mean, args.std or std
    return args


def set_saved_defaults(parser, args, resume):
    """Makes the flags of the run that is resumed, judged or begun from the defaults, and returns them, {} for none."""
    if resume:
        saved = broadcast_from_rank_zero(lambda: checkpoints.load_described(resume)["args"])
        parser.set_defaults(output_dir=str(Path(resume).parent))
    else:
        saved = (
            broadcast_from_rank_zero(lambda: checkpoints.load(args.weights[0]).get("args", {}))
            if args.weights
            else {}
        )
    if isinstance(saved, dict):  # the tutorials' files hold a Namespace of other flags
        wanted = (
            saved.keys() - LOCAL_FLAGS if resume or args.test_only else saved.keys() & WEIGHTS_FLAGS
        )
        parser.set_defaults(**{name: saved[name] for name in wanted})
    if resume or (args.test_only and args.weights):
        split_file = Path(resume or args.weights[0]).parent / "split.json"
        parser.set_defaults(
            split_file=str(split_file) if broadcast_from_rank_zero(split_file.is_file) else ""
        )
    return saved if isinstance(saved, dict) else {}


def same_data(args, saved):
    """Whether the flags name the data that the run with the flags `saved` had."""
    place = Path(saved.get("data_path", args.data_path))
    return (
        saved.get("dataset", args.dataset) == args.dataset
        and place.resolve() == Path(args.data_path).resolve()
    )


def resume_path(args):
    """The file to resume from, "" for none: `--resume auto` without a checkpoint starts a new run."""
    if args.resume != "auto":
        return args.resume
    path = Path(args.output_dir) / "last_model.pth"
    if path.exists():
        return str(path)
    print(f"--resume auto: there is no {path}, so this is a new run", flush=True)
    return ""


def check_flags(parser, args):
    """Ends the script with exit code 2 where flags contradict each other or the machine."""
    for name, values in (("--mean", args.mean), ("--std", args.std)):
        if values and len(values) != args.in_channels:
            parser.error(f"{name} has {len(values)} values for --in-channels {args.in_channels}")
    if args.test_fraction == 1 and not args.test_only:
        parser.error("--test-fraction 1 leaves nothing to train on; it is for --test-only")
    if (args.fold is None) != (args.folds is None):
        parser.error("--folds K and --fold k belong together")
    if args.folds and (args.fold >= args.folds or args.val != "holdout"):
        parser.error(f"--fold goes from 0 to {args.folds - 1}, and without --val")
    if args.scale[0] > args.scale[1]:
        parser.error(f"--scale {args.scale[0]} {args.scale[1]}: the first is the smaller one")
    if args.augment == "resize" and int(args.scale[0] * args.base_size) < 1:
        parser.error(
            f"--scale {args.scale[0]} of --base-size {args.base_size} leaves no pixel; --augment resize needs both"
        )
    if args.augment == "resize" and (args.rotate or args.jitter):
        parser.error("--rotate and --jitter belong to --augment affine; give --rotate 0 --jitter 0")
    if (args.start_epoch or 0) >= args.epochs:
        parser.error(f"--start-epoch {args.start_epoch} leaves nothing of --epochs {args.epochs}")
    if args.test_only and not (args.weights or args.resume):
        parser.error("--test-only needs --weights FILE")
    if args.prune and not args.test_only:
        parser.error("--prune belongs to --test-only: training always takes the whole network")
    if len(args.weights) > 1 and not args.test_only:
        parser.error(
            f"--weights {' '.join(args.weights)}: a run starts from one file; several are judged with --test-only"
        )
    if not args.test_only and (
        args.flips or args.held_out or args.report or args.threshold is not None
    ):
        parser.error("--flips, --held-out, --report and --threshold belong to --test-only")
    if args.held_out and args.report:
        parser.error("--report is made of the test images, which --held-out leaves alone")
    if args.report and world_size() > 1:
        parser.error(
            "--report is made by a single process, which sees all images; run train.py without torchrun"
        )
    try:
        device = pick_device(args.device)
    except ValueError as error:
        parser.error(f"--device: {error}")
    if (
        args.sync_bn and device.type != "cuda" and not args.test_only
    ):  # a run on GPUs may be judged anywhere
        parser.error(
            f"--sync-bn: PyTorch's SyncBatchNorm works on CUDA only, not on {device}; give --no-sync-bn"
        )

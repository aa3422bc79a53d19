"""The data of a run, as train.py's flags describe it: classes, splits, data sets, statistics, loaders."""

import torch

from my_dataset import DATASETS, IGNORE, SegmentationDataset, find_table, list_samples
from src import MODELS
from src.errors import UserError
from src.image_io import MANY_CLASSES
from train_utils.cli.presets import PRESETS
from train_utils.data import splits
from train_utils.data.statistics import statistics
from train_utils.data_loader import CropLoader, StackedImages, make_loader, rank_indices
from train_utils.dice_coefficient_loss import median_frequency_weights
from train_utils.distributed_utils import broadcast_from_rank_zero, log
from transforms import RandomAffineCrops, train_preset


def class_table(args):
    """The ClassTable that the flags name."""
    return find_table(args.data_path, args.classes, DATASETS[args.dataset]["classes"])


def settle_classes(args):
    """Sets --num-classes, which the class table says, and --class-weights; UserError if the flags say otherwise."""
    count = len(class_table(args).names)
    if args.num_classes not in (None, count):
        raise UserError(
            f"--num-classes {args.num_classes}: {args.dataset} has {count} classes, the background included; "
            f"{MANY_CLASSES}"
        )
    if args.class_weights is PRESETS[args.preset]["class_weights"] and count != 2:
        args.class_weights = "none"  # the recipe's are for two classes
    if isinstance(args.class_weights, list) and len(args.class_weights) != count:
        raise UserError(
            f"--class-weights has {len(args.class_weights)} weights for {count} classes"
        )
    args.num_classes = count


def split_samples(args):
    """(training, validation, test samples): what is learned from, what chooses, what is scored at the end."""
    listed = list_samples(args.dataset, args.data_path)
    if args.split_file and not args.folds:
        training, validation, test = splits.samples_by_name(
            listed, broadcast_from_rank_zero(lambda: splits.read_split(args.split_file))
        )
        test = splits.labelled(test)
        return training, {"holdout": validation, "none": [], "test": test}[args.val], test
    return splits.split_samples(
        listed,
        DATASETS[args.dataset]["ordered"],
        args.val,
        args.folds,
        args.fold,
        args.val_fraction,
        args.test_fraction,
        args.split_seed,
    )


def labelled_test_samples(args):
    """The test samples that can be scored, of a run that is done."""
    names = (
        broadcast_from_rank_zero(lambda: splits.read_split(args.split_file))
        if args.split_file
        else None
    )
    if names:
        log(f"the test images are those of {args.split_file}")
    return splits.test_samples(
        list_samples(args.dataset, args.data_path),
        names,
        args.val,
        args.test_fraction,
        args.split_seed,
    )


def held_out_samples(args, checkpoint, path):
    """The validation samples of the run that left `checkpoint` in the file `path`; UserError if it had none of its own."""
    if not checkpoint.get("split", {}).get("val"):
        raise UserError(
            f"{path}: its run held out no images; --held-out judges runs with --folds or --val holdout"
        )
    if checkpoint["args"]["val"] == "test":
        raise UserError(
            f"{path}: its run (--val test) chose by the test images; --held-out is for what is chosen without them"
        )
    part = (
        "train" if checkpoint["args"].get("folds") else "val"
    )  # folds are cut from the training images
    chosen = splits.samples_by_name(
        list_samples(args.dataset, args.data_path), {part: checkpoint["split"]["val"]}
    )
    return [sample for samples in chosen for sample in samples]


def make_dataset(args, samples, transforms, title):
    """The data set, read once in full, so that a bad file is found before training; says what it found."""
    dataset = SegmentationDataset(
        samples,
        class_table(args),
        transforms,
        args.cache_limit * 1e9 * args.cache,
        args.in_channels,
        args.resize,
        args.max_pixels,
    )
    pixels = dataset.count_pixels()
    if not pixels[:IGNORE].any():
        raise UserError(
            f"no pixel of the {title} images counts: their labels, such as {samples[0].label}, hold nothing but what "
            "the class table ignores"
        )
    log(f"{title}: {dataset.describe(pixels)}")
    return dataset, pixels


def settle_statistics(args, dataset):
    """Sets --mean and --std, where neither the flags nor the data set say them, to those of the training pixels."""
    if not (args.mean and args.std):
        pooled = broadcast_from_rank_zero(lambda: statistics(dataset)["pooled"])
        mean, std = ([round(value, 4) for value in values.tolist()] for values in pooled)
        args.mean = args.mean or mean
        args.std = args.std or [max(value, 0.001) for value in std]  # a blank channel has std 0
        log(f"mean {args.mean}, std {args.std}, counted from the training images")


def make_train_loader(args, dataset, batches, device):
    """Batches of augmented crops, cut on the device (--augment affine) or by the loader's transforms."""
    in_memory = dataset.fits_in_memory()
    if args.cache and not in_memory:
        log(
            f"the training images exceed --cache-limit {args.cache_limit:g} GB: they are read from files"
        )
    options = {
        "workers": args.workers,
        "prefetch": args.prefetch,
        "pin_memory": args.pin_memory,
        "in_memory": in_memory,
    }
    mirror = {
        "flip_prob": 0.0 if args.mirror == "none" else 0.5,
        "upside_down": args.mirror == "both",
    }
    if args.augment == "resize":
        dataset.transforms = train_preset(
            args.mean, args.std, args.base_size, args.crop_size, args.scale, **mirror
        )
        return make_loader(dataset, device, **options, batch_sampler=batches)
    crops = RandomAffineCrops(
        args.crop_size,
        args.mean,
        args.std,
        args.base_size,
        args.scale,
        args.rotate,
        args.jitter,
        **mirror,
        margin=getattr(MODELS[args.model], "margin", 0),
    )
    if in_memory:
        source = StackedImages(*dataset.stack(), batches, device)
    else:
        source = make_loader(
            dataset, device, **options, batch_sampler=batches, collate_fn=dataset.collate_with_sizes
        )
    return CropLoader(source, batches, crops, args.seed, device)


def evaluation_loader(args, dataset, device):
    """One image at a time, each rank every world_size-th."""
    return make_loader(
        dataset,
        device,
        args.workers,
        args.prefetch,
        args.pin_memory,
        dataset.fits_in_memory(),
        sampler=rank_indices(len(dataset)),
    )


def pick_class_weights(choice, pixels):
    """Weights [K] of the cross entropy, or None, from --class-weights and the training pixels [K] of each class."""
    if choice == "none":
        return None
    weights = median_frequency_weights(pixels) if choice == "auto" else torch.tensor(choice)
    log(f"class weights: {', '.join(f'{weight:.3g}' for weight in weights.tolist())}")
    return weights

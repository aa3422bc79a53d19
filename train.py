"""Trains a U-Net on one device. `python train.py --demo` needs no data."""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from my_dataset import DATASETS, Data, list_samples, open_dataset
from src import MODELS, build_model
from src.device import (
    benchmark_convolutions,
    memory_format,
    pick_amp_dtype,
    pick_device,
    reuse_freed_memory,
    synchronize,
    use_deterministic_algorithms,
)
from src.errors import UserError
from src.tiles import Tiling
from train_utils import (
    NonFiniteLossError,
    create_lr_scheduler,
    evaluate,
    evaluation,
    held_out,
    model_loading,
    resume,
    summarize,
    train_one_epoch,
)
from train_utils import checkpoint as checkpoints
from train_utils.atomic import prepare_folder
from train_utils.budget import (
    Budget,
    changed_flags,
    new_budget,
    plan_minutes,
    record_of_flags,
    resumed_budget,
    schedule,
    start_epoch,
)
from train_utils.checkpoint import ModelDescription, TrainingSettings, TrainingState
from train_utils.cli import defaults, list_models, model_flags, script, values
from train_utils.cli.recipe import (
    Recipe,
    budget_of,
    describe_recipe,
    make_recipe,
    saved_recipe,
)
from train_utils.data import demo, demo_volumes, splits, statistics, volumes
from train_utils.data.class_table import ClassTable
from train_utils.data.samples import Sample, choose_label_kind
from train_utils.data_loader import (
    CropLoader,
    EpochBatches,
    StackedImages,
    make_evaluation_loader,
    make_training_loader,
)
from train_utils.distributed_utils import (
    all_gather_objects,
    broadcast_buffers,
    broadcast_from_rank_zero,
    is_main_process,
    log,
    rank,
    world_size,
    wrap_in_ddp,
)
from train_utils.plan import DataSummary, summarize_data
from train_utils.random_state import random_state
from train_utils.reporting import profile, provenance, tensorboard, text_files, total_time
from train_utils.volume_crops import RandomVolumeCrops
from transforms import RandomAffineCrops, eval_preset, train_preset

DEMO_NEXT_STEPS = """
next:
  python predict.py --weights {folder}/best_model.pth --input {data}/DRIVE/test/images \\
         --roi-mask {data}/DRIVE/test/mask --overlay
  python train.py --data-path FOLDER_THAT_HOLDS_DRIVE      (README.md says where to get DRIVE)"""

DEMO_NEXT_VOLUMES = """
next:
  python predict.py --weights {folder}/best_model.pth --input {data}/images
  python train.py --model unet_3d --data-path FOLDER       (imagesTr/ and labelsTr/ of NIfTI)"""


def main(args: argparse.Namespace) -> None:
    """Data, recipe, model, optimizer, resume, epochs, and the test split, once."""
    start = time.perf_counter()
    if args.list_models:
        return log(list_models.list_models(DATASETS))
    device, amp_dtype = prepare_device(args)
    if args.demo:
        make = demo_volumes.make_demo if MODELS[args.model].dims == 3 else demo.make_demo
        broadcast_from_rank_zero(lambda: make(args.data_path))
    classes = values.find_classes(args, DATASETS[args.dataset]["classes"])
    num_classes = len(classes.names)
    loader_of = partial(make_evaluation_loader, device=device, **values.loading_options(args))
    tiling = Tiling(args.tile, args.overlap)
    evaluator = evaluation.Evaluator(device, amp_dtype, args.tolerance, tiling, loader_of, start)
    if args.test_only:
        return test_only(args, classes, evaluator)

    # Data and recipe
    data = read_data(args, classes)
    recipe = make_recipe(args, summarize_training(data), device)
    order = args.seed, rank(), world_size(), recipe.crops or 1
    batches = EpochBatches(len(data.train), recipe.batch_size, *order)
    train_loader = make_train_loader(args, recipe, data, batches, device)

    # Model
    model_kwargs = model_flags.model_kwargs(args, num_classes, data.spacing)
    log(describe_recipe(args, model_kwargs, recipe))
    description = ModelDescription(
        args.model, model_kwargs, classes, data.mean, data.std, args.resize, data.spacing
    )
    model, checkpoint = make_model(args, description, device)
    parallel_model = wrap_in_ddp(model, device, args.dist_timeout, args.sync_bn)
    if args.compile:  # for training alone: evaluation would compile again for every image size
        parallel_model = torch.compile(parallel_model)

    # Optimizer and schedule, new or resumed
    optimizer = make_optimizer(args, model)
    scaler = torch.amp.GradScaler(device.type, enabled=amp_dtype is torch.float16)
    state, budget = start_state(args, recipe, checkpoint, data.split, batches, optimizer, scaler)
    trial = args.minutes is not None and state.epoch == 0  # its length is not known yet
    if not trial:
        log(f"{budget.steps:,} steps in {budget.epochs} epochs")
    lr_scheduler = create_lr_scheduler(
        optimizer, budget.epoch_steps, budget.epochs, plan=state.plan, step=state.step
    )
    clock = make_clock(evaluator, model, recipe, data, state, budget, trial)
    train = partial(
        train_one_epoch,
        parallel_model,
        optimizer,
        data_loader=train_loader,
        device=device,
        num_classes=num_classes,
        lr_scheduler=lr_scheduler,
        scaler=scaler,
        amp_dtype=amp_dtype,
        after_step=clock.step,
        **training_options(args, recipe, data, device),
    )
    validate = make_validation(evaluator, model, data)
    if args.profile:
        return profile.profile_training(train, train_loader, validate, device, args.output_dir)

    # Files
    write_split(args, data)
    earlier = checkpoint["recipe"] if args.resume else {}
    flags = record_of_flags(vars(args), checkpoint if args.resume else {})
    build_checkpoint = partial(checkpoints.build, model, optimizer, scaler, description)
    log_folder = Path(args.output_dir) / "tensorboard"
    logger = tensorboard.TensorBoardLogger(
        log_folder if args.tensorboard and is_main_process() else None
    )
    resume.restore_randomness(checkpoint["random_states"] if args.resume else [], args.seed)

    # Epochs
    measure = resume.measure_of(num_classes)
    with resume.history_kept(args.output_dir, state, measure):
        while state.epoch < budget.epochs:
            epoch = state.epoch
            start_epoch(batches, budget, state, recipe.accumulate, recipe.crops)
            with benchmark_convolutions(device):  # not in evaluation: each image has its own size
                row = train_epoch(train, epoch, batches, data)
            broadcast_buffers(model)
            if validate:
                counts, _ = validate()
                row |= {f"val_{name}": value for name, value in summarize(counts).items()}
            is_best = resume.add_epoch(state, row, measure)
            state.step = lr_scheduler.last_epoch  # optimizer steps so far
            if trial and epoch == 0:
                budget = plan_by_speed(args, clock, evaluator)
                state.plan = schedule(budget, recipe.warmup_epochs, trial=True)
                lr_scheduler.follow(state.plan)
            random_states = all_gather_objects(random_state())
            if is_main_process():
                training = TrainingSettings(
                    args.val, args.folds, budget.epochs, args.lr, args.weights
                )
                content = build_checkpoint(training, state, random_states)
                content |= {"args": flags, "recipe": saved_recipe(recipe, budget, earlier)}
                content["label_kind"] = data.train.label_kind
                checkpoints.save_epoch(args.output_dir, content, is_best, not args.save_best)
                text_files.write_history(args.output_dir, state.results_name, state.history)
            state.epoch = epoch + 1
            mark = "  *best" if is_best and validate else ""
            log(text_files.epoch_line(row, budget.epochs) + mark)
            logger.scalars(row, epoch)

    # Test
    finish(args, evaluator, data, logger)


def prepare_device(args: argparse.Namespace) -> tuple[torch.device, torch.dtype | None]:
    """The device, and the dtype of autocast, None for full precision."""
    device = pick_device(args.device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    amp_dtype = pick_amp_dtype(device, args.amp)
    reuse_freed_memory(device)
    if args.deterministic:
        use_deterministic_algorithms(device)
    precision = str(amp_dtype or torch.float32).removeprefix("torch.")
    log(f"{provenance.machine_name(device)}, {precision}, seed {args.seed}")
    return device, amp_dtype


def read_data(args: argparse.Namespace, classes: ClassTable) -> Data:
    """The splits, each read once, and mean and std of the channels."""
    layout, ordered = list_samples(args.dataset, args.data_path), DATASETS[args.dataset]["ordered"]
    train_samples, val_samples, test_samples = values.choose_splits(args, layout, ordered)
    log(f"epoch and threshold are chosen on {provenance.SELECTION[args.val]}")
    mean = std = spacing = None
    is_volumes = DATASETS[args.dataset]["dims"] == 3
    if is_volumes:
        spacing = volumes.choose_spacing(args.spacing, train_samples)
    label_kind = choose_label_kind(args.label_kind, train_samples)
    options = values.reading_options(args, classes, label_kind, spacing)
    weights = {} if is_volumes else values.weight_options(args, train_samples)
    log_weights(args, train_samples, weights, label_kind)
    train_set, pixels = open_dataset(
        train_samples, "training", for_training=True, **(options | weights)
    )
    if not is_volumes:
        read = train_set.examined or train_set
        mean, std = statistics.choose_mean_and_std(args.mean, args.std, read)
    val_set = None
    if val_samples:
        val_set, _ = open_dataset(val_samples, "validation", eval_preset(mean, std), **options)
    split = splits.split_names(train_samples, val_samples)
    return Data(train_set, val_set, test_samples, split, pixels, mean, std, spacing)


def log_weights(
    args: argparse.Namespace, samples: list[Sample], weights: dict, label_kind: str
) -> None:
    """Logs what weighs the pixels of the cross entropy, if anything does."""
    if not weights.get("maps"):
        return
    parts = []
    if any(sample.weight for sample in samples):
        parts.append("maps in weights/")
    if args.border_weight:
        objects = "of the ids" if label_kind == "instances" else "that are the regions of class 1"
        width = f"{args.border_weight:g}, sigma {args.border_sigma:g} px"
        parts.append(f"border weight {width}, between the objects {objects}")
    log(f"weights of the pixels in the cross entropy: {'; '.join(parts)}")
    if args.border_weight and label_kind == "classes" and samples[0].instances:
        log("  instances/ is not read; --label-kind instances separates the objects in it")


def summarize_training(data: Data) -> DataSummary:
    """What the recipe is planned from."""
    train_set, num_classes = data.train.examined or data.train, len(data.train.classes.names)
    return summarize_data(
        train_set.sizes.values(),
        len(data.train),
        train_set.channels,
        data.pixels[:num_classes].tolist(),
        data.spacing,
    )


def make_train_loader(
    args: argparse.Namespace,
    recipe: Recipe,
    data: Data,
    batches: EpochBatches,
    device: torch.device,
) -> CropLoader | DataLoader:
    """Batches of random crops, cut on the device (--augment affine) or by the loader (resize)."""
    dataset, in_memory = data.train, data.train.fits_in_memory()
    if args.cache and not in_memory and not dataset.examined:
        text = "they are read from files"
        if data.spacing:
            text = "a whole volume is read for each crop, unless it is in memory; raise the limit"
        elif dataset.border:
            text += ", and their border weights are computed each time"
        log(f"the training images exceed --cache-limit {args.cache_limit:g} GB: {text}")
    load = partial(
        make_training_loader,
        dataset,
        device,
        batches,
        in_memory=in_memory,
        **values.loading_options(args),
    )
    if data.spacing:
        crops = make_volume_crops(args, recipe, data)
    elif args.augment == "resize":
        dataset.transforms = train_preset(data.mean, data.std, **crop_options(args, recipe))
        # While a GPU trains, the CPU's cores are free for the transforms.
        in_memory = in_memory and device.type == "cpu"
        return load(collate_fn=dataset.collate_fn, in_memory=in_memory)
    else:
        crops = RandomAffineCrops(
            data.mean,
            data.std,
            rotate=recipe.rotate,
            jitter=args.jitter,
            margin=MODELS[args.model].margin,
            **crop_options(args, recipe),
        )
    if in_memory:
        source = StackedImages(dataset.stack(), batches, device)
    else:
        source = load(collate_fn=dataset.collate_with_sizes)
    return CropLoader(source, batches, crops, args.seed, device)


def crop_options(args: argparse.Namespace, recipe: Recipe) -> dict:
    """What both ways of cutting crops from images take."""
    return {
        "crop_size": recipe.crop_size,
        "base_size": args.base_size,
        "scale": recipe.scale,
        "elastic": args.elastic,
        **values.flip_options(recipe.mirror),
    }


def make_volume_crops(args: argparse.Namespace, recipe: Recipe, data: Data) -> RandomVolumeCrops:
    """The crops of volumes. UserError if the model cannot be trained on crops of that size."""
    options = model_flags.model_kwargs(args, len(data.train.classes.names), data.spacing)
    with torch.device("meta"):  # the sizes that the model needs, without its weights
        model = build_model(args.model, **options)
    sizes = list(data.train.sizes.values())
    crop_size = volumes.choose_crop(recipe.crop_size, sizes, model.margins)
    try:
        model.check_sides(crop_size)
    except ValueError as error:
        raise UserError(f"--crop-size: {error}") from None
    return RandomVolumeCrops(
        crop_size,
        data.spacing,
        recipe.scale,
        recipe.rotate,
        args.jitter,
        values.volume_flip_probs(recipe.mirror),
        margins=model.margins,
    )


def write_split(args: argparse.Namespace, data: Data) -> None:
    """split.json: the images for training, for validation and for the test."""
    if is_main_process():
        split = data.split | splits.split_names(test=data.test_samples)
        content = {"dataset": args.dataset, "split_seed": args.split_seed, **split}
        text_files.write_json(Path(args.output_dir) / "split.json", content)


def make_model(
    args: argparse.Namespace, description: ModelDescription, device: torch.device
) -> model_loading.Member:
    """(the model on the device, the checkpoint it starts from, {} for none)."""
    torch.manual_seed(args.seed)
    first_weights = args.resume or next(iter(args.weights), "")
    model, checkpoint = model_loading.initial_model(
        description, first_weights, args.pretrain_backbone
    )
    if args.resume:
        model_loading.check_classes(checkpoint, description.classes.names, args.resume)
    if not args.profile:
        broadcast_from_rank_zero(lambda: resume.prepare_output(args.output_dir, model, args.resume))
    model = model.to(device, memory_format=memory_format(device, model.dims))
    return model, checkpoint


def make_optimizer(args: argparse.Namespace, model: nn.Module) -> Optimizer:
    """SGD or AdamW over all parameters."""
    lr = args.lr * (world_size() if args.scale_lr else 1)
    options = {"lr": lr, "weight_decay": args.weight_decay}
    options["fused"] = next(model.parameters()).device.type in ("cuda", "cpu")
    if args.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), **options)
    return torch.optim.SGD(model.parameters(), momentum=args.momentum, **options)


def start_state(
    args: argparse.Namespace,
    recipe: Recipe,
    checkpoint: dict,
    split: dict,
    batches: EpochBatches,
    optimizer: Optimizer,
    scaler: torch.amp.GradScaler,
) -> tuple[TrainingState, Budget]:
    """The state and the length of a new run, or of the one in --resume, whose optimizer is
    restored. UserError if --start-epoch is past its end."""
    if args.resume:
        resume.check_split(checkpoint, split, args.resume)
        resume.restore_optimizer(checkpoint, optimizer, scaler)
        state, budget = resumed_state(args, recipe, checkpoint, batches, optimizer)
    else:
        lengths = recipe.crops, recipe.steps, recipe.planned_steps
        budget = new_budget(batches, recipe.accumulate, args.epochs, *lengths)
        state = resume.new_state(budget.epoch_steps, split, args.start_epoch)
        state.plan = schedule(budget, recipe.warmup_epochs, trial=args.minutes is not None)
    if state.epoch >= budget.epochs:
        if args.start_epoch is not None:
            raise UserError(
                f"--start-epoch {args.start_epoch} leaves no epoch to train; "
                "give a smaller number, or more --steps"
            )
        log(f"nothing left to train: {state.step:,} steps are done; more --steps continue the run")
    return state, budget


def resumed_state(
    args: argparse.Namespace,
    recipe: Recipe,
    checkpoint: dict,
    batches: EpochBatches,
    optimizer: Optimizer,
) -> tuple[TrainingState, Budget]:
    """The state and the length of the run in --resume, which new values of --steps, --epochs
    extend. UserError if the checkpoint does not say how long an epoch is."""
    saved = budget_of(checkpoint["recipe"])
    if recipe.crops:
        epoch_steps = math.ceil(len(batches) / recipe.accumulate)
    elif saved:
        epoch_steps = saved.epoch_steps
    else:
        raise UserError(
            f"{args.resume}: does not say how many crops of each image an epoch takes; "
            "give --crops N"
        )
    state = resume.saved_state(checkpoint, epoch_steps, args.start_epoch)
    log(resume.describe_state(checkpoint, state, recipe.batch_size, args.resume))
    changed = changed_flags(checkpoint, {"epochs": args.epochs, "steps": args.steps})
    epochs = saved.epochs if saved and "epochs" not in changed else args.epochs
    steps = args.steps if "steps" in changed else None
    budget = resumed_budget(saved, epoch_steps, state.epoch, state.step, epochs, steps)
    lr, new_rate = optimizer.param_groups[0]["lr"], args.lr != checkpoint["training"]["lr"]
    state.plan = resume.resumed_plan(state, budget, lr, new_rate)
    return state, budget


def training_options(
    args: argparse.Namespace, recipe: Recipe, data: Data, device: torch.device
) -> dict:
    """How train_one_epoch trains: its keyword arguments."""
    pixels = data.pixels[: len(data.train.classes.names)]
    sampled = data.train.examined is not None
    loss_weight = statistics.choose_class_weights(recipe.class_weights, pixels, sampled)
    return {
        "print_freq": args.print_freq,
        "loss_weight": None if loss_weight is None else loss_weight.to(device),
        "dice": args.dice,
        "batch_dice": args.batch_dice,
        "accumulate": recipe.accumulate,
        "clip_grad": args.clip_grad or None,
    }


def make_validation(
    evaluator: evaluation.Evaluator, model: nn.Module, data: Data
) -> Callable[[], tuple] | None:
    """evaluate() on the validation images; None without them."""
    if not data.val:
        return None
    return partial(
        evaluate,
        model,
        evaluator.make_loader(data.val),
        evaluator.device,
        len(data.val.classes.names),
        amp_dtype=evaluator.amp_dtype,
        tolerance=evaluator.tolerance,
        tiling=evaluator.tiling,
    )


def make_clock(
    evaluator: evaluation.Evaluator,
    model: nn.Module,
    recipe: Recipe,
    data: Data,
    state: TrainingState,
    budget: Budget,
    trial: bool,
) -> total_time.TotalTime:
    """Says after some steps how long the run will take, with its evaluations.

    trial: the length is not known yet, so it only measures the speed.
    """
    normalize = eval_preset(data.mean, data.std)
    images = data.val or data.train.with_samples(data.train.samples, normalize)
    return total_time.TotalTime(
        budget.steps,
        budget.epochs - state.epoch,
        len(data.val) if data.val else 0,
        len(data.test_samples),
        partial(total_time.image_seconds, evaluator, model, images),
        partial(synchronize, evaluator.device),
        first_step=state.step,
        accumulate=recipe.accumulate,
        silent=trial,
    )


def plan_by_speed(
    args: argparse.Namespace,
    clock: total_time.TotalTime,
    evaluator: evaluation.Evaluator,
) -> Budget:
    """--minutes: the length of the run, by the speed of its first steps on rank 0."""
    elapsed = time.perf_counter() - evaluator.start
    speed = clock.step_seconds, clock.evaluation_seconds(), clock.end_seconds()
    budget = broadcast_from_rank_zero(
        lambda: plan_minutes(args.minutes, elapsed, *speed, args.epochs)
    )
    log(
        f"--minutes {args.minutes:g}: {budget.steps:,} steps in {budget.epochs} epochs, at "
        f"{speed[0]:.3f} s a step and {speed[1]:.1f} s an evaluation"
    )
    return budget


def train_epoch(
    train: Callable[..., tuple[float, float]], epoch: int, batches: EpochBatches, data: Data
) -> dict:
    """One epoch's row of the history. Names the images of a batch whose loss is not finite."""
    start = time.perf_counter()
    try:
        loss, lr = train(epoch=epoch)
    except NonFiniteLossError as error:
        samples = data.train.samples
        images = dict.fromkeys(samples[i].image for i in batches.batches()[error.step])
        names = ", ".join(str(image) for image in images)
        error.args = (
            f"{error} of epoch {epoch}, on the images {names}. Checkpoints of finished epochs are "
            "kept; lower --lr, set --clip-grad 1, or try --no-amp",
        )
        raise
    seconds = time.perf_counter() - start
    return {
        "epoch": epoch,
        "train_loss": loss,
        "lr": lr,
        "seconds": seconds,
        "images_per_second": batches.items / seconds,
    }


def finish(
    args: argparse.Namespace,
    evaluator: evaluation.Evaluator,
    data: Data,
    logger: tensorboard.TensorBoardLogger,
) -> None:
    """Scores the kept weights on the test split, once, and draws predictions."""
    folder = Path(args.output_dir)
    best = folder / "best_model.pth"
    checkpoint = broadcast_from_rank_zero(lambda: checkpoints.load_described(best))
    model = evaluator.prepare(model_loading.model_of(checkpoint, best))
    normalize = eval_preset(checkpoint["mean"], checkpoint["std"])
    drawn = data.val or data.train.with_samples(data.train.samples, normalize)
    if data.test_samples:
        read_as = data.train.classes, data.train.label_kind, data.spacing
        options = values.reading_options(args, *read_as)
        drawn, _ = open_dataset(data.test_samples, "test", normalize, **options)
        origin = provenance.describe_origin([best], [checkpoint])
        evaluation.score_test(
            evaluator, model, drawn, checkpoint["threshold"], origin, args.output_dir
        )
    else:
        evaluation.log_validation(checkpoint)
        if not args.folds:
            log(
                "the test images have no labels, or there are none: nothing to score; "
                "predict.py segments them"
            )
    evaluator.draw(model, drawn, folder / "predictions.png")
    for name in ("curves.png", "predictions.png"):
        logger.picture(folder / name, checkpoint["training"]["epochs"])
    logger.close()
    seconds = time.perf_counter() - evaluator.start
    log(f"{seconds:.0f} s in all; weights, scores and pictures are in {folder}/")
    if args.demo:
        steps = DEMO_NEXT_VOLUMES if data.spacing else DEMO_NEXT_STEPS
        log(steps.format(folder=folder, data=args.data_path))


def test_only(
    args: argparse.Namespace, classes: ClassTable, evaluator: evaluation.Evaluator
) -> None:
    """--test-only: scores --weights, one checkpoint or an ensemble, on the test split."""
    paths = args.weights or [args.resume]
    members = load_members(args, paths, classes)
    origin = provenance.describe_origin(paths, [each for _, each in members], args.flips)
    layout = list_samples(args.dataset, args.data_path)
    if args.held_out:
        return score_held_out(args, paths, members, classes, layout, evaluator, origin)
    model, checkpoint = model_loading.combine(paths, members)
    threshold = checkpoint["threshold"] if args.threshold is None else args.threshold
    samples = values.choose_test_samples(args, layout)
    if not samples:
        raise UserError(
            f"{args.data_path}: there are no test images, or they have no labels to score by; "
            "predict.py segments them"
        )
    for folder in filter(None, (args.output_dir, args.report)):
        prepare_folder(folder)
    model = evaluator.prepare(model, args.flips)
    label_kind = choose_label_kind(args.label_kind, samples)
    options = values.reading_options(args, classes, label_kind, args.spacing)
    normalize = eval_preset(args.mean, args.std)
    dataset, _ = open_dataset(samples, "test", normalize, **options)
    report = args.report, f"{args.dataset}: test images"
    evaluation.score_test(evaluator, model, dataset, threshold, origin, args.output_dir, *report)
    evaluator.draw(model, dataset, Path(args.output_dir) / "predictions.png")


def load_members(
    args: argparse.Namespace, paths: list[str], classes: ClassTable
) -> list[model_loading.Member]:
    """The models of --weights and their checkpoints. Flags describe weights without metadata."""
    model_kwargs = model_flags.model_kwargs(args, len(classes.names))
    description = ModelDescription(
        args.model, model_kwargs, classes, args.mean, args.std, args.resize, args.spacing
    )
    members = model_loading.load_members(paths, description)
    model_loading.check_description(members[0][1], description, paths[0])
    for path, (model, checkpoint) in zip(paths, members, strict=True):
        model_loading.check_classes(checkpoint, classes.names, path)
        model_loading.prune(model, args.prune, path)
    if MODELS[args.model].dims == 2 and not (args.mean and args.std):
        raise UserError(
            f"{paths[0]}: does not say which mean and std it was trained with; "
            "give --mean and --std"
        )
    if MODELS[args.model].dims == 3 and not args.spacing:
        raise UserError(
            f"{paths[0]}: does not say which voxels it was trained with; give --spacing D H W"
        )
    model_loading.check_threshold(args.threshold, classes.names)
    return members


def score_held_out(
    args: argparse.Namespace,
    paths: list[str],
    members: list[model_loading.Member],
    classes: ClassTable,
    layout: dict,
    evaluator: evaluation.Evaluator,
    origin: dict,
) -> None:
    """--held-out: scores each model on the images that its own run held out."""
    samples = [
        held_out.held_out_samples(layout, checkpoint, path)
        for path, (_, checkpoint) in zip(paths, members, strict=True)
    ]
    held_out.check_held_out(paths, [checkpoint for _, checkpoint in members], samples)
    prepare_folder(args.output_dir)

    def parts() -> Iterator[tuple]:
        for path, (model, checkpoint), chosen in zip(paths, members, samples, strict=True):
            normalize = eval_preset(checkpoint["mean"], checkpoint["std"])
            label_kind = choose_label_kind(args.label_kind, chosen)
            options = values.reading_options(args, classes, label_kind, checkpoint["spacing"])
            dataset, _ = open_dataset(chosen, f"held out by {path}", normalize, **options)
            yield path, evaluator.prepare(model, args.flips), dataset

    held_out.score_held_out(evaluator, parts(), args.threshold, origin, args.output_dir)


if __name__ == "__main__":
    PROG = "train.py"
    script.run_script(lambda: main(defaults.parse_args(None, PROG, __doc__, DATASETS)), PROG)

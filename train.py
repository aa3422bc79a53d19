"""Trains a U-Net on one device. `python train.py --demo` needs no data."""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from my_dataset import DATASETS, Data, SegmentationDataset, list_samples, open_dataset
from src import MODELS
from src.device import (
    benchmark_convolutions,
    memory_format,
    pick_amp_dtype,
    reuse_freed_memory,
    synchronize,
    use_deterministic_algorithms,
    use_device,
)
from train_utils import (
    NonFiniteLossError,
    class_weights,
    create_lr_scheduler,
    criterion,
    evaluate,
    evaluation,
    model_loading,
    resume,
    summarize,
    train_one_epoch,
)
from train_utils import checkpoint as checkpoints
from train_utils.budget import Budget, set_sampler_epoch, trial_steps
from train_utils.checkpoint import ModelDescription, TrainingState
from train_utils.cli import defaults, demo, list_models, scoring, script, values
from train_utils.cli.model_flags import model_without_weights
from train_utils.cli.recipe import Recipe, describe_recipe, make_recipe
from train_utils.cli.run_length import is_trial, known_length, plan_by_speed, start_state
from train_utils.cli.saving import describe_run, save_epoch, write_split
from train_utils.data import large_sets, splits, statistics, volumes
from train_utils.data.check_labels import check_labels
from train_utils.data.class_table import ClassTable
from train_utils.data.samples import Sample, choose_label_kind
from train_utils.data_loader import (
    CropLoader,
    EpochBatches,
    StackedImages,
    batches_ahead,
    make_training_loader,
)
from train_utils.distributed_utils import (
    broadcast_buffers,
    broadcast_from_rank_zero,
    log,
    rank,
    world_size,
    wrap_in_ddp,
)
from train_utils.lr_scheduler import WarmupPolyLR
from train_utils.plan import DataSummary, summarize_data
from train_utils.reporting import profile, provenance, tensorboard, text_files
from train_utils.step_timer import StepTimer, image_seconds, saving_seconds
from train_utils.volume_crops import RandomVolumeCrops
from transforms import Compose, RandomAffineCrops, eval_preset, train_preset


def main(args: argparse.Namespace) -> None:
    """Data, recipe, model, optimizer, resume, epochs, and the test split, once."""
    start = time.perf_counter()
    if args.list_models:
        return log(list_models.list_models(DATASETS))
    device, amp_dtype = prepare_device(args)
    if args.demo:
        broadcast_from_rank_zero(lambda: demo.make_data(args))
    classes = values.find_classes(args, DATASETS[args.dataset]["classes"])
    num_classes = len(classes.names)
    evaluator = scoring.make_evaluator(args, device, amp_dtype)
    evaluator.check_tiles(model_without_weights(args, num_classes))
    if args.test_only:
        return scoring.test_only(args, classes, evaluator, start, list_samples, open_samples)

    # Data and recipe
    data = read_data(args, classes)
    recipe = make_recipe(args, summarize_training(data), device)
    batches = make_batches(args, recipe, data)
    train_loader = make_train_loader(args, recipe, data, batches, device)

    # Model
    description = values.describe_model(args, classes, data.mean, data.std, data.spacing)
    model, resumed = make_model(args, description, device)
    parallel_model = parallelize(args, model, device)

    # Optimizer and schedule, new or resumed
    optimizer = make_optimizer(args, model)
    scaler = torch.amp.GradScaler(device.type, enabled=amp_dtype is torch.float16)
    if resumed:
        resume.check_split(resumed, data.split, args.resume)
        resume.restore_optimizer(resumed, optimizer, scaler)
    ahead = broadcast_from_rank_zero(lambda: batches_ahead(train_loader))
    trial = trial_steps(ahead, recipe.accumulate)
    state, budget = start_state(args, recipe, resumed, data.split, batches, optimizer, trial)
    lr_scheduler = make_lr_scheduler(args, optimizer, recipe, state, budget)
    length = known_length(args, state, budget, lr_scheduler.schedule)
    log(describe_recipe(args, description.model_kwargs, recipe, length))

    # An epoch's training and validation
    step_timer = make_step_timer(args, evaluator, model, recipe, data, state, budget, trial)
    train = partial(
        train_one_epoch,
        parallel_model,
        optimizer,
        data_loader=train_loader,
        device=device,
        num_classes=num_classes,
        lr_scheduler=lr_scheduler,
        print_freq=args.print_freq,
        scaler=scaler,
        loss=make_loss(args, recipe, data, device),
        amp_dtype=amp_dtype,
        accumulate=recipe.accumulate,
        clip_grad=args.clip_grad or None,
        after_batch=step_timer.count_batch,
    )
    validate = make_validation(evaluator, model, data)
    if args.profile:
        return profile.profile_training(train, train_loader, validate, device, args.output_dir)

    # Epochs
    logger = tensorboard.make_logger(args.output_dir, args.tensorboard)
    resume.restore_randomness(resumed.get("random_states", []), args.seed)
    measure = resume.measure_of(num_classes)
    with resume.history_kept(args.output_dir, state, measure):
        while state.epoch < budget.epochs:
            set_sampler_epoch(batches, budget, state, recipe.accumulate, recipe.crops)
            with step_timer.epoch():
                row = train_epoch(train, state.epoch, batches, data, device)
            broadcast_buffers(model)
            if validate:
                row |= validate()
            if is_trial(args, state):
                budget = plan_by_speed(args, recipe, step_timer, lr_scheduler, start)
            state.step, state.lr_schedule = lr_scheduler.last_epoch, lr_scheduler.schedule
            is_best = resume.add_epoch(state, row, measure)
            run = describe_run(args, recipe, data.train.label_kind, budget, resumed)
            # Not earlier: from its first checkpoint on, a run replaces the one in this folder.
            write_split(args, data.split, data.test_samples)
            save_epoch(args, model, optimizer, scaler, description, run, state, is_best)
            state.epoch += 1
            log(text_files.epoch_line(row, budget.epochs, is_best))
            logger.scalars(row, row["epoch"])

    # Test
    finish(args, evaluator, data, logger, start)


def prepare_device(args: argparse.Namespace) -> tuple[torch.device, torch.dtype | None]:
    """The device, and the dtype of autocast, None for full precision."""
    device = use_device(args.device)
    amp_dtype = pick_amp_dtype(device, args.amp)
    reuse_freed_memory(device)
    if args.deterministic:
        use_deterministic_algorithms(device)
    precision = provenance.precision_name(amp_dtype)
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
    pixel_weights = {} if is_volumes else values.pixel_weight_options(args, train_samples)
    values.log_pixel_weights(args, train_samples, pixel_weights, label_kind)
    train_set, pixels = open_dataset(
        train_samples, "training", for_training=True, **(options | pixel_weights)
    )
    if not is_volumes:
        read = train_set.examined or train_set
        mean, std = statistics.choose_mean_and_std(args.mean, args.std, read)
    val_set = None
    if val_samples:
        evaluated = large_sets.choose_validation(val_samples, args.val_images)
        val_set, _ = open_dataset(evaluated, "validation", eval_preset(mean, std), **options)
    if test_samples and args.val != "test":  # a label that cannot be scored should be found now
        broadcast_from_rank_zero(
            lambda: check_labels(
                "test", test_samples, classes, label_kind, args.max_pixels, is_volumes
            )
        )
    # What --held-out evaluates: without validation images, a file's test images.
    is_listed = args.split_file and args.val == "none"
    split = splits.split_names(train_samples, val_samples, test_samples if is_listed else None)
    return Data(train_set, val_set, test_samples, split, pixels, mean, std, spacing)


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


def make_batches(args: argparse.Namespace, recipe: Recipe, data: Data) -> EpochBatches:
    """Which images this rank's batches take."""
    return EpochBatches(
        len(data.train),
        recipe.batch_size,
        args.seed,
        rank=rank(),
        ranks=world_size(),
        repeats=recipe.crops or 1,
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
    values.log_uncached(args, dataset)
    load = partial(make_training_loader, dataset, device, batches, **values.loading_options(args))
    if args.augment == "resize":
        crop_options = values.crop_options(args, recipe)
        dataset.transforms = train_preset(data.mean, data.std, **crop_options)
        # While a GPU trains, the CPU's cores are free for the transforms.
        in_memory = in_memory and device.type == "cpu"
        return load(collate_fn=dataset.collate_fn, in_memory=in_memory)
    cropper = make_cropper(args, recipe, data)
    if in_memory:
        source = StackedImages(dataset.stack(), batches, device)
    else:
        # Pinned is only what the crops need of an image, see to_device().
        pin = bool(args.pin_memory)
        source = load(collate_fn=dataset.collate_with_sizes, in_memory=False, pin_memory=pin)
    return CropLoader(source, batches, cropper, args.seed, device)


def make_cropper(
    args: argparse.Namespace, recipe: Recipe, data: Data
) -> RandomAffineCrops | RandomVolumeCrops:
    """What cuts the random crops of --augment affine, from images or volumes."""
    if data.spacing:
        num_classes = len(data.train.classes.names)
        return values.make_volume_crops(args, recipe, num_classes, data.spacing)
    return RandomAffineCrops(
        data.mean,
        data.std,
        rotate=recipe.rotate,
        jitter=args.jitter,
        margin=MODELS[args.model].margin,
        **values.crop_options(args, recipe),
    )


def make_model(
    args: argparse.Namespace, description: ModelDescription, device: torch.device
) -> model_loading.LoadedModel:
    """(the model on the device, the checkpoint of --resume, {} for a new run)."""
    torch.manual_seed(args.seed)
    first_weights = args.resume or next(iter(args.weights), "")
    model, checkpoint = model_loading.initial_model(
        description, first_weights, args.pretrain_backbone
    )
    if args.resume:
        model_loading.check_classes(checkpoint, description.classes.names, args.resume)
        resume.check_inputs(checkpoint, description, args.resume)
    if not args.profile:
        broadcast_from_rank_zero(lambda: resume.prepare_output(args.output_dir, model, args.resume))
    model = model.to(device, memory_format=memory_format(device, model.dims))
    return model_loading.LoadedModel(model, checkpoint if args.resume else {})


def parallelize(args: argparse.Namespace, model: nn.Module, device: torch.device) -> nn.Module:
    """The model as it is trained: wrapped in DDP, and compiled with --compile."""
    model = wrap_in_ddp(model, device, args.dist_timeout, args.sync_bn)
    # For training alone: evaluation would compile again for every image size.
    return torch.compile(model) if args.compile else model


def make_optimizer(args: argparse.Namespace, model: nn.Module) -> Optimizer:
    """SGD or AdamW over all parameters."""
    lr = args.lr * (world_size() if args.scale_lr else 1)
    options = {"lr": lr, "weight_decay": args.weight_decay}
    options["fused"] = next(model.parameters()).device.type in ("cuda", "cpu")
    if args.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), **options)
    optimizer = torch.optim.SGD(model.parameters(), momentum=args.momentum, **options)
    if args.momentum:
        # A fused SGD creates it as empty memory in its first step, and leaves it so if the
        # gradients of this step overflow in float16.
        for parameter in model.parameters():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def make_lr_scheduler(
    args: argparse.Namespace,
    optimizer: Optimizer,
    recipe: Recipe,
    state: TrainingState,
    budget: Budget,
) -> WarmupPolyLR:
    """The schedule of a new run by its length, or that of a resumed one, which state holds."""
    return create_lr_scheduler(
        optimizer,
        budget.epoch_steps,
        budget.epochs,
        warmup_epochs=budget.warmup_epochs(recipe.warmup_epochs),
        total_steps=budget.steps,
        hold_steps=budget.steps if is_trial(args, state) else 0,
        saved_schedule=state.lr_schedule,
        step=state.step,
    )


def make_loss(
    args: argparse.Namespace, recipe: Recipe, data: Data, device: torch.device
) -> Callable[..., Tensor]:
    """The criterion with the class weights of the recipe, and with or without Dice."""
    pixels = data.pixels[: len(data.train.classes.names)]
    sampled = data.train.examined is not None
    loss_weight = class_weights.make_class_weights(recipe.class_weights, pixels, sampled)
    if loss_weight is not None:
        loss_weight = loss_weight.to(device)
    return partial(criterion, loss_weight=loss_weight, dice=args.dice, batch_dice=args.batch_dice)


def make_validation(
    evaluator: evaluation.Evaluator, model: nn.Module, data: Data
) -> Callable[[], dict] | None:
    """A function that scores the validation images, for the row of an epoch; None without them."""
    if not data.val:
        return None
    loader = evaluator.make_loader(data.val)  # one for all epochs: its workers stay
    num_classes, options = len(data.val.classes.names), evaluator.options()

    def validate() -> dict:
        counts, _ = evaluate(model, loader, evaluator.device, num_classes, **options)
        return {f"val_{name}": value for name, value in summarize(counts).items()}

    return validate


def make_step_timer(
    args: argparse.Namespace,
    evaluator: evaluation.Evaluator,
    model: nn.Module,
    recipe: Recipe,
    data: Data,
    state: TrainingState,
    budget: Budget,
    trial: int,
) -> StepTimer:
    """Says after `trial` steps how long the run will take, with its evaluations."""
    images = data.val or whole_training_images(data, eval_preset(data.mean, data.std))
    return StepTimer(
        budget.steps,
        budget.epochs - state.epoch,
        len(data.val) if data.val else 0,
        len(data.test_samples),
        partial(image_seconds, evaluator, model, images),
        partial(saving_seconds, args.output_dir, model),
        partial(synchronize, evaluator.device),
        first_step=state.step,
        accumulate=recipe.accumulate,
        silent=is_trial(args, state),
        trial=trial,
        val_in_memory=data.val is None or data.val.fits_in_memory(),
    )


def whole_training_images(data: Data, normalize: Compose) -> SegmentationDataset:
    """The training images, or volumes, as they are evaluated: without weights of their pixels."""
    images = data.train.with_samples(data.train.samples, normalize)
    images.sizes = data.train.sizes
    if not data.spacing:
        images.border, images.maps = None, []
    return images


def train_epoch(
    train: Callable[..., tuple[float, float]],
    epoch: int,
    batches: EpochBatches,
    data: Data,
    device: torch.device,
) -> dict:
    """One epoch's row of the history. Names the images of a batch whose loss is not finite."""
    start = time.perf_counter()
    try:
        with benchmark_convolutions(device):  # not in evaluation: each image has its own size
            loss, lr = train(epoch=epoch)
    except NonFiniteLossError as error:
        samples = data.train.samples
        images = dict.fromkeys(samples[i].image for i in batches.batches()[error.batch])
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
        "crops_per_second": batches.items / seconds,
    }


def finish(
    args: argparse.Namespace,
    evaluator: evaluation.Evaluator,
    data: Data,
    logger: tensorboard.TensorBoardLogger,
    start: float,
) -> None:
    """Scores the kept weights on the test split, once, and draws predictions.

    start: time.perf_counter() at the start of the script.
    """
    folder = Path(args.output_dir)
    best = folder / "best_model.pth"
    checkpoint = broadcast_from_rank_zero(lambda: checkpoints.load_described(best))
    model = evaluator.prepare(model_loading.model_of(checkpoint, best))
    normalize = eval_preset(checkpoint["mean"], checkpoint["std"])
    drawn = data.val or whole_training_images(data, normalize)
    if data.test_samples:
        read_as = data.train.classes, data.train.label_kind, data.spacing
        options = values.reading_options(args, *read_as)
        drawn, _ = open_dataset(data.test_samples, "test", normalize, **options)
        origin = provenance.describe_origin([checkpoint], [best])
        evaluation.score_test(
            evaluator, model, drawn, checkpoint["threshold"], origin, start, args.output_dir
        )
    else:
        evaluation.log_validation(checkpoint, data.train.nouns)
        if not args.folds:
            log(
                "the test images have no labels, or there are none: nothing to score; "
                "predict.py segments them"
            )
    evaluator.draw(model, drawn, folder / "predictions.png")
    for name in ("curves.png", "predictions.png"):
        logger.picture(folder / name, checkpoint["training"]["epochs"])
    logger.close()
    seconds = time.perf_counter() - start
    log(f"{seconds:.0f} s in all; weights, scores and pictures are in {folder}/")
    if args.demo:
        log(demo.next_steps(args))


def open_samples(
    args: argparse.Namespace,
    classes: ClassTable,
    samples: list[Sample],
    title: str,
    mean: list[float] | None,
    std: list[float] | None,
    spacing: list[float] | None,
) -> SegmentationDataset:
    """The samples as a model sees them that was trained with this mean, std and spacing."""
    label_kind = choose_label_kind(args.label_kind, samples)
    options = values.reading_options(args, classes, label_kind, spacing)
    dataset, _ = open_dataset(samples, title, eval_preset(mean, std), **options)
    return dataset


if __name__ == "__main__":
    PROG = "train.py"
    script.run_script(lambda: main(defaults.parse_args(None, PROG, __doc__, DATASETS)), PROG)

"""One epoch of training, and the judging of a model. Handed loaders; no disk, no flags, no plots."""

import math
from contextlib import nullcontext

import torch

from src.blocks import centre_crop
from src.inference import decide, predict_probs
from train_utils.dice_coefficient_loss import criterion
from train_utils.distributed_utils import all_reduce_counts, all_reduce_sum, is_main_process
from train_utils.metrics import SegmentationCounts
from train_utils.reporting.progress import Progress


class NonFiniteLossError(RuntimeError):
    """The loss, or after an epoch's last step the weights, became NaN or infinite in step `step` (counted from 0)."""

    def __init__(self, step, what):
        super().__init__(f"{what} in step {step}")
        self.step = step


def train_one_epoch(
    model,
    optimizer,
    data_loader,
    device,
    epoch,
    num_classes,
    lr_scheduler,
    print_freq=10,
    scaler=None,
    *,
    loss_weight=None,
    batch_dice=False,
    amp_dtype=None,
    accumulate=1,
    clip_grad=None,
    ignore_index=255,
):
    """One pass over the loader's (images [N, C, H, W], targets [N, H, W]).

    Of the target only the centre counts that the model's output covers (all of it, but for valid convolutions).

    Args beyond the obvious:
        lr_scheduler: stepped after every optimiser step.
        print_freq: steps between two looks at the loss; only there does the CPU wait for the device.
        scaler: torch.amp.GradScaler for float16, or None.
        loss_weight: [num_classes] weights of the cross entropy, or None.
        batch_dice: Dice over the batch's foreground in place of each image and class (see criterion).
        amp_dtype: dtype for autocast, None for full precision.
        accumulate: batches whose gradients are averaged for one optimiser step; the last step takes what is left.
        clip_grad: largest gradient norm, or None.

    Returns (loss averaged over the images of all ranks, learning rate of the last step). NonFiniteLossError at the next
    look after a loss that is NaN or infinite, and at the end if the weights are.
    """
    model.train()
    device = torch.device(device)
    scaler = scaler or torch.amp.GradScaler(device.type, enabled=False)
    steps = len(data_loader)
    if steps == 0:
        raise ValueError(
            "the loader has no batches: fewer images than a batch takes, and drop_last?"
        )
    losses, sizes, looked = torch.zeros(steps, device=device), [], 0
    with Progress(f"epoch {epoch}", steps, is_main_process()) as progress:
        for step, (image, target) in enumerate(data_loader):
            group_end = min(step - step % accumulate + accumulate, steps)
            group_size = group_end - (step - step % accumulate)
            image = image.to(device, non_blocking=True, memory_format=torch.channels_last)
            target = target.to(device, non_blocking=True)
            with gradient_sync(model, step + 1 == group_end):
                with torch.autocast(device.type, dtype=amp_dtype, enabled=amp_dtype is not None):
                    output = model(image)
                target = centre_crop(
                    target, output["out"].shape[-2:]
                )  # valid convolutions judge no border
                loss = criterion(
                    output,
                    target,
                    loss_weight,
                    num_classes,
                    ignore_index=ignore_index,
                    batch_dice=batch_dice,
                )
                scaler.scale(loss / group_size).backward()
            losses[step] = loss.detach()
            sizes.append(len(image))
            lr = optimizer.param_groups[0]["lr"]
            if step + 1 == group_end:
                take_step(model, optimizer, scaler, clip_grad)
                lr_scheduler.step()
            look = (step + 1) % print_freq == 0 or step + 1 == steps
            if look:
                mean = mean_if_finite(losses, looked, step + 1)
                looked = step + 1
            progress.update(len(image), f"loss {mean:.4f}  lr {lr:.6f}" if look else None)
    check_weights(model, steps - 1)
    return mean_over_images(losses, sizes), lr


def gradient_sync(model, wanted):
    """The context of a backward pass: with DistributedDataParallel, ranks need not meet before the step of a group."""
    return nullcontext() if wanted or not hasattr(model, "no_sync") else model.no_sync()


def take_step(model, optimizer, scaler, clip_grad=None):
    """Clips, steps, and clears the gradients; the scaler leaves a step with overflown float16 gradients out."""
    if clip_grad is not None:
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip_grad)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)


def mean_if_finite(losses, start, stop):
    """Mean of losses[start:stop]; NonFiniteLossError naming the first step whose loss is NaN or infinite."""
    values = losses[start:stop].tolist()
    for step, value in enumerate(values, start):
        if not math.isfinite(value):
            raise NonFiniteLossError(step, f"the loss became {value}")
    return sum(values) / len(values)


def check_weights(model, step):
    """NonFiniteLossError if `step`, the epoch's last, left weights or statistics NaN or infinite: no loss shows it any more."""
    if not torch.stack([tensor.isfinite().all() for tensor in model.state_dict().values()]).all():
        raise NonFiniteLossError(step, "the weights became NaN or infinite")


def mean_over_images(losses, sizes):
    """Mean of the batches' losses, weighted by their sizes, over all ranks."""
    sizes = torch.tensor(sizes, dtype=torch.float64)
    total, count = all_reduce_sum(
        torch.stack([(losses.cpu().double() * sizes).sum(), sizes.sum()])
    ).tolist()
    return total / count


def judge(
    model,
    data_loader,
    device,
    num_classes,
    *,
    amp_dtype=None,
    ignore_index=255,
    tolerance=0,
    observe=None,
):
    """Counts how the model's predictions agree with the loader's targets, image by image.

    `observe`, if any, is called with the probabilities [K, H, W] of each image that this rank judges, in order.

    Images of different sizes may come in one batch, padded at the right and below with 0 and their targets with
    `ignore_index`: each is judged alone and at its own size, so the batch size changes nothing. Returns
    SegmentationCounts (with counts at a `tolerance` in px) over all ranks: rank r of R must be handed the items r, r + R, …
    """
    model.eval()
    device = torch.device(device)
    counts = SegmentationCounts(num_classes, ignore_index, tolerance)
    for images, targets in data_loader:
        for image, target in zip(images, targets):
            image, target = without_padding(image, target, ignore_index)
            probs = predict_probs(model, image[None].to(device), amp_dtype)
            counts.update(target.to(device), decide(probs)[0], probs[0])
            if observe:
                observe(probs[0])
    return all_reduce_counts(counts, data_loader)


def without_padding(image, target, ignore_index):
    """image [C, H, W] and target [H, W] without the last rows and columns that are 0 and ignored throughout."""
    used = (image != 0).any(0) | (target != ignore_index)
    height, width = (
        int(used.any(axis).nonzero().max()) + 1 if used.any() else used.shape[1 - axis]
        for axis in (1, 0)
    )
    return image[:, :height, :width], target[:height, :width]


def evaluate(model, data_loader, device, num_classes, **options):
    """(ConfusionMatrix, Dice): the foreground Dice is the mean over images, whatever the batch size. See judge()."""
    counts = judge(model, data_loader, device, num_classes, **options)
    return counts.confmat(), counts.mean_dice()

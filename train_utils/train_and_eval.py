"""One epoch of training, and the evaluation of a model.

Both are handed loaders. This module knows no files, flags or plots.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from src.blocks import centre_crop
from src.device import memory_format
from src.inference import decide, predict_strips
from src.instances import label_objects
from src.tiles import Tiling
from train_utils.dice_coefficient_loss import criterion
from train_utils.distributed_utils import (
    all_reduce_sum,
    is_distributed,
    is_main_process,
    rank,
    world_size,
)
from train_utils.metrics import SegmentationCounts
from train_utils.reporting.progress import Progress, tile_bar


class NonFiniteLossError(RuntimeError):
    """The loss, or after an epoch's last batch the weights, became NaN or infinite.

    `batch` is the index of the batch in which it was found, from 0. The message counts from 1, as
    the log does.
    """

    def __init__(self, batch: int, what: str) -> None:
        super().__init__(f"{what} in batch {batch + 1}")
        self.batch = batch


def train_one_epoch(
    model: nn.Module,
    optimizer: Optimizer,
    data_loader: Iterable,
    device: torch.device | str,
    epoch: int,
    num_classes: int,
    lr_scheduler: LRScheduler,
    print_freq: int = 10,
    scaler: torch.amp.GradScaler | None = None,
    *,
    loss: Callable[..., Tensor] = criterion,
    amp_dtype: torch.dtype | None = None,
    accumulate: int = 1,
    clip_grad: float | None = None,
    ignore_index: int = 255,
    after_batch: Callable[[], None] | None = None,
    stage: Callable[[str], AbstractContextManager] = nullcontext,
) -> tuple[float, float]:
    """One pass over the loader's (images [N, C, H, W], targets [N, H, W]), or volumes.

    A batch may hold a third tensor, the weights of the pixels [N, H, W], see criterion(). Of target
    and weights only the centre that the model's output covers is used: all of it, except with valid
    convolutions.

    Args:
        lr_scheduler: stepped after every optimizer step.
        print_freq: log the loss every this many batches; only then does the CPU wait for the
            device.
        scaler: torch.amp.GradScaler for float16, or None.
        loss: function of (output, target, num_classes=, ignore_index=, pixel_weight=) that returns
            a scalar, such as a partial of criterion(). pixel_weight is None without a third tensor.
        amp_dtype: dtype of autocast, None for full precision.
        accumulate: number of batches whose gradients are averaged for one optimizer step. The last
            step takes the batches that are left.
        clip_grad: largest gradient norm, or None.
        after_batch: called after every batch, or None.
        stage: gives the context in which each stage of a batch runs: "copies", "forward", "loss",
            "backward", "optimizer".

    Returns (loss averaged over the images of all ranks, learning rate of the last step).
    NonFiniteLossError at the next log after a loss that is NaN or infinite, and at the end if the
    weights are. ValueError if the loader has no batches.
    """
    model.train()
    device = torch.device(device)
    scaler = scaler or torch.amp.GradScaler(device.type, enabled=False)
    loss = partial(loss, num_classes=num_classes, ignore_index=ignore_index)
    batches = len(data_loader)
    if batches == 0:
        raise ValueError("the loader has no batches: fewer images than a batch takes, drop_last?")
    losses, sizes, logged = torch.zeros(batches, device=device), [], 0
    with Progress(f"epoch {epoch}", batches, is_main_process()) as progress:
        for index, batch in enumerate(data_loader):
            group_start = index - index % accumulate
            group_end = min(group_start + accumulate, batches)
            is_last = index + 1 == group_end
            with stage("copies"):
                batch = copy_to(device, batch)
            with gradient_sync(model, is_last):
                value = compute_loss(model, batch, loss, amp_dtype, stage)
                with stage("backward"):
                    scaler.scale(value / (group_end - group_start)).backward()
            losses[index] = value.detach()
            sizes.append(len(batch[0]))
            lr = optimizer.param_groups[0]["lr"]
            if is_last:
                with stage("optimizer"):
                    optimizer_step(model, optimizer, scaler, clip_grad)
                    lr_scheduler.step()
            text = None
            if (index + 1) % print_freq == 0 or index + 1 == batches:
                text = f"loss {mean_if_finite(losses, logged, index + 1):.4f}  lr {lr:.6f}"
                logged = index + 1
            progress.update(sizes[-1], text)
            if after_batch:
                after_batch()
    check_weights(model, batches - 1)
    return mean_over_images(losses, sizes), lr


def copy_to(device: torch.device, batch: Sequence[Tensor]) -> list[Tensor]:
    """The batch (images, targets, *weights) on the device; CUDA copies in the background."""
    image, *masks = batch
    on_cuda = device.type == "cuda"
    layout = memory_format(device, image.ndim - 2)
    image = image.to(device, non_blocking=on_cuda, memory_format=layout)
    return [image, *(each.to(device, non_blocking=on_cuda) for each in masks)]


def compute_loss(
    model: nn.Module,
    batch: Sequence[Tensor],
    loss: Callable[..., Tensor],
    amp_dtype: torch.dtype | None,
    stage: Callable[[str], AbstractContextManager],
) -> Tensor:
    """The loss of a batch (images, targets, perhaps weights) that is on the device."""
    image, *masks = batch
    autocast = torch.autocast(image.device.type, amp_dtype, enabled=amp_dtype is not None)
    with stage("forward"), autocast:
        output = model(image)
    with stage("loss"):
        size = output["out"].shape[2:]
        target, *weights = (centre_crop(each, size) for each in masks)
        return loss(output, target, pixel_weight=weights[0] if weights else None)


def gradient_sync(model: nn.Module, wanted: bool) -> AbstractContextManager:
    """The context of a backward pass: DDP synchronizes gradients only before an optimizer step."""
    if wanted or not hasattr(model, "no_sync"):
        return nullcontext()
    return model.no_sync()


def optimizer_step(
    model: nn.Module,
    optimizer: Optimizer,
    scaler: torch.amp.GradScaler,
    clip_grad: float | None = None,
) -> None:
    """Clips, steps, clears the gradients. The scaler skips a step whose gradients overflowed."""
    if clip_grad is not None:
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip_grad)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)


def mean_if_finite(losses: Tensor, start: int, stop: int) -> float:
    """Mean of losses[start:stop]; NonFiniteLossError naming the first batch that is NaN or inf."""
    values = losses[start:stop].tolist()
    for index, value in enumerate(values, start):
        if not math.isfinite(value):
            raise NonFiniteLossError(index, f"the loss became {value}")
    return sum(values) / len(values)


def check_weights(model: nn.Module, last_batch: int) -> None:
    """NonFiniteLossError if the epoch's last batch left weights or statistics that are NaN or inf.

    No later loss would show it.
    """
    finite = [tensor.isfinite().all() for tensor in model.state_dict().values()]
    if not torch.stack(finite).all():
        raise NonFiniteLossError(last_batch, "the weights became NaN or infinite")


def mean_over_images(losses: Tensor, sizes: list[int]) -> float:
    """Mean of the batches' losses, weighted by their sizes, over all ranks."""
    sizes = torch.tensor(sizes, dtype=torch.float64)
    sums = torch.stack([(losses.cpu().double() * sizes).sum(), sizes.sum()])
    total, count = all_reduce_sum(sums).tolist()
    return total / count


def evaluate(
    model: nn.Module,
    data_loader: Iterable,
    device: torch.device | str,
    num_classes: int,
    *,
    amp_dtype: torch.dtype | None = None,
    ignore_index: int = 255,
    tolerance: int = 0,
    callback: Callable[[Tensor], None] | None = None,
    tiling: Tiling | None = None,
) -> tuple[SegmentationCounts, float]:
    """Compares the model's predictions with the loader's targets, image by image.

    Images of different sizes may come in one batch, padded at the right and below with 0 and their
    targets with `ignore_index`. Each is evaluated alone and at its own size, so the batch size
    changes nothing. Rank r of R must be handed the images r, r + R, …

    Args:
        data_loader: batches of (images float32 [N, C, H, W], targets [N, H, W]), or volumes. With
            a third tensor, the objects' ids int32 [N, H, W], the connected regions of class 1 are
            compared with these objects.
        amp_dtype: dtype of autocast, None for full precision.
        tolerance: distance in px within which matches are counted, too (see SegmentationCounts).
        callback: called with the probabilities [K, H, W] of each image of this rank, in order. It
            needs the memory for those of a whole image.
        tiling: how large images are cut into tiles; None: Tiling(), by their memory.

    Returns (the confusion matrix with all other counts, over all ranks; foreground Dice as mean
    over the images).
    """
    model.eval()
    device = torch.device(device)
    counts = SegmentationCounts(num_classes, ignore_index, tolerance)
    for batch in data_loader:
        is_padded = len(batch[0]) > 1  # to one size
        for sample in zip(*batch, strict=True):
            if is_padded:
                sample = remove_padding(*sample, ignore_index=ignore_index)
            image, target, *instances = sample
            target = target.to(device, non_blocking=device.type == "cuda")
            predictions = []
            with tile_bar("evaluation", is_main_process()) as show:
                strips = predict_strips(model, image, device, amp_dtype, tiling, after_tiles=show)
                if callback:
                    strips = list(strips)
                    callback(torch.cat([probs for _, probs in strips], dim=1))
                for rows, probs in strips:
                    pred = decide(probs[None])[0]
                    counts.add_strip(target[rows], pred, probs)
                    if instances:
                        predictions.append((pred == 1) & (target[rows] != ignore_index))
            counts.end_image()
            if instances:
                foreground = torch.cat(predictions).cpu().numpy()
                counts.add_objects(instances[0].numpy(), label_objects(foreground))
    counts = all_reduce_counts(counts, data_loader)
    return counts, counts.mean_dice()


def remove_padding(
    image: Tensor, target: Tensor, *maps: Tensor, ignore_index: int
) -> tuple[Tensor, ...]:
    """image [C, H, W], target and maps [H, W] without last rows and columns of padding.

    These are 0 in the image and ignored. Of volumes, which have one dimension more, also without
    such last slices.
    """
    used = (image != 0).any(0) | (target != ignore_index)
    if not used.any():
        return image, target, *maps
    inside = []
    for axis in range(used.ndim):
        others = [other for other in range(used.ndim) if other != axis]
        inside.append(slice(int(used.any(others).nonzero().max()) + 1))
    masks = [each[tuple(inside)] for each in (target, *maps)]
    return image[(slice(None), *inside)], *masks


def all_reduce_counts(counts: SegmentationCounts, data_loader: Iterable) -> SegmentationCounts:
    """The counts of all images of the loader's dataset, in its order, on every rank.

    This rank r of R evaluated r, r + R, … All counts are integers, so their sum over the ranks is
    that of a single process, to the last digit.
    """
    if not is_distributed():
        return counts
    images = len(data_loader.dataset)
    rows = [of_all_images(each, images) for each in (counts.image_mats, counts.objects)]
    parts = [*rows, counts.histograms, counts.near]
    total = all_reduce_sum(torch.cat([part.flatten() for part in parts]))
    flat = total.split([part.numel() for part in parts])
    counts.image_mats, objects, counts.histograms, counts.near = (
        values.view_as(part) for values, part in zip(flat, parts, strict=True)
    )
    if objects.any():  # else they were not evaluated, or there are none
        counts.objects = objects
    return counts


def of_all_images(rows: Tensor, images: int) -> Tensor:
    """This rank's rows, one for each of its images, at their places among those of all images.

    Without rows, because there are no objects or no images, all are 0.
    """
    total = rows.new_zeros(images, *rows.shape[1:])
    if len(rows):
        total[rank() :: world_size()] = rows
    return total

"""The training criterion: cross entropy plus soft Dice."""

import torch
import torch.nn.functional as F
from torch import Tensor

AUX_WEIGHT = 0.5  # of every output other than "out"


def criterion(
    inputs: dict[str, Tensor],
    target: Tensor,
    loss_weight: Tensor | None = None,
    num_classes: int = 2,
    dice: bool = True,
    ignore_index: int = -100,
    batch_dice: bool = False,
    pixel_weight: Tensor | None = None,
) -> Tensor:
    """Weighted cross entropy + (1 − Dice) of each output, summed with the outputs' weights.

    Args:
        inputs: {"out": logits [N, num_classes, H, W], or [N, num_classes, D, H, W] of volumes}.
            Others ("aux") are weighted by AUX_WEIGHT.
        target: class ids int64 [N, H, W] or [N, D, H, W]. Pixels equal to `ignore_index` are
            ignored.
        loss_weight: [num_classes] weights of the cross entropy, or None.
        dice: whether to add the Dice loss, averaged over images and classes (see dice_loss).
        batch_dice: compute Dice over all pixels of the batch and the foreground classes only.
        pixel_weight: float [N, H, W], by which each pixel's class weight is multiplied in the cross
            entropy, or None. The Dice loss has no weights.

    Returns a float32 scalar; 0 with zero gradient if all pixels are ignored. It is computed in
    float32 whatever the dtype of the logits: sums over 10⁵ pixels overflow in float16 and lose
    small terms in bfloat16. ValueError if the logits have another number of classes.
    """
    losses = {
        name: output_loss(
            logits, target, loss_weight, num_classes, dice, ignore_index, batch_dice, pixel_weight
        )
        for name, logits in inputs.items()
    }
    auxiliary = [AUX_WEIGHT * loss for name, loss in losses.items() if name != "out"]
    return losses["out"] + sum(auxiliary)


def output_loss(
    logits: Tensor,
    target: Tensor,
    loss_weight: Tensor | None,
    num_classes: int,
    dice: bool,
    ignore_index: int,
    batch_dice: bool,
    pixel_weight: Tensor | None,
) -> Tensor:
    """The criterion of one output; the arguments are those of criterion()."""
    if logits.shape[1] != num_classes:
        raise ValueError(
            f"the model returns {logits.shape[1]} classes, the criterion expects {num_classes}"
        )
    with torch.autocast(logits.device.type, enabled=False):
        log_probs = F.log_softmax(logits.float(), dim=1)
        loss = cross_entropy(log_probs, target, loss_weight, ignore_index, pixel_weight)
        if dice:
            loss = loss + dice_loss(log_probs.exp(), target, ignore_index, batch=batch_dice)
        return loss


def cross_entropy(
    log_probs: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    pixel_weight: Tensor | None = None,
) -> Tensor:
    """Weighted mean of −log p(target) over the valid pixels.

    That is the sum of weight · (−log p) divided by the sum of the weights, as PyTorch's cross
    entropy, but 0 in place of NaN if no pixel is valid. log_probs [N, K, H, W], target [N, H, W],
    weight [K] or None, pixel_weight [N, H, W] or None. The weight of a pixel is the product of the
    two.
    """
    total = negative_log_likelihood(log_probs, target, weight, ignore_index, pixel_weight)
    valid = target != ignore_index
    if weight is None and pixel_weight is None:
        return total / valid.sum().clamp_min(1)
    weights = valid.to(log_probs.dtype)
    if weight is not None:
        weights = weights * weight[target.masked_fill(~valid, 0)]
    if pixel_weight is not None:
        weights = weights * pixel_weight
    return total / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)


def negative_log_likelihood(
    log_probs: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    pixel_weight: Tensor | None = None,
) -> Tensor:
    """Sum of −weight·log p(target) over the valid pixels; see cross_entropy()."""
    if not torch.are_deterministic_algorithms_enabled():
        if pixel_weight is None:
            options = {"ignore_index": ignore_index, "reduction": "sum"}
            return F.nll_loss(log_probs, target, weight, **options)
        losses = F.nll_loss(log_probs, target, weight, ignore_index=ignore_index, reduction="none")
        return (losses * pixel_weight).sum()
    # On CUDA nll_loss adds in a random order.
    one_hot = one_hot_targets(log_probs, target, ignore_index)
    if weight is not None:
        one_hot = one_hot * weight.view(1, -1, *[1] * (one_hot.ndim - 2))
    if pixel_weight is not None:
        one_hot = one_hot * pixel_weight.unsqueeze(1)
    return -(one_hot * log_probs).sum()


def one_hot_targets(probs: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """Targets [N, H, W] as [N, K, H, W] of the shape and dtype of `probs`; 0 where ignored."""
    valid = (target != ignore_index).unsqueeze(1)
    index = target.unsqueeze(1).masked_fill(~valid, 0)
    # An ignored pixel writes valid = 0 into class 0, that is nothing.
    return torch.zeros_like(probs).scatter_(1, index, valid.to(probs.dtype))


def dice_loss(
    probs: Tensor,
    target: Tensor,
    ignore_index: int = -100,
    epsilon: float = 1e-6,
    batch: bool = False,
) -> Tensor:
    """Soft Dice loss: 1 − mean of (2·|P∩T| + ε) / (|P| + |T| + ε).

    The mean is over images and all classes, background included; with `batch` over the foreground
    classes of the whole batch. After Milletari et al. 2016, arXiv:1606.04797, with sums in place of
    squares.

    Args:
        probs: float32 [N, K, H, W].
        target: class ids [N, H, W]. Pixels equal to `ignore_index`, which may be any id, are
            excluded from all sums.
        batch: sum over all images, and average over the foreground classes only. Each pixel then
            has the same weight, regardless of the crop it is in.
    """
    sums = dice_sums(probs, target, ignore_index)
    if batch:
        sums = [each.sum(0)[1:] for each in sums]
    intersection, probs_sum, target_sum = sums
    dice = (2 * intersection + epsilon) / (probs_sum + target_sum + epsilon)
    return 1 - dice.mean()


def dice_sums(
    probs: Tensor, target: Tensor, ignore_index: int = -100
) -> tuple[Tensor, Tensor, Tensor]:
    """Σ p·t, Σ p and Σ t over the valid pixels, each [N, K], without a loop over classes.

    probs [N, K, …] and target [N, …] of any number of spatial dimensions.
    """
    valid = (target != ignore_index).unsqueeze(1)
    truth = one_hot_targets(probs, target, ignore_index)
    space = tuple(range(2, probs.ndim))
    return (probs * truth).sum(space), (probs * valid).sum(space), truth.sum(space)

"""The training criterion: cross entropy plus soft Dice."""

import torch
import torch.nn.functional as F

AUX_WEIGHT = 0.5  # of every output beside "out"


def criterion(
    inputs, target, loss_weight=None, num_classes=2, dice=True, ignore_index=-100, batch_dice=False
):
    """Weighted cross entropy + (1 − Dice) of each output, added up with the outputs' weights.

    Args:
        inputs: {"out": logits [N, num_classes, H, W]}; further entries ("aux") count AUX_WEIGHT each.
        target: class ids int64 [N, H, W]; pixels that are `ignore_index` count nowhere.
        loss_weight: [num_classes] weights of the cross entropy, or None.
        dice: whether to add the Dice loss, averaged over images and classes (see dice_loss).
        batch_dice: take the Dice over all pixels of the batch together and of the foreground classes alone.

    Returns a scalar float32 tensor; 0 with zero gradient for a batch that is ignored altogether. Computed in float32
    whatever the logits' dtype, since sums over 10⁵ pixels overflow float16 and vanish in bfloat16.
    """
    losses = {
        name: _output_loss(logits, target, loss_weight, num_classes, dice, ignore_index, batch_dice)
        for name, logits in inputs.items()
    }
    return losses["out"] + sum(AUX_WEIGHT * loss for name, loss in losses.items() if name != "out")


def _output_loss(logits, target, loss_weight, num_classes, dice, ignore_index, batch_dice):
    if logits.shape[1] != num_classes:
        raise ValueError(
            f"the model returns {logits.shape[1]} classes, the criterion expects {num_classes}"
        )
    with torch.autocast(logits.device.type, enabled=False):
        log_probs = F.log_softmax(logits.float(), dim=1)
        loss = cross_entropy(log_probs, target, loss_weight, ignore_index)
        return (
            loss + dice_loss(log_probs.exp(), target, ignore_index, batch=batch_dice)
            if dice
            else loss
        )


def cross_entropy(log_probs, target, weight=None, ignore_index=-100):
    """Mean over the counted pixels of −weight·log p(target), divided by the weights' sum as PyTorch's does.

    log_probs [N, K, H, W], target [N, H, W], weight [K] or None. 0 where PyTorch has NaN: if no pixel counts.
    """
    total = F.nll_loss(log_probs, target, weight, ignore_index=ignore_index, reduction="sum")
    valid = target != ignore_index
    if weight is None:
        return total / valid.sum().clamp_min(1)
    weights = weight[target.masked_fill(~valid, 0)] * valid
    return total / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)


def dice_loss(probs, target, ignore_index=-100, epsilon=1e-6, batch=False):
    """1 − mean over images and classes of (2·|P∩T| + ε) / (|P| + |T| + ε), the background being a class too.

    Soft Dice (Milletari et al. 2016, arXiv:1606.04797, with sums in place of squares). probs float32 [N, K, H, W],
    target [N, H, W]. Pixels that are `ignore_index` are in none of the sums, so any id may be ignored, 0 and 1 included.
    With `batch` the sums go over all images and the mean over the foreground classes alone: a crop with few pixels of a
    class then weighs no more than one with many.
    """
    sums = dice_sums(probs, target, ignore_index)
    intersection, probs_sum, target_sum = (each.sum(0)[1:] for each in sums) if batch else sums
    dice = (2 * intersection + epsilon) / (probs_sum + target_sum + epsilon)
    return 1 - dice.mean()


def dice_sums(probs, target, ignore_index=-100):
    """Σ p·t, Σ p and Σ t over the counted pixels, each [N, K]: one pass for all images and classes."""
    valid = (target != ignore_index).unsqueeze(1)
    index = target.unsqueeze(1).masked_fill(~valid, 0)
    truth = torch.zeros_like(probs).scatter_(1, index, valid.to(probs.dtype))
    return (probs * truth).sum((2, 3)), (probs * valid).sum((2, 3)), truth.sum((2, 3))


def median_frequency_weights(pixels):
    """Class weights [K] from the judged pixels [K] of each class: median frequency balancing.

    The median of the classes' shares over the class's own share (Eigen and Fergus 2015, arXiv:1411.4734); a class
    without pixels gets 0.
    """
    counts = pixels.double()
    median = counts[counts > 0].quantile(0.5)
    return torch.where(counts > 0, median / counts.clamp_min(1), 0).float()

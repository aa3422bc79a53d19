"""What the benchmarks compare with: the tutorials' loss, written out with its loops over classes and images."""

import torch.nn.functional as F


def tutorial_criterion(logits, target, weight, num_classes, ignore_index, epsilon=1e-6):
    """Cross entropy + 1 − Dice. logits [N, K, H, W], target [N, H, W]; the mathematics of train_utils.criterion."""
    loss = F.cross_entropy(logits, target, weight=weight, ignore_index=ignore_index)
    ignored = target == ignore_index
    one_hot = F.one_hot(target.masked_fill(ignored, 0), num_classes).float()
    one_hot[ignored] = ignore_index
    one_hot = one_hot.permute(0, 3, 1, 2)
    probs = logits.softmax(dim=1)
    dice = 0.0
    for c in range(num_classes):
        for image in range(len(logits)):
            truth = one_hot[image, c].reshape(-1)
            counted = truth != ignore_index
            truth, guess = truth[counted], probs[image, c].reshape(-1)[counted]
            intersection, total = (truth * guess).sum(), truth.sum() + guess.sum()
            if total == 0:  # waits for the device, once an image and class
                total = 2 * intersection
            dice = dice + (2 * intersection + epsilon) / (total + epsilon) / len(logits)
    return loss + 1 - dice / num_classes

"""Means and standard deviations of the channels, inside the ROI."""

import torch

from src.image_io import IGNORE


def channel_sums(image, inside):
    """(number of pixels, Σx [C], Σx² [C]) in float64 over the pixels `inside` [H, W] of image uint8 [C, H, W], x in 0–1."""
    values = image[:, inside].double() / 255
    return values.shape[1], values.sum(1), (values**2).sum(1)


def mean_and_std(count, total, squares):
    """Mean and standard deviation [C] of the population behind the sums."""
    mean = total / count
    return mean, (squares / count - mean**2).clamp_min(0).sqrt()


def statistics(dataset):
    """{"pooled": (mean, std), "per image": (mean, std)} in one pass, each [C] in float64, of a data set's read(i).

    Pooled: of all pixels inside the ROI together. Per image: each image's mean and std, averaged over the images; such
    averages are the constants of the tutorials. An image of a large ROI weighs more in the former only.
    """
    sums, per_image = None, []
    for i in range(len(dataset)):
        image, target = dataset.read(i)
        one = channel_sums(image, target != IGNORE)
        sums = one if sums is None else tuple(a + b for a, b in zip(sums, one))
        if one[0]:
            per_image.append(torch.stack(mean_and_std(*one)))
    return {"pooled": mean_and_std(*sums), "per image": tuple(torch.stack(per_image).mean(0))}

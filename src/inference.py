"""From an image to probabilities: the one forward pass that evaluate() and predict.py share, and tiles."""

from itertools import product

import torch
import torch.nn as nn
import torch.nn.functional as F

MIN_SIDE = 32  # every architecture of MODELS takes images of at least 32×32 pixels


@torch.no_grad()
def predict_probs(model, image, amp_dtype=None):
    """Probabilities of a batch of whole images.

    Args:
        model: network in eval mode that maps [N, C, H, W] to {"out": [N, K, H, W] logits}.
        image: normalised float images [N, C, H, W] on the model's device, any size ≥ 1.
        amp_dtype: torch.bfloat16 or torch.float16 for autocast, None for the model's own precision.

    Returns [N, K, H, W] float32 probabilities that add up to 1 over K.
    """
    height, width = image.shape[-2:]
    padded = F.pad(
        image, [0, max(MIN_SIDE - width, 0), 0, max(MIN_SIDE - height, 0)], mode="replicate"
    )
    padded = padded.contiguous(memory_format=torch.channels_last)
    with torch.autocast(image.device.type, dtype=amp_dtype, enabled=amp_dtype is not None):
        logits = model(padded)["out"]
    return logits[..., :height, :width].float().softmax(dim=1)


class Ensemble(nn.Module):
    """A model whose probabilities are the mean of several models'.

    Shape: image [N, C, H, W] → {"out": [N, K, H, W] logarithms of the mean probabilities}, whose softmax is that mean.
    """

    def __init__(self, models):
        super().__init__()
        self.models = nn.ModuleList(models)

    @property
    def in_channels(self):
        return self.models[0].in_channels

    def forward(self, image):
        return {
            "out": (sum(softmax_of(model, image) for model in self.models) / len(self.models)).log()
        }


class Flips(nn.Module):
    """A model whose probabilities are the mean of `model`'s over the image and its horizontal, vertical and double
    mirror images, each flipped back. Shape: as Ensemble's."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    @property
    def in_channels(self):
        return self.model.in_channels

    def forward(self, image):
        flips = ((), (-1,), (-2,), (-2, -1))
        return {
            "out": (
                sum(softmax_of(self.model, image.flip(axes)).flip(axes) for axes in flips)
                / len(flips)
            ).log()
        }


def softmax_of(model, image):
    """float32 [N, K, H, W], in any precision of the model."""
    return model(image)["out"].float().softmax(dim=1)


def decide(probs, threshold=0.5):
    """Class ids [N, H, W] uint8 from probabilities [N, K, H, W].

    Two classes: class 1 where its probability exceeds `threshold`. More: the most probable class.
    """
    if probs.shape[1] == 2:
        return (probs[:, 1] > threshold).byte()
    return probs.argmax(dim=1).byte()


def overlap_tile(network, image, tile, margin, grid):
    """Logits of a whole image from a network of valid convolutions, tile by tile (Ronneberger et al. 2015, figure 2).

    Only one tile is in the network at a time, so that its memory does not grow with the image. What lies beyond the
    image's border is its mirror image.

    Args:
        network: maps [N, C, h, w] of the tile's size to [N, K, h − 2·margin, w − 2·margin].
        image: [N, C, H, W], any size ≥ 1.
        tile: (h, w), the size of the network's input.
        margin: the px that it takes off each side.
        grid: the tiles' outputs begin at multiples of this, in px; neighbours overlap by what their output is more than
            a multiple. With the stride of the network's lowest level the cut into tiles leaves no trace.

    Returns [N, K, H, W] logits.
    """
    size, logits = image.shape[-2:], None
    outputs = [side - 2 * margin for side in tile]
    steps = [output // grid * grid for output in outputs]
    starts = [
        range(0, max(side - output + step, 1), step)
        for side, output, step in zip(size, outputs, steps)
    ]
    for top, left in product(*starts):
        rows = mirrored(top - margin, tile[0], size[0], image.device)
        columns = mirrored(left - margin, tile[1], size[1], image.device)
        part = network(
            image[..., rows[:, None], columns].contiguous(memory_format=torch.channels_last)
        )
        part = part[..., : size[0] - top, : size[1] - left]
        if logits is None:
            logits = part.new_empty(*part.shape[:2], *size)
        logits[..., top : top + part.shape[-2], left : left + part.shape[-1]] = part
    return logits


def mirrored(start, length, side, device=None):
    """Indices [length] into `side` pixels for the positions from `start` on.

    Those outside are mirrored at the border pixels, as often as it takes: for 4 pixels … 2 1 | 0 1 2 3 | 2 1 0 1 …
    """
    period = max(2 * (side - 1), 1)
    position = torch.arange(start, start + length, device=device).remainder(period)
    return torch.minimum(position, period - position)

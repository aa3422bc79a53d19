"""From an image to probabilities: the one forward pass of evaluate() and predict.py, and tiling."""

from collections.abc import Callable, Iterable, Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .device import memory_format

MIN_SIDE = 32  # every architecture of MODELS takes images of 32×32 pixels in eval mode


@torch.no_grad()
def predict_probs(model: nn.Module, image: Tensor, amp_dtype: torch.dtype | None = None) -> Tensor:
    """Probabilities of a batch of whole images.

    Args:
        model: network in eval mode that maps [N, C, H, W] to {"out": [N, K, H, W] logits}.
        image: normalized float images [N, C, H, W] on the model's device, any H, W ≥ 1.
        amp_dtype: torch.bfloat16 or torch.float16 for autocast; None: the model's own precision.

    Returns [N, K, H, W] float32 probabilities that sum to 1 over K.
    """
    height, width = image.shape[-2:]
    below, right = max(MIN_SIDE - height, 0), max(MIN_SIDE - width, 0)
    padded = F.pad(image, [0, right, 0, below], mode="replicate")
    padded = padded.contiguous(memory_format=memory_format(image.device))
    with torch.autocast(image.device.type, dtype=amp_dtype, enabled=amp_dtype is not None):
        logits = model(padded)["out"]
    return logits[..., :height, :width].float().softmax(dim=1)


def decide(probs: Tensor, threshold: float = 0.5) -> Tensor:
    """Class ids [N, H, W] uint8 from probabilities [N, K, H, W].

    Two classes: class 1 where its probability exceeds `threshold`. More: the most probable class.
    """
    if probs.shape[1] == 2:
        return (probs[:, 1] > threshold).byte()
    return probs.argmax(dim=1).byte()


class Ensemble(nn.Module):
    """A model whose probabilities are the mean of those of several models.

    Shape: image [N, C, H, W] → {"out": [N, K, H, W] logarithms of the mean probabilities}; the
        softmax of these logarithms is the mean.
    """

    def __init__(self, models: Iterable[nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    @property
    def in_channels(self) -> int:
        return self.models[0].in_channels

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        probs = sum(probs_of(model, image) for model in self.models) / len(self.models)
        return {"out": probs.log()}


class Flips(nn.Module):
    """A model whose probabilities are the mean over the image and its flipped copies.

    The copies are flipped horizontally, vertically and both; each result is flipped back. Shape:
    as for Ensemble.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @property
    def in_channels(self) -> int:
        return self.model.in_channels

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        flips = ((), (-1,), (-2,), (-2, -1))
        total = sum(probs_of(self.model, image.flip(axes)).flip(axes) for axes in flips)
        return {"out": (total / len(flips)).log()}


def probs_of(model: nn.Module, image: Tensor) -> Tensor:
    """Probabilities [N, K, H, W] in float32, whatever the precision of the model."""
    return model(image)["out"].float().softmax(dim=1)


def overlap_tile(
    network: Callable[[Tensor], Tensor],
    image: Tensor,
    tile: Sequence[int],
    margin: int,
    stride: int,
) -> Tensor:
    """Logits of a whole image from a network of valid convolutions, computed tile by tile.

    The overlap-tile strategy of Ronneberger et al. 2015, figure 2. The network gets one tile at a
    time, so its memory does not grow with the image. The image is mirrored beyond its borders.

    Args:
        network: maps [N, C, h, w] to [N, K, h − 2·margin, w − 2·margin].
        image: [N, C, H, W], any H, W ≥ 1.
        tile: (h, w), the input size of the network in pixels.
        margin: pixels that the network removes at each border.
        stride: outputs of tiles start at multiples of this many pixels. With the stride of the
            network's lowest level the result does not depend on the size of the tiles.

    Returns [N, K, H, W] logits.
    """
    height, width = image.shape[-2:]
    tops = tile_starts(height, tile[0] - 2 * margin, stride)
    lefts = tile_starts(width, tile[1] - 2 * margin, stride)
    logits = None
    for top, left in product(tops, lefts):
        rows = reflected_indices(top - margin, tile[0], height, image.device)
        columns = reflected_indices(left - margin, tile[1], width, image.device)
        part = image[..., rows[:, None], columns]
        part = network(part.contiguous(memory_format=memory_format(part.device)))
        part = part[..., : height - top, : width - left]
        if logits is None:
            logits = part.new_empty(*part.shape[:2], height, width)
        logits[..., top : top + part.shape[-2], left : left + part.shape[-1]] = part
    return logits


def tile_starts(side: int, output: int, stride: int) -> range:
    """Where outputs of `output` pixels start to cover `side` pixels, at multiples of `stride`."""
    step = output // stride * stride
    return range(0, max(side - output + step, 1), step)


def reflected_indices(
    start: int, length: int, side: int, device: torch.device | None = None
) -> Tensor:
    """Indices [length] of the pixels shown at the positions start, start + 1, … of a side.

    Positions outside 0 … side − 1 are reflected at the border pixels as often as necessary: for
    4 pixels … 2 1 | 0 1 2 3 | 2 1 0 1 …
    """
    period = max(2 * (side - 1), 1)
    position = torch.arange(start, start + length, device=device).remainder(period)
    return torch.minimum(position, period - position)

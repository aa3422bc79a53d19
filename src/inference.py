"""From an image to probabilities: the one forward pass of evaluate() and predict.py."""

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import combinations, groupby, product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .device import memory_format, to_device
from .fold_batchnorm import fold_batchnorm
from .tiles import TileGrid, Tiling

MIN_SIDE = 32  # every architecture of MODELS takes images of 32×32 pixels in eval mode
MIN_VOLUME_SIDE = 8  # and those for volumes 8×8×8 voxels
BATCH_PIXELS = 1024**2  # tiles, and small images, go through the network in batches of this size

Window = tuple[tuple[int, int], ...]  # (start, stop) in each dimension


def optimize_for_inference(model: nn.Module, device: torch.device) -> nn.Module:
    """The model on the device, as it predicts fastest: it cannot be trained afterwards.

    model: in eval mode, one of src.MODELS, or Ensemble or Flips of them. It is changed in place,
    see fold_batchnorm(): its state_dict has other names and values.
    """
    fold_batchnorm(model)
    return model.to(device, memory_format=memory_format(device, model.dims, inference=True))


@torch.no_grad()
def predict_probs(model: nn.Module, image: Tensor, amp_dtype: torch.dtype | None = None) -> Tensor:
    """Probabilities of a batch of whole images, or volumes.

    Args:
        model: network in eval mode that maps [N, C, *sides] to {"out": [N, K, *sides] logits}.
        image: normalized float images [N, C, *sides] on the model's device, any sides ≥ 1.
        amp_dtype: torch.bfloat16 or torch.float16 for autocast; None: the model's own precision.

    Returns [N, K, *sides] float32 probabilities that sum to 1 over K.
    """
    sides, padding = image.shape[2:], []
    smallest = MIN_SIDE if len(sides) == 2 else MIN_VOLUME_SIDE
    for side in reversed(sides):  # F.pad begins with the last dimension
        padding += [0, max(smallest - side, 0)]
    # Convolutions take the format of channels_last from their weights or from their input. Here
    # the weights decide.
    padded = F.pad(image, padding, mode="replicate").contiguous()
    with torch.autocast(image.device.type, dtype=amp_dtype, enabled=amp_dtype is not None):
        logits = model(padded)["out"]
    inside = [slice(0, side) for side in sides]
    return logits[(..., *inside)].float().softmax(dim=1)


def predict_strips(
    model: nn.Module,
    image: Tensor,
    device: torch.device,
    amp_dtype: torch.dtype | None = None,
    tiling: Tiling | None = None,
    prepare: Callable[[Tensor], Tensor] | None = None,
    after_tiles: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[slice, Tensor]]:
    """Probabilities of one image, strip by strip from its first row on.

    An image that is not cut into tiles is one strip. Otherwise a strip is what is finished after a
    row of tiles; the probabilities of the whole image are never in memory.

    Tiles against the whole image, in float32: networks of convolutions and transposed convolutions
    give the same result further from a cut than they can see, 96 px for four poolings; so do those
    of bilinear upsampling with align_corners=False, 112 px. With align_corners=True it depends on
    the size of its input, and MobileNetV3 averages over all of it: their results change with the
    tiles (F1 on DRIVE by less than .001 for MobileNetV3 with align_corners=False).

    Args:
        model: network in eval mode, see predict_probs().
        image: [C, *sides], on any device.
        device: where the model is.
        amp_dtype: see predict_probs().
        tiling: None: Tiling(), which decides by the memory of the whole image.
        prepare: maps a batch of the image's tiles [N, C, *sides] on the device to the float images
            that the model takes; None: they are such images.
        after_tiles: called with the numbers of finished and of all tiles after each batch.

    Yields (rows, probabilities float32 [K, len(rows), *other sides] on the device).
    """
    grid = (tiling or Tiling()).grid(model, image.shape)
    if len(grid) == 1:
        images = to_device(image[None], device)
        yield (
            slice(0, image.shape[1]),
            predict_probs(model, prepared(images, prepare), amp_dtype)[0],
        )
        return
    weights = [[to_device(each, device) for each in axis] for axis in grid.weights]
    strip, done, rows = None, 0, grid.windows[0]
    for index, (start, stop) in enumerate(rows):
        sums = None
        for batch in tile_batches(grid, weights, index):
            tiles = torch.stack([image[(slice(None), *slices(window))] for window, _ in batch])
            tiles = prepared(to_device(tiles, device), prepare)
            probs = predict_probs(model, tiles, amp_dtype)
            if sums is None:
                sums = probs.new_zeros(probs.shape[1], stop - start, *grid.sides[1:])
            add_weighted(sums, batch, probs)
            done += len(batch)
            if after_tiles:
                after_tiles(done, len(grid))
        if strip is not None:
            sums[:, : strip.shape[1]] += strip
        finished = stop
        if index + 1 < len(rows):
            finished = rows[index + 1][0]
        yield slice(start, finished), sums[:, : finished - start]
        strip = sums[:, finished - start :]


def prepared(images: Tensor, prepare: Callable[[Tensor], Tensor] | None) -> Tensor:
    """prepare(images), or the images where there is nothing to prepare."""
    if prepare is None:
        return images
    return prepare(images)


def tile_batches(
    grid: TileGrid, weights: list[list[Tensor]], row: int
) -> Iterator[list[tuple[Window, list[Tensor]]]]:
    """The tiles of one row of the grid in batches of equal size: (window, weights) of each.

    weights: grid.weights on the device.
    """
    options = [range(row, row + 1)] + [range(len(windows)) for windows in grid.windows[1:]]
    tiles = []
    for indices in product(*options):
        window = tuple(windows[index] for windows, index in zip(grid.windows, indices, strict=True))
        own = [each[index] for each, index in zip(weights, indices, strict=True)]
        tiles.append((window, own))
    for sides, group in groupby(tiles, lambda tile: [stop - start for start, stop in tile[0]]):
        group = list(group)
        size = max(BATCH_PIXELS // math.prod(sides), 1)
        for first in range(0, len(group), size):
            yield group[first : first + size]


def add_weighted(sums: Tensor, tiles: list[tuple[Window, list[Tensor]]], probs: Tensor) -> None:
    """Adds probabilities [N, K, *sides] of tiles, times their weights, to those of their row.

    sums: [K, *sides] of the whole row, changed in place. tiles: (window, weights) of each tile.
    """
    for (window, weights), part in zip(tiles, probs, strict=True):
        for dim, weight in enumerate(weights):
            part *= weight.view(-1, *[1] * (len(weights) - 1 - dim))
        sums[(slice(None), slice(None), *slices(window[1:]))] += part


def slices(window: Window) -> tuple[slice, ...]:
    """The window as an index."""
    return tuple(slice(start, stop) for start, stop in window)


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

    @property
    def dims(self) -> int:
        return self.models[0].dims

    @property
    def margin(self) -> int:
        return max(model.margin for model in self.models)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        probs = sum(probs_of(model, image) for model in self.models) / len(self.models)
        return {"out": probs.log()}


class Flips(nn.Module):
    """A model whose probabilities are the mean over the image and its flipped copies.

    The copies are flipped horizontally, vertically and both, volumes along each set of their three
    axes; each result is flipped back. Shape: as for Ensemble.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @property
    def in_channels(self) -> int:
        return self.model.in_channels

    @property
    def dims(self) -> int:
        return self.model.dims

    @property
    def margin(self) -> int:
        return self.model.margin

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        axes = range(-1, 1 - image.ndim, -1)
        numbers = range(len(axes) + 1)
        flips = [flip for number in numbers for flip in combinations(axes, number)]
        total = sum(probs_of(self.model, image.flip(flip)).flip(flip) for flip in flips)
        return {"out": (total / len(flips)).log()}


def probs_of(model: nn.Module, image: Tensor) -> Tensor:
    """Probabilities [N, K, H, W] in float32, whatever the precision of the model."""
    return model(image)["out"].float().softmax(dim=1)

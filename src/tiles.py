"""Tiles: windows that cover an image, and how their results are blended.

Everything here works in any number of spatial dimensions.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
from torch import Tensor, nn

from .errors import UserError
from .memory import activation_bytes

# Tiles start at multiples of this, so their poolings see the grid of the whole image.
ALIGN = 32
VOLUME_ALIGN = 8  # the same for volumes: the 3D U-Net has three poolings
MAX_TILE = 1024  # largest default side of a tile
MIN_TILE = 256  # smallest default side of a tile
MIN_CUBE = 64  # the same of a tile of a volume
SMALL = 1024**2  # images of up to this many pixels are never cut, unless a tile is asked for
LARGE_SIDE = 2**14  # of an image or a volume that is surely cut into tiles
WHOLE_BYTES = 4 * 2**30  # an image is cut into tiles where the whole of it would need more memory
TILE_BYTES = 2**30  # memory that one tile of the default size may need


@dataclass(frozen=True)
class Tiling:
    """When images and volumes are predicted in tiles, and in which.

    The choice depends on the model and the size of the image alone, not on the memory of the
    machine: the same image gives the same result everywhere. With BatchNorm folded some models
    need a little less memory, so their tiles may be larger than in training.

    Args:
        size: side of a tile in pixels or voxels, the same in each dimension. 0: never tiles. None:
            only where the activations of the whole image would need more than WHOLE_BYTES; then
            the largest tile that needs at most TILE_BYTES, for images from MIN_TILE to MAX_TILE,
            for volumes at least MIN_CUBE.
        overlap: pixels or voxels that neighbouring tiles share. None: a sixteenth of the tile,
            rounded up to a multiple of ALIGN; for volumes an eighth and VOLUME_ALIGN. Models with
            valid convolutions need more, see context_of().
    """

    size: int | None = None
    overlap: int | None = None

    def grid(self, model: nn.Module, shape: Sequence[int]) -> "TileGrid":
        """The tiles for an image of `shape` [C, *sides].

        UserError for a tile that is too small for the overlap.
        """
        sides, context = tuple(shape[1:]), context_of(model)
        size, align = self.size, align_of(len(sides))
        if size is None:
            size = default_tile(model, shape)
        if size == 0:
            return TileGrid(sides, sides, 0)
        overlap = self.overlap
        if overlap is None:
            share = 8 if len(sides) == 3 else 16
            overlap = round_up(size // share, align)
        if context:
            overlap = max(round_up(overlap, align), 2 * context)
        step = (size - overlap) // align * align
        if step < align and self.size is None:
            raise UserError(
                f"--overlap {self.overlap}: is too large for tiles of {size} px; it must be at "
                f"most {size - align}, or give a larger --tile"
            )
        if step < align:
            raise UserError(
                f"--tile {size}: is too small for an overlap of {overlap} px"
                f"{' that this network needs' if context else ''}; "
                f"it must be at least {overlap + align}"
            )
        return TileGrid(sides, (step + overlap,) * len(sides), overlap, context)

    def check(self, model: nn.Module) -> None:
        """UserError for a tile that is too small for the overlap, before there is an image."""
        self.grid(model, (model.in_channels, *[LARGE_SIDE] * model.dims))


def align_of(dims: int) -> int:
    """The multiple that tiles of images or volumes start at."""
    return VOLUME_ALIGN if dims == 3 else ALIGN


def context_of(model: nn.Module) -> int:
    """Pixels around its own that a tile needs at each cut to give the exact result; 0: none.

    For networks with valid convolutions it is their margin, rounded up to ALIGN. Others have no
    `margin`, or 0: their tiles are blended.
    """
    return round_up(getattr(model, "margin", 0), ALIGN)


def default_tile(model: nn.Module, shape: Sequence[int]) -> int:
    """Side of the tiles for an image of `shape` [C, *sides]; 0 for an image that stays whole."""
    pixels = math.prod(shape[1:])
    if pixels <= SMALL:
        return 0
    dims = len(shape) - 1
    bytes_per_pixel = activation_bytes(model, shape[0], dims)
    if bytes_per_pixel * pixels <= WHOLE_BYTES:
        return 0
    smallest = MIN_TILE
    if dims == 3:
        smallest = MIN_CUBE + 2 * context_of(model)
    elif context_of(model):  # it cuts its input itself: large tiles waste less on their borders
        return 2 * MAX_TILE
    side = int((TILE_BYTES / bytes_per_pixel) ** (1 / dims))
    align = align_of(dims)
    return min(max(side // align * align, smallest), MAX_TILE)


class TileGrid:
    """Tiles of nearly equal size that cover an image, and the weights of their results.

    Tiles end where the image ends: they are not padded, so at the image's own border the network
    sees what it sees of the whole image.

    Args:
        sides: of the image.
        tile: largest side of a tile in each dimension.
        overlap: pixels that neighbours share.
        context: 0: the results are blended with Gaussian weights. Otherwise a result counts only
            from this many pixels from a cut on, and nothing is blended.
    """

    def __init__(
        self, sides: Sequence[int], tile: Sequence[int], overlap: int, context: int = 0
    ) -> None:
        self.sides = tuple(sides)
        self.windows = [
            cut(side, length, overlap, align_of(len(sides)))
            for side, length in zip(sides, tile, strict=True)
        ]
        self.context = context

    def __len__(self) -> int:
        return math.prod(len(windows) for windows in self.windows)

    @cached_property
    def weights(self) -> list[list[Tensor]]:
        """For each dimension and window the float32 weights of its pixels.

        The weight of a pixel of a tile is the product over the dimensions. Over all tiles that
        cover a pixel these products add up to 1.
        """
        return [
            blend_weights(windows, side, self.context)
            for windows, side in zip(self.windows, self.sides, strict=True)
        ]


def cut(side: int, tile: int, overlap: int, align: int = ALIGN) -> list[tuple[int, int]]:
    """(start, stop) of the fewest windows of at most `tile` pixels that cover `side` pixels.

    Neighbours share `overlap` pixels. Starts are multiples of `align`, which tile − overlap has to
    be, too; otherwise the windows are of equal size.
    """
    if side <= tile:
        return [(0, side)]
    number = math.ceil((side - overlap) / (tile - overlap))
    units = number * align
    starts = [math.ceil(k * (side - overlap) / units) * align for k in range(number)]
    stops = [start + overlap for start in starts[1:]] + [side]
    return list(zip(starts, stops, strict=True))


def blend_weights(windows: list[tuple[int, int]], side: int, context: int = 0) -> list[Tensor]:
    """The weights of each window's pixels along one dimension; they add up to 1 at each pixel.

    Gaussian around the window's centre, as in nnU-Net (Isensee et al. 2021), but with σ = a
    sixteenth of the window in place of an eighth: with neighbours that share a sixteenth, the
    weights at a cut are then e⁻⁷ of the neighbour's, and nothing is seen of the cut. With an
    eighth they are 3 %. With a `context`: 1, and 0 within that many pixels of a cut.
    """
    raw = []
    for start, stop in windows:
        if context:
            weight = torch.zeros(stop - start, dtype=torch.float64)
            first = context if start > 0 else 0
            last = stop - start - (context if stop < side else 0)
            weight[first:last] = 1
        else:
            length = stop - start
            position = torch.arange(length, dtype=torch.float64) - (length - 1) / 2
            weight = torch.exp(-0.5 * (position / (length / 16)) ** 2)
        raw.append(weight)
    total = torch.zeros(side, dtype=torch.float64)
    for (start, stop), weight in zip(windows, raw, strict=True):
        total[start:stop] += weight
    return [
        (weight / total[start:stop]).float()
        for (start, stop), weight in zip(windows, raw, strict=True)
    ]


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple that is at least `value`."""
    return math.ceil(value / multiple) * multiple


# --- valid convolutions ---------------------------------------------------------------------------


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
        network: maps [N, C, *sides] to [N, K, *(sides − 2·margin)].
        image: [N, C, *sides], any sides ≥ 1.
        tile: the sides of the network's input in pixels.
        margin: pixels that the network removes at each border.
        stride: outputs of tiles start at multiples of this many pixels. With the stride of the
            network's lowest level the result does not depend on the size of the tiles.

    Returns [N, K, *sides] logits.
    """
    sides = image.shape[2:]
    starts = [
        tile_starts(side, length - 2 * margin, stride)
        for side, length in zip(sides, tile, strict=True)
    ]
    logits = None
    for corner in product(*starts):
        part = image
        for dim, (start, length, side) in enumerate(zip(corner, tile, sides, strict=True), 2):
            shown = reflected_indices(start - margin, length, side, image.device)
            part = part.index_select(dim, shown)
        part = network(part)
        if logits is None:
            logits = part.new_empty(*part.shape[:2], *sides)
        inside = [
            slice(0, min(length, side - start))
            for start, length, side in zip(corner, part.shape[2:], sides, strict=True)
        ]
        place = [
            slice(start, start + each.stop) for start, each in zip(corner, inside, strict=True)
        ]
        logits[(..., *place)] = part[(..., *inside)]
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

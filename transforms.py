"""Joint transforms of an image, its target and its maps, one by one or batched; the presets.

Image and target may be PIL images or tensors, image [C, H, W] and target [H, W]. Targets are
resampled by nearest neighbour and padded with IGNORE. Maps are tensors [H, W], weights of the
pixels (float32) or ids of the objects (int32): they are resampled as the target is, padded with 0,
and keep their dtype. With maps the target should be a tensor, too: Pillow resizes by another
rounding, which may be one pixel off. All random numbers come from PyTorch's global generator, whose
state a checkpoint saves, or from one that is passed in (RandomAffineCrops). Crops of volumes are in
train_utils/volume_crops.py.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as nnF
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from src.device import to_device
from src.image_io import IGNORE

ImageLike = Image.Image | Tensor  # an image, a target or a map
Box = tuple[int, int, int, int]  # part of an image: top, left, height, width, in pixels

# What bicubic interpolation makes of 3 × 3 values is at most this many times the largest of them.
BICUBIC_REACH = 1.5
LUMA = (0.2989, 0.587, 0.114)  # of R, G and B, by ITU-R BT.601 as in torchvision


def on_target(operation: Callable, target: ImageLike, *args: Any, **kwargs: Any) -> ImageLike:
    """Applies a torchvision operation to a target or a map.

    A tensor [H, W] becomes the [1, H, W] that torchvision expects.
    """
    if isinstance(target, Tensor):
        return operation(target[None], *args, **kwargs)[0]
    return operation(target, *args, **kwargs)


def on_all(
    operation: Callable, image: ImageLike, targets: Sequence[ImageLike], *args: Any
) -> tuple[ImageLike, ...]:
    """Applies a torchvision operation to an image, and to its target and maps."""
    return operation(image, *args), *(on_target(operation, each, *args) for each in targets)


def size_of(image: ImageLike) -> tuple[int, int]:
    """(height, width) of a PIL image or a tensor [..., H, W]."""
    if isinstance(image, Tensor):
        return tuple(image.shape[-2:])
    return image.height, image.width


def pad_if_smaller(image: ImageLike, size: int, fill: int = 0) -> ImageLike:
    """Pads `image` (PIL, [C, H, W] or [H, W]) on the right and at the bottom: both its sides are
    then at least `size` pixels."""
    height, width = size_of(image)
    right, bottom = max(size - width, 0), max(size - height, 0)
    if right == 0 and bottom == 0:
        return image
    if isinstance(image, Tensor) and image.ndim == 2:
        return on_target(F.pad, image, [0, 0, right, bottom], fill=fill)
    return F.pad(image, [0, 0, right, bottom], fill=fill)


def pad_all(
    size: int, image: ImageLike, target: ImageLike, maps: Sequence[Tensor]
) -> tuple[ImageLike, ...]:
    """pad_if_smaller() for an image, its target and its maps."""
    target = pad_if_smaller(target, size, fill=IGNORE)
    return pad_if_smaller(image, size), target, *(pad_if_smaller(each, size) for each in maps)


class Compose:
    """Applies the transforms one after the other."""

    def __init__(self, transforms: Sequence[Callable[..., tuple[ImageLike, ...]]]) -> None:
        self.transforms = transforms

    def __call__(self, image: ImageLike, target: ImageLike, *maps: Tensor) -> tuple[ImageLike, ...]:
        for transform in self.transforms:
            image, target, *maps = transform(image, target, *maps)
        return image, target, *maps


class RandomResize:
    """Resizes the shorter side to a random length of min_size to max_size pixels (inclusive)."""

    def __init__(self, min_size: int, max_size: int | None = None) -> None:
        self.min_size = min_size
        self.max_size = max_size or min_size

    def __call__(self, image: ImageLike, target: ImageLike, *maps: Tensor) -> tuple[ImageLike, ...]:
        size = [int(torch.randint(self.min_size, self.max_size + 1, ()))]
        # It takes the pixel at the centre, as bilinear does; NEAREST is half a pixel off.
        nearest = InterpolationMode.NEAREST_EXACT
        targets = [on_target(F.resize, each, size, nearest) for each in (target, *maps)]
        return F.resize(image, size, antialias=True), *targets


class RandomHorizontalFlip:
    """Mirrors left and right with probability `flip_prob`."""

    def __init__(self, flip_prob: float = 0.5) -> None:
        self.flip_prob = flip_prob

    def __call__(self, image: ImageLike, target: ImageLike, *maps: Tensor) -> tuple[ImageLike, ...]:
        if torch.rand(1).item() < self.flip_prob:
            return on_all(F.horizontal_flip, image, (target, *maps))
        return image, target, *maps


class RandomVerticalFlip:
    """Mirrors top and bottom with probability `flip_prob`."""

    def __init__(self, flip_prob: float = 0.5) -> None:
        self.flip_prob = flip_prob

    def __call__(self, image: ImageLike, target: ImageLike, *maps: Tensor) -> tuple[ImageLike, ...]:
        if torch.rand(1).item() < self.flip_prob:
            return on_all(F.vertical_flip, image, (target, *maps))
        return image, target, *maps


class RandomCrop:
    """Crops a random square of `size` pixels; smaller images are padded first."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, image: ImageLike, target: ImageLike, *maps: Tensor) -> tuple[ImageLike, ...]:
        image, *targets = pad_all(self.size, image, target, maps)
        height, width = size_of(image)
        top = int(torch.randint(height - self.size + 1, ()))
        left = int(torch.randint(width - self.size + 1, ()))
        return on_all(F.crop, image, targets, top, left, self.size, self.size)


class CenterCrop:
    """Crops the central square of `size` pixels; smaller images are padded first.

    For library use only: no script uses it.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, image: ImageLike, target: ImageLike, *maps: Tensor) -> tuple[ImageLike, ...]:
        image, *targets = pad_all(self.size, image, target, maps)
        return on_all(F.center_crop, image, targets, [self.size, self.size])


class ElasticTransform:
    """Deforms smoothly, as in Ronneberger et al. 2015, section 3.1.

    Displacements on a 3 × 3 grid, from corner to corner, are random, those between them are
    interpolated. What lies outside the image is padded with 0, in the target with IGNORE. PIL
    targets must have mode L.

    Args:
        sigma: standard deviation of the Gaussian displacements in pixels, 10 in the paper. 0:
            nothing changes, and no random numbers are taken.
    """

    def __init__(self, sigma: float) -> None:
        self.sigma = sigma

    def __call__(self, image: ImageLike, target: ImageLike, *maps: Tensor) -> tuple[ImageLike, ...]:
        if self.sigma == 0:
            return image, target, *maps
        size = size_of(image)
        displacements = self.sigma * interpolate_vectors(torch.randn(1, 2, 3, 3), size)
        displacements *= 2 / torch.tensor(size).flip(0)  # torchvision's unit: the image spans 2
        image = F.elastic(image, displacements)
        nearest = InterpolationMode.NEAREST
        target = on_target(F.elastic, target, displacements, nearest, fill=IGNORE)
        return image, target, *(on_target(F.elastic, each, displacements, nearest) for each in maps)


def interpolate_vectors(vectors: Tensor, size: Sequence[int]) -> Tensor:
    """Vectors of a 3 × 3 grid [N, 2, 3, 3] → bicubic between them, for each pixel [N, H, W, 2].

    size: (H, W). The outer points of the grid are the outer pixels.
    """
    vectors = nnF.interpolate(vectors, size, mode="bicubic", align_corners=True)
    return vectors.movedim(1, 3)


class ToTensor:
    """image → float32 [C, H, W], the range of its integer type scaled to 0–1; target → int64.

    Maps are tensors already and stay as they are.
    """

    def __call__(self, image: ImageLike, target: ImageLike, *maps: Tensor) -> tuple[Tensor, ...]:
        image = F.to_dtype(F.to_image(image).as_subclass(Tensor), torch.float32, scale=True)
        if not isinstance(target, Tensor):
            target = F.pil_to_tensor(target)[0]
        return image, target.long(), *maps


class Normalize:
    """(image − mean) / std for each channel of a float image [C, H, W].

    ValueError for a std of 0.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        if not all(std):
            raise ValueError(f"std {std}: a channel cannot be divided by 0")
        self.mean = mean
        self.std = std

    def __call__(self, image: Tensor, target: Tensor, *maps: Tensor) -> tuple[Tensor, ...]:
        mean, std = (to_device(torch.tensor(each), image.device) for each in (self.mean, self.std))
        return F.normalize(image, mean=mean, std=std), target, *maps


class RandomAffineCrops:
    """Cuts one square crop from each image of a batch.

    Of an image only the part that its crop needs is copied to the device and converted to float.
    Resizes, flips, deforms, crops and normalizes like the transforms above, and also rotates and
    changes colours. A single `grid_sample` computes all crops, each with its own random parameters.
    It interpolates between four pixels and, unlike RandomResize, does not smooth before it shrinks:
    fine detail aliases where images shrink to less than about half their size (at ×0.5 a DRIVE
    image differs by 0.004 RMS).

    Args:
        mean, std: of each channel, for images in 0–1.
        crop_size: side of the crops in pixels.
        base_size: length in pixels of the image's shorter side at scale 1; None: its own length.
        scale: range of a random scale factor for half of the crops; the others have factor 1.
        rotate: largest angle in degrees, in both directions, for half of the crops.
        jitter: brightness, contrast and saturation change by factors of 1 − jitter to 1 + jitter.
        flip_probs: probability of a flip of each axis (H, W): of a vertical, a horizontal one.
        margin: pixels at each border of a crop that valid convolutions remove. Crops reach this
            far beyond the image, which is mirrored there as in overlap_tile(); otherwise the
            pixels near its border would never be trained on.
        elastic: standard deviation in pixels of the crop of random displacements on a 3 × 3 grid
            over the crop, as those of ElasticTransform; 0: no deformation. A deformed crop also
            takes pixels from around its square where the image has them.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        crop_size: int,
        base_size: int | None = None,
        scale: tuple[float, float] = (0.85, 1.2),
        rotate: float = 180.0,
        jitter: float = 0.25,
        flip_probs: Sequence[float] = (0.5, 0.5),
        margin: int = 0,
        elastic: float = 0.0,
    ) -> None:
        self.mean, self.std = mean, std
        self.crop_size = crop_size
        self.base_size = base_size
        self.scale = scale
        self.rotate = rotate
        self.jitter = jitter
        self.flip_probs = flip_probs
        self.margin = margin
        self.elastic = elastic
        self._constants = {}  # device → mean, std and luma, which are sent there once

    def __call__(
        self,
        images: Sequence[Tensor],
        targets: Sequence[Tensor],
        sizes: Tensor,
        generator: torch.Generator,
        device: torch.device | None = None,
        maps: Sequence[Tensor | Sequence[Tensor]] = (),
    ) -> tuple[Tensor, ...]:
        """images uint8 [N, C, H, W], targets uint8 [N, H, W] → normalized float32 [N, C, S, S],
        int64 [N, S, S], where S = crop_size, and a batch [N, S, S] for each of `maps`.

        Both may also be sequences of N tensors. sizes: int64 [N, 2], height and width of each image
        without padding. generator: on the CPU. device: where the crops are computed; None: where
        the images are. maps: batches [N, H, W] or sequences of N tensors; each keeps its dtype.
        Integers up to 2²⁴ stay exact.
        """
        boxes, parameters = self.random_crops(sizes, images[0].shape[-2:], generator)
        device = device or images[0].device
        images = to_device(cut_boxes(images, boxes), device)
        targets = to_device(cut_boxes(targets, boxes), device)
        maps = [to_device(cut_boxes(each, boxes), device) for each in maps]
        return self.resample(images, targets, to_device(parameters, device), maps)

    def random_crops(
        self, sizes: Tensor, padded_size: Sequence[int], generator: torch.Generator
    ) -> tuple[list[Box], Tensor]:
        """(the part of each image that its crop needs, parameters float32 [N, 33] of resample()).

        padded_size: (height, width) of the padded images.
        """
        matrices = self.random_matrices(sizes, generator)
        jitter = self.random_jitter(len(sizes), generator)
        vectors = self.random_vectors(len(sizes), generator)
        boxes = crop_boxes(widen(matrices, vectors), padded_size)
        corners = torch.tensor(boxes)
        corner, spanned = corners[:, :2].flip(1), corners[:, 2:].flip(1)
        # grid_sample's coordinates: the box spans −1…1
        linear = 2 * matrices[:, :, :2] / spanned[:, :, None]
        translation = 2 * (matrices[:, :, 2] - corner) / spanned - 1
        matrices = torch.cat([linear, translation[:, :, None]], dim=2).flatten(1).float()
        vectors = (linear @ vectors.flatten(2)).flatten(1).float()
        return boxes, torch.cat([matrices, jitter, sizes, corners, vectors], dim=1)

    def resample(
        self, images: Tensor, targets: Tensor, parameters: Tensor, maps: Sequence[Tensor] = ()
    ) -> tuple[Tensor, ...]:
        """The crops of __call__, from what cut_boxes() cut: images uint8 [N, C, h, w], targets
        uint8 and maps [N, h, w]. parameters: those of random_crops(). All on one device."""
        matrices, jitter, sizes, boxes, vectors = parameters.split([6, 3, 2, 4, 18], dim=1)
        mean, std, luma = self.constants(images.device)
        shape = (len(images), 1, self.crop_size, self.crop_size)
        grid = nnF.affine_grid(matrices.view(-1, 2, 3), shape, align_corners=False)
        if self.elastic:
            grid = grid + interpolate_vectors(vectors.view(-1, 2, 3, 3), shape[2:])
        image_grid = grid
        if self.margin:
            image_grid = reflect_grid(grid, sizes, boxes)
        image = images.float() / 255
        image = nnF.grid_sample(image, image_grid, mode="bilinear", align_corners=False)
        if self.jitter:
            image = change_colours(image, *jitter.unbind(1), luma)

        # grid_sample pads with 0, so IGNORE − target is padded as if the target were IGNORE.
        target = IGNORE - sample_nearest(IGNORE - targets, grid).long()
        maps = [sample_nearest(each, grid) for each in maps]
        return (image - mean) / std, target, *maps

    def constants(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """mean and std [1, C, 1, 1], and the luma of RGB [3, 1, 1], on the device."""
        if device not in self._constants:
            mean, std, luma = (torch.tensor(values) for values in (self.mean, self.std, LUMA))
            shaped = mean[None, :, None, None], std[None, :, None, None], luma[:, None, None]
            self._constants[device] = tuple(tensor.to(device) for tensor in shaped)
        return self._constants[device]

    def random_matrices(self, sizes: Tensor, generator: torch.Generator) -> Tensor:
        """float64 [N, 2, 3]: matrices from crops, spanning −1…1, to pixels (x, y) of the images."""
        n = len(sizes)
        sizes = sizes.flip(1).double()  # (width, height), in the order of (x, y)
        vertical, horizontal = self.flip_probs
        probs = torch.tensor([0.5, 0.5, horizontal, vertical])
        chosen = torch.rand(4, n, generator=generator, dtype=torch.float64) < probs[:, None]
        rotated, scaled, *flipped = chosen
        angle, factor = torch.rand(2, n, generator=generator, dtype=torch.float64)
        angle = torch.deg2rad((2 * angle - 1) * self.rotate) * rotated
        factor = self.scale[0] + factor * (self.scale[1] - self.scale[0])
        factor = torch.where(scaled, factor, 1.0)

        shorter = sizes.amin(1)
        side = self.crop_size / factor * (shorter / (self.base_size or shorter))
        centre = self.random_centres(sizes, side, generator)
        signs = torch.where(torch.stack(flipped, dim=1), -1.0, 1.0)
        rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1)
        linear = rotation.view(n, 2, 2) * signs[:, None, :] * side[:, None, None] / 2
        return torch.cat([linear, centre[:, :, None]], dim=2)

    def random_centres(self, sizes: Tensor, side: Tensor, generator: torch.Generator) -> Tensor:
        """float64 [N, 2]: centres (x, y) of the crops in pixels of the images.

        sizes: [N, 2], width and height of the images. side: [N], sides of the crops in pixels of
        the images; all of a crop but its margin lies inside the image, as far as it fits.
        """
        inner = side[:, None] * (1 - 2 * self.margin / self.crop_size)
        free = sizes - inner
        random = torch.rand(len(sizes), 2, generator=generator, dtype=torch.float64)
        corner = torch.where(free > 0, free * random, free / 2)
        # Whole pixels: a crop of factor 1 then copies pixels without interpolation.
        return corner.round() + inner / 2

    def random_jitter(self, n: int, generator: torch.Generator) -> Tensor:
        """float32 [N, 3]: factors of brightness, contrast and saturation."""
        return 1 + self.jitter * (2 * torch.rand(n, 3, generator=generator) - 1)

    def random_vectors(self, n: int, generator: torch.Generator) -> Tensor:
        """float64 [N, 2, 3, 3]: displacements (x, y) of a crop, which spans −1…1, on a 3 × 3 grid.

        Without deformation they are 0, and no random numbers are taken.
        """
        if not self.elastic:
            return torch.zeros(n, 2, 3, 3, dtype=torch.float64)
        vectors = torch.randn(n, 2, 3, 3, generator=generator, dtype=torch.float64)
        return vectors * self.elastic * 2 / self.crop_size


def widen(matrices: Tensor, vectors: Tensor) -> Tensor:
    """The matrices of squares that hold all positions of crops with displacements.

    matrices, vectors: those of random_matrices() and random_vectors(). The centres stay.
    """
    reach = 1 + BICUBIC_REACH * vectors.abs().amax((2, 3))
    return torch.cat([matrices[:, :, :2] * reach[:, None], matrices[:, :, 2:]], dim=2)


def crop_boxes(matrices: Tensor, padded_size: Sequence[int]) -> list[Box]:
    """The part of each image that holds all pixels its crop is interpolated from.

    All have one size, the smallest that suffices for every image. matrices: those of
    random_matrices() or widen(). padded_size: (height, width) of the padded images.
    """
    across, down = [], []  # (first pixel, last pixel + 1) of each image
    for (a, b, x), (c, d, y) in matrices.tolist():
        across.append(pixels_between(x - abs(a) - abs(b), x + abs(a) + abs(b), padded_size[1]))
        down.append(pixels_between(y - abs(c) - abs(d), y + abs(c) + abs(d), padded_size[0]))
    width = max(stop - start for start, stop in across)
    height = max(stop - start for start, stop in down)
    return [
        (min(top, padded_size[0] - height), min(left, padded_size[1] - width), height, width)
        for (top, _), (left, _) in zip(down, across, strict=True)
    ]


def pixels_between(low: float, high: float, size: int) -> tuple[int, int]:
    """(first, last + 1) of the `size` pixels of a row or column that this range is made from.

    One more on each side: interpolation takes the neighbours. Pixels reflected by a margin are
    among them too, since the centre of every crop is inside its image.
    """
    return max(math.floor(low) - 1, 0), min(math.ceil(high) + 1, size)


def cut_boxes(tensors: Sequence[Tensor], boxes: Sequence[Box]) -> Tensor:
    """The parts [N, ..., h, w] of N tensors [..., H, W]; a batch that they cover is not copied."""
    height, width = boxes[0][2:]
    if isinstance(tensors, Tensor) and tensors.shape[-2:] == (height, width):
        return tensors
    return torch.stack([F.crop(each, *box) for each, box in zip(tensors, boxes, strict=True)])


def sample_nearest(maps: Tensor, grid: Tensor) -> Tensor:
    """Maps [N, h, w] at the positions of grid_sample's grid [N, H, W, 2]; 0 outside.

    The result [N, H, W] has the maps' dtype. float32 holds integers up to 2²⁴ exactly.
    """
    sampled = nnF.grid_sample(maps[:, None].float(), grid, mode="nearest", align_corners=False)
    return sampled[:, 0].to(maps.dtype)


def reflect_grid(grid: Tensor, sizes: Tensor, boxes: Tensor) -> Tensor:
    """A grid [N, h, w, 2] for grid_sample with positions outside the images reflected into them.

    They are reflected at the border pixels. sizes: [N, 2], height and width of each image. boxes:
    [N, 4], the part of each image that the grid spans, see Box. All on one device.
    """
    corner = boxes[:, None, None, :2].flip(3)
    spanned = boxes[:, None, None, 2:].flip(3)
    last = (sizes.flip(1)[:, None, None] - 1).clamp_min(1e-6)  # a side of 1 px has nothing else
    position = (((grid + 1) * spanned - 1) / 2 + corner).remainder(2 * last)
    position = torch.minimum(position, 2 * last - position) - corner
    return (2 * position + 1) / spanned - 1


def change_colours(
    image: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, luma: Tensor
) -> Tensor:
    """Images [N, C, H, W] in 0–1 with changed brightness, contrast and saturation, in this order.

    Like torchvision's adjust_brightness, adjust_contrast and adjust_saturation, with factors [N].
    luma: weights of R, G and B [3, 1, 1], on the same device, see LUMA.
    """
    brightness = brightness[:, None, None, None]
    contrast = contrast[:, None, None, None]
    saturation = saturation[:, None, None, None]
    image = (image * brightness).clamp(0, 1)
    image = torch.lerp(grey(image, luma).mean((1, 2, 3), keepdim=True), image, contrast).clamp(0, 1)
    return torch.lerp(grey(image, luma), image, saturation).clamp(0, 1)


def grey(image: Tensor, luma: Tensor) -> Tensor:
    """Luma [N, 1, H, W] of RGB images [N, 3, H, W]; the mean of the channels of other images."""
    if image.shape[1] != 3:
        return image.mean(1, keepdim=True)
    return (image * luma).sum(1, keepdim=True)


def train_preset(
    mean: Sequence[float],
    std: Sequence[float],
    crop_size: int = 480,
    base_size: int = 565,
    scale: tuple[float, float] = (0.5, 1.2),
    flip_probs: Sequence[float] = (0.5, 0.5),
    elastic: float = 0.0,
) -> Compose:
    """The tutorials' training transforms, with the arguments of RandomAffineCrops.

    `elastic` deforms the crop, so that its unit is a pixel of the crop. What moves into the crop
    from beyond its border is padded, unlike with RandomAffineCrops.
    """
    return Compose(
        [
            RandomResize(int(scale[0] * base_size), int(scale[1] * base_size)),
            RandomHorizontalFlip(flip_probs[1]),
            RandomVerticalFlip(flip_probs[0]),
            RandomCrop(crop_size),
            ToTensor(),
            ElasticTransform(elastic),
            Normalize(mean, std),
        ]
    )


def eval_preset(mean: Sequence[float] | None, std: Sequence[float] | None) -> Compose:
    """The transforms for evaluation: native size, normalize.

    mean and std are None for volumes, which are normalized when they are read.
    """
    if mean is None or std is None:
        return Compose([ToTensor()])
    return Compose([ToTensor(), Normalize(mean, std)])

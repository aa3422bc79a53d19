"""Joint transforms of an (image, target) pair, one by one or batched; the train and eval presets.

Both may be PIL images or tensors, image [C, H, W] and target [H, W]. Targets are resampled by
nearest neighbour and padded with IGNORE. All random numbers come from PyTorch's global generator,
whose state a checkpoint saves, or from one that is passed in (RandomAffineCrops). Crops of volumes
are in train_utils/volume_crops.py.
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

Picture = Image.Image | Tensor  # an image or a target
Pair = tuple[Picture, Picture]
Window = tuple[int, int, int, int]  # part of an image: top, left, height, width, in pixels

LUMA = (0.2989, 0.587, 0.114)  # of R, G and B, by ITU-R BT.601 as in torchvision


def on_target(operation: Callable, target: Picture, *args: Any, **kwargs: Any) -> Picture:
    """Applies a torchvision operation to a target, a tensor [H, W] as the [1, H, W] it expects."""
    if isinstance(target, Tensor):
        return operation(target[None], *args, **kwargs)[0]
    return operation(target, *args, **kwargs)


def size_of(image: Picture) -> tuple[int, int]:
    """(height, width) of a PIL image or a tensor [..., H, W]."""
    if isinstance(image, Tensor):
        return tuple(image.shape[-2:])
    return image.height, image.width


def pad_if_smaller(image: Picture, size: int, fill: int = 0) -> Picture:
    """Pads `image` (PIL, [C, H, W] or [H, W]) on the right and at the bottom to at least `size`
    pixels on both sides."""
    height, width = size_of(image)
    right, bottom = max(size - width, 0), max(size - height, 0)
    if right == 0 and bottom == 0:
        return image
    if isinstance(image, Tensor) and image.ndim == 2:
        return on_target(F.pad, image, [0, 0, right, bottom], fill=fill)
    return F.pad(image, [0, 0, right, bottom], fill=fill)


class Compose:
    """Applies the transforms one after the other."""

    def __init__(self, transforms: Sequence[Callable[[Picture, Picture], Pair]]) -> None:
        self.transforms = transforms

    def __call__(self, image: Picture, target: Picture) -> Pair:
        for transform in self.transforms:
            image, target = transform(image, target)
        return image, target


class RandomResize:
    """Resizes the shorter side to a random length of min_size to max_size pixels (inclusive)."""

    def __init__(self, min_size: int, max_size: int | None = None) -> None:
        self.min_size = min_size
        self.max_size = max_size or min_size

    def __call__(self, image: Picture, target: Picture) -> Pair:
        size = int(torch.randint(self.min_size, self.max_size + 1, ()))
        image = F.resize(image, [size], antialias=True)
        # "Nearest exact" takes the pixel at the centre, as bilinear does; "nearest" is half a
        # pixel off.
        nearest = InterpolationMode.NEAREST_EXACT
        return image, on_target(F.resize, target, [size], interpolation=nearest)


class RandomHorizontalFlip:
    """Mirrors left and right with probability `flip_prob`."""

    def __init__(self, flip_prob: float = 0.5) -> None:
        self.flip_prob = flip_prob

    def __call__(self, image: Picture, target: Picture) -> Pair:
        if torch.rand(1).item() < self.flip_prob:
            return F.horizontal_flip(image), on_target(F.horizontal_flip, target)
        return image, target


class RandomVerticalFlip:
    """Mirrors top and bottom with probability `flip_prob`."""

    def __init__(self, flip_prob: float = 0.5) -> None:
        self.flip_prob = flip_prob

    def __call__(self, image: Picture, target: Picture) -> Pair:
        if torch.rand(1).item() < self.flip_prob:
            return F.vertical_flip(image), on_target(F.vertical_flip, target)
        return image, target


class RandomCrop:
    """Crops a random square of `size` pixels; smaller images are padded first."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, image: Picture, target: Picture) -> Pair:
        image = pad_if_smaller(image, self.size)
        target = pad_if_smaller(target, self.size, fill=IGNORE)
        height, width = size_of(image)
        top = int(torch.randint(height - self.size + 1, ()))
        left = int(torch.randint(width - self.size + 1, ()))
        box = (top, left, self.size, self.size)
        return F.crop(image, *box), on_target(F.crop, target, *box)


class CenterCrop:
    """Crops the central square of `size` pixels; smaller images are padded first.

    For library use only: no script uses it.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, image: Picture, target: Picture) -> Pair:
        image = pad_if_smaller(image, self.size)
        target = pad_if_smaller(target, self.size, fill=IGNORE)
        box = [self.size, self.size]
        return F.center_crop(image, box), on_target(F.center_crop, target, box)


class ToTensor:
    """image → float32 [C, H, W], the range of its integer type scaled to 0–1; target → int64."""

    def __call__(self, image: Picture, target: Picture) -> tuple[Tensor, Tensor]:
        image = F.to_dtype(F.to_image(image).as_subclass(Tensor), torch.float32, scale=True)
        if not isinstance(target, Tensor):
            target = F.pil_to_tensor(target)[0]
        return image, target.long()


class Normalize:
    """(image − mean) / std for each channel of a float image [C, H, W]."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean = mean
        self.std = std

    def __call__(self, image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return F.normalize(image, mean=self.mean, std=self.std), target


class RandomAffineCrops:
    """Cuts one square crop from each image of a batch.

    Of an image only the window that its crop needs is copied to the device and converted to float.
    Resizes, flips, crops and normalizes like the transforms above, and also rotates and changes
    colours. A single `grid_sample` computes all crops, each with its own random parameters. It
    interpolates between four pixels and, unlike RandomResize, does not smooth before it shrinks:
    fine detail aliases where images shrink to less than about half their size (at ×0.5 a DRIVE
    image differs by 0.004 RMS).

    Args:
        mean, std: of each channel, for images in 0–1.
        crop_size: side of the crops in pixels.
        base_size: length in pixels of the image's shorter side at scale 1; None: its own length.
        scale: range of a random scale factor for half of the crops; the others have factor 1.
        rotate: largest angle in degrees, in both directions, for half of the crops.
        jitter: brightness, contrast and saturation change by factors of 1 − jitter to 1 + jitter.
        flip_prob: probability of a horizontal flip, and of a vertical one.
        upside_down: False: no vertical flips, for images with a natural up and down.
        margin: pixels at each border of a crop that valid convolutions remove. Crops reach this
            far beyond the image, which is mirrored there as in overlap_tile(); otherwise the
            pixels near its border would never be trained on.
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
        flip_prob: float = 0.5,
        upside_down: bool = True,
        margin: int = 0,
    ) -> None:
        self.mean, self.std = mean, std
        self.crop_size = crop_size
        self.base_size = base_size
        self.scale = scale
        self.rotate = rotate
        self.jitter = jitter
        self.flip_probs = (flip_prob, flip_prob * upside_down)  # horizontal, vertical
        self.margin = margin
        self._constants = {}  # device → mean, std and luma, which are sent there once

    def __call__(
        self,
        images: Sequence[Tensor],
        targets: Sequence[Tensor],
        sizes: Tensor,
        generator: torch.Generator,
        device: torch.device | None = None,
    ) -> tuple[Tensor, Tensor]:
        """images uint8 [N, C, H, W], targets uint8 [N, H, W] → normalized float32 [N, C, S, S],
        int64 [N, S, S], where S = crop_size.

        Both may also be sequences of N tensors. sizes: int64 [N, 2], height and width of each image
        without padding. generator: on the CPU. device: where the crops are computed; None: where
        the images are.
        """
        windows, parameters = self.random_crops(sizes, images[0].shape[-2:], generator)
        device = device or images[0].device
        images = to_device(cut_windows(images, windows), device)
        targets = to_device(cut_windows(targets, windows), device)
        return self.resample(images, targets, to_device(parameters, device))

    def random_crops(
        self, sizes: Tensor, padded_size: Sequence[int], generator: torch.Generator
    ) -> tuple[list[Window], Tensor]:
        """(the window of each image that its crop needs, float32 [N, 15] for resample()).

        padded_size: (height, width) of the padded images.
        """
        matrices = self.random_matrices(sizes, generator)
        jitter = self.random_jitter(len(sizes), generator)
        windows = crop_windows(matrices, padded_size)
        boxes = torch.tensor(windows)
        corner, spanned = boxes[:, :2].flip(1), boxes[:, 2:].flip(1)
        # grid_sample's coordinates: the window spans −1…1
        linear = 2 * matrices[:, :, :2] / spanned[:, :, None]
        translation = 2 * (matrices[:, :, 2] - corner) / spanned - 1
        matrices = torch.cat([linear, translation[:, :, None]], dim=2).flatten(1).float()
        return windows, torch.cat([matrices, jitter, sizes, boxes], dim=1)

    def resample(
        self, images: Tensor, targets: Tensor, parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The crops of __call__ from the windows of images uint8 [N, C, h, w] and targets uint8
        [N, h, w], and from the parameters of random_crops(), all on one device."""
        matrices, jitter, sizes, boxes = parameters.split([6, 3, 2, 4], dim=1)
        mean, std, luma = self.constants(images.device)
        shape = (len(images), 1, self.crop_size, self.crop_size)
        grid = nnF.affine_grid(matrices.view(-1, 2, 3), shape, align_corners=False)
        image_grid = grid
        if self.margin:
            image_grid = reflect_grid(grid, sizes, boxes)
        image = images.float() / 255
        image = nnF.grid_sample(image, image_grid, mode="bilinear", align_corners=False)
        # grid_sample pads with 0, so IGNORE − target is padded as if the target were IGNORE.
        inverted = IGNORE - targets[:, None].float()
        inverted = nnF.grid_sample(inverted, grid, mode="nearest", align_corners=False)
        target = IGNORE - inverted[:, 0].long()

        if self.jitter:
            image = change_colours(image, *jitter.unbind(1), luma)
        return (image - mean) / std, target

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
        probs = torch.tensor([0.5, 0.5, *self.flip_probs])
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


def crop_windows(matrices: Tensor, padded_size: Sequence[int]) -> list[Window]:
    """The window of each image that holds all pixels its crop is interpolated from.

    All have one size, the least that is enough for every image. matrices: those of
    random_matrices(). padded_size: (height, width) of the padded images.
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


def cut_windows(tensors: Sequence[Tensor], windows: Sequence[Window]) -> Tensor:
    """The windows [N, ..., h, w] of N tensors [..., H, W]; a batch that they cover stays itself."""
    height, width = windows[0][2:]
    if isinstance(tensors, Tensor) and tensors.shape[-2:] == (height, width):
        return tensors
    pairs = zip(tensors, windows, strict=True)
    return torch.stack(
        [each[..., top : top + height, left : left + width] for each, (top, left, _, _) in pairs]
    )


def reflect_grid(grid: Tensor, sizes: Tensor, windows: Tensor) -> Tensor:
    """A grid [N, h, w, 2] for grid_sample with positions outside the images reflected into them.

    They are reflected at the border pixels. sizes: [N, 2], height and width of each image. windows:
    [N, 4], the part of each image that the grid spans, see Window. All on one device.
    """
    corner = windows[:, None, None, :2].flip(3)
    spanned = windows[:, None, None, 2:].flip(3)
    last = sizes.flip(1)[:, None, None] - 1
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
    flip_prob: float = 0.5,
    upside_down: bool = True,
) -> Compose:
    """The tutorials' training transforms, with the arguments of RandomAffineCrops."""
    return Compose(
        [
            RandomResize(int(scale[0] * base_size), int(scale[1] * base_size)),
            RandomHorizontalFlip(flip_prob),
            RandomVerticalFlip(flip_prob * upside_down),
            RandomCrop(crop_size),
            ToTensor(),
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

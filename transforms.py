"""Joint transforms of an (image, target) pair, one by one or in batches, and the presets for training and for judging.

Both may be PIL images or tensors, image [C, H, W] and target [H, W]. Targets are resampled by nearest neighbour and
padded with 255, the id of pixels that are not judged. All chance comes from PyTorch's generator, which a checkpoint
keeps, or from one that is handed over (RandomAffineCrops).
"""

import torch
import torch.nn.functional as nnF
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

TARGET_FILL = 255


def on_target(operation, target, *args, **kwargs):
    """Applies a torchvision operation to a target; torchvision wants [1, H, W] where a target is [H, W]."""
    if isinstance(target, Tensor):
        return operation(target[None], *args, **kwargs)[0]
    return operation(target, *args, **kwargs)


def size_of(image):
    """(height, width) of a PIL image or a tensor [..., H, W]."""
    return tuple(image.shape[-2:]) if isinstance(image, Tensor) else (image.height, image.width)


def pad_if_smaller(image, size, fill=0):
    """Pads at the right and below so that both sides of `image` (PIL, [C, H, W] or [H, W]) are at least `size` px."""
    height, width = size_of(image)
    right, below = max(size - width, 0), max(size - height, 0)
    if right == 0 and below == 0:
        return image
    if isinstance(image, Tensor) and image.ndim == 2:
        return on_target(F.pad, image, [0, 0, right, below], fill=fill)
    return F.pad(image, [0, 0, right, below], fill=fill)


def chance(probability):
    return torch.rand(1).item() < probability


class Compose:
    """Applies the transforms one after the other."""

    def __init__(self, transforms):
        self.transforms = transforms

    def __call__(self, image, target):
        for transform in self.transforms:
            image, target = transform(image, target)
        return image, target


class RandomResize:
    """Resizes the shorter side to a random length, min_size to max_size px (both included), the longer in proportion."""

    def __init__(self, min_size, max_size=None):
        self.min_size, self.max_size = min_size, max_size or min_size

    def __call__(self, image, target):
        size = int(torch.randint(self.min_size, self.max_size + 1, ()))
        # "nearest exact" takes the source pixel under the centre, as bilinear does; plain "nearest" is half a pixel off.
        return (
            F.resize(image, [size], antialias=True),
            on_target(F.resize, target, [size], interpolation=InterpolationMode.NEAREST_EXACT),
        )


class RandomHorizontalFlip:
    """Mirrors left and right with the given probability."""

    def __init__(self, flip_prob=0.5):
        self.flip_prob = flip_prob

    def __call__(self, image, target):
        if chance(self.flip_prob):
            return F.horizontal_flip(image), on_target(F.horizontal_flip, target)
        return image, target


class RandomVerticalFlip:
    """Mirrors top and bottom with the given probability."""

    def __init__(self, flip_prob=0.5):
        self.flip_prob = flip_prob

    def __call__(self, image, target):
        if chance(self.flip_prob):
            return F.vertical_flip(image), on_target(F.vertical_flip, target)
        return image, target


class RandomCrop:
    """Cuts a random square of `size` px; what is smaller is padded first, the target with 255."""

    def __init__(self, size):
        self.size = size

    def __call__(self, image, target):
        image, target = (
            pad_if_smaller(image, self.size),
            pad_if_smaller(target, self.size, fill=TARGET_FILL),
        )
        height, width = size_of(image)
        top = int(torch.randint(height - self.size + 1, ()))
        left = int(torch.randint(width - self.size + 1, ()))
        box = (top, left, self.size, self.size)
        return F.crop(image, *box), on_target(F.crop, target, *box)


class CenterCrop:
    """Cuts the central square of `size` px; what is smaller is padded first, the target with 255."""

    def __init__(self, size):
        self.size = size

    def __call__(self, image, target):
        image, target = (
            pad_if_smaller(image, self.size),
            pad_if_smaller(target, self.size, fill=TARGET_FILL),
        )
        return F.center_crop(image, [self.size, self.size]), on_target(
            F.center_crop, target, [self.size, self.size]
        )


class ToTensor:
    """image → float32 [C, H, W] in 0–1 (from the full range of its integer type), target → int64 [H, W]."""

    def __call__(self, image, target):
        image = F.to_dtype(F.to_image(image).as_subclass(Tensor), torch.float32, scale=True)
        return image, (target if isinstance(target, Tensor) else F.pil_to_tensor(target)[0]).long()


class Normalize:
    """(image − mean) / std for each channel of a float image [C, H, W]."""

    def __init__(self, mean, std):
        self.mean, self.std = mean, std

    def __call__(self, image, target):
        return F.normalize(image, mean=self.mean, std=self.std), target


class RandomAffineCrops:
    """Cuts a batch of square crops out of a batch of images by one affine resampling, on the images' device.

    What the transforms above do to one pair after the other (resize, flip, crop, normalise), here with rotation and a
    change of colours besides, is one `grid_sample` for the whole batch, with parameters of its own for each crop. It reads
    four pixels for one and does not smooth before it reduces, as RandomResize does: where pictures shrink to less than about
    half, fine detail aliases (at ×0.5 a DRIVE photograph differs by .004 rms).

    Args:
        size: side of the crops in px.
        mean, std: of each channel, for images in 0–1.
        base_size: length in px that the image's shorter side gets at scale 1; None: its own.
        scale: range of a random factor on that, for half of the crops; the others have factor 1.
        rotate: largest angle in degrees, to both sides, for half of the crops.
        jitter: brightness, contrast and saturation change by factors of 1 − jitter to 1 + jitter.
        flip_prob: chance of mirroring left and right, and of mirroring top and bottom.
        upside_down: False: never top and bottom, for pictures that have an up and a down.
        margin: px on each side of a crop that are context alone, since valid convolutions take them off. By as much crops
            reach beyond the image and see its mirror image there, as overlap_tile() shows it: else what lies within the
            margin of the image's border would teach nothing.
    """

    def __init__(
        self,
        size,
        mean,
        std,
        base_size=None,
        scale=(0.85, 1.2),
        rotate=180.0,
        jitter=0.25,
        flip_prob=0.5,
        upside_down=True,
        margin=0,
    ):
        self.size, self.base_size, self.scale, self.rotate, self.margin = (
            size,
            base_size,
            scale,
            rotate,
            margin,
        )
        self.jitter, self.flip_probs = jitter, (flip_prob, flip_prob * upside_down)
        self.mean, self.std = (torch.tensor(values)[None, :, None, None] for values in (mean, std))

    def __call__(self, images, targets, sizes, generator):
        """images uint8 [N, C, H, W] and targets uint8 [N, H, W] → float32 [N, C, size, size], int64 [N, size, size].

        sizes: int64 [N, 2], height and width that each image has without its padding. generator: of the CPU.
        """
        crop = self.random_matrices(sizes, images.shape[-2:], generator).to(
            images.device, non_blocking=True
        )
        jitter = self.random_jitter(len(images), generator).to(images.device, non_blocking=True)
        grid = nnF.affine_grid(crop, (len(images), 1, self.size, self.size), align_corners=False)
        seen = mirrored(grid, sizes.to(grid), images.shape[-2:]) if self.margin else grid
        image = nnF.grid_sample(images.float() / 255, seen, mode="bilinear", align_corners=False)
        # grid_sample fills with 0; of 255 − target that is the 255 wanted around the target.
        rest = nnF.grid_sample(
            TARGET_FILL - targets[:, None].float(), grid, mode="nearest", align_corners=False
        )
        image = change_colours(image, *jitter.unbind(1)) if self.jitter else image
        return (image - self.mean.to(image)) / self.std.to(image), TARGET_FILL - rest[:, 0].long()

    def random_matrices(self, sizes, padded, generator):
        """float32 [N, 2, 3]: matrices from the crops to the images, both in grid_sample's coordinates −1…1 (x, y).

        padded: (height, width) of the images with their padding, which those coordinates span.
        """
        n, sizes = len(sizes), sizes.flip(1).double()  # (width, height), as (x, y)
        rotated, scaled, *mirrored = (
            torch.rand(4, n, generator=generator, dtype=torch.float64)
            < torch.tensor([0.5, 0.5, *self.flip_probs])[:, None]
        )
        angle, factor = torch.rand(2, n, generator=generator, dtype=torch.float64)
        angle = torch.deg2rad((2 * angle - 1) * self.rotate) * rotated
        factor = torch.where(scaled, self.scale[0] + factor * (self.scale[1] - self.scale[0]), 1.0)
        shorter = sizes.amin(1)
        window = (
            self.size / factor * (shorter / (self.base_size or shorter))
        )  # the crop's side in px of the image
        judged = window[:, None] * (
            1 - 2 * self.margin / self.size
        )  # what lies in the image: all but the margin
        free = sizes - judged
        corner = torch.where(
            free > 0, free * torch.rand(n, 2, generator=generator, dtype=torch.float64), free / 2
        )
        centre = (
            corner.round() + judged / 2
        )  # a whole corner: a crop of factor 1 copies pixels, blurring none
        flips = torch.stack([torch.where(mirror, -1.0, 1.0) for mirror in mirrored], dim=1)
        turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).view(
            n, 2, 2
        )
        padded = torch.tensor([padded[1], padded[0]], dtype=torch.float64)
        matrix = turn * flips[:, None, :] * window[:, None, None] / padded[None, :, None]
        return torch.cat([matrix, (2 * centre / padded - 1)[:, :, None]], dim=2).float()

    def random_jitter(self, n, generator):
        """float32 [N, 3]: factors of brightness, contrast and saturation."""
        return 1 + self.jitter * (2 * torch.rand(n, 3, generator=generator) - 1)


def mirrored(grid, sizes, padded):
    """A grid [N, h, w, 2] for grid_sample whose places beyond the images are mirrored at their border pixels.

    sizes: [N, 2], height and width of each image. padded: (height, width) with their padding, which the grid spans.
    """
    padded, last = grid.new_tensor([padded[1], padded[0]]), sizes.flip(1)[:, None, None] - 1
    place = (((grid + 1) * padded - 1) / 2).remainder(2 * last)
    return (2 * torch.minimum(place, 2 * last - place) + 1) / padded - 1


def change_colours(image, brightness, contrast, saturation):
    """Images [N, C, H, W] in 0–1 with brightness, contrast and saturation multiplied by factors [N], in this order.

    As torchvision's adjust_brightness, adjust_contrast and adjust_saturation, with a factor for each image.
    """
    brightness, contrast, saturation = (
        factor[:, None, None, None] for factor in (brightness, contrast, saturation)
    )
    image = (image * brightness).clamp(0, 1)
    image = torch.lerp(grey(image).mean((1, 2, 3), keepdim=True), image, contrast).clamp(0, 1)
    return torch.lerp(grey(image), image, saturation).clamp(0, 1)


def grey(image):
    """Luma of images [N, 3, H, W] as [N, 1, H, W] (ITU-R BT.601, as torchvision's); of other channels the mean."""
    if image.shape[1] != 3:
        return image.mean(1, keepdim=True)
    return (image * image.new_tensor([0.2989, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)


def train_preset(
    mean, std, base_size=565, crop_size=480, scale=(0.5, 1.2), flip_prob=0.5, upside_down=True
):
    """The tutorials' training transforms: resize to scale[0]…scale[1] × base_size px, flips, crop, normalise."""
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


def eval_preset(mean, std):
    """The transforms for judging: native size, normalise."""
    return Compose([ToTensor(), Normalize(mean, std)])

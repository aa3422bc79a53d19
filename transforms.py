"""Joint transforms of an (image, target) pair, and the presets for training and for judging.

Both may be PIL images or tensors, image [C, H, W] and target [H, W]. Targets are resampled by nearest neighbour and
padded with 255, the id of pixels that are not judged. All chance comes from PyTorch's generator, which a checkpoint
keeps.
"""

import torch
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
        return (F.resize(image, [size], antialias=True),
                on_target(F.resize, target, [size], interpolation=InterpolationMode.NEAREST_EXACT))


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
        image, target = pad_if_smaller(image, self.size), pad_if_smaller(target, self.size, fill=TARGET_FILL)
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
        image, target = pad_if_smaller(image, self.size), pad_if_smaller(target, self.size, fill=TARGET_FILL)
        return F.center_crop(image, [self.size, self.size]), on_target(F.center_crop, target, [self.size, self.size])


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


def train_preset(mean, std, base_size=565, crop_size=480, scale=(0.5, 1.2), flip_prob=0.5):
    """The tutorials' training transforms: resize to scale[0]…scale[1] × base_size px, flips, crop, normalise."""
    return Compose([
        RandomResize(int(scale[0] * base_size), int(scale[1] * base_size)),
        RandomHorizontalFlip(flip_prob),
        RandomVerticalFlip(flip_prob),
        RandomCrop(crop_size),
        ToTensor(),
        Normalize(mean, std),
    ])


def eval_preset(mean, std):
    """The transforms for judging: native size, normalise."""
    return Compose([ToTensor(), Normalize(mean, std)])

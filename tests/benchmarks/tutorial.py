"""The tutorials' way to train, evaluate and predict, which the benchmarks compare with ours.

It does what well-known U-Net tutorials do: PIL transforms in DataLoader workers, files opened every
time, contiguous NCHW, float32 on the CPU and float16 with a gradient scaler on CUDA, a Dice loss in
loops over classes and images, `.item()` of the loss in every step, evaluation image by image with
scores counted on the CPU. Only src.UNet is ours, so that both train the same network. This file is
the yardstick: it does not change when our code does.

    python -m tests.benchmarks.tutorial --weights FILE --input DIR --output DIR [--device cuda]
"""

import argparse
import os
import random
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode, RandomCrop
from torchvision.transforms import functional as T

from src import UNet

IGNORE = 255
MEAN, STD = (0.709, 0.381, 0.224), (0.127, 0.079, 0.043)
Files = tuple[Path, Path, Path]  # image, label, mask of the region of interest


class TrainTransforms:
    """Random resize (×0.5–1.2 of base_size), flips, random crop, to tensors, normalize."""

    def __init__(self, base_size: int = 565, crop_size: int = 480) -> None:
        self.sizes, self.crop_size = (int(0.5 * base_size), int(1.2 * base_size)), crop_size

    def __call__(self, image: Image.Image, target: Image.Image) -> tuple[Tensor, Tensor]:
        size = random.randint(*self.sizes)
        image = T.resize(image, size)
        target = T.resize(target, size, interpolation=InterpolationMode.NEAREST)
        if random.random() < 0.5:
            image, target = T.hflip(image), T.hflip(target)
        if random.random() < 0.5:
            image, target = T.vflip(image), T.vflip(target)
        if min(image.size) < self.crop_size:
            border = [0, 0, *(max(self.crop_size - side, 0) for side in image.size)]
            image, target = T.pad(image, border, fill=0), T.pad(target, border, fill=IGNORE)
        box = RandomCrop.get_params(image, (self.crop_size, self.crop_size))
        return to_normalized(T.crop(image, *box), T.crop(target, *box))


def to_normalized(image: Image.Image, target: Image.Image) -> tuple[Tensor, Tensor]:
    """PIL images → float32 [3, H, W], normalized, and int64 [H, W]."""
    target = torch.as_tensor(np.array(target), dtype=torch.int64)
    return T.normalize(T.to_tensor(image), MEAN, STD), target


class Drive(Dataset):
    """Opens the three files of an image each time that it is asked for it."""

    def __init__(self, files: Sequence[Files], transforms: object) -> None:
        self.files, self.transforms = list(files), transforms

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image_path, label_path, roi_path = self.files[index]
        image = Image.open(image_path).convert("RGB")
        label = np.array(Image.open(label_path).convert("L")) // 255
        outside = 255 - np.array(Image.open(roi_path).convert("L"))
        target = np.clip(label.astype(np.int64) + outside, 0, 255).astype(np.uint8)
        return self.transforms(image, Image.fromarray(target))


def collate(batch: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Stacks images, padded with 0, and targets, padded with IGNORE."""
    images, targets = zip(*batch, strict=True)
    height, width = (max(image.shape[side] for image in images) for side in (1, 2))
    image_batch = torch.zeros(len(images), 3, height, width)
    target_batch = torch.full((len(images), height, width), IGNORE)
    for i, (image, target) in enumerate(batch):
        image_batch[i, :, : image.shape[1], : image.shape[2]] = image
        target_batch[i, : target.shape[0], : target.shape[1]] = target
    return image_batch, target_batch


def make_loader(
    files: Sequence[Files],
    device: torch.device,
    batch_size: int,
    transforms: object = to_normalized,
    shuffle: bool = False,
    workers: int = 4,
) -> DataLoader:
    """A DataLoader with up to `workers` workers, at most one for each core and up to 8."""
    return DataLoader(
        Drive(files, transforms),
        batch_size=batch_size,
        shuffle=shuffle,
        num_workers=min(os.cpu_count() or 1, workers, 8),
        pin_memory=device.type == "cuda",
        collate_fn=collate,
    )


def criterion(
    logits: Tensor, target: Tensor, weight: Tensor | None, num_classes: int, epsilon: float = 1e-6
) -> Tensor:
    """Cross entropy + 1 − Dice, averaged over images and classes. [N, K, H, W], [N, H, W]."""
    loss = F.cross_entropy(logits, target, weight=weight, ignore_index=IGNORE)
    truth, probs = one_hot(target, num_classes), F.softmax(logits, dim=1)
    dice = 0.0
    for c in range(num_classes):
        dice = dice + dice_of_class(probs[:, c], truth[:, c], epsilon)
    return loss + 1 - dice / num_classes


def one_hot(target: Tensor, num_classes: int) -> Tensor:
    """float32 [N, K, H, W] of class ids [N, H, W]; IGNORE where the target is."""
    ignored = target == IGNORE
    truth = target.clone()
    truth[ignored] = 0
    truth = F.one_hot(truth, num_classes).float()
    truth[ignored] = IGNORE
    return truth.permute(0, 3, 1, 2)


def dice_of_class(probs: Tensor, truth: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Dice of one class, [N, H, W] each, as mean over the images."""
    dice = 0.0
    for p, t in zip(probs, truth, strict=True):
        p, t = p.reshape(-1), t.reshape(-1)
        valid = t != IGNORE
        p, t = p[valid], t[valid]
        intersection, total = (p * t).sum(), p.sum() + t.sum()
        if total == 0:
            total = 2 * intersection
        dice = dice + (2 * intersection + epsilon) / (total + epsilon)
    return dice / len(probs)


def make_scheduler(optimizer: torch.optim.Optimizer, steps: int, epochs: int) -> LambdaLR:
    """One epoch of linear warm-up, then (1 − progress)^0.9; stepped after every batch."""

    def factor(step: int) -> float:
        if step <= steps:
            return 1e-3 + (1 - 1e-3) * step / steps
        return max(1 - (step - steps) / max((epochs - 1) * steps, 1), 0) ** 0.9

    return LambdaLR(optimizer, factor)


class Trainer:
    """A U-Net with SGD and the schedule; trains an epoch for each call.

    steps: batches in an epoch. Two classes have the weights 1 and 2.
    """

    def __init__(
        self, device: torch.device, steps: int, num_classes: int = 2, **unet_options: object
    ) -> None:
        torch.manual_seed(0)
        self.device, self.num_classes = device, num_classes
        self.model = UNet(3, num_classes, **unet_options).to(device)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4
        )
        self.scheduler = make_scheduler(self.optimizer, steps, epochs=200)
        self.scaler = torch.amp.GradScaler("cuda") if device.type == "cuda" else None
        self.weight = torch.tensor([1.0, 2.0], device=device) if num_classes == 2 else None

    def __call__(self, loader: Iterable) -> float:
        """One epoch; returns the mean of the losses."""
        self.model.train()
        losses = []
        for image, target in loader:
            image, target = image.to(self.device), target.to(self.device)
            with torch.autocast("cuda", torch.float16, enabled=self.scaler is not None):
                logits = self.model(image)["out"]
                loss = criterion(logits, target, self.weight, self.num_classes)
            self.optimizer.zero_grad()
            if self.scaler is not None:
                self.scaler.scale(loss).backward()
                self.scaler.step(self.optimizer)
                self.scaler.update()
            else:
                loss.backward()
                self.optimizer.step()
            self.scheduler.step()
            losses.append(loss.item())
        return sum(losses) / len(losses)


# --- evaluation and prediction --------------------------------------------------------------------


@torch.no_grad()
def evaluate(
    model: nn.Module, loader: Iterable, device: torch.device, num_classes: int = 2
) -> tuple[Tensor, float]:
    """(confusion matrix int64 [K, K], foreground Dice as mean over images), batches of one."""
    model.eval()
    confusion, dices = torch.zeros(num_classes, num_classes, dtype=torch.int64), []
    for image, target in loader:
        pred = model(image.to(device))["out"].argmax(1).cpu()
        valid = target != IGNORE
        pairs = num_classes * target[valid] + pred[valid]
        confusion += torch.bincount(pairs, minlength=num_classes**2).view(confusion.shape)
        guess, truth = F.one_hot(pred, num_classes).float(), one_hot(target, num_classes)
        dice = 0.0
        for c in range(1, num_classes):
            dice += dice_of_class(guess[..., c], truth[:, c]).item()
        dices.append(dice / (num_classes - 1))
    return confusion, sum(dices) / len(dices)


@torch.no_grad()
def predict(args: argparse.Namespace) -> None:
    """Segments a folder, one image after the other, and writes x_mask.png of 0 and 255."""
    checkpoint = torch.load(args.weights, map_location="cpu", weights_only=True)
    model = UNet(**checkpoint["model_kwargs"])
    model.load_state_dict(checkpoint["model"])
    model.to(args.device).eval()
    os.makedirs(args.output, exist_ok=True)
    for path in sorted(Path(args.input).iterdir()):
        image = T.normalize(T.to_tensor(Image.open(path).convert("RGB")), MEAN, STD)
        start = time.perf_counter()
        pred = model(image[None].to(args.device))["out"].argmax(1)[0].cpu().numpy()
        print(f"{path.name}: {time.perf_counter() - start:.3f} s")
        mask = Image.fromarray(pred.astype(np.uint8) * 255)
        mask.save(Path(args.output) / f"{path.stem}_mask.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for flag in ("--weights", "--input", "--output"):
        parser.add_argument(flag, required=True)
    parser.add_argument("--device", default="cpu")
    predict(parser.parse_args())

"""The way of milesial/Pytorch-UNet to segment a folder, which the benchmark compares with ours.

One image after the other: resized by Pillow, scaled to 0–1 by numpy, float32 on the device in
contiguous memory, logits resized to the image's size, argmax, and the mask's values filled in and
saved as PNG. Written from a reading of that repository; no code of it is copied. Images keep their
size here, as with its `--scale 1`: every way computes the same network on the same pixels. It has
no mean and std, so its masks of a random network differ from those of the other ways. The network
is ours, and matplotlib, which its script imports, is left out in its favour. This file is the
yardstick: it does not change when our code does.

    python -m tests.benchmarks.milesial --weights FILE --input DIR --output DIR [--device cuda]
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from src import UNet

MASK_VALUES = (0, 255)


def read(path: Path, scale: float = 1.0) -> np.ndarray:
    """[3, H, W] in 0–1."""
    image = Image.open(path).convert("RGB")
    width, height = (int(scale * side) for side in image.size)
    resized = image.resize((width, height), resample=Image.Resampling.BICUBIC)
    return np.asarray(resized).transpose(2, 0, 1) / 255.0


@torch.no_grad()
def predict_image(model: nn.Module, path: Path, device: str) -> np.ndarray:
    """Class ids [H, W]."""
    model.eval()
    width, height = Image.open(path).size
    batch = torch.from_numpy(read(path))[None].to(device=device, dtype=torch.float32)
    logits = model(batch)["out"].cpu()
    logits = F.interpolate(logits, (height, width), mode="bilinear")
    return logits.argmax(dim=1)[0].numpy()


def save(mask: np.ndarray, path: Path) -> None:
    """Writes the value of each class."""
    values = np.zeros(mask.shape, np.uint8)
    for index, value in enumerate(MASK_VALUES):
        values[mask == index] = value
    Image.fromarray(values).save(path)


def predict(args: argparse.Namespace) -> None:
    """Segments a folder, and writes x_mask.png of 0 and 255."""
    checkpoint = torch.load(args.weights, map_location=args.device, weights_only=True)
    model = UNet(**checkpoint["model_kwargs"])
    model.load_state_dict(checkpoint["model"])
    model.to(args.device)
    output = Path(args.output)
    output.mkdir(exist_ok=True)
    for path in sorted(Path(args.input).iterdir()):
        print(f"Predicting image {path}")
        save(predict_image(model, path, args.device), output / f"{path.stem}_mask.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for flag in ("--weights", "--input", "--output"):
        parser.add_argument(flag, required=True)
    parser.add_argument("--device", default="cpu")
    predict(parser.parse_args())

"""Segments images with a trained checkpoint.

`python predict.py --weights save_weights/best_model.pth --input IMAGES`

For each input x it writes x_mask.png: for two classes black and white (0 and 255), for more a
palette PNG of class ids, and legend.png with the names of the colours.
"""

import argparse
import glob
import time
from argparse import BooleanOptionalAction
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from src.device import (
    memory_format,
    pick_amp_dtype,
    pick_device,
    reuse_freed_memory,
    synchronize,
)
from src.errors import UserError
from src.image_io import IMAGE_SUFFIXES, image_files, read_binary, read_image, resize_image
from src.inference import Flips, decide, predict_probs
from train_utils.atomic import prepare_folder, replacing
from train_utils.cli.parser import Parser, number
from train_utils.cli.script import run_script
from train_utils.metrics import check_finite
from train_utils.model_loading import check_threshold, combine, load_members, prune
from train_utils.reporting.pictures import as_rgb, overlay, save_legend, save_mask
from transforms import Compose, eval_preset


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The flags, checked."""
    parser = Parser(
        prog="predict.py",
        usage="%(prog)s --weights FILE... --input FILE|DIR|GLOB [flags]",
        description=__doc__.splitlines()[0],
    )
    add = parser.add_argument
    add(
        "--weights",
        required=True,
        nargs="+",
        metavar="FILE",
        help="a checkpoint of train.py, which holds its architecture, classes, mean and std; of "
        "several files the probabilities are averaged",
    )
    add(
        "--input",
        required=True,
        help="an image, a folder of images, or a pattern in quotes such as 'a/*.tif'",
    )
    add("--output", default="predictions", help="folder to write to (default: predictions)")
    add(
        "--roi-mask",
        default="",
        metavar="FILE|DIR",
        help="mask(s) of the region to segment, everything outside is background; in a folder, "
        "x_mask.* belongs to image x (default: the whole image)",
    )
    add(
        "--save-prob",
        action="store_true",
        help="also write x_prob.png, 16-bit, 65535 for probability 1 (with more than two classes "
        "x_prob.npy, float16 [classes, height, width]) (default: off)",
    )
    add(
        "--overlay",
        action="store_true",
        help="also write x_overlay.png, the prediction over the image (default: off)",
    )
    add(
        "--threshold",
        type=number(float, minimum=0, below=1),
        help="on the probability of class 1 (default: the checkpoint's)",
    )
    add(
        "--flips",
        action="store_true",
        help="average the probabilities over the four flips of each image (default: off)",
    )
    add(
        "--prune",
        type=number(int, minimum=1, maximum=4),
        metavar="LEVEL",
        help="of a unet_plus_plus use only this depth, 1 to 4, which is faster (default: 4, all)",
    )
    add(
        "--max-pixels",
        type=number(int, minimum=1),
        help="largest image that is decoded, in pixels (default: Pillow's limit, 89 million)",
    )
    add("--device", default="auto", help="auto, cpu, mps, cuda or cuda:N (default: auto)")
    add(
        "--amp",
        action=BooleanOptionalAction,
        default=True,
        help="mixed precision where the device supports it (default: on)",
    )
    args = parser.parse_args(argv)
    try:
        pick_device(args.device)
    except ValueError as error:
        parser.error(f"--device: {error}")
    return args


def main(args: argparse.Namespace) -> None:
    """Checks the checkpoint and all inputs first; then segments and writes every image."""
    device = pick_device(args.device)
    amp_dtype = pick_amp_dtype(device, args.amp)
    reuse_freed_memory(device)
    members = load_members(args.weights)
    for path, (member, _) in zip(args.weights, members, strict=True):
        prune(member, args.prune, path)
    model, checkpoint = combine(args.weights, members)
    class_names, colours = checkpoint["class_names"], checkpoint["class_colours"]
    check_threshold(args.threshold, class_names)
    threshold = checkpoint["threshold"] if args.threshold is None else args.threshold
    images = find_images(args.input)
    rois = [find_roi(args.roi_mask, path) for path in images]
    if Path(args.output).resolve() in {path.resolve().parent for path in images}:
        raise UserError(
            f"--output {args.output}: is the folder of the inputs, where masks would be taken for "
            "images; name another"
        )
    in_channels = checkpoint["model_kwargs"]["in_channels"]
    inputs = list(zip(images, rois, strict=True))
    for path, roi_path in inputs:  # a broken file at the end must not cost the others' time
        read_inputs(path, roi_path, in_channels, args.max_pixels)
    prepare_folder(args.output)
    if args.flips:
        model = Flips(model)
    model = model.to(device, memory_format=memory_format(device))
    preset = eval_preset(checkpoint["mean"], checkpoint["std"])
    if len(class_names) > 2:
        save_legend(Path(args.output) / "legend.png", class_names, colours)

    uniform, seconds = [], []
    for path, roi_path in inputs:
        image, roi = read_inputs(path, roi_path, in_channels, args.max_pixels)
        start = time.perf_counter()
        probs = segment(model, image, roi, preset, device, amp_dtype, checkpoint["resize"])
        synchronize(device)
        seconds.append(time.perf_counter() - start)
        mask = decide(probs[None], threshold)[0].numpy()
        stem = Path(args.output) / path.stem
        save_mask(f"{stem}_mask.png", mask, colours, checkpoint["class_ids"])
        if args.save_prob:
            save_probabilities(stem, probs)
        if args.overlay:
            save_picture(f"{stem}_overlay.png", overlay(as_rgb(image), mask, colours))
        if mask.min() == mask.max():
            uniform.append(f"{path.name} (all {class_names[mask.min()]})")
        size = f"{mask.shape[1]}x{mask.shape[0]}"
        print(f"{path} -> {stem}_mask.png  {size}  {seconds[-1]:.3f} s  ", end="")
        print(describe_shares(mask, class_names), flush=True)
    if uniform:
        print(
            f"warning: only one class was predicted in {len(uniform)} of {len(images)} images: "
            f"{', '.join(uniform)}; are these images like those of the training, and was the "
            "training long enough?"
        )
    rule = f"threshold {threshold:.3f}" if len(class_names) == 2 else "the most probable class"
    mean_seconds = sum(seconds) / len(seconds)
    print(f"{len(images)} images, {mean_seconds:.3f} s each, {rule}; written to {args.output}/")


def find_images(pattern: str) -> list[Path]:
    """The images of --input, sorted; UserError if there are none, or two with the same output."""
    path = Path(pattern)
    if path.is_dir():
        paths = image_files(path)
    elif path.exists():
        paths = [path]
    else:
        paths = [Path(each) for each in glob.glob(pattern, recursive=True)]
        paths = [each for each in paths if each.is_file()]
    if not paths:
        raise UserError(
            f"--input {pattern}: no images there (a file, a folder of "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}, or a pattern in quotes)"
        )
    by_name = {}
    for each in sorted(paths):
        if each.stem in by_name:
            raise UserError(
                f"{each} and {by_name[each.stem]} would both be written as {each.stem}_mask.png; "
                "give them to separate calls with separate --output folders"
            )
        by_name[each.stem] = each
    return list(by_name.values())


def find_roi(roi_mask: str, image: Path) -> Path | None:
    """The ROI mask of an image: the file `roi_mask`, or in that folder the file of its name."""
    if not roi_mask:
        return None
    if not Path(roi_mask).is_dir():
        return Path(roi_mask)
    names = (image.stem, f"{image.stem}_mask")
    found = [path for path in sorted(Path(roi_mask).iterdir()) if path.stem in names]
    if len(found) != 1:
        raise UserError(
            f"--roi-mask {roi_mask}: {len(found)} files for {image.name}; "
            f"one {image.stem}_mask.* is needed"
        )
    return found[0]


def read_inputs(
    path: Path, roi_path: Path | None, in_channels: int, max_pixels: int | None
) -> tuple[Tensor, Tensor | None]:
    """(image uint8 [C, H, W], ROI bool [H, W] or None); UserError if their sizes differ."""
    image = read_image(path, in_channels, max_pixels)
    if roi_path is None:
        return image, None
    roi, _ = read_binary(roi_path, "ROI mask", max_pixels)
    if roi.shape != tuple(image.shape[1:]):
        raise UserError(
            f"{roi_path}: is {roi.shape[1]}×{roi.shape[0]} pixels, its image {path} is "
            f"{image.shape[2]}×{image.shape[1]}"
        )
    return image, torch.from_numpy(roi)


def segment(
    model: nn.Module,
    image: Tensor,
    roi: Tensor | None,
    preset: Compose,
    device: torch.device,
    amp_dtype: torch.dtype | None,
    size: list[int] | None = None,
) -> Tensor:
    """Probabilities float32 [K, H, W] on the CPU; outside the ROI that of the background is 1.

    image: uint8 [C, H, W]. size: (height, width) that the model was trained at and sees the image
    at; None: the image's own.
    """
    resized = resize_image(image, size) if size else image
    normalized, _ = preset(resized, torch.zeros(resized.shape[1:]))
    probs = predict_probs(model, normalized[None].to(device), amp_dtype).cpu()
    check_finite(probs)
    if size:
        probs = torch.nn.functional.interpolate(probs, image.shape[1:], mode="bilinear")
    probs = probs[0]
    if roi is not None:
        probs[:, ~roi] = 0
        probs[0, ~roi] = 1
    return probs


def save_probabilities(stem: Path, probs: Tensor) -> None:
    """stem_prob.png or stem_prob.npy, see --save-prob. probs: [K, H, W]."""
    if len(probs) == 2:
        save_picture(f"{stem}_prob.png", (probs[1].numpy() * 65535).round().astype(np.uint16))
        return
    with replacing(f"{stem}_prob.npy") as temporary, open(temporary, "wb") as file:
        np.save(file, probs.numpy().astype(np.float16))


def save_picture(path: str, picture: np.ndarray) -> None:
    """Writes a PNG of uint8 [H, W, 3] or uint16 [H, W]."""
    with replacing(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


def describe_shares(mask: np.ndarray, class_names: list[str]) -> str:
    """The share of each class in a mask [H, W]."""
    shares = np.bincount(mask.ravel(), minlength=len(class_names)) / mask.size
    return ", ".join(
        f"{name} {100 * share:.1f} %" for name, share in zip(class_names, shares, strict=True)
    )


if __name__ == "__main__":
    run_script(lambda: main(parse_args()), "predict.py")

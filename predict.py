"""Segments images with a trained checkpoint: `python predict.py --weights save_weights/best_model.pth --input IMAGES`.

For each input x it writes x_mask.png: for two classes black and white (0 and 255), for more a palette PNG of class ids,
and legend.png with the colours' names.
"""

import glob
import time
from argparse import BooleanOptionalAction
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from my_dataset import IMAGE_SUFFIXES, image_files, read_binary, read_image, resize_image
from src.device import pick_amp_dtype, pick_device, reuse_freed_memory, synchronize
from src.errors import UserError
from src.inference import Flips, decide, predict_probs
from train_utils import checkpoint as checkpoints
from train_utils.atomic import replacing
from train_utils.cli.parser import Parser, number, run_script
from train_utils.metrics import check_finite
from train_utils.reporting.pictures import as_rgb, default_colours, overlay, save_legend, save_mask
from transforms import eval_preset


def parse_args(argv=None):
    parser = Parser(
        prog="predict.py",
        usage="%(prog)s --weights FILE... --input FILE|DIR|GLOB [flags]",
        description=__doc__.splitlines()[0],
    )
    parser.add_argument(
        "--weights",
        required=True,
        nargs="+",
        metavar="FILE",
        help="a checkpoint of train.py, which knows "
        "its architecture and data; of several files the probabilities are averaged",
    )
    parser.add_argument(
        "--flips",
        action="store_true",
        help="average the probabilities over the four flips of each image",
    )
    parser.add_argument(
        "--input",
        required=True,
        help="an image, a folder of images, or a quoted pattern such as 'a/*.tif'",
    )
    parser.add_argument(
        "--output", default="predictions", help="folder to write to (default: predictions)"
    )
    parser.add_argument(
        "--roi-mask",
        default="",
        metavar="FILE|DIR",
        help="mask(s) of what to segment: outside it all is "
        "background; in a folder, x_mask.* belongs to image x",
    )
    parser.add_argument(
        "--save-prob",
        action="store_true",
        help="also write x_prob.png, 16-bit, 65535 for p = 1 (with "
        "more than two classes x_prob.npy, float16 [classes, height, width])",
    )
    parser.add_argument(
        "--overlay",
        action="store_true",
        help="also write x_overlay.png, the prediction over the image",
    )
    parser.add_argument(
        "--threshold",
        type=number(float, minimum=0, below=1),
        help="on the probability of class 1 (default: the checkpoint's)",
    )
    parser.add_argument(
        "--prune",
        type=number(int, minimum=1, maximum=4),
        metavar="LEVEL",
        help="of a UNet++: compute only "
        "the nested network of this depth, 1 to 4, which is faster (default: 4, all of it)",
    )
    parser.add_argument(
        "--max-pixels",
        type=number(int, minimum=1),
        help="largest image that is decoded, in px (default: Pillow's limit, 89 million)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, mps, cuda or cuda:N")
    parser.add_argument(
        "--amp",
        action=BooleanOptionalAction,
        default=True,
        help="mixed precision where the device has it",
    )
    args = parser.parse_args(argv)
    try:
        pick_device(args.device)
    except ValueError as error:
        parser.error(f"--device: {error}")
    return args


def find_images(pattern):
    """The images that --input means, sorted; UserError if there are none or two would write the same files."""
    path = Path(pattern)
    if path.is_dir():
        paths = image_files(path)
    else:
        paths = (
            [path]
            if path.exists()
            else [Path(p) for p in glob.glob(pattern, recursive=True) if Path(p).is_file()]
        )
    if not paths:
        raise UserError(
            f"--input {pattern}: no images there (a file, a folder of {', '.join(sorted(IMAGE_SUFFIXES))}, or a "
            "pattern in quotes)"
        )
    by_name = {}
    for path in sorted(paths):
        if path.stem in by_name:
            raise UserError(
                f"{path} and {by_name[path.stem]} would both be written as {path.stem}_mask.png; "
                "give them to separate calls with separate --output folders"
            )
        by_name[path.stem] = path
    return list(by_name.values())


def find_roi(roi_mask, image):
    """The ROI mask file of an image: `roi_mask` itself, or in that folder the file with the image's name or name_mask."""
    if not roi_mask or not Path(roi_mask).is_dir():
        return roi_mask or None
    found = [
        p for p in sorted(Path(roi_mask).iterdir()) if p.stem in (image.stem, f"{image.stem}_mask")
    ]
    if len(found) != 1:
        raise UserError(
            f"--roi-mask {roi_mask}: {len(found)} files for {image.name}; one {image.stem}_mask.* is needed"
        )
    return found[0]


def read_inputs(path, roi_path, in_channels, max_pixels):
    """(image uint8 [C, H, W], ROI bool [H, W] or None), checked against each other."""
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


def segment(model, image, roi, preset, device, amp_dtype, size=None):
    """Probabilities float32 [K, H, W] on the CPU; outside the ROI the background's is 1.

    size: (height, width) that the model was trained at and sees the image at; None: the image's own.
    """
    seen = resize_image(image, size) if size else image
    normalised, _ = preset(seen, torch.zeros(seen.shape[1:]))
    probs = predict_probs(model, normalised[None].to(device), amp_dtype).cpu()
    check_finite(probs)
    if size:
        probs = torch.nn.functional.interpolate(probs, image.shape[1:], mode="bilinear")
    probs = probs[0]
    if roi is not None:
        probs[:, ~roi] = 0
        probs[0, ~roi] = 1
    return probs


def save_probabilities(stem, probs):
    """stem_prob.png or stem_prob.npy, see --save-prob."""
    if len(probs) == 2:
        grey = (probs[1].numpy() * 65535).round().astype(np.uint16)
        with replacing(f"{stem}_prob.png") as temporary:
            Image.fromarray(grey).save(temporary, format="PNG")
    else:
        with replacing(f"{stem}_prob.npy") as temporary, open(temporary, "wb") as file:
            np.save(file, probs.numpy().astype(np.float16))


def main(args):
    """Checkpoint and inputs are checked first; then every image is segmented and written."""
    device = pick_device(args.device)
    amp_dtype = pick_amp_dtype(device, args.amp)
    reuse_freed_memory(device)
    members = [checkpoints.load_model(path) for path in args.weights]
    for path, (member, _) in zip(args.weights, members):
        checkpoints.prune(member, args.prune, path)
    model, checkpoint = checkpoints.combine(args.weights, members)
    model = Flips(model) if args.flips else model
    images = find_images(args.input)
    rois = [find_roi(args.roi_mask, path) for path in images]
    if Path(args.output).resolve() in {path.resolve().parent for path in images}:
        raise UserError(
            f"--output {args.output}: is the folder of the inputs, where masks would pass for images; "
            "name another"
        )
    channels = len(checkpoint["mean"])
    for path, roi_path in zip(
        images, rois
    ):  # a broken file at the end must not cost the others' time
        read_inputs(path, roi_path, channels, args.max_pixels)
    checkpoints.prepare_folder(args.output)
    model = model.to(device, memory_format=torch.channels_last)
    preset = eval_preset(checkpoint["mean"], checkpoint["std"])
    threshold = checkpoint["threshold"] if args.threshold is None else args.threshold
    class_names = checkpoint["class_names"]
    if args.threshold is not None and len(class_names) > 2:
        raise UserError(
            f"--threshold: the model has {len(class_names)} classes; each pixel gets the most probable one"
        )
    colours = checkpoint.get("class_colours") or default_colours(len(class_names))
    if len(class_names) > 2:
        save_legend(Path(args.output) / "legend.png", class_names, colours)

    uniform, seconds = [], []
    for path, roi_path in zip(images, rois):
        image, roi = read_inputs(path, roi_path, channels, args.max_pixels)
        start = time.perf_counter()
        probs = segment(model, image, roi, preset, device, amp_dtype, checkpoint.get("resize"))
        synchronize(device)
        seconds.append(time.perf_counter() - start)
        mask = decide(probs[None], threshold)[0].numpy()
        stem = Path(args.output) / path.stem
        save_mask(f"{stem}_mask.png", mask, colours, checkpoint.get("class_ids"))
        if args.save_prob:
            save_probabilities(stem, probs)
        if args.overlay:
            picture = overlay(as_rgb(image), mask, colours)
            with replacing(f"{stem}_overlay.png") as temporary:
                Image.fromarray(picture).save(temporary, format="PNG")
        if mask.min() == mask.max():
            uniform.append(f"{path.name} (all {class_names[mask.min()]})")
        shares = np.bincount(mask.ravel(), minlength=len(class_names)) / mask.size
        print(
            f"{path} -> {stem}_mask.png  {mask.shape[1]}x{mask.shape[0]}  {seconds[-1]:.3f} s  "
            + ", ".join(f"{name} {100 * share:.1f} %" for name, share in zip(class_names, shares)),
            flush=True,
        )
    if uniform:
        print(
            f"warning: only one class was predicted in {len(uniform)} of {len(images)} images: {', '.join(uniform)}; are "
            "these images like those of the training, and was the training long enough?"
        )
    rule = f"threshold {threshold:.3f}" if len(class_names) == 2 else "the most probable class"
    print(
        f"{len(images)} images, {sum(seconds) / len(seconds):.3f} s each, {rule}; written to {args.output}/"
    )


if __name__ == "__main__":
    run_script(lambda: main(parse_args()), "predict.py")

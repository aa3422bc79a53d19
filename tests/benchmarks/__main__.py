"""Measures speed and memory: the tutorials' way (tutorial.py) against ours, in turns.

python -m tests.benchmarks step --device cpu
python -m tests.benchmarks step_3d --json step_3d.json
python -m tests.benchmarks epoch --data-path FOLDER_THAT_HOLDS_DRIVE --json epoch.json
"""

import argparse
import copy
import json
import time
from argparse import BooleanOptionalAction
from pathlib import Path

from src.device import pick_device
from tests.benchmarks import compare, drive, scaling

# What each benchmark measures, and the defaults of the options that it has.
BENCHMARKS = {
    "step": "one training step on a synthetic batch",
    "step_3d": "one training step of a 3D U-Net on synthetic volumes, against a plain PyTorch loop",
    "epoch": "a DRIVE epoch of --preset classic, with evaluation",
    "criterion": "forward and backward of the criterion",
    "evaluate": "evaluation of DRIVE's test images",
    "predict": "predict.py on a folder of images, the whole process",
    "data": "loading and random crops alone",
    "scaling": "our step against image side, batch, width and classes",
}
DEFAULTS = {
    "step": {"base_c": [32, 64], "batch_size": 2, "size": 480, "classes": 2, "steps": None},
    "step_3d": {"base_c": [32], "batch_size": 2, "size": 64, "classes": 3, "steps": None},
    "epoch": {"base_c": [32], "batch_size": 4, "size": 480},
    "criterion": {"batch_size": 8, "size": 480, "classes": 11},
    "evaluate": {"base_c": [32]},
    "predict": {"base_c": [32]},
    "data": {"batch_size": 4, "size": 480, "steps": 5},
    "scaling": {"base_c": [16], "batch_size": 2, "size": 288, "classes": 2, "steps": None},
}
WITH_FILES = ("epoch", "evaluate", "predict", "data")
UNUSED = {"base_c": [32], "batch_size": 4, "size": 480, "classes": 2, "steps": 1}


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__.splitlines()[0]
    )
    names = "; ".join(f"{name}: {text}" for name, text in BENCHMARKS.items())
    add = parser.add_argument
    add("benchmark", choices=list(BENCHMARKS), metavar="BENCHMARK", help=names)
    add("--device", default="auto", help="auto, cpu, mps, cuda or cuda:N (default: auto)")
    add("--rounds", type=int, default=5, help="turns of each way (default: 5)")
    add("--json", default="", metavar="FILE", help="also write all figures to this file")
    add("--base-c", type=int, nargs="+", metavar="C", help="width of the U-Net, one or several")
    add("--bilinear", action=BooleanOptionalAction, default=True, help="how the U-Net upsamples")
    add("--batch-size", type=int, metavar="N", help="images or crops in a batch")
    add("--size", type=int, metavar="PX", help="side of the images, crops or volumes")
    add("--classes", type=int, metavar="K", help="number of classes")
    add("--steps", type=int, help="steps of a round (5, on a GPU 50), for data epochs (5)")
    add("--data-path", default="", metavar="DIR", help="folder that holds DRIVE/ (default: demo)")
    add("--images", type=int, default=20, help="demo images of each split (default: 20)")
    add(
        "--val",
        choices=["test", "holdout"],
        default="test",
        help="train on 20 images, evaluate the 20 test images; or train on 16, evaluate 4 "
        "(default: test)",
    )
    add("--ours", default="", metavar="FLAGS", help="flags of train.py for our way, in quotes")
    return parser


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The options, with the defaults of the benchmark; exits for one that it does not have."""
    parser = make_parser()
    options = parser.parse_args(argv)
    defaults = DEFAULTS[options.benchmark]
    for name, unused in UNUSED.items():
        if getattr(options, name) is not None:
            if name not in defaults:
                parser.error(f"{options.benchmark} has no --{name.replace('_', '-')}")
            continue
        setattr(options, name, defaults.get(name, unused))
    if options.rounds < 1:
        parser.error("--rounds is at least 1")
    try:
        device = pick_device(options.device)
    except ValueError as error:
        parser.error(f"--device: {error}")
    if options.steps is None:
        options.steps = 50 if device.type == "cuda" else 5
    return options


def measure(options: argparse.Namespace, width: int) -> list[dict]:
    """Runs the benchmark at one width, prints its table, and returns its figures for JSON."""
    options = copy.copy(options)
    options.base_c = width
    has = DEFAULTS[options.benchmark]
    names = {name: getattr(options, name) for name in has}
    if options.benchmark in WITH_FILES:
        names["data"] = options.data_name
    print(f"{options.benchmark}: " + ", ".join(f"{name} {value}" for name, value in names.items()))
    if options.benchmark == "scaling":
        return scaling.measure(options, options.device, options.rounds)
    module = f"tests.benchmarks.{options.benchmark}"
    ways = list(compare.ways_of(module))
    found = compare.compare(module, ways, options, options.device, options.rounds)
    print(compare.table(found), flush=True)
    return [{"options": names, "ways": found, "ratios": compare.ratios(found)}]


def main() -> None:
    """Runs the benchmark at every width."""
    options, start = parse(), time.perf_counter()
    device = pick_device(options.device)
    flags = copy.copy(vars(options))
    options.data_name = options.data_path or f"demo, {options.images} + {options.images} images"
    if options.benchmark not in WITH_FILES:
        options.images = 0
    print(compare.describe_machine(device))
    rows = []
    with drive.scratch_folder(options):
        for width in options.base_c:
            rows += measure(options, width)
    if options.json:
        content = compare.content(device, flags, rows, time.perf_counter() - start)
        Path(options.json).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

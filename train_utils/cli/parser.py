"""What the command lines share: flags, types that refuse impossible values, help texts."""

import argparse
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field

# Whether a later run takes the value of a flag from a checkpoint. Stated with each flag.
RUN = "run"  # part of the run: `--resume` and `--test-only` take it from the checkpoint
MODEL = "model"  # part of the model: so does a new run that starts from `--weights`
LOCAL = "local"  # where and how to compute: always from the command line

FROM_DATA = "planned from the data"  # a default in help texts

# Of flags that several scripts have: {name: (help, what --help says of the default)}.
SHARED_HELP = {
    "data_path": (
        "where the dataset is: the folder that contains DRIVE/, or that of another published "
        "dataset; for --dataset folder and volumes the folder that contains images/ and masks/; "
        "for list a text file",
        "./",
    ),
    "max_pixels": (
        "largest image, in pixels; a larger one is refused before it is decoded",
        "Pillow's limit, 89 million",
    ),
    "tile": (
        "side in pixels or voxels of the tiles in which a large image or volume is predicted; 0: "
        "no tiles",
        "up to 1024, for volumes about 64 to 96, where the whole needs more than 4 GB",
    ),
    "overlap": (
        "how many pixels or voxels neighbouring tiles share",
        "a sixteenth of the tile, for volumes an eighth",
    ),
    "flips": (
        "average the probabilities over the four flips of each image, the eight of a volume",
        "off",
    ),
    "threshold": (
        "the threshold on the probability of class 1",
        "the checkpoint's, of several files their mean",
    ),
    "prune": (
        "the depth, 1 to 4, of the part of a unet_plus_plus that is used; less is faster",
        "4, all of it",
    ),
    "device": ("auto, cpu, mps, cuda or cuda:N", "auto"),
    "amp": (
        "mixed precision: bf16 where the device supports it, fp16 on older GPUs; --no-amp: float32 "
        "(convolutions in TF32 on GPUs that have it)",
        "on",
    ),
}


def shared_help(name: str, note: str = "") -> str:
    """The help of a flag in SHARED_HELP, with its default. note: what else to know of it."""
    text, default = SHARED_HELP[name]
    return f"{text}{note} (default: {default})"


@dataclass(frozen=True)
class Flag:
    """One flag of a script.

    names: such as "--lr" or "-b/--batch-size"; the last one gives the attribute its name.
    inherit: RUN, MODEL or LOCAL.
    default: the value without a preset, dataset or checkpoint; None: there is none.
    help: one line; the default is added to it.
    unset: what `--help` says in place of a default of None.
    options: of argparse's add_argument.
    """

    names: str
    inherit: str
    default: object
    help: str
    unset: str = "none"
    options: dict = field(default_factory=dict)

    @property
    def dest(self) -> str:
        """The attribute that holds the value."""
        return self.options.get("dest") or self.names.split("/")[-1].strip("-").replace("-", "_")

    def default_text(self, value: object) -> str:
        """The default as `--help` shows it."""
        if value is True or value is False:
            return "on" if value else "off"
        if value in (None, "", []):
            return self.unset
        if isinstance(value, (list, tuple)):
            return " ".join(str(item) for item in value)
        return str(value)


def flag(
    names: str, inherit: str, default: object, help: str, unset: str = "none", **options: object
) -> Flag:
    """A Flag; `options` are those of argparse's add_argument."""
    return Flag(names, inherit, default, help, unset, options)


SWITCH = {"action": argparse.BooleanOptionalAction}  # --amp and --no-amp
ON = {"action": "store_true"}


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose error is one sentence, without the usage of all flags before it."""

    def error(self, message: str) -> None:
        """Ends the script with exit code 2. Of several processes only the first one prints."""
        is_first = os.environ.get("RANK", "0") == "0"
        text = f"{self.prog}: error: {message} (--help lists all flags)\n"
        self.exit(2, text if is_first else None)

    def add_flags(self, title: str, flags: list[Flag], defaults: dict) -> None:
        """Adds a group of flags. Their help texts show `defaults`; a flag that is not given is left
        out of what the parser returns.
        """
        group = self.add_argument_group(title)
        for each in flags:
            text = f"{each.help} (default: {each.default_text(defaults[each.dest])})"
            group.add_argument(
                *each.names.split("/"),
                default=argparse.SUPPRESS,
                help=text.replace("%", "%%"),
                **each.options,
            )


class OneOrThree(argparse.Action):
    """With nargs="+": a single value, or a list of three."""

    def __call__(
        self, parser: Parser, namespace: argparse.Namespace, values: list, option: str | None = None
    ) -> None:
        if len(values) not in (1, 3):
            parser.error(f"{option} takes one number, or three: {len(values)} are given")
        setattr(namespace, self.dest, values[0] if len(values) == 1 else values)


def number(
    convert: type,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
) -> Callable[[str], float]:
    """A flag type: a number of the type int or float within bounds.

    `minimum` and `maximum` include the bound, `above` and `below` exclude it.
    """
    bounds = [
        (minimum, "at least", lambda value: value >= minimum),
        (above, "above", lambda value: value > above),
        (maximum, "at most", lambda value: value <= maximum),
        (below, "below", lambda value: value < below),
    ]
    bounds = [(bound, words, holds) for bound, words, holds in bounds if bound is not None]

    def parse(text: str) -> float:
        try:
            value = convert(text)
            if not math.isfinite(value):
                raise ValueError
        except ValueError:
            article = "an integer" if convert is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {article}") from None
        if not all(holds(value) for _, _, holds in bounds):
            wanted = " and ".join(f"{words} {bound}" for bound, words, _ in bounds)
            raise argparse.ArgumentTypeError(f"must be {wanted}, got {text}")
        return value

    return parse


def class_weights(text: str) -> str | list[float]:
    """A flag type: one of the words as it is, or a number for each class such as 1,2."""
    if text in ("preset", "none", "auto"):
        return text
    try:
        weights = [float(part) for part in text.split(",")]
    except ValueError:
        weights = []
    if not weights or min(weights) < 0 or not 0 < sum(weights) < float("inf"):
        raise argparse.ArgumentTypeError(
            f"must be preset, none, auto, or weights ≥ 0 such as 1,2, got {text!r}"
        )
    return weights

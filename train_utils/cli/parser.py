"""What the four scripts share: flag types that refuse impossible values, and errors in one sentence."""

import argparse
import math
import os
import signal
import sys

import torch

from src.errors import UserError
from train_utils.train_and_eval import NonFiniteLossError


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose error is one sentence, without the usage of all flags before it."""

    def error(self, message):
        first = (
            os.environ.get("RANK", "0") == "0"
        )  # of several processes with the same flags, one speaks
        self.exit(2, f"{self.prog}: error: {message} (--help lists all flags)\n" if first else None)


def number(kind, minimum=None, above=None, maximum=None, below=None):
    """A flag type: a number of `kind` (int or float) within the bounds; `above` and `below` exclude the bound itself."""
    bounds = [
        (minimum, "at least", lambda v: v >= minimum),
        (above, "above", lambda v: v > above),
        (maximum, "at most", lambda v: v <= maximum),
        (below, "below", lambda v: v < below),
    ]
    bounds = [(bound, words, holds) for bound, words, holds in bounds if bound is not None]

    def parse(text):
        try:
            value = kind(text)
            if not math.isfinite(value):
                raise ValueError
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a{'n integer' if kind is int else ' number'}"
            ) from None
        if not all(holds(value) for _, _, holds in bounds):
            raise argparse.ArgumentTypeError(
                f"must be {' and '.join(f'{words} {bound}' for bound, words, _ in bounds)}, got {text}"
            )
        return value

    return parse


def class_weights(text):
    """One of the words as it is, or numbers for each class such as 1,2 → a list of floats."""
    if text in ("none", "auto"):
        return text
    try:
        weights = [float(part) for part in text.split(",")]
    except ValueError:
        weights = []
    if not weights or min(weights) < 0 or not 0 < sum(weights) < float("inf"):
        raise argparse.ArgumentTypeError(
            f"must be none, auto, or weights ≥ 0 such as 1,2, got {text!r}"
        )
    return weights


def run_script(main, prog):
    """Calls main(). What a user can mend (UserError, NaN in loss or weights, `errors`, files, no memory) ends the
    script with one sentence on stderr and exit code 2, in place of a traceback; Ctrl-C and SIGTERM end it with 130 and 143.
    """

    def stop(signum, frame):
        raise KeyboardInterrupt(128 + signum)

    signal.signal(signal.SIGTERM, stop)
    if os.environ.get("RANK", "0") != "0":
        prog = f"{prog} (rank {os.environ['RANK']})"
    try:
        main()
    except (UserError, NonFiniteLossError) as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except (
        OSError
    ) as error:  # a full disk, a folder without permission: says the file and the reason
        print(f"{prog}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except torch.OutOfMemoryError as error:
        print(
            f"{prog}: error: the GPU is out of memory ({str(error).split('. ')[0]}); lower --batch-size, --crop-size or "
            "--base-c; --accumulate makes up for a smaller batch",
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        sys.exit(interrupt.args[0] if interrupt.args else 130)

"""Which flips a model was trained with. Averaging over others makes its predictions worse."""

from collections.abc import Sequence
from pathlib import Path

from src.errors import UserError
from train_utils.checkpoint_flags import given_flags
from train_utils.distributed_utils import log


def trained_mirror(checkpoint: dict) -> str | None:
    """The value of --mirror that the model was trained with; None if its file does not say it."""
    return checkpoint.get("recipe", {}).get("mirror") or given_flags(checkpoint).get("mirror")


def check_flips(checkpoints: Sequence[dict], paths: Sequence[str | Path]) -> None:
    """UserError if one of the models, read from `paths`, was trained without random flips.

    The hippocampus, flipped, has its anterior part where the posterior one was: a model that was
    trained without flips had a Dice of .02 with --flips in place of .89. Logs a note for one that
    was trained with horizontal flips alone.
    """
    for checkpoint, path in zip(checkpoints, paths, strict=True):
        mirror = trained_mirror(checkpoint)
        if mirror == "none":
            raise UserError(
                f"{path}: --flips: it was trained without flips (--mirror none), so its "
                "predictions of flipped images are wrong; leave out --flips"
            )
        if mirror == "horizontal":
            log(f"note: {path} was trained with horizontal flips alone, --flips also takes others")

"""The one owner of the checkpoint format.

A checkpoint is a dict of plain types and tensors, so torch.load reads it with weights_only=True. It describes itself:

    format                      FORMAT
    model                       state_dict
    model_name, model_kwargs    what build_model() needs
    class_names, mean, std      of the data it was trained on; mean and std of pixels in 0–1
    class_colours, class_ids, resize    what pictures are drawn in; what masks hold; size that images are read at (files of
                                before have none)
    threshold                   on the probability of class 1, as validation chose it (0.5 without validation)
    args                        the run's flags
  and, to go on exactly:
    optimizer, plan, step, scaler, epoch, best_score, history, split, ranks, random_states (of each rank)
"""

import argparse
import random
import re
import shutil
import tempfile
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch

from src import MODELS, build_model, default_options
from src.errors import UserError
from src.inference import Ensemble
from train_utils.atomic import replacing

FORMAT = 1
DESCRIPTION = ("model", "model_name", "model_kwargs", "class_names", "mean", "std", "threshold")


# --- writing ----------------------------------------------------------------------------------------------------------


def save(path, checkpoint):
    """Writes the checkpoint atomically; UserError if that fails, with the earlier file untouched."""
    try:
        with replacing(path) as temporary:
            torch.save({"format": FORMAT, **checkpoint}, temporary)
    except (
        OSError,
        RuntimeError,
    ) as error:  # torch's zip writer reports a full disk as RuntimeError
        raise UserError(
            f"{path}: cannot be written ({error}); free some space or choose another --output-dir. "
            "An earlier file of that name is untouched"
        ) from error


def prepare_folder(folder, num_bytes=0):
    """Makes the folder; UserError if it cannot be written to or has no room for `num_bytes`."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written to ({error.strerror}); choose another folder"
        ) from error
    if free < num_bytes:
        raise UserError(
            f"{folder}: {free / 1e6:.0f} MB are free, but the run needs about {num_bytes / 1e6:.0f} MB; "
            "free some space or choose another folder"
        )


# --- reading ----------------------------------------------------------------------------------------------------------


def load(path):
    """The checkpoint dict, on the CPU. UserError for a file that is missing, cut short, unsafe or something else."""
    try:
        with torch.serialization.safe_globals(
            [argparse.Namespace]
        ):  # the tutorials' files hold one; it is harmless
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except Exception as error:  # damaged bytes make the unpickler raise anything, IndexError and struct.error included
        if re.search("unsupported (global|class)", str(error), re.IGNORECASE):
            reason = "it holds Python objects that could run code, which are never loaded; use a file that train.py wrote"
        elif isinstance(error, (IsADirectoryError, PermissionError)):
            reason = f"it cannot be read ({error.strerror}); name a file that train.py wrote"
        else:
            detail = (
                type(error).__name__
                if isinstance(error, UnpicklingError)
                else str(error).partition("\n")[0][:100]
            )
            reason = f"it is cut short or no checkpoint ({detail}); use an earlier copy, or a file that train.py wrote"
        raise UserError(f"{path}: cannot be loaded: {reason}") from None
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path}: holds a {type(checkpoint).__name__}, not a checkpoint")
    return checkpoint


def load_described(path):
    """load(), for a checkpoint that describes itself; UserError for one that does not."""
    return check_described(load(path), path)


def check_described(checkpoint, path):
    """The checkpoint, read from `path`; UserError if it does not describe itself."""
    if checkpoint.get("format") != FORMAT:
        raise UserError(
            f"{path}: does not say what it holds (format {checkpoint.get('format')}, expected {FORMAT}); "
            "give plain weights to train.py --weights, with the flags of their architecture"
        )
    missing = [name for name in DESCRIPTION if name not in checkpoint]
    if missing:
        raise UserError(f"{path}: lacks {', '.join(missing)}; use a file that train.py wrote")
    return checkpoint


def load_model(path):
    """(model on the CPU in eval mode, its checkpoint) from a checkpoint that describes itself."""
    checkpoint = load(path)
    return model_of(checkpoint, path), checkpoint


def combine(paths, members):
    """One (model, checkpoint) of the [(model, checkpoint), …] read from `paths`: the ensemble of several models.

    The checkpoint is the first member's, with the mean of the members' thresholds. UserError for a member of other
    classes, or of another mean, std or size: all members are handed one normalised image.
    """
    model, first = members[0]
    if len(members) == 1:
        return model, first
    for path, (_, checkpoint) in zip(paths[1:], members[1:]):
        for name in ("class_names", "mean", "std", "resize"):
            own, wanted = (
                checkpoint.get(name),
                first.get(name),
            )  # files of before --resize have none
            if own != wanted:
                raise UserError(
                    f"{path}: was trained with {name} {own}, but {paths[0]} with {wanted}; the members of an "
                    "ensemble are shown one image and must share it: leave one of them out"
                )
    thresholds = [checkpoint["threshold"] for _, checkpoint in members]
    mean = None if None in thresholds else sum(thresholds) / len(thresholds)
    return Ensemble([model for model, _ in members]), {**first, "threshold": mean}


def model_of(checkpoint, path):
    """The model in eval mode that the checkpoint, read from `path`, describes, with its weights."""
    check_described(checkpoint, path)
    if checkpoint["model_name"] not in MODELS:
        raise UserError(
            f"{path}: is of the architecture {checkpoint['model_name']!r}, which this version does not "
            f"have; it has {', '.join(sorted(MODELS))}"
        )
    try:
        model = build_model(checkpoint["model_name"], **checkpoint["model_kwargs"])
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path}: describes a {checkpoint['model_name']} that cannot be built from "
            f"{checkpoint['model_kwargs']} ({error}); use a file that train.py wrote"
        ) from None
    load_weights(model, checkpoint, path)
    return model.eval()


def check_description(checkpoint, asked, path):
    """UserError if the checkpoint, read from `path`, is of another model than asked = {model_name, model_kwargs}.

    Options that came to a class after the file was written had their defaults then. Plain weights say nothing.
    """
    name = asked["model_name"]
    if checkpoint.get("model_name", name) != name:
        raise UserError(
            f"{path}: is of the model {checkpoint['model_name']}, but the flags ask for {name}; leave "
            "--model out or start a new run"
        )
    kwargs = default_options(name) | checkpoint.get("model_kwargs", asked["model_kwargs"])
    differ = [option for option, value in asked["model_kwargs"].items() if kwargs[option] != value]
    if differ:
        held, wanted = (
            {option: values[option] for option in differ}
            for values in (kwargs, asked["model_kwargs"])
        )
        raise UserError(
            f"{path}: is of a {name} with {held}, but the flags ask for {wanted}; leave these flags "
            "out or start a new run"
        )


def prune(model, level, path):
    """Lets the UNet++ that was read from `path` judge with its first `level` levels; does nothing for None.

    UserError for another architecture, or a UNet++ whose training gave that level no output.
    """
    if level is None:
        return
    if not hasattr(model, "prune"):
        raise UserError(
            f"{path}: is a {type(model).__name__}, which has no levels for --prune to leave out; that is "
            "for unet_plus_plus"
        )
    try:
        model.prune(level)
    except ValueError as error:
        raise UserError(f"{path}: --prune {level}: {error}") from None


def load_weights(model, checkpoint, path):
    """Loads the weights of a checkpoint, of the tutorials' {"model": …}, or a bare state_dict, into the model."""
    state = checkpoint.get("model", checkpoint)
    if not isinstance(state, dict) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise UserError(
            f"{path}: holds no weights (a dict of tensors); use a file that train.py wrote"
        )
    expected = model.state_dict()
    wrong = [
        f"{name} {tuple(state[name].shape)} in place of {tuple(value.shape)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if wrong or missing or extra:
        parts = [
            f"{len(items)} weights {what} (first: {items[0]})"
            for items, what in (
                (wrong, "of another shape"),
                (missing, "missing"),
                (extra, "unknown"),
            )
            if items
        ]
        raise UserError(
            f"{path}: is of another architecture than {type(model).__name__} with these flags: "
            f"{', '.join(parts)}; give the flags it was trained with"
        )
    model.load_state_dict(state)


# --- random states ----------------------------------------------------------------------------------------------------


def random_state():
    """The states of all random generators of this process, its current GPU's included, in plain types."""
    version, internal, gauss = random.getstate()
    name, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        "python": (version, internal, gauss),
        "numpy": (name, keys.tolist(), *rest),
    }


def restore_random_state(state):
    """Sets the generators to what random_state() returned; a GPU that was not used then keeps its state."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(state["cuda"])
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))

"""From checkpoints to models: for a new run, a resumed one, an evaluation or a prediction."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from src import MODELS, build_model, default_options
from src.errors import UserError
from src.inference import Ensemble
from src.volumes import same_spacing
from train_utils.checkpoint import ModelDescription, check_described, describes_itself, load
from train_utils.distributed_utils import broadcast_from_rank_zero, log
from train_utils.foreign_weights import NOTE, SOURCE

# Entries of checkpoints, and arguments of models, that are equal in the members of an ensemble.
MUST_SHARE = ("class_names", "class_ids", "mean", "std", "resize", "spacing", "in_channels")


class LoadedModel(NamedTuple):
    """A model with its weights, and the checkpoint that they came from; {} if from none."""

    model: nn.Module
    checkpoint: dict


def initial_model(
    description: ModelDescription, path: str = "", pretrain_backbone: bool = False
) -> LoadedModel:
    """The described model, and the checkpoint of its weights.

    The weights are those of the file `path`; without one, ImageNet's in the encoder or random, and
    the checkpoint is {}. UserError if the file is of another model.
    """
    build = partial(build_model, description.model_name, **description.model_kwargs)
    model, checkpoint = build(), {}
    if path:
        checkpoint = broadcast_from_rank_zero(lambda: load(path))
        check_description(checkpoint, description, path)
        load_weights(model, checkpoint, path)
        log_source(checkpoint, path)
    elif pretrain_backbone:  # only the first machine needs the file of ImageNet weights
        model.load_state_dict(
            broadcast_from_rank_zero(lambda: build(pretrain_backbone=True).state_dict())
        )
    return LoadedModel(model, checkpoint)


def load_model(path: str | Path) -> LoadedModel:
    """The model of a checkpoint that describes itself, on the CPU in eval mode, and the checkpoint.

    `model, checkpoint = load_model("save_weights/best_model.pth")`. UserError for any other file.
    """
    checkpoint = load(path)
    return LoadedModel(model_of(checkpoint, path), checkpoint)


def load_models(
    paths: Sequence[str | Path], plain: ModelDescription | None = None
) -> list[LoadedModel]:
    """load_model() of several files, each built by its own description.

    plain: what weights without metadata are taken for; None: they are refused.
    """
    loaded = []
    for path in paths:
        checkpoint = broadcast_from_rank_zero(partial(load, path))
        log_source(checkpoint, path)
        if describes_itself(checkpoint) or plain is None:
            loaded.append(LoadedModel(model_of(checkpoint, path), checkpoint))
        else:
            model = build_model(plain.model_name, **plain.model_kwargs)
            load_weights(model, checkpoint, path)
            loaded.append(LoadedModel(model.eval(), {**plain.entries(), "threshold": None}))
    return loaded


def load_for_evaluation(
    paths: Sequence[str | Path], description: ModelDescription, level: int | None = None
) -> list[LoadedModel]:
    """load_models() of models as described, for data of the described classes.

    Weights without metadata are taken for the described model. level: see prune(). UserError for
    another model or other classes, and if mean and std, or the spacing of volumes, are not known.
    """
    loaded = load_models(paths, description)
    check_description(loaded[0].checkpoint, description, paths[0])
    for (model, checkpoint), path in zip(loaded, paths, strict=True):
        check_classes(checkpoint, description.classes.names, path)
        prune(model, level, path)
    dims = MODELS[description.model_name].dims
    if dims == 2 and not (description.mean and description.std):
        raise UserError(
            f"{paths[0]}: does not say which mean and std it was trained with; "
            "give --mean and --std"
        )
    if dims == 3 and not description.spacing:
        raise UserError(
            f"{paths[0]}: does not say which voxels it was trained with; give --spacing D H W"
        )
    return loaded


def log_source(checkpoint: dict, path: str | Path) -> None:
    """Logs what to know about weights of another repository, read from `path`."""
    if checkpoint.get("source") == SOURCE:
        log(NOTE.format(path=path))


def combine(members: Sequence[LoadedModel], paths: Sequence[str | Path]) -> LoadedModel:
    """The ensemble of the members read from `paths`; a single member as it is.

    The checkpoint is the first member's, with the mean of the members' thresholds. UserError for a
    member of other classes, or of another mean, std or size: all see one normalized image. Volumes
    are resampled to the first member's voxels; the others' may differ by 10 %.
    """
    if len(members) == 1:
        return members[0]
    first = members[0].checkpoint
    for member, path in zip(members[1:], paths[1:], strict=True):
        for name in MUST_SHARE:
            own, wanted = entry_of(member.checkpoint, name), entry_of(first, name)
            if name == "spacing" and own and wanted and same_spacing(own, wanted):
                continue  # the medians of a dataset's folds differ a little
            if own != wanted:
                hint = ""
                if name in ("mean", "std"):
                    hint = ", or train all of them with the same --mean and --std"
                raise UserError(
                    f"{path}: was trained with {name} {own}, but {paths[0]} with "
                    f"{wanted}; the members of an ensemble see one image and must share it: "
                    f"leave one of them out{hint}"
                )
    thresholds = [member.checkpoint["threshold"] for member in members]
    mean = None if None in thresholds else sum(thresholds) / len(thresholds)
    ensemble = Ensemble([member.model for member in members]).eval()
    return LoadedModel(ensemble, {**first, "threshold": mean})


def entry_of(checkpoint: dict, name: str) -> Any:
    """An entry of the checkpoint, or else an argument of its model; None if it has neither."""
    return checkpoint.get(name, checkpoint["model_kwargs"].get(name))


def model_of(checkpoint: dict, path: str | Path) -> nn.Module:
    """The model in eval mode that the checkpoint, read from `path`, describes, with its weights."""
    check_described(checkpoint, path)
    name, kwargs = checkpoint["model_name"], checkpoint["model_kwargs"]
    if name not in MODELS:
        raise UserError(
            f"{path}: is of the architecture {name!r}, which this version does not have; "
            f"it has {', '.join(sorted(MODELS))}"
        )
    try:
        model = build_model(name, **kwargs)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path}: describes a {name} that cannot be built from {kwargs} ({error}); "
            "use a file that train.py wrote"
        ) from None
    load_weights(model, checkpoint, path)
    return model.eval()


def check_description(checkpoint: dict, asked: ModelDescription, path: str | Path) -> None:
    """UserError if the checkpoint, read from `path`, is of another model than the flags ask for.

    Options that a class got after the file was written had their defaults then. Weights without
    metadata are not checked.
    """
    name, wanted = asked.model_name, asked.model_kwargs
    if checkpoint.get("model_name", name) != name:
        raise UserError(
            f"{path}: is of the model {checkpoint['model_name']}, but the flags ask for {name}; "
            "leave out --model, or start a run without this file"
        )
    kwargs = default_options(name) | checkpoint.get("model_kwargs", wanted)
    differ = [option for option, value in wanted.items() if kwargs[option] != value]
    if "num_classes" in differ:
        raise UserError(
            f"{path}: these weights are of a model of {kwargs['num_classes']} classes and cannot "
            f"be those of a model of {wanted['num_classes']} classes, as the data have; check the "
            "class table (--classes), or train without these weights"
        )
    if differ:
        raise UserError(
            f"{path}: is of a {name} with { {option: kwargs[option] for option in differ} }, but "
            f"the flags ask for { {option: wanted[option] for option in differ} }; "
            "leave these flags out, or start a run without this file"
        )


def check_classes(checkpoint: dict, class_names: Sequence[str], path: str | Path) -> None:
    """UserError if the checkpoint, read from `path`, has other classes than the data."""
    names = checkpoint.get("class_names", list(class_names))
    if names != list(class_names):
        raise UserError(
            f"{path}: has the classes {', '.join(names)}, the data's class table "
            f"{', '.join(class_names)}; use the run's own table (--classes FILE)"
        )


def check_threshold(threshold: float | None, class_names: Sequence[str]) -> None:
    """UserError for a threshold with more than two classes."""
    if threshold is not None and len(class_names) > 2:
        raise UserError(
            f"--threshold: the model has {len(class_names)} classes; "
            "each pixel gets the most probable one"
        )


def prune(model: nn.Module, level: int | None, path: str | Path) -> None:
    """Makes the UNet++ read from `path` predict with its first `level` levels; None: all of them.

    UserError for another architecture, or a UNet++ that was trained without an output there.
    """
    if level is None:
        return
    if not hasattr(model, "prune"):
        raise UserError(
            f"{path}: is a {type(model).__name__}, which has no levels for --prune to leave out; "
            "--prune is for unet_plus_plus"
        )
    try:
        model.prune(level)
    except ValueError as error:
        raise UserError(f"{path}: --prune {level}: {error}") from None


def load_weights(model: nn.Module, checkpoint: dict, path: str | Path) -> None:
    """Loads the weights of a checkpoint, of the tutorials' {"model": …}, or a bare state_dict.

    UserError naming the first weight that does not fit, or is NaN or infinite.
    """
    state = checkpoint.get("model", checkpoint)
    if not isinstance(state, dict) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise UserError(
            f"{path}: holds no weights (a dict of tensors); use a file that train.py wrote"
        )
    expected = model.state_dict()
    other_shape = [
        f"{name} {tuple(state[name].shape)} in place of {tuple(value.shape)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    problems = {
        "of another shape": other_shape,
        "missing": sorted(expected.keys() - state.keys()),
        "unknown": sorted(state.keys() - expected.keys()),
    }
    parts = [
        f"{len(names)} weights {what} (first: {names[0]})"
        for what, names in problems.items()
        if names
    ]
    if parts:
        raise UserError(
            f"{path}: is of another architecture than {type(model).__name__} with these flags: "
            f"{', '.join(parts)}; give the flags it was trained with"
        )
    check_finite_weights(state, path)
    model.load_state_dict(state)


def check_finite_weights(state: dict[str, torch.Tensor], path: str | Path) -> None:
    """UserError if weights, read from `path`, are NaN or infinite."""
    names = [name for name, value in state.items() if not value.isfinite().all()]
    if names:
        raise UserError(
            f"{path}: {len(names)} weights hold NaN or infinite values (first: {names[0]}); use "
            "earlier weights, or train again with a lower --lr"
        )

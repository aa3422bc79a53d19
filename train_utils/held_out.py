"""Evaluation on the images that each run held out: the scores of a cross-validation.

The functions are handed values and datasets; they know no flags.
"""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import nn
from torch.utils.data import Dataset

from src.errors import UserError
from train_utils.checkpoint import check_not_stripped
from train_utils.data.samples import Sample
from train_utils.data.splits import samples_by_name
from train_utils.distributed_utils import is_main_process, log
from train_utils.evaluation import Evaluator
from train_utils.metrics import summarize
from train_utils.plurals import counted, first_names
from train_utils.reporting import text_files
from train_utils.reporting.provenance import provenance


def score_held_out(
    evaluator: Evaluator,
    parts: Iterable[tuple[str | Path, nn.Module, Dataset]],
    threshold: float | None,
    origin: dict,
    start: float,
    output_dir: str | Path,
    choose_threshold: bool = True,
) -> None:
    """Evaluates each model on the images that its own run held out: scores of a cross-validation.

    parts: (path, model, dataset) of each run. start: time.perf_counter() at the start of the
    script. choose_threshold: whether all these images together choose one. Writes
    held_out_scores.json.
    """
    counts, names, rows = [], [], []
    for path, model, dataset in parts:
        counts.append(evaluator(model, dataset))
        names += [sample.name for sample in dataset.samples]
        part = summarize(counts[-1], choose_threshold=choose_threshold)
        rows.append({"weights": str(path), "scores": part})
        log(f"{path}: F1 {rows[-1]['scores']['f1']:.4f}")
    total = sum(counts[1:], counts[0])
    scores = summarize(total, threshold, choose_threshold)
    selection = f"the held-out images choose {'best_threshold' if choose_threshold else 'nothing'}"
    if is_main_process():
        content = {
            **provenance(evaluator.device, evaluator.amp_dtype, time.perf_counter() - start),
            **origin,
            "selection": selection,
            "threshold": threshold,
            "scores": scores,
            "parts": rows,
            "images": text_files.image_rows(names, total),
        }
        text_files.write_json(Path(output_dir) / "held_out_scores.json", content)
    log(text_files.score_table(scores, dataset.classes.names, threshold, dataset.nouns))
    if "best_threshold" in scores:
        log(
            f"threshold that these images choose {scores['best_threshold']:.3f}, "
            f"F1 there {scores['best_f1']:.4f}"
        )


def held_out_samples(
    splits: dict[str, list[Sample]], checkpoint: dict, path: str | Path
) -> list[Sample]:
    """The samples that the run held out which wrote the checkpoint, read from `path`.

    These are its validation samples, or with --split-file and --val none its test samples. splits:
    {"train", "val", "test" or "all": samples} of the dataset. UserError if the run held out none,
    or the checkpoint is stripped.
    """
    check_not_stripped(checkpoint, "--held-out", path)
    part, names = held_out_names(checkpoint)
    if not names:
        raise UserError(
            f"{path}: its run held out no images, or is of an earlier version; --held-out is for "
            "runs with --folds, --val holdout or --split-file"
        )
    if checkpoint["training"]["val"] == "test":
        raise UserError(
            f"{path}: its run (--val test) used the test images for validation; --held-out is for "
            "runs that did not"
        )
    if part == "test":
        check_unambiguous(splits, names, path)
    # Folds are cut from the training images. Validation images may have the same names.
    split = "train" if checkpoint["training"]["folds"] else part
    chosen = samples_by_name(splits, {split: names})
    return [sample for samples in chosen for sample in samples]


def check_unambiguous(splits: dict[str, list[Sample]], names: list[str], path: str | Path) -> None:
    """UserError if images of two splits have one of the names."""
    number = Counter(sample.name for samples in splits.values() for sample in samples)
    twice = [name for name in names if number[name] > 1]
    if twice:
        raise UserError(
            f"{path}: its run held out {first_names(twice)}, but images of several splits have "
            "this name; score it with --test-only --split-file alone"
        )


def held_out_names(checkpoint: dict) -> tuple[str, list[str]]:
    """("val" or "test", names of the images of that split that the run held out)."""
    split = checkpoint.get("split", {})
    part = "val" if split.get("val") else "test"
    return part, split.get(part, [])


def may_choose_threshold(checkpoints: Sequence[dict]) -> bool:
    """Whether the held-out images are validation images of all runs: test images choose nothing."""
    return all(held_out_names(checkpoint)[0] == "val" for checkpoint in checkpoints)


def check_held_out(
    checkpoints: Sequence[dict], samples: Sequence[list[Sample]], paths: Sequence[str | Path]
) -> None:
    """UserError unless the runs held out different images that are read alike.

    Logs which scores are optimistic, and which images no run held out.
    """
    first, seen, known = checkpoints[0], set(), set()
    for checkpoint, held_out, path in zip(checkpoints, samples, paths, strict=True):
        names = {sample.name for sample in held_out}
        if names & seen:
            raise UserError(
                f"{path}: an earlier file held out {', '.join(sorted(names & seen))}, too; "
                "give one file for each fold"
            )
        seen |= names
        known |= {*checkpoint["split"]["train"], *names}
        check_read_alike(checkpoint, first, path, paths[0])
        log_optimistic(checkpoint, path)
    missing = sorted(known - seen)
    if missing:
        log(
            f"note: {len(missing)} of the {len(known)} images are held out by none of these files: "
            f"{first_names(missing)}"
        )


def check_read_alike(
    checkpoint: dict, first: dict, path: str | Path, first_path: str | Path
) -> None:
    """UserError if two models read images differently: their scores cannot be pooled."""
    channels = checkpoint["model_kwargs"]["in_channels"], first["model_kwargs"]["in_channels"]
    sizes = checkpoint["resize"], first["resize"]
    for what, (own, wanted) in (("resize", sizes), ("in_channels", channels)):
        if own != wanted:
            raise UserError(
                f"{path}: was trained with {what} {own}, {first_path} with {wanted}; scores of "
                "images that are read in two ways cannot be pooled"
            )


def log_used_in_training(
    checkpoints: Sequence[dict], samples: Sequence[Sample], paths: Sequence[str | Path]
) -> None:
    """Logs which of the test samples have the name of a training or validation image of a run.

    Stripped checkpoints do not have these names.
    """
    names = {sample.name for sample in samples}
    for path, checkpoint in zip(paths, checkpoints, strict=True):
        split, parts = checkpoint.get("split", {}), {"train": "training", "val": "validation"}
        if checkpoint.get("training", {}).get("val") == "test":  # as the file of the scores says
            del parts["val"]
        for part, noun in parts.items():
            found = sorted(names.intersection(split.get(part, [])))
            if found:
                log(
                    f"warning: {counted(len(found), 'test images')} with names of {noun} images "
                    f"of {path}: {first_names(found)}; if they are the same images, the scores "
                    "are optimistic"
                )


def log_optimistic(checkpoint: dict, path: str | Path) -> None:
    """Logs why the scores of a file on its held-out images may be too good."""
    training = checkpoint["training"]
    if checkpoint["epoch"] + 1 < training["epochs"]:
        reason = "its run has not finished"
        if held_out_names(checkpoint)[0] == "val":
            reason = (
                "either its held-out images chose the epoch, and its scores are optimistic, or "
                f"{reason}"
            )
        log(
            f"note: {path} is of epoch {checkpoint['epoch']} of 0 to {training['epochs'] - 1}: "
            f"{reason}"
        )
    if training["weights"]:
        log(
            f"note: {path} started from other weights; if those were trained on the images held "
            "out here, its scores are optimistic"
        )

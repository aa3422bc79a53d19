"""Which samples train, which validate, which are the test: by the layout, by folds, or by a draw that is written down."""

import json
import random
from pathlib import Path

from src.errors import UserError


def hold_out(samples, fraction=0.2):
    """(training, validation): the last fifth of the sorted samples validates; of DRIVE's 21–40 these are 37–40."""
    count = max(1, round(len(samples) * fraction))
    if len(samples) <= count:
        raise UserError(
            f"{len(samples)} training image(s) cannot be split into training and validation; use --val none"
        )
    return samples[:-count], samples[-count:]


def draw(samples, fraction, seed, what):
    """(the others, the drawn): round(fraction · n) of the samples, at least one, by a generator of its own; both stay sorted.

    The draw depends on the seed, on `what` it is for, and on the names alone.
    """
    count = max(1, round(len(samples) * fraction))
    if len(samples) <= count:
        raise UserError(
            f"{len(samples)} images cannot be split into {what} and others; a fraction of {fraction:g} leaves "
            "none"
        )
    names = set(
        random.Random(f"{what} {seed}").sample(sorted(sample.name for sample in samples), count)
    )
    return [sample for sample in samples if sample.name not in names], [
        sample for sample in samples if sample.name in names
    ]


def fold(samples, folds, k):
    """(training, validation) of cross-validation: fold k in 0 … folds−1 validates on every folds-th sample from k on."""
    if not (2 <= folds <= len(samples) and 0 <= k < folds):
        raise UserError(
            f"fold {k} of {folds} cannot be cut from {len(samples)} training images; "
            f"use 2 to {len(samples)} folds, numbered from 0"
        )
    return [sample for i, sample in enumerate(samples) if i % folds != k], samples[k::folds]


def split_samples(
    splits, ordered, val="holdout", folds=None, k=None, val_fraction=0.2, test_fraction=0.2, seed=0
):
    """(training, validation, test samples): what is learned from, what chooses, what is scored at the end.

    splits: of a DatasetFiles. A set that comes in one piece gives the test a drawn `test_fraction` (0: none). A set without
    validation split gives `val_fraction` of the training samples: the last ones if the set is `ordered`, else drawn ones.
    val: "holdout" does that, "none" validates on nothing, "test" on the test samples. Where validation images play no part
    and there is no test, they are the test. With folds there is no test.
    """
    training, given, test = splits.get("train"), splits.get("val", []), splits.get("test", [])
    if training is None:
        training = splits["all"]
        if test_fraction and not folds:
            training, test = draw(training, test_fraction, seed, "test")
    if folds:
        return *fold(training, folds, k), []
    test = labelled(test)
    if val == "holdout" and not given:
        training, given = (
            hold_out(training, val_fraction)
            if ordered
            else draw(training, val_fraction, seed, "validation")
        )
    if val == "test" and not test:
        raise UserError("--val test: there are no test images with labels; use --val holdout")
    if val == "none" and not test:
        test = given
    return training, {"holdout": given, "none": [], "test": test}[val], test


def test_samples(splits, names=None, val="holdout", test_fraction=0.2, seed=0):
    """The test samples alone, for judging a finished run: those of `names`, the split that it wrote down, if there are any.

    Else those of the layout, or of a set that comes in one piece the drawn ones, or with test_fraction 1 all of it.
    """
    written = (
        labelled(samples_by_name(splits, {"test": names["test"]})[2])
        if names and test_fraction != 1
        else []
    )
    if written:
        return written
    if "all" not in splits:
        return labelled(splits.get("test", [])) or (
            labelled(splits.get("val", [])) if val == "none" else []
        )
    if test_fraction == 1:
        return labelled(splits["all"])
    return labelled(draw(splits["all"], test_fraction, seed, "test")[1]) if test_fraction else []


def labelled(samples):
    """The samples that can be scored; those of a split whose labels are not public cannot."""
    return [sample for sample in samples if sample.label]


def samples_by_name(splits, names):
    """(training, validation, test samples) as the lists of names in `names` say; UserError for names that are not there."""
    there = {}
    for part in splits.values():
        for sample in part:
            there.setdefault(sample.name, []).append(sample)
    chosen = []
    for part in ("train", "val", "test"):
        samples = {sample.name: sample for sample in splits.get(part, [])}
        missing = [
            name for name in names.get(part, []) if name not in samples and name not in there
        ]
        if missing:
            raise UserError(
                "the split that was written down has images that are not there any more: "
                f"{', '.join(missing[:8])}; bring them back, start a new run, or judge other data with "
                "--test-fraction 1 (all of it) or another --split-file"
            )
        chosen.append(
            [samples[name] if name in samples else there[name][0] for name in names.get(part, [])]
        )
    return tuple(chosen)


def split_names(train=None, val=None, test=None):
    """{"train", "val", "test": names} of those that are given: the split as it is written down."""
    parts = {"train": train, "val": val, "test": test}
    return {
        part: [sample.name for sample in samples]
        for part, samples in parts.items()
        if samples is not None
    }


def read_split(path):
    """The lists of names in a split.json; UserError for anything else."""
    try:
        split = json.loads(Path(path).read_text(encoding="utf-8"))
        if all(isinstance(split[part], list) for part in ("train", "val", "test")):
            return split
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UserError(
        f'{path}: is no split; it holds {{"train": [names], "val": [names], "test": [names]}}'
    )

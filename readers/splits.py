"""Which cases train, which validate, which are the test: by the layout, by folds, or by a draw that is written down."""

import json
import random
from pathlib import Path

from .files import DataError


def hold_out(cases, fraction=0.2):
    """(training, validation): the last fifth of the sorted cases validates; of DRIVE's 21–40 these are 37–40."""
    count = max(1, round(len(cases) * fraction))
    if len(cases) <= count:
        raise DataError(
            f"{len(cases)} training image(s) cannot be split into training and validation; use --val none"
        )
    return cases[:-count], cases[-count:]


def draw(cases, fraction, seed, what):
    """(the others, the drawn): round(fraction · n) of the cases, at least one, by a generator of its own; both stay sorted.

    The draw depends on the seed, on `what` it is for, and on the names alone.
    """
    count = max(1, round(len(cases) * fraction))
    if len(cases) <= count:
        raise DataError(
            f"{len(cases)} images cannot be split into {what} and others; a fraction of {fraction:g} leaves "
            "none"
        )
    names = set(random.Random(f"{what} {seed}").sample(sorted(case.name for case in cases), count))
    return [case for case in cases if case.name not in names], [
        case for case in cases if case.name in names
    ]


def fold(cases, folds, k):
    """(training, validation) of cross-validation: fold k in 0 … folds−1 validates on every folds-th case from k on."""
    if not (2 <= folds <= len(cases) and 0 <= k < folds):
        raise DataError(
            f"fold {k} of {folds} cannot be cut from {len(cases)} training images; "
            f"use 2 to {len(cases)} folds, numbered from 0"
        )
    return [case for i, case in enumerate(cases) if i % folds != k], cases[k::folds]


def split_cases(
    splits, ordered, val="holdout", folds=None, k=None, val_fraction=0.2, test_fraction=0.2, seed=0
):
    """(training, validation, test cases): what is learned from, what chooses, what is scored at the end.

    splits: of a Listing. A set that comes in one piece gives the test a drawn `test_fraction` (0: none). A set without
    validation split gives `val_fraction` of the training cases: the last ones if the set is `ordered`, else drawn ones.
    val: "holdout" does that, "none" validates on nothing, "test" on the test cases. Where validation images play no part
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
        raise DataError("--val test: there are no test images with labels; use --val holdout")
    if val == "none" and not test:
        test = given
    return training, {"holdout": given, "none": [], "test": test}[val], test


def test_cases(splits, names=None, val="holdout", test_fraction=0.2, seed=0):
    """The test cases alone, for judging a finished run: those of `names`, the split that it wrote down, if there are any.

    Else those of the layout, or of a set that comes in one piece the drawn ones, or with test_fraction 1 all of it.
    """
    written = (
        labelled(by_names(splits, {"test": names["test"]})[2])
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


def labelled(cases):
    """The cases that can be scored; those of a split whose labels are not public cannot."""
    return [case for case in cases if case.label]


def by_names(splits, names):
    """(training, validation, test cases) as the lists of names in `names` say; DataError for names that are not there."""
    there = {}
    for part in splits.values():
        for case in part:
            there.setdefault(case.name, []).append(case)
    chosen = []
    for part in ("train", "val", "test"):
        cases = {case.name: case for case in splits.get(part, [])}
        missing = [name for name in names.get(part, []) if name not in cases and name not in there]
        if missing:
            raise DataError(
                "the split that was written down has images that are not there any more: "
                f"{', '.join(missing[:8])}; bring them back, start a new run, or judge other data with "
                "--test-fraction 1 (all of it) or another --split-file"
            )
        chosen.append(
            [cases[name] if name in cases else there[name][0] for name in names.get(part, [])]
        )
    return tuple(chosen)


def names_of(train=None, val=None, test=None):
    """{"train", "val", "test": names} of those that are given: the split as it is written down."""
    parts = {"train": train, "val": val, "test": test}
    return {
        part: [case.name for case in cases] for part, cases in parts.items() if cases is not None
    }


def read_split(path):
    """The lists of names in a split.json; DataError for anything else."""
    try:
        split = json.loads(Path(path).read_text(encoding="utf-8"))
        if all(isinstance(split[part], list) for part in ("train", "val", "test")):
            return split
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise DataError(
        f'{path}: is no split; it holds {{"train": [names], "val": [names], "test": [names]}}'
    )

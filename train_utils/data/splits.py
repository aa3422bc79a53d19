"""Which samples are for training, validation and test: by the layout, by folds, or at random."""

import json
import random
from pathlib import Path

from src.errors import UserError
from train_utils.data.samples import Sample
from train_utils.plurals import counted

SPLIT_NAMES = ("train", "val", "test")


def hold_out(samples: list[Sample], fraction: float = 0.2) -> tuple[list[Sample], list[Sample]]:
    """(training, validation): the last part of the sorted samples is held out for validation.

    Of DRIVE's training images 21–40, the last fifth is 37–40. UserError if none remain to train on.
    """
    count = max(1, round(len(samples) * fraction))
    check_enough(samples, count, f"--val-fraction {fraction:g}", "validation")
    return samples[:-count], samples[-count:]


def random_split(
    samples: list[Sample], fraction: float, seed: int, what: str
) -> tuple[list[Sample], list[Sample]]:
    """(the others, the chosen): round(fraction · n) of the samples at random, but at least one.

    Both lists stay sorted. The choice depends only on the seed, on `what` the samples are chosen
    for ("test" or "validation"), and on their names. UserError if no others remain.
    """
    count = max(1, round(len(samples) * fraction))
    flag = "--test-fraction" if what == "test" else "--val-fraction"
    check_enough(samples, count, f"{flag} {fraction:g}", what)
    names = sorted(sample.name for sample in samples)
    chosen = set(random.Random(f"{what} {seed}").sample(names, count))
    return (
        [sample for sample in samples if sample.name not in chosen],
        [sample for sample in samples if sample.name in chosen],
    )


def check_enough(samples: list[Sample], count: int, flag: str, what: str) -> None:
    """UserError if `count` of the samples, which the flag takes for `what`, leave no others."""
    if count < len(samples):
        return
    remedies = ["--val none trains without validation"]
    if what == "test":
        remedies = ["--test-fraction 0 leaves no image for the test"]
    if len(samples) > 1:
        remedies.insert(0, "a smaller fraction takes fewer")
    raise UserError(
        f"{flag} takes {count} of {counted(len(samples), 'images')} for {what}, and none is left "
        "to train on; "
        f"{', '.join(remedies)}"
    )


def fold(samples: list[Sample], folds: int, k: int) -> tuple[list[Sample], list[Sample]]:
    """(training, validation) of fold k of a cross-validation, k = 0 … folds − 1.

    Validation is every folds-th sample from the k-th on. UserError if there is no such fold.
    """
    if len(samples) < 2:
        raise UserError("--folds: a cross-validation needs at least 2 training images")
    if not (2 <= folds <= len(samples) and 0 <= k < folds):
        raise UserError(
            f"fold {k} of {folds} cannot be made from {counted(len(samples), 'training images')}; "
            f"use 2 to {len(samples)} folds, numbered from 0"
        )
    training = [sample for i, sample in enumerate(samples) if i % folds != k]
    return training, samples[k::folds]


def split_samples(
    splits: dict[str, list[Sample]],
    ordered: bool,
    val: str = "holdout",
    folds: int | None = None,
    k: int | None = None,
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> tuple[list[Sample], list[Sample], list[Sample]]:
    """(training, validation, test samples) of a run.

    Args:
        splits: those of DatasetFiles.
        ordered: hold out the last samples for validation instead of random ones.
        val: "holdout": the layout's validation split, else `val_fraction` of the training samples.
            "none": no validation; the layout's validation split is then the test, if there is no
            other. "test": the test samples.
        folds, k: fold k of a cross-validation of the training samples; there is no test then.
        test_fraction: share of a dataset without splits that becomes the test, at random; 0: none.
        seed: of the random splits.
    """
    training, validation, test = splits.get("train"), splits.get("val", []), splits.get("test", [])
    if training is None:
        training = splits["all"]
        if test_fraction and not folds:
            training, test = random_split(training, test_fraction, seed, "test")
    if folds:
        return *fold(training, folds, k), []
    test = labelled(test)
    if val == "test":
        if not test:
            raise UserError("--val test: there are no test images with labels; use --val holdout")
        return training, test, test
    if val == "none":
        return training, [], test or validation
    if not validation and ordered:
        training, validation = hold_out(training, val_fraction)
    elif not validation:
        training, validation = random_split(training, val_fraction, seed, "validation")
    return training, validation, test


def test_samples(
    splits: dict[str, list[Sample]],
    names: dict[str, list[str]] | None = None,
    val: str = "holdout",
    test_fraction: float = 0.2,
    seed: int = 0,
) -> list[Sample]:
    """The labelled test samples, for the evaluation of a finished run.

    These are the samples that `names` (a split.json) lists as test; without them those of a run
    with val "none" are the ones that it lists as val, and otherwise the layout's test split, if
    there is one. Without `names` they are those of split_samples(). With test_fraction 1, all
    samples of a dataset without splits are test samples, whatever `names` says.
    """
    if names and test_fraction != 1:
        names = {"test": names["test"], "val": names["val"] if val == "none" else []}
        _, val_samples, test = samples_by_name(splits, names)
        listed = labelled(test) or labelled(val_samples)
        if listed or "all" in splits:  # another random split would hold images that were trained on
            return listed
    if "all" not in splits:
        test = labelled(splits.get("test", []))
        if not test and val == "none":
            test = labelled(splits.get("val", []))
        return test
    if test_fraction == 1:
        return labelled(splits["all"])
    if not test_fraction:
        return []
    return labelled(random_split(splits["all"], test_fraction, seed, "test")[1])


def check_disjoint(train: list[Sample], val: list[Sample], test: list[Sample]) -> None:
    """UserError if an image is in two of the splits: the final scores would be optimistic."""
    seen = {}
    for split, samples in zip(SPLIT_NAMES, (train, val, test), strict=True):
        for sample in samples:
            path = Path(sample.image).resolve()
            first = seen.setdefault(path, split)
            if first == split:
                continue
            reason = "the model would be scored on an image that it was trained on"
            if first == "val":
                reason = "images that choose the epoch are no test; --val test does so knowingly"
            raise UserError(f"{sample.image} is both {first} and {split}: {reason}")


def labelled(samples: list[Sample]) -> list[Sample]:
    """The samples that have a label; the test labels of some datasets are not public."""
    return [sample for sample in samples if sample.label or sample.instances]


# --- splits as lists of names --------------------------------------------------------------------


def split_names(
    train: list[Sample] | None = None,
    val: list[Sample] | None = None,
    test: list[Sample] | None = None,
) -> dict[str, list[str]]:
    """{"train", "val", "test": names} of the lists that are given, as split.json stores them."""
    names = {}
    for split, samples in zip(SPLIT_NAMES, (train, val, test), strict=True):
        if samples is not None:
            names[split] = [sample.name for sample in samples]
    return names


def samples_by_name(
    splits: dict[str, list[Sample]], names: dict[str, list[str]]
) -> tuple[list[Sample], list[Sample], list[Sample]]:
    """(training, validation, test samples) with these names; UserError for names without sample.

    A name is looked up in its own split first, then in all splits.
    """
    anywhere = {}
    for samples in splits.values():
        for sample in samples:
            anywhere.setdefault(sample.name, sample)
    found = []
    for split in SPLIT_NAMES:
        by_name = anywhere | {sample.name: sample for sample in splits.get(split, [])}
        wanted = names.get(split, [])
        missing = [name for name in wanted if name not in by_name]
        if missing:
            raise UserError(
                "the saved split names images that are not there any more: "
                f"{', '.join(missing[:8])}; bring them back, start a new run, or evaluate on "
                "other data with --test-fraction 1 (all of it) or another --split-file"
            )
        found.append([by_name[name] for name in wanted])
    return tuple(found)


def read_split(path: str | Path, fold: int | None = None) -> dict[str, list[str]]:
    """The lists of names in a split.json, or of a fold in a list of folds.

    A list of folds is nnU-Net's [{"train": [names], "val": [names]}, …]. UserError for anything
    else, and for a fold that is not in the list.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content and isinstance(content, list):
            content = fold_of(content, fold, path)
        if all(isinstance(content[name], list) for name in SPLIT_NAMES):
            return content
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UserError(
        f'{path}: is no split; it must hold {{"train": [names], "val": [names], "test": [names]}}'
    )


def fold_of(folds: list[dict], fold: int | None, path: str | Path) -> dict[str, list[str]]:
    """The split of a fold, without test samples; UserError if `path` has no such fold."""
    if fold is None or fold >= len(folds):
        chosen = "no --fold" if fold is None else f"--fold {fold}"
        raise UserError(
            f"{path}: holds {len(folds)} folds, and {chosen} chooses one; "
            f"give --fold 0 to {len(folds) - 1}"
        )
    return {"test": [], **folds[fold]}

"""Splits: at random by a seed, saved and read again; by folder; by folds."""

import json

import pytest

from my_dataset import Sample
from src.errors import UserError
from train_utils.data import splits
from train_utils.data.splits import (
    check_disjoint,
    hold_out,
    random_split,
    read_split,
    samples_by_name,
    split_names,
    split_samples,
)


def samples(*names):
    return [Sample(name, f"{name}.png", f"{name}_mask.png") for name in names]


MANY = samples(*(f"{number:03d}" for number in range(118)))
APART = {"train": samples(*"abcdefghij"), "val": samples("k", "l"), "test": samples("m")}


def names(parts):
    return [[sample.name for sample in part] for part in parts]


def test_a_random_split_depends_only_on_the_seed_and_the_names():
    first = random_split(MANY, 0.2, 0, "test")
    assert first == random_split(MANY, 0.2, 0, "test") != random_split(MANY, 0.2, 1, "test")
    assert names(first)[1] == sorted(names(random_split(MANY[::-1], 0.2, 0, "test"))[1])
    assert random_split(MANY, 0.2, 0, "validation") != first
    assert len(first[1]) == 24 and sorted(sum(names(first), [])) == names([MANY])[0]
    assert names(first)[1] == sorted(names(first)[1])


def test_a_random_split_is_the_same_on_every_machine():
    # From random.Random("test 0").sample of Python 3.11; seeding by a string is the same on every
    # platform.
    assert names(random_split(MANY, 0.05, 0, "test"))[1] == [
        "003",
        "021",
        "048",
        "055",
        "080",
        "116",
    ]


@pytest.mark.parametrize(
    "val, sizes", [("holdout", (75, 19, 24)), ("none", (94, 0, 24)), ("test", (94, 24, 24))]
)
def test_a_dataset_without_splits_gets_disjoint_ones(val, sizes):
    training, validation, test = split_samples({"all": MANY}, ordered=False, val=val)
    assert (len(training), len(validation), len(test)) == sizes
    held_out = {sample.name for sample in validation + test}
    trained_on = {sample.name for sample in training}
    assert not held_out & trained_on and len(held_out | trained_on) == 118


def test_with_test_fraction_0_all_are_for_training():
    parts = split_samples({"all": MANY}, False, "none", test_fraction=0)
    assert [len(part) for part in parts] == [118, 0, 0]


def test_the_splits_of_the_layout_are_used():
    assert split_samples(APART, False) == (APART["train"], APART["val"], APART["test"])
    assert split_samples(APART, False, "none") == (APART["train"], [], APART["test"])
    assert split_samples(APART, False, "test") == (APART["train"], APART["test"], APART["test"])


def test_unused_validation_images_are_the_test_if_there_is_no_other():
    files = {"train": APART["train"], "val": APART["val"]}
    assert split_samples(files, False, "none") == (APART["train"], [], APART["val"])
    assert split_samples(files, False) == (APART["train"], APART["val"], [])
    assert splits.test_samples(files, val="none") == APART["val"]
    assert splits.test_samples(files) == []


def test_ordered_datasets_hold_out_their_last_samples_and_others_random_ones():
    files = {"train": APART["train"], "test": APART["test"]}
    assert names(split_samples(files, ordered=True))[1] == ["i", "j"]
    assert len(split_samples(files, ordered=False, val_fraction=0.4)[1]) == 4


def test_test_images_without_labels_are_not_evaluated_and_cannot_validate():
    unlabelled = {"train": APART["train"], "test": [Sample("m", "m.png")]}
    assert split_samples(unlabelled, True)[2] == []
    with pytest.raises(UserError, match="--val test"):
        split_samples(unlabelled, True, "test")


def test_folds_use_all_samples_and_leave_no_test():
    training, validation, test = split_samples({"all": MANY}, False, folds=5, k=1)
    assert len(training) + len(validation) == 118 and test == []


def test_one_image_has_no_folds():
    with pytest.raises(UserError, match="at least 2 training images"):
        split_samples({"all": MANY[:1]}, False, folds=5, k=0)


def test_too_few_samples_are_refused_with_the_flags_that_help():
    with pytest.raises(UserError, match="0.2 takes 1 of 1 image for test.*--test-fraction 0 "):
        split_samples({"all": MANY[:1]}, False)
    with pytest.raises(UserError, match="takes 1 of 1 image for validation.*--val none") as error:
        split_samples({"train": MANY[:1]}, False)
    assert "a smaller fraction" not in str(error.value)  # would take the only image, too
    with pytest.raises(UserError, match="--val-fraction 0.95 .*a smaller fraction.*--val none"):
        hold_out(MANY[:5], 0.95)


def test_splits_with_an_image_in_common_are_refused(tmp_path):
    a, b, c = samples("a", "b", "c")
    check_disjoint([a, a], [b], [c])  # as often as one wants, within a split
    for parts, named in (
        (([a, b], [b], []), "b.png is both train and val"),
        (([a], [b], [a]), "a.png is both train and test"),
        (([a], [b], [c, b]), "b.png is both val and test.*--val test"),
        (([a], [Sample("other", "x/../a.png", "m.png")], []), "both train and val"),
    ):
        with pytest.raises(UserError, match=named):
            check_disjoint(*parts)


def test_a_saved_split_is_the_same_after_files_were_added(tmp_path):
    parts = split_samples({"all": MANY}, False)
    (tmp_path / "split.json").write_text(json.dumps(split_names(*parts)))
    split = read_split(tmp_path / "split.json")
    more = {"all": samples("000a") + MANY}
    assert samples_by_name(more, split) == parts
    assert splits.test_samples(more, split) == parts[2]
    assert splits.test_samples(more, split, test_fraction=1) == more["all"]
    fold = {"train": split["train"], "val": split["val"], "test": []}
    assert splits.test_samples(more, fold, "none") == parts[1]
    assert splits.test_samples(more, fold) == []  # a random split would hold training images
    assert splits.test_samples(APART, {"train": [], "val": [], "test": []}) == APART["test"]
    with pytest.raises(UserError, match="not there any more: .*117"):
        samples_by_name({"all": MANY[:-1]}, split)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"train": []}', '{"train": 1, "val": [], "test": []}']
)
def test_other_files_are_refused_as_splits(tmp_path, content):
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(UserError, match="is no split"):
        read_split(tmp_path / "split.json")
    with pytest.raises(UserError, match="no such file"):
        read_split(tmp_path / "none.json")

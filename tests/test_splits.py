"""Splits: drawn by a seed, written down, read again; by folder; by folds."""

import pytest

from my_dataset import Sample
from src.errors import UserError
from train_utils.data.splits import (
    draw,
    read_split,
    samples_by_name,
    split_names,
    split_samples,
)
from train_utils.data.splits import (
    test_samples as judged_samples,
)


def samples(*names):
    return [Sample(name, f"{name}.png", f"{name}_mask.png") for name in names]


MANY = samples(*(f"{number:03d}" for number in range(118)))
APART = {"train": samples(*"abcdefghij"), "val": samples("k", "l"), "test": samples("m")}


def names(parts):
    return [[sample.name for sample in part] for part in parts]


def test_a_draw_depends_on_the_seed_and_the_names_alone():
    first = draw(MANY, 0.2, 0, "test")
    assert first == draw(MANY, 0.2, 0, "test") != draw(MANY, 0.2, 1, "test")
    assert names(first)[1] == sorted(names(draw(MANY[::-1], 0.2, 0, "test"))[1])
    assert draw(MANY, 0.2, 0, "validation") != first
    assert len(first[1]) == 24 and sorted(sum(names(first), [])) == names([MANY])[0]
    assert names(first)[1] == sorted(names(first)[1])


def test_the_draw_is_the_same_on_every_machine():
    # Drawn once by Python 3.11's random.Random("test 0").sample; its seeding by text is the same on every platform.
    assert names(draw(MANY, 0.05, 0, "test"))[1] == ["003", "021", "048", "055", "080", "116"]


@pytest.mark.parametrize(
    "val, sizes", [("holdout", (75, 19, 24)), ("none", (94, 0, 24)), ("test", (94, 24, 24))]
)
def test_one_piece_is_cut_into_disjoint_parts(val, sizes):
    training, validation, test = split_samples({"all": MANY}, ordered=False, val=val)
    assert (len(training), len(validation), len(test)) == sizes
    drawn = {sample.name for sample in validation + test}
    assert (
        not drawn & {sample.name for sample in training}
        and len(drawn | {sample.name for sample in training}) == 118
    )


def test_without_a_test_fraction_nothing_is_set_aside():
    assert [len(part) for part in split_samples({"all": MANY}, False, "none", test_fraction=0)] == [
        118,
        0,
        0,
    ]


def test_folders_that_are_there_are_the_splits():
    assert split_samples(APART, False) == (APART["train"], APART["val"], APART["test"])
    assert split_samples(APART, False, "none") == (APART["train"], [], APART["test"])
    assert split_samples(APART, False, "test") == (APART["train"], APART["test"], APART["test"])


def test_validation_images_that_play_no_part_are_the_test_where_there_is_none():
    without = {"train": APART["train"], "val": APART["val"]}
    assert split_samples(without, False, "none") == (APART["train"], [], APART["val"])
    assert split_samples(without, False) == (APART["train"], APART["val"], [])
    assert judged_samples(without, val="none") == APART["val"] and judged_samples(without) == []


def test_ordered_sets_hold_out_their_last_cases_and_others_draw():
    without = {"train": APART["train"], "test": APART["test"]}
    assert names(split_samples(without, ordered=True))[1] == ["i", "j"]
    assert len(split_samples(without, ordered=False, val_fraction=0.4)[1]) == 4


def test_unlabelled_tests_are_not_scored_and_cannot_choose():
    blind = {"train": APART["train"], "test": [Sample("m", "m.png")]}
    assert split_samples(blind, True)[2] == []
    with pytest.raises(UserError, match="--val test"):
        split_samples(blind, True, "test")


def test_folds_use_all_and_leave_no_test():
    training, validation, test = split_samples({"all": MANY}, False, folds=5, k=1)
    assert len(training) + len(validation) == 118 and test == []


def test_too_few_cannot_be_split():
    with pytest.raises(UserError, match="1 images cannot be split"):
        split_samples({"all": MANY[:1]}, False)


def test_a_split_is_read_again_though_files_were_added(tmp_path):
    import json

    parts = split_samples({"all": MANY}, False)
    (tmp_path / "split.json").write_text(json.dumps(split_names(*parts)))
    split = read_split(tmp_path / "split.json")
    more = {"all": samples("000a") + MANY}
    assert samples_by_name(more, split) == parts
    assert (
        judged_samples(more, split) == parts[2]
        and judged_samples(more, split, test_fraction=1) == more["all"]
    )
    with pytest.raises(UserError, match="not there any more: .*117"):
        samples_by_name({"all": MANY[:-1]}, split)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"train": []}', '{"train": 1, "val": [], "test": []}']
)
def test_other_files_are_no_splits(tmp_path, content):
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(UserError, match="is no split"):
        read_split(tmp_path / "split.json")
    with pytest.raises(UserError, match="no such file"):
        read_split(tmp_path / "none.json")

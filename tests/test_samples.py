"""Which label of a sample is read: classes, or ids of objects."""

from pathlib import Path

import pytest

from tests.small import error_of
from train_utils.data.samples import Sample, choose_label_kind, label_path

IMAGE, LABEL, IDS = Path("a.png"), Path("masks/a.png"), Path("instances/a")
CLASSES, BOTH = Sample("a", IMAGE, LABEL), Sample("a", IMAGE, LABEL, instances=IDS)
OBJECTS, NEITHER = Sample("a", IMAGE, instances=IDS), Sample("a", IMAGE)


@pytest.mark.parametrize(
    "samples, kind",
    [
        ([CLASSES], "classes"),
        ([BOTH], "classes"),
        ([OBJECTS], "instances"),
        ([OBJECTS, NEITHER], "instances"),
        ([OBJECTS, CLASSES], "classes"),
        ([NEITHER], "classes"),
        ([], "classes"),
    ],
)
def test_ids_are_the_default_where_there_are_no_other_labels(samples, kind):
    assert choose_label_kind(None, samples) == choose_label_kind(None, iter(samples)) == kind


def test_the_flag_decides():
    assert choose_label_kind("instances", [BOTH]) == "instances"
    assert choose_label_kind("instances", [CLASSES]) == "instances"
    assert choose_label_kind("classes", [BOTH, OBJECTS]) == "classes"
    message = error_of(choose_label_kind, "classes", [NEITHER, OBJECTS])
    assert "--label-kind classes" in message and str(IDS) in message


def test_labels_are_read_as_ids_where_there_are_no_others():
    assert [label_path(each, "classes") for each in (CLASSES, BOTH, OBJECTS)] == [
        LABEL,
        LABEL,
        None,
    ]
    assert [label_path(each, "instances") for each in (CLASSES, BOTH, NEITHER)] == [
        LABEL,
        IDS,
        None,
    ]

"""Labels that could not be scored are found before the training."""

import numpy as np
from PIL import Image

from src.image_io import IGNORE
from tests.made_volumes import draw, save
from tests.small import error_of
from train_utils.data import check_labels as module
from train_utils.data.check_labels import check_labels
from train_utils.data.class_table import BINARY, ClassTable
from train_utils.data.samples import Sample

TABLE = ClassTable(("ground", "brick"), (None, None), {0: 0, 1: 1, 255: IGNORE})


def samples_of(folder, *rows):
    """Samples whose labels have these values; their images do not exist."""
    samples = []
    for number, row in enumerate(rows):
        path = folder / f"{number}.png"
        Image.fromarray(np.array([row], np.uint8)).save(path)
        samples.append(Sample(str(number), folder / "no_image.png", path))
    return samples


def check(samples, classes=TABLE):
    check_labels("test", samples, classes, "classes", None, is_volumes=False)


def test_good_labels_pass_without_their_images(tmp_path):
    check(samples_of(tmp_path, [0, 1, 1], [0, 0, 255]))
    check(samples_of(tmp_path, [0, 0, 200], [0, 200, 200]), BINARY)


def test_a_value_outside_the_table_is_named(tmp_path):
    message = error_of(check, samples_of(tmp_path, [0, 1, 1], [0, 1, 7]))
    assert "1.png" in message and "7" in message


def test_labels_that_are_all_ignored_are_refused(tmp_path):
    message = error_of(check, samples_of(tmp_path, [255, 255], [255, 255]))
    assert "every pixel of the test images is ignored" in message


def test_labels_that_contradict_each_other_are_refused(tmp_path):
    assert "would mean two things" in error_of(
        check, samples_of(tmp_path, [0, 1, 1], [1, 2, 2]), BINARY
    )


def test_of_many_labels_a_part_is_read(tmp_path, monkeypatch):
    samples = samples_of(tmp_path, [0, 1, 1], [0, 1, 7])
    monkeypatch.setattr(module, "MAX_PIXELS", 2)
    check(samples)


def test_labels_of_volumes_are_checked_too(tmp_path):
    path = save(tmp_path / "a.nii.gz", draw(0)[1])
    sample = Sample("a", tmp_path / "no_image.nii.gz", path)
    table = ClassTable(("ground", "left", "right"), (None,) * 3, {0: 0, 1: 1, 2: 2})
    check_labels("test", [sample], table, "classes", None, is_volumes=True)
    message = error_of(check_labels, "test", [sample], TABLE, "classes", None, True)
    assert "a.nii.gz" in message and "2" in message

"""The demo's volumes are deterministic, are read as they are, and overwrite nothing."""

import numpy as np
import pytest

from my_dataset import VolumeDataset, list_samples
from tests.small import error_of
from tests.tiny import parse
from train_utils.cli.demo import make_data
from train_utils.data.class_table import find_table
from train_utils.data.demo_volumes import draw_volume, write_demo_volumes


def test_each_volume_holds_a_body_with_a_core():
    for number in range(12):
        image, label = draw_volume(np.random.default_rng([0, number]))
        body, core = image[label == 1].mean(), image[label == 2].mean()
        assert core > body > image[label == 0].mean()
        assert 0.01 < (label > 0).mean() < 0.2 and (label == 2).sum() > 50
    again, _ = draw_volume(np.random.default_rng([0, 11]))
    assert np.array_equal(image, again)


def test_the_demo_is_a_dataset_and_is_completed_but_never_overwritten(tmp_path):
    root = write_demo_volumes(tmp_path / "demo", count=2)
    samples = list_samples("volumes", root)["all"]
    dataset = VolumeDataset(samples, find_table(root, "", None))
    assert dataset.classes.names == ("background", "body", "core")
    assert (dataset.count_pixels()[:3] > 0).all()
    before = samples[0].image.read_bytes()
    samples[0].image.write_bytes(b"changed")
    write_demo_volumes(root, count=2)
    assert samples[0].image.read_bytes() == b"changed"
    (root / "demo.txt").write_text("unfinished")
    write_demo_volumes(root, count=2)
    assert samples[0].image.read_bytes() == before


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(FileExistsError):
        write_demo_volumes(tmp_path)
    args = parse("--demo", "--model", "unet_3d", "--data-path", tmp_path)
    assert "--demo: " in error_of(make_data, args)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]

"""Masks of an image: read at its size or another one, and refused if they belong to another."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.small import error_of
from train_utils.data.class_table import BINARY
from train_utils.data.masks import (
    objects_of,
    read_any_label,
    read_roi,
    read_weight_map,
    resized,
    target_of,
)

IMAGE = torch.zeros(3, 4, 6, dtype=torch.uint8)
LEFT = np.arange(6)[None].repeat(4, 0) < 2  # two of six columns


@pytest.fixture
def left(tmp_path):
    """The path of a mask [4, 6] of 0 and 255."""
    path = tmp_path / "left.png"
    Image.fromarray(LEFT.astype(np.uint8) * 255).save(path)
    return path


def test_an_roi_mask_is_read_at_its_own_and_at_another_size(left):
    assert np.array_equal(read_roi(left, "x.png", IMAGE), LEFT)
    twice = read_roi(left, "x.png", IMAGE, size=(8, 12))
    assert twice.dtype == bool and np.array_equal(twice, LEFT.repeat(2, 0).repeat(2, 1))


def test_masks_of_another_size_and_empty_ones_are_refused(left):
    message = error_of(read_roi, left, "x.png", IMAGE[:, :3])
    assert "left.png: is 6×4 pixels, but its image x.png is 6×3" in message
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(left)
    assert "left.png: the ROI mask is empty" in error_of(read_roi, left, "x.png", IMAGE)


def test_without_a_file_each_weight_is_1(tmp_path):
    for size, shape in ((None, (4, 6)), ((8, 12), (8, 12))):
        weight = read_weight_map(None, "x.png", IMAGE, size)
        assert weight.shape == shape and weight.dtype == np.float32 and (weight == 1).all()
    np.save(tmp_path / "x.npy", LEFT + 0.5)
    weight = read_weight_map(tmp_path / "x.npy", "x.png", IMAGE, (2, 3))
    assert weight.tolist() == [[1.5, 0.5, 0.5]] * 2


def test_a_label_is_read_as_classes_or_as_ids(left):
    label, encoding = read_any_label(left, "classes", BINARY)
    assert np.array_equal(label, LEFT) and encoding == "0/255"
    ids, encoding = read_any_label(left, "instances", BINARY)
    assert np.array_equal(ids, 255 * LEFT) and encoding == "instance ids"
    assert np.array_equal(target_of(ids, "instances"), LEFT)
    assert np.array_equal(resized(ids, None), ids)


def test_objects_are_ids_or_connected_regions_and_touching_ids_get_a_gap():
    ids = np.zeros((12, 12), np.int32)
    ids[:, :6], ids[:, 6:] = 1, 2
    assert np.array_equal(objects_of(ids, "instances"), ids)
    assert objects_of(np.eye(12, dtype=np.uint8), "classes").max() == 1
    target = target_of(ids, "instances")
    assert (target[:, [0, -1]] == 1).all() and (target[:, 5:7] == 0).all()
    assert np.array_equal(target_of(ids, "classes"), ids)

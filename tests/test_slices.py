"""Three slices of a volume as one picture."""

import numpy as np
import pytest
import torch

from src.image_io import IGNORE
from src.memory import LiveBytes
from train_utils.reporting.slices import (
    as_grey,
    densest_point,
    grey_range,
    orthogonal_slices,
    slices_of,
)


def coded():
    """[3, 4, 5]: each voxel holds 100·d + 10·h + w."""
    d, h, w = torch.meshgrid(torch.arange(3), torch.arange(4), torch.arange(5), indexing="ij")
    return 100 * d + 10 * h + w


def test_slices_are_side_by_side_with_the_ends_of_the_axes_at_the_top():
    picture = orthogonal_slices(coded(), (1, 2, 3), (1, 1, 1), fill=-1)
    assert picture.shape == (4, 5 + 1 + 5 + 1 + 4)
    assert picture[0, :5].tolist() == [130, 131, 132, 133, 134]  # d = 1, h = 3 … 0 downwards
    assert picture[3, :5].tolist() == [100, 101, 102, 103, 104]
    assert picture[:, 6].tolist() == [220, 120, 20, -1]  # h = 2, d = 2 … 0 downwards
    assert picture[0, 12:].tolist() == [203, 213, 223, 233]  # w = 3
    assert (picture[:, 5] == -1).all()


def test_long_voxels_are_repeated():
    picture = orthogonal_slices(coded(), (1, 2, 3), (2, 1, 1), fill=-1)
    assert picture[:, 6].tolist() == [220, 220, 120, 120, 20, 20]
    assert picture[0, :5].tolist() == [130, 131, 132, 133, 134]


def test_slices_go_through_the_structure():
    target = torch.zeros(6, 7, 8, dtype=torch.uint8)
    target[1:4, 2:3, 5:7] = 2
    target[0] = IGNORE
    assert densest_point(target) == [1, 2, 5]
    assert densest_point(torch.zeros(2, 2, 2)) is None
    image = torch.randn(2, 6, 7, 8, generator=torch.Generator().manual_seed(0))
    prediction = torch.ones_like(target)
    slices = slices_of(image, target, prediction, (1.0, 1.0, 3.1))
    grey, truth, predicted, inside = slices
    assert grey.dtype == torch.uint8
    assert grey.shape[1:] == truth.shape == predicted.shape == inside.shape
    assert (truth == 2).any() and grey.max() == 255
    # 7×24 of the first axis, 6×24 and 6×7 of the others, whose voxels are repeated three times.
    assert inside.sum() == 7 * 24 + 6 * 24 + 6 * 7 and (predicted == inside).all()
    assert (truth == IGNORE).sum() == 24 + 7  # what the label ignores, not what lies between
    picture = slices.on_white(np.zeros((*inside.shape, 3), np.uint8))
    assert (picture == 255).all(axis=2).sum() == (~inside).sum()
    slices_of(image, target * 0, prediction * 0, (1.0, 1.0, 1.0))


@pytest.mark.parametrize("spacing", [(3.1, 1.0, 2.2), (1.0, 2.6, 1.4), (1.0, 1.0, 5.0)], ids=str)
def test_slices_are_those_of_the_enlarged_volume(spacing):
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 6, 7, 8, generator=generator)
    target = torch.randint(0, 3, (6, 7, 8), generator=generator, dtype=torch.uint8)
    prediction = torch.randint(0, 3, (6, 7, 8), generator=generator, dtype=torch.uint8)
    slices = slices_of(image, target, prediction, spacing)
    factors, point = [round(size) for size in spacing], densest_point(target)
    middle = [index * factor + factor // 2 for index, factor in zip(point, factors, strict=True)]
    grey = as_grey(image[0], *grey_range(image[0]))
    inside = torch.ones_like(target, dtype=torch.bool)
    for found, volume in zip(slices, (grey, target, prediction, inside), strict=True):
        for axis, factor in enumerate(factors):
            volume = volume.repeat_interleave(factor, axis)
        expected = orthogonal_slices(volume, middle, (1, 1, 1), fill=0)
        assert found.dtype == volume.dtype and torch.equal(found.view_as(expected), expected)


def test_long_voxels_need_no_enlarged_volume():
    image, target = torch.randn(1, 64, 256, 256), torch.zeros(64, 256, 256, dtype=torch.uint8)
    with LiveBytes() as live:
        slices_of(image, target, target, (20.0, 1.0, 1.0))
    assert image.nbytes < live.peak < 4 * image.nbytes  # the image itself is counted


def test_grey_values_span_the_percentiles():
    values = torch.linspace(-3, 5, 1001)
    grey = as_grey(values, *grey_range(values))
    assert grey[0] == grey[10] == 0 and grey[990] == grey[-1] == 255 and 120 < grey[500] < 135
    values = torch.full((4, 4), 7.0)
    assert (as_grey(values, *grey_range(values)) == 0).all()

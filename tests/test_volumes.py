"""Resampling and normalization of volumes."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from src.volumes import (
    normalize_volume,
    resampled_shape,
    resize_label,
    resize_volume,
    same_spacing,
)


def test_voxels_within_ten_percent_are_not_resampled():
    assert resampled_shape((10, 20, 30), (1, 1.09, 0.91), (1, 1, 1)) is None
    assert resampled_shape((10, 20, 30), (2, 1, 0.5), (1, 1, 1)) == (20, 20, 15)
    assert resampled_shape((1, 20, 30), (0.1, 1, 1), (1, 1, 1)) == (1, 20, 30)


def test_resampling_agrees_with_scipy():
    volume = torch.rand(2, 6, 7, 8, generator=torch.Generator().manual_seed(0))
    resized = resize_volume(volume, (9, 7, 12))
    # Voxel i of n, of m before, lies at (i + ½)·m/n − ½: voxels cover the same space.
    positions = [
        (np.arange(n) + 0.5) * m / n - 0.5 for n, m in zip((9, 7, 12), (6, 7, 8), strict=True)
    ]
    grid = np.stack(np.meshgrid(*positions, indexing="ij"))
    for channel in range(2):
        expected = ndimage.map_coordinates(volume[channel].numpy(), grid, order=1, mode="nearest")
        np.testing.assert_allclose(resized[channel], expected, atol=1e-6)
    label = (volume[0] > 0.5).byte()
    nearest = [np.floor(position + 0.5).astype(int).clip(0) for position in positions]
    expected = label.numpy()[np.ix_(*nearest)]
    np.testing.assert_array_equal(resize_label(label, (9, 7, 12)), expected)


def test_an_axis_that_shrinks_to_less_than_half_is_averaged():
    """Single bright slices would vanish, or count several times."""
    volume = torch.zeros(1, 24, 6, 6)
    volume[:, 5] = 1
    volume[:, 16:18, 2] = 1
    resized = resize_volume(volume, (6, 6, 6))
    expected = torch.zeros(1, 6, 6, 6)
    expected[:, 1] = 1 / 4
    expected[:, 4, 2] = 1 / 2
    torch.testing.assert_close(resized, expected)
    noise = torch.randn(1, 50, 8, 60, generator=torch.Generator().manual_seed(0))
    resized = resize_volume(noise + 3, (10, 12, 12))  # the second axis grows
    assert resized.shape == (1, 10, 12, 12) and resized.mean() == pytest.approx(3, abs=0.05)
    assert resized.std() < 0.3  # of 25 voxels each, at most


def test_voxels_that_differ_by_ten_percent_are_the_same():
    assert same_spacing([1.0, 1.0, 2.5], [1.0, 1.05, 2.3])
    assert not same_spacing([1.0, 1.0, 2.5], [1.0, 1.0, 2.0])


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e4])
def test_each_channel_is_normalized_inside_the_roi(scale):
    generator = torch.Generator().manual_seed(0)
    volume = scale * (5 + 3 * torch.randn(2, 6, 7, 8, generator=generator))
    whole = normalize_volume(volume)
    assert whole.dtype == torch.float32
    torch.testing.assert_close(whole.mean((1, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(whole.std((1, 2, 3), correction=0), torch.ones(2))
    roi = torch.zeros(6, 7, 8, dtype=torch.bool)
    roi[2:5] = True
    inside = normalize_volume(volume, roi)[:, roi]
    torch.testing.assert_close(inside.mean(1), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(inside.std(1, correction=0), torch.ones(2))


def test_a_constant_channel_becomes_zero():
    assert normalize_volume(torch.full((1, 3, 3, 3), 7.1)).abs().max() < 1e-5


@pytest.mark.parametrize("masked", [False, True])
def test_a_volume_is_normalized_by_slices_as_in_one_piece_of_float64(masked):
    """More slices than are taken at a time; a mean of 10,000 would cost digits in float32."""
    generator = torch.Generator().manual_seed(0)
    volume = 10_000 + torch.randn(2, 5, 600, 700, generator=generator)
    roi = torch.rand(5, 600, 700, generator=generator) > 0.5 if masked else None
    inside = (volume.flatten(1) if roi is None else volume[:, roi]).double()
    mean, std = (each.view(2, 1, 1, 1) for each in (inside.mean(1), inside.std(1, correction=0)))
    expected = ((volume - mean) / std).float()
    torch.testing.assert_close(normalize_volume(volume, roi), expected, atol=1e-6, rtol=0)

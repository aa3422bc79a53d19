"""Crops of volumes: against scipy, what they keep together, where they lie, what is random."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from src.image_io import IGNORE
from train_utils.volume_crops import (
    RandomVolumeCrops,
    cut_crops,
    random_foreground,
    rotations,
)

STILL = {"scale": (1, 1), "rotate": 0, "jitter": 0, "flip_probs": (0, 0, 0), "foreground": 0}


def coordinates(*size):
    """float32 [1, 3, D, H, W] whose channels hold the position of each voxel."""
    axes = [torch.arange(side).float() + 0.5 for side in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


def cut(images, targets=None, seed=0, crop_size=(8, 10, 12), sizes=None, **options):
    """RandomVolumeCrops of a batch, without changes but the options."""
    if targets is None:
        targets = torch.zeros(len(images), *images.shape[2:], dtype=torch.uint8)
    sizes = torch.tensor([images.shape[2:]] * len(images)) if sizes is None else sizes
    crops = RandomVolumeCrops(crop_size, **{**STILL, **options})
    return crops(images, targets, sizes, torch.Generator().manual_seed(seed))


def steps(image):
    """[3, 3]: change of the position (columns) for a voxel along each axis of a crop [3, …]."""
    centre = [side // 2 for side in image.shape[1:]]
    columns = []
    for axis in range(3):
        after, before = list(centre), list(centre)
        after[axis] += 1
        before[axis] -= 1
        columns.append((image[(slice(None), *after)] - image[(slice(None), *before)]) / 2)
    return torch.stack(columns, dim=1)


@pytest.mark.parametrize(
    "degrees, scales",
    [
        ((0, 0, 0), (1, 1, 1)),
        ((90, 0, 0), (1, 1, 1)),
        ((25, 0, 0), (1, -1, 1)),
        ((10, -20, 30), (0.8, 1.25, -1.1)),
    ],
    ids=str,
)
def test_crops_agree_with_scipy(degrees, scales):
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 1, 14, 16, 18, generator=generator)
    target = torch.randint(0, 5, (1, 14, 16, 18), generator=generator, dtype=torch.uint8)
    size, centre = (9, 11, 8), torch.tensor([[6.6, 8.3, 9.9]])
    matrix = rotations(torch.deg2rad(torch.tensor([degrees]).float())) * torch.tensor(scales)
    crop, ids = cut_crops(image, target, matrix, centre, size)
    # Voxel i of the crop lies at centre + matrix · (i + ½ − size / 2), its index is ½ less.
    own, half = matrix[0].double().numpy(), (np.array(size) - 1) / 2
    offset = centre[0].double().numpy() - 0.5 - own @ half
    options = {"output_shape": size, "mode": "grid-constant", "order": 1}
    expected = ndimage.affine_transform(image[0, 0].double().numpy(), own, offset, **options)
    np.testing.assert_allclose(crop[0, 0], expected, atol=2e-5)
    options |= {"order": 0, "cval": IGNORE, "mode": "constant"}
    nearest = ndimage.affine_transform(target[0].numpy(), own, offset, **options)
    assert (ids[0].numpy() != nearest).mean() < 0.01  # rounding of positions between two voxels
    assert ids.dtype == torch.int64


def test_a_plain_crop_copies_voxels():
    generator = torch.Generator().manual_seed(0)
    images = torch.cat([coordinates(20, 22, 24)] * 6)
    targets = torch.randint(0, 3, (6, 20, 22, 24), generator=generator, dtype=torch.uint8)
    image, target = cut(images, targets)
    corners = set()
    for n in range(6):
        start = (image[n, :, 0, 0, 0] - 0.5).round().int().tolist()
        corners.add(tuple(start))
        window = tuple(
            slice(first, first + side) for first, side in zip(start, (8, 10, 12), strict=True)
        )
        torch.testing.assert_close(image[n], images[n][(slice(None), *window)])
        assert torch.equal(target[n], targets[n][window].long())
    assert len(corners) == 6


def test_volumes_smaller_than_the_crop_are_padded():
    image, target = cut(coordinates(5, 20, 20) + 1, crop_size=(9, 10, 12))
    assert (target[:, 2:7] == 0).all() and (target[:, :2] == IGNORE).all()
    assert (image[:, :, :2] == 0).all() and (target[:, 7:] == IGNORE).all()


def test_the_padding_of_a_batch_is_never_in_the_middle_of_a_crop():
    """A volume of 10³ in a stack padded to 30³: its crops of 8³ lie inside the 10³."""
    target = torch.full((1, 30, 30, 30), IGNORE, dtype=torch.uint8)
    target[:, :10, :10, :10] = 1
    for seed in range(20):
        options = {"foreground": seed % 2, "crop_size": (8, 8, 8), "seed": seed}
        _, ids = cut(coordinates(30, 30, 30), target, sizes=torch.tensor([[10] * 3]), **options)
        assert (ids == 1).all()


def test_rotation_keeps_lengths_in_mm_and_reaches_its_limit():
    spacing, largest = torch.tensor([1.5, 1.0, 0.8]), 0
    for seed in range(40):
        options = {"rotate": 40, "spacing": spacing.tolist(), "crop_size": (4, 4, 4)}
        image, _ = cut(coordinates(40, 40, 40), seed=seed, **options)
        in_mm = steps(image[0]) * spacing[:, None] / spacing
        torch.testing.assert_close(in_mm.T @ in_mm, torch.eye(3), atol=1e-3, rtol=0)
        cosine = ((in_mm.trace() - 1) / 2).clamp(-1, 1)
        largest = max(largest, math.degrees(torch.acos(cosine)))
    assert 30 < largest < 70  # about three axes, up to 40° each


@pytest.mark.parametrize("axis", [0, 2])
def test_long_voxels_are_turned_and_scaled_in_their_plane_only(axis):
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = 4.0
    changed = 0
    for seed in range(12):
        options = {"rotate": 30, "scale": (0.7, 0.9), "spacing": spacing, "crop_size": (4, 4, 4)}
        moved = steps(cut(coordinates(30, 30, 30), seed=seed, **options)[0][0])
        through = torch.zeros(3)
        through[axis] = 1
        torch.testing.assert_close(moved[axis], through, atol=1e-4, rtol=0)
        torch.testing.assert_close(moved[:, axis], through, atol=1e-4, rtol=0)
        changed += not torch.allclose(moved, torch.eye(3), atol=1e-3)
    assert changed > 4


def test_half_are_scaled_and_flips_mirror_each_axis():
    scales, directions = [], set()
    for seed in range(40):
        options = {"scale": (0.8, 1.25), "flip_probs": (0.5,) * 3, "crop_size": (4, 4, 4)}
        diagonal = steps(cut(coordinates(30, 30, 30), seed=seed, **options)[0][0]).diag()
        scales.append(1 / diagonal.abs().mean().item())
        directions.add(tuple(diagonal.sign().int().tolist()))
    untouched = sum(abs(scale - 1) < 1e-3 for scale in scales)
    assert 10 <= untouched <= 30 and 0.79 < min(scales) < 0.9 and 1.1 < max(scales) < 1.26
    assert len(directions) == 8


def test_a_third_of_the_crops_hold_a_rare_structure_in_their_centre():
    target = torch.zeros(1, 60, 60, 60, dtype=torch.uint8)
    target[:, 30, 20, 40] = 2
    target[:, 0, 0, 0] = IGNORE
    centred = 0
    for seed in range(90):
        _, ids = cut(coordinates(60, 60, 60), target, seed, (6, 6, 6), foreground=1 / 3)
        centred += ids[0, 3, 3, 3] == 2
    assert 18 <= centred <= 45
    _, ids = cut(coordinates(60, 60, 60), target, 0, (6, 6, 6), foreground=1)
    assert ids[0, 3, 3, 3] == 2


def test_each_foreground_voxel_is_as_likely():
    targets = torch.zeros(2, 3, 4, 5, dtype=torch.uint8)
    places = [(0, 0, 0), (1, 2, 3), (2, 3, 4)]
    for place in places:
        targets[(0, *place)] = 1
    found = [
        tuple(random_foreground(targets, torch.tensor([choice, choice]))[0][0].int().tolist())
        for choice in (0, 0.3, 0.34, 0.6, 0.67, 0.9999999)
    ]
    assert found == [place for place in places for _ in range(2)]
    assert random_foreground(targets, torch.tensor([0.5, 0.5]))[1].tolist() == [True, False]


def test_intensities_change_by_contrast_and_brightness():
    image = torch.randn(1, 2, 12, 12, 12, generator=torch.Generator().manual_seed(0))
    plain, _ = cut(image)
    factors = set()
    for seed in range(6):
        same, _ = cut(image, seed=seed)
        changed, _ = cut(image, seed=seed, jitter=0.25)
        factor = (changed.std() / same.std()).item()
        offset = (changed - same * factor).flatten()
        assert 0.75 <= factor <= 1.25 and offset.std() < 1e-4 and abs(offset.mean()) <= 0.25
        factors.add(round(factor, 3))
    assert len(factors) == 6 and plain.shape == (1, 2, 8, 10, 12)


def test_margins_reach_beyond_the_volume_and_are_mirrored():
    """What an unpadded network sees around the voxels that it predicts."""
    size = torch.tensor([[10, 12, 14]])
    for seed in range(10):
        options = {"margins": (3, 0, 4), "crop_size": (12, 8, 16), "sizes": size}
        image, target = cut(coordinates(20, 20, 20), seed=seed, **options)
        assert image[:, 0].min() > 0.49 and image[:, 0].max() < 9.51
        assert image[:, 2].min() > 0.49 and image[:, 2].max() < 13.51
        assert (target[:, 3:-3, :, 4:-4] == 0).all()


def test_the_same_seed_gives_the_same_crops():
    image = torch.randn(2, 1, 20, 20, 20)
    options = {"rotate": 30, "jitter": 0.2, "flip_probs": (0.5,) * 3, "foreground": 0.5}
    first, second, other = (cut(image, seed=seed, **options)[0] for seed in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)

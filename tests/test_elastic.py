"""Elastic deformation: the displacements are those of the paper, and all maps move with the image.

Images hold the coordinates of their pixels, so that a crop shows where each of its pixels is from.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as nnF
from PIL import Image

from transforms import (
    BICUBIC_REACH,
    ElasticTransform,
    RandomAffineCrops,
    interpolate_vectors,
    train_preset,
)

RAW = {"mean": [0, 0, 0], "std": [1 / 255] * 3}  # crops keep the range 0–255
STILL = {"scale": (1, 1), "rotate": 0, "jitter": 0, "flip_probs": (0, 0)}
MOVING = {"scale": (0.6, 1.4), "rotate": 180, "jitter": 0, "flip_probs": (0.5, 0.5)}


def coordinates(height, width):
    """float32 [3, H, W] whose channels hold the column, the row, and 100."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([columns, rows, torch.full_like(rows, 100)]).float()


def cut(images, targets=None, seed=0, size=41, maps=(), **options):
    """RandomAffineCrops of the batch without normalization."""
    targets = torch.zeros_like(images[:, 0]) if targets is None else targets
    sizes = torch.tensor([images.shape[-2:]] * len(images))
    crops = RandomAffineCrops(crop_size=size, **{**RAW, **STILL, **options})
    return crops(images, targets, sizes, torch.Generator().manual_seed(seed), maps=maps)


def weights_along(length):
    """[length, 3]: weights of 3 values at the first, central and last of `length` positions.

    Bicubic convolution (Keys 1981, a = −0.75) with the first and the last value repeated.
    """
    weights = np.zeros((length, 3))
    for i in range(length):
        position = 2 * i / (length - 1)
        for tap in range(-2, 5):
            x = abs(position - tap)
            if x <= 1:
                weight = 1.25 * x**3 - 2.25 * x**2 + 1
            else:
                weight = -0.75 * (x**3 - 5 * x**2 + 8 * x - 4) * (x < 2)
            weights[i, min(max(tap, 0), 2)] += weight
    return weights


def fit_vectors(shift, valid):
    """(vectors [2, 9] on a 3 × 3 grid that explain a shift [2, H, W], largest error) in px.

    valid: bool [H, W], pixels that are looked at.
    """
    height, width = valid.shape
    weights = np.einsum("yi,xj->yxij", weights_along(height), weights_along(width))
    weights, shift = weights.reshape(height, width, 9)[valid], shift.numpy()[:, valid].T
    vectors = np.linalg.lstsq(weights, shift, rcond=None)[0]
    return vectors.T, np.abs(weights @ vectors - shift).max()


def inside(*crops):
    """bool [H, W]: pixels of crops of coordinates() that nothing beyond the border is part of."""
    return np.logical_and.reduce([(crop[2] - 100).abs().numpy() < 0.02 for crop in crops])


def vectors_of_crops(count, seed=0, elastic=5, **options):
    """(vectors [N, 2, 9] in px of the image, crops without the deformation) of `count` crops."""
    images = coordinates(250, 240).byte().expand(count, -1, -1, -1)
    plain, _ = cut(images, seed=seed, **options)
    deformed, _ = cut(images, seed=seed, elastic=elastic, **options)
    found = []
    for before, after in zip(plain, deformed, strict=True):
        vectors, error = fit_vectors((after - before)[:2], inside(before, after))
        assert error < 0.05
        found.append(vectors)
    return np.array(found), plain


# --- the displacements --------------------------------------------------------------------------


def test_crops_are_displaced_by_gaussian_vectors_on_a_3_by_3_grid():
    vectors, _ = vectors_of_crops(120)
    assert vectors.std() == pytest.approx(5, rel=0.06)  # of 2160 values: ± 1.5 %
    assert abs(vectors.mean()) < 0.35
    assert np.abs(vectors.std(0) - 5).max() < 1.3  # at each point, in x and in y: ± 6.5 %
    kurtosis = (vectors**4).mean() / (vectors**2).mean() ** 2
    assert kurtosis == pytest.approx(3, abs=0.4)  # a uniform distribution has 1.8
    together = np.corrcoef(vectors.reshape(120, 18).T) - np.eye(18)
    assert np.abs(together).max() < 0.4  # all are independent


def test_the_displacements_are_rotated_scaled_and_mirrored_with_the_crop():
    unmoved, _ = vectors_of_crops(12, seed=3)
    vectors, plain = vectors_of_crops(12, seed=3, **MOVING)
    assert np.abs(vectors - unmoved).max() > 5
    for crop, in_image, in_crop in zip(plain, vectors, unmoved, strict=True):
        # Columns: the change of the position in the image per px of the crop to the right and down.
        right, down = crop[:2, 20, 22] - crop[:2, 20, 18], crop[:2, 22, 20] - crop[:2, 18, 20]
        matrix = torch.stack([right, down], dim=1).numpy() / 4
        np.testing.assert_allclose(in_image, matrix @ in_crop, atol=0.15)


def test_interpolation_never_exceeds_the_reach_that_windows_are_made_for():
    one_hot = torch.eye(9).view(9, 1, 3, 3).expand(-1, 2, -1, -1)
    largest = interpolate_vectors(one_hot, (97, 97)).abs().sum(0).max()
    assert 0.98 * BICUBIC_REACH < largest <= BICUBIC_REACH


def test_the_generator_determines_the_deformation():
    images = coordinates(90, 80).byte().expand(3, -1, -1, -1)
    first, again, other = (cut(images, seed=seed, elastic=4)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_without_deformation_no_random_numbers_are_taken_for_it():
    states = []
    for elastic in (0, 4):
        generator = torch.Generator().manual_seed(0)
        crops = RandomAffineCrops(**RAW, crop_size=16, elastic=elastic)
        images = torch.zeros(1, 3, 30, 30, dtype=torch.uint8)
        crops(images, images[:, 0], torch.tensor([[30, 30]]), generator)
        states.append(generator.get_state())
    generator = torch.Generator().manual_seed(0)
    crops = RandomAffineCrops(**RAW, crop_size=16)
    crops.random_matrices(torch.tensor([[30, 30]]), generator)
    crops.random_jitter(1, generator)
    assert torch.equal(states[0], generator.get_state())
    assert not torch.equal(states[0], states[1])


# --- windows and margins ------------------------------------------------------------------------


def reference(image, target, crops, seed):
    """The crop of one whole image in float64, padded far around its border.

    Positions are computed for one pixel after the other.
    """
    generator, size, around = torch.Generator().manual_seed(seed), crops.crop_size, 59
    height, width = target.shape
    (matrix,) = crops.random_matrices(torch.tensor([[height, width]]), generator).numpy()
    crops.random_jitter(1, generator)
    (vectors,) = crops.random_vectors(1, generator).numpy()
    weights = weights_along(size)
    grid = np.zeros((1, size, size, 2))
    for row in range(size):
        for column in range(size):
            vector = np.einsum("cij,i,j->c", vectors, weights[row], weights[column])
            x, y = np.array([2 * column + 1, 2 * row + 1]) / size - 1 + vector
            position = matrix @ [x, y, 1] + around
            grid[0, row, column] = 2 * position / (np.array([width, height]) + 2 * around) - 1
    grid, mode = torch.from_numpy(grid), "reflect" if crops.margin else "constant"
    image = nnF.pad(image[None].double(), [around] * 4, mode=mode)
    target = nnF.pad(target[None, None].double(), [around] * 4, value=255)
    target = nnF.grid_sample(target, grid, "nearest", align_corners=False)
    return nnF.grid_sample(image, grid, align_corners=False)[0].float(), target[0, 0].long()


@pytest.mark.parametrize("margin", [0, 8])
@pytest.mark.parametrize("size", [(331, 197), (61, 140)], ids=str)
def test_a_deformed_crop_of_a_window_is_that_of_the_whole_image(size, margin):
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(256, (3, *size), generator=generator).byte()
    target = torch.randint(3, size, generator=generator).byte()
    crops = RandomAffineCrops(**RAW, crop_size=33, margin=margin, elastic=6, **MOVING)
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        found = crops(image[None], target[None], torch.tensor([size]), generator)
        expected = reference(image, target, crops, seed)
        torch.testing.assert_close(found[0][0], expected[0], atol=0.1, rtol=0)  # of 255
        assert (found[1][0] != expected[1]).float().mean() < 2e-3


# --- maps ---------------------------------------------------------------------------------------


def make_objects(height, width, count, seed=0):
    """Squares of 14 px, each an object or background: (grey values int32 [N, H, W] of 0–255,
    target uint8, weight float32, ids int32). The last three follow from the grey value."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randint(1, 256, (count, height // 14 + 1, width // 14 + 1), generator=generator)
    cells *= torch.rand(cells.shape, generator=generator) < 0.7
    cells[:, 2, 2] = 255
    grey = cells.repeat_interleave(14, 1).repeat_interleave(14, 2)[:, :height, :width].int()
    return grey, (grey > 0).byte(), 0.5 + grey.float() / 4, 257 * grey


def check_objects(image, target, weight, ids):
    """Asserts that image, target, weight and ids [H, W] of make_objects() fit pixel by pixel.

    The image is in 0–255; it is compared where all pixels nearby have one id.
    """
    assert weight.dtype == torch.float32 and ids.dtype == torch.int32
    padded, grey = target == 255, ids // 257
    assert (ids % 257 == 0).all()
    assert (ids[padded] == 0).all() and (weight[padded] == 0).all()
    assert torch.equal(target[~padded], (ids > 0).long()[~padded])
    assert torch.equal(weight[~padded], (0.5 + grey.float() / 4)[~padded])
    known = torch.where(padded, -1000, grey).float()[None]
    highest, lowest = nnF.max_pool2d(known, 5, 1)[0], -nnF.max_pool2d(-known, 5, 1)[0]
    interior = (highest == lowest) & (lowest >= 0)
    assert (image[2:-2, 2:-2] - highest)[interior].abs().max() < 0.6
    assert interior.float().mean() > 0.15 and highest[interior].unique().numel() > 3


@pytest.mark.parametrize("margin", [0, 12])
@pytest.mark.parametrize("elastic", [0, 6])
def test_image_target_weight_and_ids_of_an_object_move_together(elastic, margin):
    grey, target, weight, ids = make_objects(120, 150, count=4)
    images = grey[:, None].expand(-1, 3, -1, -1).byte()
    for seed in range(6):
        found = cut(
            images,
            target,
            seed,
            64,
            maps=(weight, list(ids)),
            elastic=elastic,
            margin=margin,
            **MOVING,
        )
        assert len(found) == 4 and found[3].shape == (4, 64, 64)
        for image, *rest in zip(*found, strict=True):
            check_objects(image[0], *rest)


def test_ids_of_16_bits_stay_exact():
    ids = torch.arange(65_536, dtype=torch.int32).view(1, 256, 256)
    images = torch.zeros(1, 3, 256, 256, dtype=torch.uint8)
    assert torch.equal(cut(images, size=256, maps=[ids])[2], ids)
    first, second = cut(images, size=256, maps=[ids, ids.float()], elastic=10)[2:]
    assert torch.equal(first.float(), second) and first.max() > 50_000


# --- one by one ---------------------------------------------------------------------------------


def deform(*item, sigma=5, seed=0):
    torch.manual_seed(seed)
    return ElasticTransform(sigma)(*item)


def test_an_image_is_displaced_by_gaussian_vectors_on_a_3_by_3_grid():
    image, found = coordinates(51, 70), []
    for seed in range(80):
        deformed, _ = deform(image, image[0].long(), seed=seed)
        vectors, error = fit_vectors((deformed - image)[:2], inside(deformed))
        assert error < 0.02
        found.append(vectors)
    assert np.std(found) == pytest.approx(5, rel=0.06) and abs(np.mean(found)) < 0.4
    assert np.abs(np.std(found, axis=0) - 5).max() < 1.6


@pytest.mark.parametrize("kind", ["pil", "tensor"])
def test_all_of_an_item_are_deformed_together_and_padded(kind):
    grey, target, weight, ids = (each[0] for each in make_objects(90, 110, count=1))
    image = grey.byte()[None].expand(3, -1, -1)
    if kind == "pil":
        image = Image.fromarray(image.permute(1, 2, 0).numpy().copy())
        target = Image.fromarray(target.numpy())
    deformed, target, *maps = deform(image, target, weight, ids)
    assert isinstance(deformed, Image.Image) == isinstance(target, Image.Image) == (kind == "pil")
    if kind == "pil":
        deformed, target = np.array(deformed).transpose(2, 0, 1), np.array(target)
    deformed, target = torch.as_tensor(deformed), torch.as_tensor(target)
    check_objects(deformed[0], target.long(), *maps)
    assert (target == 255).any() and not torch.equal(maps[1], ids)


def test_a_sigma_of_0_changes_nothing_and_takes_no_random_numbers():
    image, state = coordinates(20, 30), torch.get_rng_state()
    item = image, image[0].long(), image[1]
    assert all(a is b for a, b in zip(ElasticTransform(0)(*item), item, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_training_preset_deforms_the_crop():
    """A pixel of the crop is the unit, whatever the size of the image."""
    options = {"crop_size": 48, "base_size": 300, "scale": (1, 1), "flip_probs": (0, 0)}
    image, results = coordinates(300, 320) / 255, []
    for elastic in (0, 4):
        torch.manual_seed(0)
        preset = train_preset(**RAW, **options, elastic=elastic)
        results.append(preset(image, image[0].long(), torch.ones(300, 320))[0::2])
    (plain, _), (deformed, weight) = results
    vectors, error = fit_vectors((deformed - plain)[:2], inside(deformed))
    assert error < 0.05 and 2 < vectors.std() < 7
    assert (weight == 0).any() and (weight == 1).float().mean() > 0.7

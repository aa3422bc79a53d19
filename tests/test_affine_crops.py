"""Batched affine crops agree with the transforms, and are reproducible by seed and epoch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as nnF
from torchvision.transforms.v2 import functional as F

from my_dataset import pad_and_stack
from train_utils.data_loader import CropLoader, EpochBatches, StackedImages
from transforms import LUMA, RandomAffineCrops, RandomResize, ToTensor, change_colours

RAW = {"mean": [0, 0, 0], "std": [1 / 255] * 3}  # crops keep the range 0–255
STILL = {"scale": (1, 1), "rotate": 0, "jitter": 0, "flip_probs": (0, 0)}


def coordinates(height, width):
    """uint8 [3, H, W] whose channels hold the column, the row, and 100: each pixel its position."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([columns, rows, torch.full_like(rows, 100)]).byte()


def cut(images, targets=None, seed=0, size=24, sizes=None, **options):
    """RandomAffineCrops of the batch without normalization, and without changes but the options."""
    targets = torch.zeros_like(images[:, 0]) if targets is None else targets
    sizes = torch.tensor([images.shape[-2:]] * len(images)) if sizes is None else sizes
    crops = RandomAffineCrops(crop_size=size, **{**RAW, **STILL, **options})
    return crops(images, targets, sizes, torch.Generator().manual_seed(seed))


def steps(crop):
    """Changes of the source position (x, y) per pixel to the right and per pixel down."""
    right = (crop[:2, 10, 14] - crop[:2, 10, 10]) / 4
    down = (crop[:2, 14, 10] - crop[:2, 10, 10]) / 4
    return right, down


def test_a_plain_crop_copies_pixels():
    images = torch.randint(256, (6, 3, 50, 70), dtype=torch.uint8)
    images[:, :2] = coordinates(50, 70)[:2]
    targets = torch.randint(3, (6, 50, 70), dtype=torch.uint8)
    image, target = cut(images, targets)
    assert image.dtype == torch.float32 and target.dtype == torch.int64
    corners = set()
    for n in range(6):
        left, top = image[n, :2, 0, 0].round().int().tolist()
        corners.add((left, top))
        torch.testing.assert_close(
            image[n], images[n, :, top : top + 24, left : left + 24].float(), atol=0.02, rtol=0
        )
        assert torch.equal(target[n], targets[n, top : top + 24, left : left + 24].long())
    assert len(corners) > 3


def test_flips_mirror_the_whole_crop():
    directions = set()
    for seed in range(8):
        image, _ = cut(coordinates(60, 60)[None], seed=seed, flip_probs=(0.5, 0.5))
        right, down = steps(image[0])
        directions.add((round(right[0].item()), round(down[1].item())))
        assert right[1].abs() < 1e-3 and down[0].abs() < 1e-3
    assert directions == {(1, 1), (1, -1), (-1, 1), (-1, -1)}
    image, target = cut(
        coordinates(60, 60)[None], torch.arange(3600).view(1, 60, 60) % 251, flip_probs=(1, 1)
    )
    left, top = image[0, :2].flatten(1).amin(1).round().int().tolist()
    wanted = (torch.arange(3600).view(60, 60) % 251)[top : top + 24, left : left + 24].flip(0, 1)
    assert torch.equal(target[0], wanted)


def test_half_are_scaled_within_the_range_and_half_not_at_all():
    scales = []
    for seed in range(60):
        image, _ = cut(coordinates(90, 110)[None], seed=seed, scale=(0.8, 1.25))
        right, down = steps(image[0])
        assert right[0].item() == pytest.approx(down[1].item(), abs=1e-3)
        scales.append(1 / right[0].item())
    scales = np.array(scales)
    untouched = np.abs(scales - 1) < 1e-3
    assert 18 <= untouched.sum() <= 42
    assert 0.79 < scales.min() < 0.9 and 1.1 < scales.max() < 1.26


@pytest.mark.parametrize("base_size", [0, None, 45, 180])
def test_scale_multiplies_the_base_size(base_size):
    image, _ = cut(coordinates(90, 110)[None], base_size=base_size)
    right, _ = steps(image[0])
    assert 1 / right[0].item() == pytest.approx((base_size or 90) / 90, rel=1e-3)


def test_scaled_crops_are_those_of_the_transforms():
    """A picture enlarged by 1.5 by RandomResize and by RandomAffineCrops has the same pixels."""
    picture = (
        torch.randint(256, (3, 6, 6), dtype=torch.uint8)
        .repeat_interleave(10, 1)
        .repeat_interleave(10, 2)
    )
    target = (picture[0] > 128).byte()
    resized, ids = ToTensor()(*RandomResize(90)(picture, target))
    image, cropped = cut(picture[None], target[None], size=90, base_size=90)
    torch.testing.assert_close(
        image[0, :, 1:-1, 1:-1] / 255, resized[:, 1:-1, 1:-1], atol=0.01, rtol=0
    )
    assert torch.equal(cropped[0], ids)


def test_rotation_keeps_shape_and_length_and_turns_up_to_its_limit():
    angles = []
    for seed in range(80):
        image, _ = cut(coordinates(120, 120)[None], seed=seed, rotate=40)
        right, down = steps(image[0])
        assert right.norm().item() == pytest.approx(1, abs=0.01) and (right @ down).abs() < 0.01
        angles.append(torch.rad2deg(torch.atan2(right[1], right[0])).item())
    angles = np.array(angles)
    assert 25 <= (np.abs(angles) < 0.1).sum() <= 55
    assert -40.5 < angles.min() < -25 and 25 < angles.max() < 40.5


def test_image_and_target_stay_together_under_everything():
    target = (torch.rand(1, 12, 12, generator=torch.Generator().manual_seed(1)) < 0.5).byte()
    target = target.repeat_interleave(10, 1).repeat_interleave(10, 2)
    images = (target * 255)[:, None].expand(-1, 3, -1, -1)
    for seed in range(10):
        image, ids = cut(
            images, target, seed=seed, size=64, scale=(0.7, 1.4), rotate=180, flip_probs=(0.5, 0.5)
        )
        inside = ids != 255
        assert ((image[:, 0] > 127.5) == (ids == 1))[inside].float().mean() > 0.995
        assert inside.float().mean() > 0.5


def test_around_the_image_the_target_is_ignored_and_the_image_black():
    images, targets = (
        torch.full((4, 3, 40, 50), 200, dtype=torch.uint8),
        torch.ones(4, 40, 50, dtype=torch.uint8),
    )
    crops = RandomAffineCrops([0.5] * 3, [0.25] * 3, 80, scale=(1, 1), rotate=0, jitter=0)
    image, target = crops(
        images, targets, torch.tensor([[40, 50]] * 4), torch.Generator().manual_seed(0)
    )
    assert (target == 1).sum((1, 2)).tolist() == [2000] * 4
    assert (image[:, 0][target == 255] + 2).abs().max() < 1e-3  # black, normalized
    torch.testing.assert_close(
        image[:, 0][target == 1], torch.full((8000,), (200 / 255 - 0.5) / 0.25), atol=1e-3, rtol=0
    )


def test_crops_do_not_reach_into_the_padding_where_the_image_is_large_enough():
    pairs = [
        (coordinates(30, 80), torch.zeros(30, 80, dtype=torch.uint8)),
        (coordinates(90, 40), torch.zeros(90, 40, dtype=torch.uint8)),
    ]
    images = pad_and_stack([image for image, _ in pairs], 0)
    targets = pad_and_stack([target for _, target in pairs], 255)
    sizes = torch.tensor([[30, 80], [90, 40]])
    corners = set()
    for seed in range(20):
        image, target = cut(images, targets, seed, sizes=sizes)
        assert (target == 0).all() and (image[:, 2] - 100).abs().max() < 0.05
        corners.update(image[:, 1, 0, 0].round().int().tolist())
    assert max(corners) > 50 and min(corners) == 0  # all of the tall image is used


def test_with_a_margin_the_centres_reach_every_border_and_the_image_is_mirrored():
    """Each image is mirrored at its own border, not at that of the padding."""
    sizes = [(60, 45), (50, 70)]
    images = pad_and_stack([coordinates(*size) for size in sizes], 0)
    targets = pad_and_stack([torch.zeros(size, dtype=torch.uint8) for size in sizes], 255)
    corners = [[], []]
    for seed in range(200):
        image, target = cut(images, targets, seed, size=40, sizes=torch.tensor(sizes), margin=12)
        for n, size in enumerate(sizes):
            left, top = image[n, :2, 12, 12].round().int().tolist()  # of the centre, 16 × 16 px
            corners[n].append((top, left))
            window = (slice(top, top + 40), slice(left, left + 40))
            mirrored = nnF.pad(coordinates(*size).float(), [12] * 4, mode="reflect")
            expected = mirrored[(slice(None), *window)]
            torch.testing.assert_close(image[n], expected, atol=0.02, rtol=0)
            expected = nnF.pad(torch.zeros(size), [12] * 4, value=255)[window].long()
            assert torch.equal(target[n], expected)
            assert (target[n, 12:-12, 12:-12] == 0).all()
    for found, size in zip(np.array(corners), sizes, strict=True):
        assert (found.min(0) <= 1).all() and (found.max(0) >= np.array(size) - 16 - 1).all()


def test_an_image_of_one_row_is_mirrored_into_a_crop_with_a_margin():
    row = torch.full((1, 3, 1, 50), 100, dtype=torch.uint8)
    image, _ = cut(row, seed=0, size=64, margin=20)
    assert image.isfinite().all() and image.max().round() == 100


def reference(images, targets, sizes, seed, crop_size, margin, crops):
    """The crops of whole images in float64, each padded far around its own border."""
    matrices = crops.random_matrices(sizes, torch.Generator().manual_seed(seed))
    shape, around = (1, 1, crop_size, crop_size), 39
    found = []
    for image, target, (height, width), matrix in zip(
        images, targets, sizes.tolist(), matrices, strict=True
    ):
        image = image[None, :, :height, :width].double()
        image = nnF.pad(image, [around] * 4, mode="reflect" if margin else "constant")
        target = nnF.pad(target[:height, :width].double(), [around] * 4, value=255)
        spanned = torch.tensor([width, height]) + 2 * around
        linear = 2 * matrix[:, :2] / spanned[:, None]
        translation = 2 * (matrix[:, 2] + around) / spanned - 1
        theta = torch.cat([linear, translation[:, None]], dim=1)
        grid = nnF.affine_grid(theta[None], shape, align_corners=False)
        image = nnF.grid_sample(image, grid, align_corners=False)
        target = nnF.grid_sample(target[None, None], grid, "nearest", align_corners=False)
        found.append((image[0], target[0, 0].long()))
    return tuple(torch.stack(each) for each in zip(*found, strict=True))


@pytest.mark.parametrize("margin", [0, 8])
@pytest.mark.parametrize(
    "sizes", [[(331, 197)] * 3, [(131, 97), (64, 201), (250, 77)], [(61, 401), (402, 62)]]
)
@pytest.mark.parametrize(
    "options", [STILL, {"rotate": 0, "scale": (0.5, 2)}, {"rotate": 180, "scale": (0.8, 1.5)}]
)
def test_cutting_a_window_first_changes_no_crop(sizes, margin, options):
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(256, (3, *size), generator=generator) for size in sizes]
    targets = [torch.randint(3, size, generator=generator) for size in sizes]
    images, targets = pad_and_stack(images, 0).byte(), pad_and_stack(targets, 255).byte()
    sizes = torch.tensor(sizes)
    crops = RandomAffineCrops(**RAW, crop_size=41, margin=margin, **{**options, "jitter": 0})
    for seed in range(12):
        image, target = crops(images, targets, sizes, torch.Generator().manual_seed(seed))
        expected = reference(images, targets, sizes, seed, 41, margin, crops)
        torch.testing.assert_close(image, expected[0].float(), atol=0.03, rtol=0)  # of 255
        # Rotated by a right angle or scaled by 2, a pixel may be as near to two others.
        assert (target != expected[1]).float().mean() < 1e-3


def test_of_a_large_image_only_what_its_crop_needs_becomes_float(monkeypatch):
    converted, original = [], torch.Tensor.float

    def watched(tensor):
        converted.append(tensor.numel())
        return original(tensor)

    monkeypatch.setattr(torch.Tensor, "float", watched)
    cut(torch.zeros(2, 3, 900, 1000, dtype=torch.uint8), size=30, rotate=45, scale=(0.5, 2))
    assert converted and max(converted) < 2 * 3 * 100 * 100


def test_colours_change_as_torchvision_changes_them():
    image = torch.rand(3, 3, 9, 8)
    factors = torch.tensor([[0.8, 1.2, 0.9], [1.25, 0.75, 1.25], [1, 1, 1]])
    luma = torch.tensor(LUMA)[:, None, None]
    changed = change_colours(image, *factors.unbind(1), luma)
    for n, (brightness, contrast, saturation) in enumerate(factors.tolist()):
        wanted = F.adjust_saturation(
            F.adjust_contrast(F.adjust_brightness(image[n], brightness), contrast), saturation
        )
        torch.testing.assert_close(changed[n], wanted, atol=1e-5, rtol=0)


def test_jitter_stays_within_its_range():
    images = torch.full((40, 3, 30, 30), 100, dtype=torch.uint8)
    image, _ = cut(images, jitter=0.25)
    levels = image[:, 0, 0, 0]
    assert 74.9 < levels.min() < 85 and 115 < levels.max() < 125.1


# --- the loader ---------------------------------------------------------------------------------


def loader(seed=3, rank=0, ranks=1, repeats=4, batch_size=3):
    images = torch.stack([coordinates(40, 40)] * 5)
    images[:, 2] = torch.arange(5)[:, None, None]  # the third channel says which image it is
    batches = EpochBatches(5, batch_size, seed, rank, ranks, repeats)
    crops = RandomAffineCrops(**RAW, crop_size=16, jitter=0)
    device = torch.device("cpu")
    stack = images, torch.zeros(5, 40, 40, dtype=torch.uint8), torch.full((5, 2), 40)
    return CropLoader(StackedImages(stack, batches, device), batches, crops, seed, device)


def all_images(loader):
    return torch.cat([image for image, _ in loader])


def test_an_epoch_has_the_given_number_of_crops_from_each_image():
    batches = list(loader())
    assert len(batches) == len(loader()) == 7
    assert [len(image) for image, _ in batches] == [3] * 6 + [2]
    numbers = [round(image[2].max().item()) for image in all_images(batches)]
    assert sorted(numbers) == sorted(list(range(5)) * 4)


def test_seed_and_epoch_determine_the_crops_whatever_ran_before():
    first, second = loader(), loader()
    orders = []
    for epoch in (0, 1, 0):
        first.batches.set_epoch(epoch)
        torch.manual_seed(epoch + len(orders))  # the global generator is not used
        orders.append(all_images(first))
    second.batches.set_epoch(1)
    assert torch.equal(orders[0], orders[2]) and torch.equal(orders[1], all_images(second))
    assert not torch.equal(orders[0], orders[1])
    assert not torch.equal(all_images(loader(seed=4)), orders[0])


def test_ranks_get_different_crops_and_equally_many():
    both = [all_images(loader(rank=rank, ranks=2)) for rank in (0, 1)]
    assert len(both[0]) == len(both[1]) == 10
    pairs = zip(*both, strict=True)
    assert not any(torch.equal(first, second) for first, second in pairs)

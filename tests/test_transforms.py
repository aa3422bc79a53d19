"""The transforms keep image, target and maps aligned, create no ids, and pad targets with 255."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from transforms import (
    CenterCrop,
    Compose,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResize,
    RandomVerticalFlip,
    ToTensor,
    eval_preset,
    pad_if_smaller,
    train_preset,
)

KINDS = pytest.mark.parametrize("kind", ["pil", "tensor"])
BRIGHT = 200  # value of the image where the target is 1; 0 where it is 0


def make_pair(kind, target):
    """An image that shows the target [H, W], an array of 0 and 1, and the target; PIL or tensor."""
    image = np.stack([target * BRIGHT] * 3).astype(np.uint8)
    if kind == "pil":
        return Image.fromarray(image.transpose(1, 2, 0)), Image.fromarray(target.astype(np.uint8))
    return torch.from_numpy(image), torch.from_numpy(target.astype(np.uint8))


def random_target(height, width, block=1, seed=0):
    """[H, W] of 0 and 1 in squares of `block` px."""
    shape = (math.ceil(height / block), math.ceil(width / block))
    cells = np.random.default_rng(seed).integers(0, 2, shape)
    return cells.repeat(block, 0).repeat(block, 1)[:height, :width]


def as_arrays(image, target):
    """(image [H, W] of one channel, target [H, W]) as numpy, from PIL images or tensors."""
    if isinstance(image, Image.Image):
        return np.asarray(image)[..., 0], np.asarray(target)
    return image[0].numpy(), target.numpy()


def disk(size, centre, radius):
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    return (np.hypot(rows - centre[0], columns - centre[1]) < radius).astype(int)


def centroid(mask):
    """(y, x) of the centre of mass of a boolean mask in px; a pixel's own centre lies at +0.5."""
    return np.argwhere(mask).mean(0) + 0.5


# --- resizing -----------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize(
    "size, expected", [((40, 60), (20, 30)), ((60, 40), (30, 20)), ((20, 20), (20, 20))], ids=str
)
def test_resize_scales_the_shorter_side_and_keeps_the_proportions(kind, size, expected):
    image, target = as_arrays(*RandomResize(20)(*make_pair(kind, random_target(*size))))
    assert image.shape == target.shape == expected


@KINDS
def test_resize_gives_all_lengths_from_min_to_max_inclusive(kind):
    torch.manual_seed(0)
    pair = make_pair(kind, random_target(12, 12))
    sizes = {as_arrays(*RandomResize(9, 12)(*pair))[1].shape for _ in range(60)}
    assert sizes == {(n, n) for n in (9, 10, 11, 12)}


@KINDS
@pytest.mark.parametrize("length", [17, 20, 33, 48, 97])
def test_resize_creates_no_new_class_ids(kind, length):
    ids = np.array([0, 3, 7, 255])[np.random.default_rng(0).integers(0, 4, (40, 48))]
    _, target = as_arrays(
        *RandomResize(length)(make_pair(kind, ids // 255)[0], make_ids(kind, ids))
    )
    assert set(np.unique(target)) == {0, 3, 7, 255}


def make_ids(kind, ids):
    return Image.fromarray(ids.astype(np.uint8)) if kind == "pil" else torch.from_numpy(ids).long()


@KINDS
@pytest.mark.parametrize("scale", [1 / 3, 0.5, 0.8, 1.2, 3])
def test_resized_target_lies_where_the_resized_image_shows_it(kind, scale):
    original = disk((90, 120), (40, 70), 25)
    image, target = as_arrays(*RandomResize(round(90 * scale))(*make_pair(kind, original)))
    shown = image > BRIGHT / 2
    half_a_pixel = 0.5 * min(scale, 1)  # of the original, in px of the result
    assert np.abs(centroid(target == 1) - centroid(shown)).max() <= half_a_pixel + 0.02
    assert ((target == 1) != shown).sum() < 0.15 * shown.sum()


# Plain "nearest" would take the upper left of each 3×3 px, one pixel away from the centre.
@KINDS
def test_target_is_sampled_at_the_centre_of_the_new_pixel(kind):
    centres = np.zeros((30, 33), int)
    centres[1::3, 1::3] = 1
    _, target = as_arrays(*RandomResize(10)(*make_pair(kind, centres)))
    assert target.shape == (10, 11) and (target == 1).all()


# --- flips and crops ----------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("flip, axis", [(RandomHorizontalFlip, 1), (RandomVerticalFlip, 0)])
def test_flips_mirror_image_and_target_together(kind, flip, axis):
    original = random_target(7, 9)
    image, target = as_arrays(*flip(1)(*make_pair(kind, original)))
    assert np.array_equal(target, np.flip(original, axis)) and np.array_equal(
        image, target * BRIGHT
    )
    image, target = as_arrays(*flip(0)(*make_pair(kind, original)))
    assert np.array_equal(target, original) and np.array_equal(image, target * BRIGHT)


@pytest.mark.parametrize("flip", [RandomHorizontalFlip, RandomVerticalFlip])
def test_flips_have_the_given_probability(flip):
    torch.manual_seed(0)
    original = torch.arange(4).view(2, 2)
    flipped = sum(
        not torch.equal(flip(0.25)(original[None], original)[1], original) for _ in range(400)
    )
    assert 70 < flipped < 130  # 100 expected, standard deviation 8.7


@KINDS
def test_random_crop_cuts_the_same_square_of_both(kind):
    torch.manual_seed(0)
    original = random_target(9, 12)
    windows = {original[y : y + 6, x : x + 6].tobytes() for y in range(4) for x in range(7)}
    found = set()
    for _ in range(300):
        image, target = as_arrays(*RandomCrop(6)(*make_pair(kind, original)))
        assert np.array_equal(image, target * BRIGHT)
        found.add(target.astype(original.dtype).tobytes())
    assert found == windows  # all positions, including the first and the last


@KINDS
def test_center_crop_cuts_the_centre(kind):
    original = random_target(10, 14)
    image, target = as_arrays(*CenterCrop(6)(*make_pair(kind, original)))
    assert np.array_equal(target, original[2:8, 4:10]) and np.array_equal(image, target * BRIGHT)


@KINDS
@pytest.mark.parametrize("size", [(7, 12), (12, 7), (11, 13)], ids=str)
def test_center_crop_at_odd_sizes_cuts_the_same_of_both(kind, size):
    image, target = as_arrays(*CenterCrop(6)(*make_pair(kind, random_target(*size))))
    assert target.shape == (6, 6) and np.array_equal(image, target * BRIGHT)


@KINDS
@pytest.mark.parametrize("crop", [RandomCrop, CenterCrop])
@pytest.mark.parametrize("size", [(5, 6), (5, 20), (20, 5), (1, 1)], ids=str)
def test_padding_of_a_crop_is_ignored(kind, crop, size):
    torch.manual_seed(0)
    image, target = as_arrays(*crop(8)(*make_pair(kind, np.ones(size, int))))
    height, width = (min(side, 8) for side in size)
    assert image.shape == target.shape == (8, 8)
    assert (target[:height, :width] == 1).all() and (image[:height, :width] == BRIGHT).all()
    assert (target == 255).sum() == (image == 0).sum() == 64 - height * width


@KINDS
@pytest.mark.parametrize("fill", [0, 255])
def test_pad_if_smaller_pads_at_the_right_and_below(kind, fill):
    image, target = make_pair(kind, np.ones((3, 5), int))
    image, target = as_arrays(
        pad_if_smaller(image, 4, fill=fill), pad_if_smaller(target, 4, fill=fill)
    )
    assert image.shape == target.shape == (4, 5)
    assert (image[:3] == BRIGHT).all() and (image[3] == fill).all()
    assert (target[:3] == 1).all() and (target[3] == fill).all()
    untouched = make_pair(kind, np.ones((4, 5), int))[1]
    assert pad_if_smaller(untouched, 4) is untouched


@KINDS
@pytest.mark.parametrize("seed", range(8))
def test_image_and_target_stay_aligned_through_the_whole_chain(kind, seed):
    torch.manual_seed(seed)
    chain = Compose(
        [
            RandomResize(25, 70),
            RandomHorizontalFlip(),
            RandomVerticalFlip(),
            RandomCrop(48),
            ToTensor(),
        ]
    )
    image, target = chain(*make_pair(kind, random_target(50, 60, block=10, seed=seed)))
    assert image.shape == (3, 48, 48) and target.shape == (48, 48)
    image, padded = image[0], target == 255
    assert (image[padded] == 0).all() and set(target[~padded].tolist()) <= {0, 1}
    pure_dark, pure_bright = image < 0.01, image > BRIGHT / 255 - 0.01
    assert not (target[pure_dark & ~padded] == 1).any() and (target[pure_bright] == 1).all()
    assert (pure_dark | pure_bright).float().mean() > 0.4  # pixels at an edge may be either


# --- maps ---------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize(
    "transform",
    [
        RandomResize(17, 90),
        RandomHorizontalFlip(1),
        RandomHorizontalFlip(0),
        RandomVerticalFlip(1),
        RandomVerticalFlip(0),
        RandomCrop(20),
        RandomCrop(64),
        CenterCrop(21),
        CenterCrop(64),
        ToTensor(),
        Compose([RandomResize(50, 90), RandomVerticalFlip(), RandomCrop(64)]),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_maps_are_resampled_as_the_target_and_padded_with_0(kind, transform):
    torch.manual_seed(0)
    original = np.random.default_rng(0).integers(0, 10, (50, 60))
    weight, ids = torch.from_numpy(original) / 4 + 1, torch.from_numpy(original * 7001).int()
    image, _ = make_pair(kind, original > 4)
    _, target, *maps = transform(image, torch.from_numpy(original), weight, ids)
    check_maps(target, *maps)


def check_maps(target, weight, ids):
    """Asserts that maps which were computed from the target still fit, and are padded with 0."""
    assert weight.dtype == torch.float32 and ids.dtype == torch.int32
    assert torch.equal(weight, torch.where(target == 255, 0, target / 4 + 1))
    assert torch.equal(ids, torch.where(target == 255, 0, target * 7001).int())
    assert ids.any()


@KINDS
def test_presets_pass_maps_on(kind):
    original = random_target(50, 70, block=5)
    weight, ids = torch.from_numpy(original) / 4 + 1, torch.from_numpy(original * 7001).int()
    item = make_pair(kind, original)[0], torch.from_numpy(original), weight, ids
    _, _, *same = eval_preset([0.5] * 3, [0.25] * 3)(*item)
    assert torch.equal(same[0], weight) and torch.equal(same[1], ids)
    for elastic in (0, 3):
        check_maps(*preset(elastic=elastic)(*item)[1:])


# --- to tensors ---------------------------------------------------------------------------------


@KINDS
def test_to_tensor_scales_the_image_and_keeps_the_ids(kind):
    original = random_target(5, 7)
    image, target = ToTensor()(*make_pair(kind, original))
    assert image.dtype == torch.float32 and image.shape == (3, 5, 7) and type(image) is torch.Tensor
    assert target.dtype == torch.int64 and target.shape == (5, 7) and type(target) is torch.Tensor
    assert np.array_equal(target, original)
    torch.testing.assert_close(image[0], torch.from_numpy(original).float() * BRIGHT / 255)


def test_to_tensor_maps_the_full_range_to_0_to_1():
    values = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 3)
    assert ToTensor()(values, values[0])[0].flatten().tolist() == pytest.approx([0, 0.2, 1])
    assert ToTensor()(values / 255, values[0])[0].flatten().tolist() == pytest.approx([0, 0.2, 1])


@pytest.mark.parametrize("mode", ["1", "P", "L"])
def test_to_tensor_reads_the_ids_of_pil_targets(mode):
    original = random_target(5, 7)
    if mode == "1":
        target = Image.fromarray(original.astype(bool))
    else:
        target = Image.fromarray(original.astype(np.uint8))
    if mode == "P":
        target.putpalette([9, 9, 9, 200, 0, 0])
    assert target.mode == mode
    assert np.array_equal(ToTensor()(Image.new("RGB", (7, 5)), target)[1], original)


def test_normalize_subtracts_the_mean_and_divides_by_the_deviation():
    image = torch.tensor([0.2, 0.4, 0.9]).view(3, 1, 1).expand(3, 2, 2).contiguous()
    target = torch.ones(2, 2, dtype=torch.int64)
    result, same = Normalize([0.1, 0.2, 0.5], [0.1, 0.4, 0.2])(image, target)
    assert same is target
    assert result[:, 0, 0].tolist() == pytest.approx([1, 0.5, 2])
    assert image[:, 0, 0].tolist() == pytest.approx([0.2, 0.4, 0.9])  # the original is unchanged


# --- the presets --------------------------------------------------------------------------------


def preset(**options):
    return train_preset([0.5] * 3, [0.25] * 3, **{"base_size": 60, "crop_size": 48, **options})


@KINDS
def test_training_preset_gives_crops_of_one_size(kind):
    torch.manual_seed(0)
    for seed in range(6):
        image, target = preset()(*make_pair(kind, random_target(50, 70, seed=seed)))
        assert image.shape == (3, 48, 48) and image.dtype == torch.float32
        assert target.shape == (48, 48) and target.dtype == torch.int64
        assert set(target.unique().tolist()) <= {0, 1, 255}


@KINDS
def test_the_seed_determines_the_result(kind):
    pair = make_pair(kind, random_target(50, 70))
    results = []
    for seed, noise in ((3, 0), (3, 1), (4, 0)):
        np.random.seed(noise)  # only PyTorch's generator is used
        torch.manual_seed(seed)
        results.append(preset()(*pair))
    pairs = zip(results[0], results[1], strict=True)
    assert all(torch.equal(first, second) for first, second in pairs)
    assert not torch.equal(results[0][1], results[2][1])


@KINDS
def test_transforms_do_not_change_their_input(kind):
    original = random_target(50, 70)
    pair = make_pair(kind, original)
    torch.manual_seed(0)
    for _ in range(5):
        preset()(*pair)
    image, target = as_arrays(*pair)
    assert np.array_equal(target, original) and np.array_equal(image, original * BRIGHT)


@KINDS
def test_evaluation_preset_keeps_the_native_size_and_every_id(kind):
    original = random_target(37, 53)
    image, target = eval_preset([0.5] * 3, [0.25] * 3)(*make_pair(kind, original))
    assert np.array_equal(target, original)
    torch.testing.assert_close(
        image[0], (torch.from_numpy(original).float() * BRIGHT / 255 - 0.5) / 0.25
    )


def test_a_std_of_zero_is_refused():
    with pytest.raises(ValueError, match="cannot be divided by 0"):
        Normalize([0.5] * 3, [0.1, 0.1, 0.0])

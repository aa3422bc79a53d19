"""The round field of view: found in synthetic photographs and in DRIVE's, and not elsewhere."""

import numpy as np
import pytest
import torch

from src.field_of_view import find_field_of_view
from src.image_io import read_binary, read_image


def disc(size, centre, radius, rows=(0, 10_000)):
    """bool [H, W]: a disc, shown from the first to before the last of `rows`."""
    y, x = np.ogrid[: size[0], : size[1]]
    mask = np.hypot(y - centre[0], x - centre[1]) <= radius
    mask[: rows[0]] = mask[rows[1] :] = False
    return mask


def photograph(mask, centre, radius, bright=180, frame=8, noise=3, dim=0.5, lesions=0):
    """uint8 [3, H, W]: bright inside the mask, less so towards the rim by the share `dim`."""
    rng = np.random.default_rng(0)
    y, x = np.ogrid[: mask.shape[0], : mask.shape[1]]
    distance = np.hypot(y - centre[0], x - centre[1]) / radius
    level = np.where(mask, bright * (1 - dim * distance**2), frame)
    for angle in range(lesions):
        down, right = centre + 0.9 * radius * np.array([np.sin(angle), np.cos(angle)])
        level[(np.hypot(y - down, x - right) < 0.1 * radius) & mask] *= 0.2
    image = np.stack([level, level * 0.5, level * 0.25]) + rng.normal(0, noise, (3, *mask.shape))
    return torch.from_numpy(image.clip(0, 255).astype(np.uint8))


def overlap(field, mask):
    """Intersection over union."""
    field = field.numpy()
    return (field & mask).sum() / (field | mask).sum()


PHOTOGRAPHS = {  # size, centre, radius, shown rows, and how bright
    "whole": ((600, 600), (300, 300), 270, (0, 600), {}),
    "off-centre and beyond the image": ((600, 700), (280, 420), 300, (0, 600), {}),
    "cut at top and bottom": ((560, 800), (280, 400), 350, (20, 540), {}),
    "cut at the top": ((700, 700), (350, 350), 300, (120, 700), {}),
    "dark corners alone": ((600, 600), (300, 300), 340, (0, 600), {}),
    "underexposed": ((600, 600), (300, 300), 250, (0, 600), {"bright": 30, "frame": 2}),
    "noisy": ((600, 600), (300, 300), 250, (0, 600), {"bright": 120, "noise": 15}),
    "dim rim": ((600, 600), (300, 300), 250, (0, 600), {"dim": 0.75}),
    "dark lesions at the rim": ((600, 600), (300, 300), 250, (0, 600), {"lesions": 6}),
    "large": ((1500, 2000), (750, 1000), 800, (20, 1480), {}),
}


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_the_field_is_found(name):
    size, centre, radius, rows, options = PHOTOGRAPHS[name]
    mask = disc(size, centre, radius, rows)
    field = find_field_of_view(photograph(mask, centre, radius, **options))
    assert field.dtype == torch.bool and overlap(field, mask) > 0.98


@pytest.mark.parametrize("side", [3000, 4000, 6000])
def test_the_field_of_a_large_photograph_is_not_shifted(side):
    """Its search copy is of every second to fifth pixel."""
    centre, radius = (side // 2, side // 2 + 7), 0.4 * side
    image = torch.from_numpy(disc((side, side), centre, radius).astype(np.uint8) * 150)
    y, x = find_field_of_view(image[None]).nonzero(as_tuple=True)
    assert (y.double().mean() - centre[0]).abs() < 1.2
    assert (x.double().mean() - centre[1]).abs() < 1.2


@pytest.mark.parametrize(
    "mark", [(slice(10, 40), slice(10, 150)), (slice(280, 320), slice(600, 690))]
)
def test_a_bright_mark_in_the_frame_is_not_the_field(mark):
    mask = disc((600, 700), (300, 350), 270)
    image = photograph(mask, (300, 350), 270)
    image[:, mark[0], mark[1]] = 220
    assert overlap(find_field_of_view(image), mask) > 0.98


@pytest.mark.parametrize("size", [(1, 6000), (9, 30_000), (2, 1)])
def test_a_thin_image_has_no_field(size):
    assert find_field_of_view(torch.zeros(3, *size, dtype=torch.uint8)) is None


def test_a_grey_image_gives_the_field_of_the_colour_image():
    image = photograph(disc((300, 300), (150, 150), 120), (150, 150), 120)
    field = find_field_of_view(image)
    assert torch.equal(find_field_of_view(image[:1]), field)
    assert torch.equal(find_field_of_view(image), field)  # no trial depends on a global seed


def test_pictures_without_a_disc_in_a_dark_frame_have_no_field():
    generator = torch.Generator().manual_seed(0)
    rectangle = torch.full((3, 300, 300), 5, dtype=torch.uint8)
    rectangle[:, 40:260, 30:280] = 150
    mask = disc((300, 300), (150, 150), 120)
    inverted = 255 - photograph(mask, (150, 150), 120)
    for image in (
        torch.full((3, 300, 300), 128, dtype=torch.uint8),
        torch.randint(0, 256, (3, 300, 300), dtype=torch.uint8, generator=generator),
        torch.zeros(3, 300, 300, dtype=torch.uint8),
        torch.zeros(1, 1, 1, dtype=torch.uint8),
        torch.zeros(3, 40, 3, dtype=torch.uint8),
        rectangle,
        inverted,
    ):
        assert find_field_of_view(image) is None


def test_fields_of_drive(drive_root):
    overlaps = []
    for split in ("training", "test"):
        folder = drive_root / "DRIVE" / split
        for path in sorted((folder / "images").iterdir()):
            mask, _ = read_binary(folder / "mask" / f"{path.stem}_mask.gif", "ROI mask")
            overlaps.append(overlap(find_field_of_view(read_image(path)), mask))
    assert len(overlaps) == 40
    assert np.mean(overlaps) >= 0.985 and min(overlaps) >= 0.97


def test_street_scenes_have_no_field(camvid_root):
    paths = sorted((camvid_root / "CamVid").rglob("*.png"))[::100]
    assert paths and all(find_field_of_view(read_image(path)) is None for path in paths)

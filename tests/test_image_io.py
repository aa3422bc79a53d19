"""Files become arrays: images of every depth, masks of two values, and what is refused."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from src.image_io import numbers_of, open_image, packed_colours, read_binary, read_image
from tests.pictures import COLOURS, MASK_KINDS, SIZE, TRUTH, palette_picture
from tests.small import error_of


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_a_mask_of_any_two_values_is_true_at_the_larger_one(tmp_path, kind):
    MASK_KINDS[kind](TRUTH).save(tmp_path / "mask.png")
    assert np.array_equal(read_binary(tmp_path / "mask.png", "label")[0], TRUTH)


@pytest.mark.parametrize("kind", ["0/255", "3/253", "mode 1", "palette of 3/253"])
def test_gif_masks_are_read_alike(tmp_path, kind):
    path = tmp_path / "mask.gif"
    MASK_KINDS[kind](TRUTH).save(path)
    assert np.array_equal(read_binary(path, "label")[0], TRUTH)


def test_a_colour_image_is_read_as_it_is_stored(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "image.png")
    image = read_image(tmp_path / "image.png")
    assert image.dtype == torch.uint8 and np.array_equal(image.permute(1, 2, 0), COLOURS)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_16_bit_image_is_scaled_not_clipped(tmp_path, suffix):
    values = np.linspace(0, 65535, SIZE[0] * SIZE[1]).astype(np.uint16).reshape(SIZE)
    path = tmp_path / f"image{suffix}"
    Image.fromarray(values).save(path)
    image = read_image(path)
    assert image.shape == (3, *SIZE) and image.dtype == torch.uint8
    assert np.abs(image[0].numpy() - values / 257).max() <= 1
    assert image[0, 0, 0] == 0 and image[0, -1, -1] == 255 and image.unique().numel() == 48


def test_8_bit_values_in_a_32_bit_file_keep_their_values(tmp_path):
    Image.fromarray(np.array([[0, 100], [200, 255]], np.int32)).save(tmp_path / "grey.tif")
    assert read_image(tmp_path / "grey.tif")[0].tolist() == [[0, 100], [200, 255]]


@pytest.mark.parametrize(
    "values",
    [np.full(SIZE, 70000, np.int32), np.full(SIZE, -1, np.int32), np.full(SIZE, 0.5, np.float32)],
    ids=["70000", "-1", "float"],
)
def test_an_image_of_other_numbers_is_refused(tmp_path, values):
    path = tmp_path / "image.tif"
    Image.fromarray(values).save(path)
    message = error_of(read_image, path)
    assert str(path) in message and "8 or 16 bits" in message


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".gif", ".bmp"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
def test_a_truncated_image_is_refused_by_name(tmp_path, suffix, share):
    path = tmp_path / f"image{suffix}"
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    message = error_of(read_image, path)
    assert str(path) in message and "cannot be read" in message


def test_a_text_file_and_a_missing_file_are_refused_by_name(tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    message = error_of(read_image, tmp_path / "text.png")
    assert "text.png: cannot be read as an image (its format is unknown)" in message
    (tmp_path / "empty.png").touch()
    assert "(it is empty)" in error_of(read_image, tmp_path / "empty.png")
    assert "none.png: there is no such file" in error_of(read_image, tmp_path / "none.png")


# --- large images --------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
LARGE = RNG.integers(0, 256, (1100, 1000, 3), dtype=np.uint8)  # more than one strip of pixels


@pytest.fixture(scope="module")
def large_path(tmp_path_factory):
    """A function of a PIL picture that gives the path of its file."""
    folder = tmp_path_factory.mktemp("large")

    def save(picture):
        picture.save(folder / "large.png", compress_level=1)
        return folder / "large.png"

    return save


def test_a_large_image_has_the_pixels_of_its_file(large_path):
    path = large_path(Image.fromarray(LARGE))
    assert np.array_equal(read_image(path).permute(1, 2, 0), LARGE)
    luma = np.asarray(Image.fromarray(LARGE).convert("L"))
    assert np.array_equal(read_image(path, 1)[0], luma)
    red, green, blue = LARGE.astype(np.int64).transpose(2, 0, 1)
    assert np.array_equal(packed_colours(open_image(path)), red * 65536 + green * 256 + blue)
    assert numbers_of(path, open_image(path)) is None  # the channels differ


def test_a_large_16_bit_image_is_scaled_by_the_brightest_of_all_pixels(large_path):
    values = np.zeros((1100, 1000), np.int32)
    values[-1, -1] = 65535
    path = large_path(Image.fromarray(values.astype(np.uint16)))
    assert read_image(path, 1).unique().tolist() == [0, 255]


def test_a_large_mask_is_read_with_the_values_of_all_rows(large_path):
    mask = np.zeros((1100, 1000), bool)
    mask[-1, 5:] = True
    for picture, values in (
        (Image.fromarray(mask.astype(np.uint8) * 200), [0, 200]),
        (Image.fromarray(mask), [0, 1]),
        (palette_picture(~mask, ((255, 255, 255), (0, 0, 0))), [0, 255]),
        (Image.fromarray(mask.astype(np.uint16) * 60000), [0, 60000]),
    ):
        read, found = read_binary(large_path(picture), "label")
        assert np.array_equal(read, mask) and found == values


def resident_bytes():
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_reading_takes_little_more_memory_than_the_image_and_its_decoded_file(tmp_path):
    side = 4000  # Pillow holds 4 bytes for each pixel of RGB, the result 3
    path = tmp_path / "large.png"
    Image.new("RGB", (side, side), (9, 99, 199)).save(path, compress_level=1)
    before, seen = resident_bytes(), []
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(read_image, path)
        while not future.done():
            seen.append(resident_bytes())
    # 4/3 + 1 times the result, and the strip that is converted.
    assert max(seen) - before < 3.2 * future.result().numel()

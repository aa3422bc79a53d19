"""Image files are opened with our limit of pixels, in any thread, and Pillow's limit is kept."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from src.image_decoding import count_pixels, open_image
from tests.pictures import COLOURS
from tests.small import error_of


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_threads_open_images_above_pillows_limit(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    path = tmp_path / f"image{suffix}"
    Image.fromarray(COLOURS).save(path)
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(open_image, [path] * 200))
    assert all(np.array_equal(image, COLOURS) for image in images)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_pillows_limit_is_kept_when_a_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    (tmp_path / "text.png").write_text("not a picture")
    for name in ("text.png", "none.png"):
        assert name in error_of(open_image, tmp_path / name)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_the_image_lives_longer_than_its_file(tmp_path):
    path = tmp_path / "image.tif"
    Image.fromarray(COLOURS).save(path)
    image = open_image(path)
    path.unlink()
    assert np.array_equal(image.crop((0, 0, 8, 3)), COLOURS[:3])


def test_a_tiff_without_a_width_is_refused_by_name(tmp_path):
    """Pillow raises a TypeError for it."""
    path = tmp_path / "image.tif"
    Image.fromarray(COLOURS).save(path)
    content = path.read_bytes()
    width = np.array([256, 4], "<u2").tobytes() + np.array([1], "<u4").tobytes()  # tag, type, count
    assert content.count(width) == 1
    path.write_bytes(content.replace(width, b"\xff\xff" + width[2:]))
    assert f"{path}: cannot be read as an image" in error_of(open_image, path)


def test_pixels_are_counted_by_the_header(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "image.png")
    (tmp_path / "large.ppm").write_bytes(b"P6 20000 10000 255\n")
    (tmp_path / "text.png").write_text("not a picture")
    assert count_pixels(tmp_path / "image.png") == COLOURS[..., 0].size
    assert count_pixels(tmp_path / "large.ppm") == 200_000_000
    assert count_pixels(tmp_path / "text.png") == count_pixels(tmp_path / "none.png") == 0

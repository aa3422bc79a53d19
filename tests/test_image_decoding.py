"""Image files are opened with our limit of pixels, in any thread, and Pillow's limit is kept."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from src.image_decoding import open_image
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

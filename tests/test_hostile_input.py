"""Files as users have them: each is read correctly, or refused with a line that says why."""

import gzip
import re
import zlib

import numpy as np
import pytest
from PIL import Image

from my_dataset import Sample, SegmentationDataset
from src.errors import UserError
from src.image_io import open_image, read_image, stored_mode
from train_utils.data.class_table import build_table

H, W = 12, 16
RGB = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
LUMA = np.asarray(Image.fromarray(RGB).convert("L"))
MASK = np.zeros((H, W), bool)
MASK[3:9, 4:12] = True
DEEP = np.linspace(0, 65535, H * W).astype(np.uint16).reshape(H, W)
TABLE = build_table(
    [
        (0, "a", (0, 0, 0), False),
        (1, "b", (255, 0, 0), False),
        (2, "c", (0, 255, 0), False),
        (255, "void", (255, 255, 255), True),
    ],
    "t.csv",
)
THREE = np.arange(H * W, dtype=np.uint8).reshape(H, W) % 3
COLOURS = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0)], np.uint8)


def save(picture, suffix=".png", **options):
    def write(path):
        picture.save(path.with_suffix(suffix), **options)
        return path.with_suffix(suffix)

    return write


def turned(picture, orientation):
    """Stored as by a camera held sideways: rotated, with the EXIF orientation that undoes it."""
    back = {
        3: Image.Transpose.ROTATE_180,
        6: Image.Transpose.ROTATE_90,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    return save(picture.transpose(back), exif=exif)


def cut(picture, suffix, fraction=0.6):
    def write(path):
        path = save(picture, suffix)(path)
        path.write_bytes(path.read_bytes()[: int(fraction * path.stat().st_size)])
        return path

    return write


def zipped(picture, fraction=1.0):
    def write(path):
        plain = save(picture, ".ppm")(path)
        content = gzip.compress(plain.read_bytes())
        path.with_suffix(".ppm.gz").write_bytes(content[: int(fraction * len(content))])
        return path.with_suffix(".ppm.gz")

    return write


def text(content):
    def write(path):
        path.write_bytes(content)
        return path

    return write


def nowhere(path):
    return path


def frames(suffix):
    return save(
        Image.fromarray(LUMA), suffix, save_all=True, append_images=[Image.fromarray(255 - LUMA)]
    )


def with_alpha(mode):
    picture = Image.fromarray(RGB).convert(mode)
    picture.putalpha(Image.fromarray(RGB[..., 1]))
    return picture


PALETTE = Image.fromarray(MASK.astype(np.uint8))
PALETTE.putpalette([10, 20, 30, 200, 100, 50])
IN_COLOURS = np.where(MASK[..., None], (200, 100, 50), (10, 20, 30))
NOISE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (60, 80, 3), dtype=np.uint8))

# name → (writes the file, channels to read, expected array [H, W, C] or words of the error)
IMAGES = {
    "RGB": (save(Image.fromarray(RGB)), 3, RGB),
    "RGB read as grey": (save(Image.fromarray(RGB)), 1, LUMA[..., None]),
    "grey": (save(Image.fromarray(LUMA)), 3, np.stack([LUMA] * 3, 2)),
    "grey as one channel": (save(Image.fromarray(LUMA)), 1, LUMA[..., None]),
    "black and white, mode 1": (save(Image.fromarray(MASK)), 1, MASK[..., None] * 255),
    "alpha": (save(with_alpha("RGBA")), 3, RGB),
    "grey with alpha": (save(with_alpha("LA")), 1, LUMA[..., None]),
    "palette": (save(PALETTE), 3, IN_COLOURS),
    "palette GIF": (save(PALETTE, ".gif"), 3, IN_COLOURS),
    "four bands as they are": (save(with_alpha("RGBA")), 4, np.dstack([RGB, RGB[..., 1]])),
    "CMYK as four bands": (
        save(Image.fromarray(RGB).convert("CMYK"), ".tif"),
        4,
        np.asarray(Image.fromarray(RGB).convert("CMYK")),
    ),
    "three bands of four": (
        save(Image.fromarray(RGB)),
        4,
        "has 3 channels (RGB), the model takes 4 (--in-channels of its training)",
    ),
    "16 bits, PNG": (save(Image.fromarray(DEEP)), 1, (DEEP // 257)[..., None]),
    "16 bits, TIFF, three channels": (
        save(Image.fromarray(DEEP), ".tif"),
        3,
        np.stack([DEEP // 257] * 3, 2),
    ),
    "32-bit whole numbers of 16": (
        save(Image.fromarray(DEEP.astype(np.int32)), ".tif"),
        1,
        (DEEP // 257)[..., None],
    ),
    "numbers beyond 16 bits": (
        save(Image.fromarray(DEEP.astype(np.int32) + 9), ".tif"),
        1,
        "holds values 9 to 65544",
    ),
    "fractions": (save(Image.fromarray(DEEP / np.float32(65535)), ".tif"), 1, "floating-point"),
    "orientation 3": (turned(Image.fromarray(RGB), 3), 3, RGB),
    "orientation 6": (turned(Image.fromarray(RGB), 6), 3, RGB),
    "orientation 8": (turned(Image.fromarray(RGB), 8), 3, RGB),
    "one pixel": (save(Image.fromarray(RGB[:1, :1])), 3, RGB[:1, :1]),
    "upper-case suffix": (save(Image.fromarray(RGB), ".PNG"), 3, RGB),
    "wrong suffix": (save(Image.fromarray(RGB), ".jpg", format="PNG"), 3, RGB),
    "PPM in gzip": (zipped(Image.fromarray(RGB)), 3, RGB),
    "cut gzip": (zipped(NOISE, 0.5), 3, "cannot be read"),
    "two pages": (frames(".tif"), 3, "holds 2 pictures"),
    "animation": (frames(".gif"), 3, "holds 2 pictures"),
    "cut PNG": (cut(NOISE, ".png"), 3, "cannot be read"),
    "cut JPEG": (cut(NOISE, ".jpg"), 3, "cannot be read"),
    "cut TIFF": (cut(NOISE, ".tif"), 3, "cannot be read"),
    "empty file": (text(b""), 3, "cannot be read"),
    "text": (text(b"not a picture"), 3, "cannot be read"),
    "missing": (nowhere, 3, "there is no such file"),
}

# name → (writes the label, class table or None for 0/255, expected target or words of the error)
LABELS = {
    "0/255": (save(Image.fromarray(MASK * np.uint8(255))), None, MASK),
    "0/1": (save(Image.fromarray(MASK.astype(np.uint8))), None, MASK),
    "mode 1": (save(Image.fromarray(MASK)), None, MASK),
    "0/65535": (save(Image.fromarray(MASK * np.uint16(65535))), None, MASK),
    "3/253": (save(Image.fromarray(np.where(MASK, 253, 3).astype(np.uint8))), None, MASK),
    "three greys": (
        save(Image.fromarray(THREE * np.uint8(100))),
        None,
        "holds 3: 0 (64 pixels), 100 (64 pixels), 200",
    ),
    "0/255 saved as JPEG": (
        save(Image.fromarray(MASK * np.uint8(255)), ".jpg", quality=30),
        None,
        "not as JPEG",
    ),
    "smoothed": (
        save(
            Image.fromarray(MASK * np.uint8(255)).resize(
                (W, H), Image.Resampling.BICUBIC, (0.3, 0.3, W - 1, H - 1)
            )
        ),
        None,
        "two values",
    ),
    "colours without table": (
        save(Image.fromarray(COLOURS[THREE])),
        None,
        "for labels in colours give a class table",
    ),
    "fractions": (save(Image.fromarray(MASK * np.float32(0.5)), ".tif"), None, "fractions"),
    "ids": (save(Image.fromarray(THREE)), TABLE, THREE),
    "RGB colours": (save(Image.fromarray(COLOURS[THREE])), TABLE, THREE),
    "RGBA colours": (save(Image.fromarray(COLOURS[THREE]).convert("RGBA")), TABLE, THREE),
    "stray id": (
        save(Image.fromarray(np.where(THREE == 2, 7, THREE).astype(np.uint8))),
        TABLE,
        "1 value outside the class table: 7 (64 pixels)",
    ),
    "stray colour": (
        save(Image.fromarray(np.where(THREE[..., None] == 2, 9, COLOURS[THREE]).astype(np.uint8))),
        TABLE,
        "1 colour outside the class table: (9, 9, 9) (64 pixels)",
    ),
    "0/255 for three classes": (
        save(Image.fromarray(MASK * np.uint8(255))),
        TABLE,
        MASK * 255,
    ),  # 255 is void in the table
    "turned": (turned(Image.fromarray(THREE), 6), TABLE, THREE),
    "transposed": (save(Image.fromarray(THREE.T.copy())), TABLE, "12×16 pixels, but its image"),
    "smaller": (save(Image.fromarray(THREE[:-1])), TABLE, "16×11 pixels, but its image"),
    "negative ids": (
        save(Image.fromarray(THREE.astype(np.int32) - 1), ".tif"),
        TABLE,
        "-1 (64 pixels)",
    ),
    "cut": (cut(NOISE, ".png"), TABLE, "cannot be read"),
    "missing": (nowhere, TABLE, "there is no such file"),
}


def refused(function, words, path):
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        function()
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", IMAGES)
def test_images(tmp_path, kind):
    write, channels, expected = IMAGES[kind]
    path = write(tmp_path / "x.png")
    if isinstance(expected, str):
        refused(lambda: read_image(path, channels), expected, path)
    else:
        assert np.array_equal(read_image(path, channels).permute(1, 2, 0), expected)


@pytest.mark.parametrize("kind", LABELS)
def test_labels(tmp_path, kind):
    write, table, expected = LABELS[kind]
    save(Image.fromarray(RGB))(tmp_path / "image.png")
    path = write(tmp_path / "x.png")
    options = {"classes": table} if table else {}
    dataset = SegmentationDataset([Sample("x", tmp_path / "image.png", path)], **options)
    if isinstance(expected, str):
        refused(lambda: dataset[0], expected, path)
    else:
        assert np.array_equal(dataset[0][1], expected)


def test_an_image_above_the_limit_of_pixels_is_refused_and_a_flag_raises_the_limit(tmp_path):
    path = save(Image.fromarray(RGB))(tmp_path / "x.png")
    before = Image.MAX_IMAGE_PIXELS
    refused(
        lambda: read_image(path, max_pixels=H * W - 1),
        f"has {W}×{H} = 192 pixels, the limit is 191",
        path,
    )
    assert read_image(path, max_pixels=H * W).shape == (3, H, W)
    assert Image.MAX_IMAGE_PIXELS == before  # the global limit of Pillow is unchanged


def test_the_default_limit_is_pillows_and_applies_before_decoding(tmp_path, monkeypatch):
    content = bytearray(save(Image.fromarray(LUMA))(tmp_path / "x.png").read_bytes())
    content[16:24] = (20_000).to_bytes(4, "big") * 2  # width and height in the header
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (tmp_path / "huge.png").write_bytes(content)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("the file was decoded"))
    with pytest.raises(UserError, match="400,000,000 pixels.*--max-pixels 400000000"):
        open_image(tmp_path / "huge.png")


def test_stored_mode_names_the_mode_and_the_rotation(tmp_path):
    assert stored_mode(save(Image.fromarray(DEEP))(tmp_path / "deep.png")) == "I;16"
    assert (
        stored_mode(turned(Image.fromarray(RGB), 6)(tmp_path / "turned.png"))
        == "RGB turned by EXIF"
    )


@pytest.mark.parametrize("brightest, read", [(200, 0), (300, 1), (65535, 255)])
def test_16_bit_pnm_is_scaled_the_same_however_dark_it_is(tmp_path, brightest, read):
    values = np.full((4, 5), brightest, ">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 5 4 65535\n" + values.tobytes())
    assert read_image(tmp_path / "a.pgm", 1).unique().tolist() == [read]

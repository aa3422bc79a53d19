"""PNG and .npy files by strips: what goes in comes out, and a failure leaves nothing."""

import errno
import resource
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from tests.small import error_of
from train_utils.reporting.pictures import default_colours
from train_utils.reporting.png import NpyWriter, PngWriter, is_complete

RNG = np.random.default_rng(0)
PICTURES = {  # kind → (Pillow's mode, pixels)
    "grey": ("L", RNG.integers(0, 256, (37, 23), dtype=np.uint8)),
    "grey16": ("I;16", RNG.integers(0, 65536, (37, 23), dtype=np.uint16)),
    "rgb": ("RGB", RNG.integers(0, 256, (37, 23, 3), dtype=np.uint8)),
    "palette": ("P", RNG.integers(0, 5, (37, 23), dtype=np.uint8)),
}


def palette_of(kind):
    return default_colours(5) if kind == "palette" else None


def write_png(path, kind, pixels, *strips):
    """Writes the pixels by strips of these numbers of rows, and the rest as the last one."""
    with PngWriter(path, pixels.shape[1], pixels.shape[0], kind, palette_of(kind)) as writer:
        for rows in np.split(pixels, np.cumsum(strips)):
            writer.write(rows)


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("strips", [(), (1, 5, 20), (36,), (0, 37)])
def test_the_file_holds_the_pixels(tmp_path, kind, strips):
    mode, pixels = PICTURES[kind]
    write_png(tmp_path / "x.png", kind, pixels, *strips)
    with Image.open(tmp_path / "x.png") as picture:
        picture.verify()  # checks the sums of all chunks
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.format == "PNG" and picture.mode == mode
        assert np.array_equal(np.asarray(picture), pixels)
        if kind == "palette":
            assert picture.getpalette() == default_colours(5).ravel().tolist()
    assert is_complete(tmp_path / "x.png")


@pytest.mark.parametrize("kind", PICTURES)
def test_strips_larger_than_a_block_and_of_any_memory_order(tmp_path, kind):
    _, pixels = PICTURES[kind]
    large = np.repeat(np.repeat(pixels, 60, axis=0), 50, axis=1)[::-1]
    write_png(tmp_path / "x.png", kind, np.asfortranarray(large), 1000)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "x.png")), large)


def test_memory_does_not_grow_with_the_image(tmp_path):
    strip = RNG.integers(0, 256, (16, 1000, 3), dtype=np.uint8)
    tracemalloc.start()
    with PngWriter(tmp_path / "x.png", 1000, 1600, "rgb") as writer:
        for _ in range(100):
            writer.write(strip)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e6 < (tmp_path / "x.png").stat().st_size / 2


def test_probabilities_are_the_file_of_numpy(tmp_path):
    probs = RNG.random((3, 20, 11), dtype=np.float32)
    with NpyWriter(tmp_path / "x.npy", 3, 20, 11) as writer:
        for rows in np.split(probs, [1, 8, 9], axis=1):
            writer.write(rows)
    np.save(tmp_path / "expected.npy", probs.astype(np.float16))
    assert (tmp_path / "x.npy").read_bytes() == (tmp_path / "expected.npy").read_bytes()


# --- what fails ----------------------------------------------------------------------------------


def make_writer(path, height=4):
    """A writer for rows [h, 5] of grey, or of one class."""
    if path.suffix == ".npy":
        return NpyWriter(path, 1, height, 5)
    return PngWriter(path, 5, height, "grey")


def rows_for(path, count):
    """That many rows for make_writer()."""
    return np.zeros((count, 5) if path.suffix == ".png" else (1, count, 5), np.uint8)


@pytest.fixture(params=["x.png", "x.npy"])
def path(request, tmp_path):
    return tmp_path / request.param


@pytest.mark.parametrize("counts", [(), (3,), (3, 2)])
def test_a_wrong_number_of_rows_is_refused(path, counts):
    with pytest.raises(ValueError, match="rows"), make_writer(path) as writer:
        for count in counts:
            writer.write(rows_for(path, count))
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize(
    "kind, rows",
    [
        ("grey", np.zeros((2, 4), np.uint8)),
        ("grey", np.zeros((2, 5), np.uint16)),
        ("grey", np.zeros((2, 5), bool)),
        ("grey16", np.zeros((2, 5), np.uint8)),
        ("rgb", np.zeros((2, 5), np.uint8)),
        ("rgb", np.zeros((2, 5, 4), np.uint8)),
    ],
)
def test_rows_of_another_shape_or_type_are_refused(tmp_path, kind, rows):
    with pytest.raises(ValueError, match="rows must be"):
        with PngWriter(tmp_path / "x.png", 5, 2, kind) as writer:
            writer.write(rows)
    with pytest.raises(ValueError, match="rows must be"):
        with NpyWriter(tmp_path / "x.npy", 2, 2, 5) as writer:
            writer.write(rows[None])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, OSError])
def test_an_interrupted_file_leaves_the_old_one(path, error):
    path.write_bytes(b"old")
    with pytest.raises(error), make_writer(path) as writer:
        writer.write(rows_for(path, 2))
        raise error("in between")
    assert path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path]


def test_a_full_disk_is_named_in_a_sentence(path, monkeypatch):
    def full_disk(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    def write():
        with make_writer(path) as writer:
            writer.write(rows_for(path, 4))

    path.write_bytes(b"old")
    monkeypatch.setattr("os.fsync", full_disk)
    message = error_of(write)
    assert f"{path}: cannot be written (No space left on device)" in message
    assert path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path]


def test_a_disk_that_fills_up_while_rows_are_written(tmp_path):
    noise = RNG.random((100, 5000), dtype=np.float32)

    def write(writer, rows):
        with writer:
            writer.write(rows)

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # writing beyond it fails
    try:
        png = PngWriter(tmp_path / "x.png", 5000, 100, "grey")
        npy = NpyWriter(tmp_path / "x.npy", 1, 100, 5000)
        messages = (
            error_of(write, png, (noise * 255).astype(np.uint8)),
            error_of(write, npy, noise[None]),
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "x.png: cannot be written (File too large)" in messages[0]
    assert "x.npy: cannot be written (File too large)" in messages[1]
    assert not list(tmp_path.iterdir())


def test_files_that_are_cut_short_are_not_whole(path):
    with make_writer(path) as writer:
        writer.write(rows_for(path, 4))
    content = path.read_bytes()
    assert is_complete(path)
    for length in (0, 5, len(content) - 1):
        path.write_bytes(content[:length])
        assert not is_complete(path)
    path.unlink()
    assert not is_complete(path)

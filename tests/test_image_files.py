"""The files of predict.py: strips give what the whole image gives; an error leaves none."""

import threading

import numpy as np
import pytest
import torch
from PIL import Image

from tests.pictures import save_mask
from train_utils.reporting.image_files import ImageFiles
from train_utils.reporting.pictures import default_colours, overlay
from train_utils.reporting.png import PngWriter


def random_strips(classes, height=23, width=17, cuts=(0, 5, 6, 20, 23)):
    """(image uint8 [3, H, W], class ids [H, W], probabilities [K, H, W], the strips of both)."""
    generator = torch.Generator().manual_seed(classes)
    image = torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8)
    probs = torch.rand(classes, height, width, generator=generator).softmax(0).numpy()
    mask = probs.argmax(0).astype(np.uint8)
    rows = [slice(start, stop) for start, stop in zip(cuts[:-1], cuts[1:], strict=True)]
    return image, mask, probs, [(each, mask[each], probs[:, each]) for each in rows]


def make_files(folder, classes, ids=None, **options):
    names = [f"class {index}" for index in range(classes)]
    colours = default_colours(classes)
    return ImageFiles(folder, names, colours, ids or list(range(classes)), **options)


@pytest.mark.parametrize("classes, ids", [(2, [0, 1]), (3, [0, 7, 9])])
def test_strips_give_the_files_of_the_whole_image(tmp_path, classes, ids):
    image, mask, probs, strips = random_strips(classes)
    files = make_files(tmp_path / "out", classes, ids, save_prob=True, save_overlay=True)
    pixels = files.write("sub/x", image, strips).pixels
    assert pixels.tolist() == np.bincount(mask.ravel(), minlength=classes).tolist()
    save_mask(tmp_path / "whole.png", mask, files.colours, ids)
    written, whole = Image.open(files.mask_path("sub/x")), Image.open(tmp_path / "whole.png")
    assert written.mode == whole.mode and written.getpalette() == whole.getpalette()
    assert (np.asarray(written) == np.asarray(whole)).all()
    drawn = overlay(image.permute(1, 2, 0).numpy(), mask, files.colours)
    assert (np.asarray(Image.open(files.overlay_path("sub/x"))) == drawn).all()
    path = files.prob_path("sub/x")
    if classes == 2:
        assert (np.asarray(Image.open(path)) == (probs[1] * 65535).round()).all()
    else:
        assert (np.load(path) == probs.astype(np.float16)).all()


def test_a_strip_is_written_while_the_next_one_is_computed(tmp_path, monkeypatch):
    image, _, _, strips = random_strips(2)
    computing, write = threading.Event(), PngWriter.write
    waited = []

    def write_later(self, rows):
        waited.append(computing.wait(timeout=20))
        write(self, rows)

    def computed():
        yield strips[0]
        computing.set()
        yield from strips[1:]

    monkeypatch.setattr(PngWriter, "write", write_later)
    files = make_files(tmp_path, 2)
    files.write("x", image, computed())
    assert waited == [True] * len(strips) and files.are_complete("x")


def test_an_error_while_writing_ends_the_computing(tmp_path, monkeypatch):
    image, _, _, strips = random_strips(2)
    computed = []

    def full(self, rows):
        raise OSError("no room")

    monkeypatch.setattr(PngWriter, "write", full)
    with pytest.raises(OSError, match="no room"):
        make_files(tmp_path, 2).write("x", image, (computed.append(0) or each for each in strips))
    assert len(computed) == 2 and list(tmp_path.iterdir()) == []


def test_an_error_leaves_no_file(tmp_path):
    image, _, _, strips = random_strips(2)

    def broken():
        yield strips[0]
        raise RuntimeError("a kill, say")

    files = make_files(tmp_path, 2, save_prob=True, save_overlay=True)
    with pytest.raises(RuntimeError):
        files.write("x", image, broken())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("classes", [2, 3])
def test_complete_files_are_told_from_truncated_ones(tmp_path, classes):
    image, _, _, strips = random_strips(classes)
    files = make_files(tmp_path, classes, save_prob=True, save_overlay=True)
    assert not files.are_complete("x")
    files.write("x", image, strips)
    assert files.are_complete("x")
    for path in (files.mask_path("x"), files.prob_path("x"), files.overlay_path("x")):
        content = path.read_bytes()
        path.write_bytes(content[:-1])
        assert not files.are_complete("x")
        path.write_bytes(content)
    files.overlay_path("x").unlink()
    assert not files.are_complete("x")
    assert make_files(tmp_path, classes, save_prob=True).are_complete("x")


# --- objects --------------------------------------------------------------------------------------


def two_squares():
    """(ids of two squares, their strips, an image)."""
    ids = np.zeros((30, 24), np.int32)
    ids[3:12, 2:11], ids[15:28, 6:20] = 1, 2
    mask = (ids > 0).astype(np.uint8)
    rows = [slice(0, 10), slice(10, 17), slice(17, 30)]
    image = torch.full((3, *ids.shape), 40, dtype=torch.uint8)
    return ids, image, [(each, mask[each], None) for each in rows]


def test_ids_are_those_of_the_whole_image_whatever_the_strips(tmp_path):
    ids, image, strips = two_squares()
    files = make_files(tmp_path, 2, save_instances=True, save_overlay=True)
    saved = files.write("x", image, strips)
    written = Image.open(files.instances_path("x"))
    assert written.mode == "I;16" and (np.asarray(written) == ids).all()
    assert saved.objects == [
        {"id": 1, "area": 81, "x": 6, "y": 7},
        {"id": 2, "area": 182, "x": 12.5, "y": 21},
    ]
    drawn = np.asarray(Image.open(files.overlay_path("x")))
    inside = np.zeros(ids.shape, bool)
    inside[4:11, 3:10] = inside[16:27, 7:19] = True
    outline = (drawn != 40).any(2)
    assert (outline == ((ids > 0) & ~inside)).all()
    assert (drawn[3, 2] != drawn[15, 6]).any()


def test_no_object_is_an_empty_file_of_ids(tmp_path):
    _, image, _ = two_squares()
    files = make_files(tmp_path, 2, save_instances=True)
    saved = files.write("x", image, [(slice(0, 30), np.zeros((30, 24), np.uint8), None)])
    assert saved.objects == [] and np.asarray(Image.open(files.instances_path("x"))).max() == 0


def test_without_the_file_of_ids_the_files_are_incomplete(tmp_path):
    _, image, strips = two_squares()
    files = make_files(tmp_path, 2, save_instances=True)
    files.write("x", image, strips)
    assert files.are_complete("x")
    files.instances_path("x").unlink()
    assert not files.are_complete("x")


def test_more_objects_than_16_bits_hold_are_a_problem_of_the_image(tmp_path):
    mask = np.zeros((512, 512), np.uint8)
    mask[::2, ::2] = 1
    files = make_files(tmp_path, 2, save_instances=True)
    image = torch.zeros(3, 512, 512, dtype=torch.uint8)
    saved = files.write("x", image, [(slice(0, 512), mask, None)])
    assert saved.problem.startswith("65,536 objects, more than the 65,535 of a 16-bit file; raise")
    assert not files.instances_path("x").exists() and not files.are_complete("x")

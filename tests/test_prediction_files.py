"""The files of predict.py: strips give what the whole image gives; the table survives a kill."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.pictures import save_mask
from tests.small import error_of
from train_utils.reporting.pictures import default_colours, overlay
from train_utils.reporting.prediction_files import PredictionFiles, PredictionTable


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
    return PredictionFiles(folder, names, colours, ids or list(range(classes)), **options)


@pytest.mark.parametrize("classes, ids", [(2, [0, 1]), (3, [0, 7, 9])])
def test_strips_give_the_files_of_the_whole_image(tmp_path, classes, ids):
    image, mask, probs, strips = random_strips(classes)
    files = make_files(tmp_path / "out", classes, ids, save_prob=True, save_overlay=True)
    pixels = files.write("sub/x", image, strips)
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
def test_whole_files_are_told_from_those_that_were_cut_short(tmp_path, classes):
    image, _, _, strips = random_strips(classes)
    files = make_files(tmp_path, classes, save_prob=True, save_overlay=True)
    assert not files.are_whole("x")
    files.write("x", image, strips)
    assert files.are_whole("x")
    for path in (files.mask_path("x"), files.prob_path("x"), files.overlay_path("x")):
        content = path.read_bytes()
        path.write_bytes(content[:-1])
        assert not files.are_whole("x")
        path.write_bytes(content)
    files.overlay_path("x").unlink()
    assert not files.are_whole("x")
    assert make_files(tmp_path, classes, save_prob=True).are_whole("x")


# --- predictions.csv ------------------------------------------------------------------------------


def new_table(folder, keep, names=("background", "road, wet")):
    return PredictionTable(folder, names, keep)


def add(table, *names):
    for name in names:
        table.add(name, (10, 20), np.array([150, 50]), 0.25)


def test_rows_are_there_as_soon_as_they_are_added(tmp_path):
    table = new_table(tmp_path, keep=False)
    add(table, "b")
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    assert lines == [
        'image,width,height,share_background,"share_road, wet",seconds',
        "b,20,10,0.75,0.25,0.25",
    ]


def test_the_closed_table_has_the_order_of_the_inputs(tmp_path):
    table = new_table(tmp_path, keep=False)
    add(table, "b", "c", "a")
    table.close(["a", "broken", "b", "c"])
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    assert [line[0] for line in lines[1:]] == ["a", "b", "c"]


def test_a_dropped_row_is_not_written(tmp_path):
    table = new_table(tmp_path, keep=False)
    add(table, "a", "b")
    table = new_table(tmp_path, keep=True)
    table.drop(["a", "never there"])
    table.close([])
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    assert [line[0] for line in lines[1:]] == ["b"]


def test_a_table_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "predictions.csv").mkdir()
    assert "predictions.csv: cannot be written" in error_of(new_table, tmp_path, keep=False)


def test_a_kept_table_drops_a_line_that_was_cut_short(tmp_path):
    table = new_table(tmp_path, keep=False)
    add(table, "a", "b")
    path = tmp_path / "predictions.csv"
    path.write_text(path.read_text() + "c,20,1")
    table = new_table(tmp_path, keep=True)
    assert list(table.rows) == ["a", "b"]
    add(table, "c", "b")
    table.close(["a", "b", "c"])
    assert [line[0] for line in path.read_text().splitlines()] == ["i", "a", "b", "c"]


def test_a_table_of_other_classes_is_not_kept(tmp_path):
    add(new_table(tmp_path, keep=False), "a")
    assert new_table(tmp_path, keep=True, names=("background", "vessel")).rows == {}


def test_without_keep_the_table_begins_anew(tmp_path):
    add(new_table(tmp_path, keep=False), "a")
    assert new_table(tmp_path, keep=False).rows == {}
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 1

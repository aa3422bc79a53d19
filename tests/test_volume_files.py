"""The files of predict.py for volumes; whole runs are in test_predict_volumes.py."""

import errno
import os
import resource

import numpy as np
import pytest
import torch
from PIL import Image

from src.volume_io import read_label_volume
from src.volumes import Geometry
from tests.small import error_of
from train_utils.data.inputs import Input
from train_utils.reporting.volume_files import VolumeFiles

SHAPE = (6, 8, 10)


def make_files(folder, classes=3, **options):
    names, colours = ["no", "left", "right"], [[0, 0, 0], [200, 0, 0], [0, 0, 200]]
    of_classes = (each[:classes] for each in (names, colours, [0, 5, 9]))
    return VolumeFiles(folder, *of_classes, (1.0, 1.0, 1.0), **options)


def random_strips(shape=SHAPE, classes=3):
    """(class ids [D, H, W], probabilities [K, D, H, W], strips of both)."""
    generator = torch.Generator().manual_seed(0)
    probs = torch.rand(classes, *shape, generator=generator).softmax(0).numpy()
    ids = probs.argmax(0).astype(np.uint8)
    parts = [slice(0, 2), slice(2, shape[0])]
    return ids, probs, [(part, ids[part], probs[:, part]) for part in parts]


def write(files, source, shape=SHAPE):
    strips = random_strips(shape, len(files.class_names))[2]
    return files.write(source, torch.zeros(1, *shape), Geometry(shape), strips)


def test_strips_give_mask_probabilities_and_the_voxels_of_each_class(tmp_path):
    source = Input(tmp_path / "x.tiff", "sub/x")
    files = make_files(tmp_path / "out", save_prob=True)
    ids, probs, _ = random_strips()
    assert write(files, source).tolist() == np.bincount(ids.ravel()).tolist()
    assert files.mask_path(source) == tmp_path / "out" / "sub" / "x_mask.tif"
    mask, _ = read_label_volume(files.mask_path(source))
    assert (mask == np.array([0, 5, 9])[ids]).all()
    np.save(tmp_path / "expected.npy", probs.astype(np.float16))
    stored = files.prob_path(source)
    assert stored.read_bytes() == (tmp_path / "expected.npy").read_bytes()
    mapped = np.load(stored, mmap_mode="r")
    assert mapped.shape == (3, *SHAPE) and (mapped == probs.astype(np.float16)).all()


def test_files_are_complete_when_all_that_are_asked_for_are_there(tmp_path):
    source, out = Input(tmp_path / "x.npy", "sub/x"), tmp_path / "out"
    files = make_files(out, save_prob=True, save_overlay=True)
    assert not files.are_complete(source) and not out.exists()
    write(files, source)
    assert files.are_complete(source)
    files.overlay_path(source).unlink()
    assert not files.are_complete(source)
    assert make_files(out, save_prob=True).are_complete(source)


def test_an_error_leaves_no_file(tmp_path):
    files, strips = make_files(tmp_path, save_prob=True), random_strips()[2]

    def broken():
        yield strips[0]
        raise RuntimeError("a kill, say")

    with pytest.raises(RuntimeError):
        files.write(
            Input(tmp_path / "x.npy", "x"), torch.zeros(1, *SHAPE), Geometry(SHAPE), broken()
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "classes, complete, name",
    [
        (2, [], "x_prob.npy"),
        (3, [], "x_prob.npy"),
        (3, ["x_prob.npy"], "x_mask.npy"),
        (3, ["x_prob.npy", "x_mask.npy"], "x_overlay.png"),
    ],
)
def test_a_full_disk_is_named_in_a_sentence(tmp_path, monkeypatch, classes, complete, name):
    source = Input(tmp_path / "x.npy", "x")
    files = make_files(tmp_path, classes, save_prob=True, save_overlay=True)
    fsync, synced = os.fsync, []

    def full_disk(number):
        if len(synced) == len(complete):
            raise OSError(errno.ENOSPC, "No space left on device")
        synced.append(number)
        fsync(number)

    (tmp_path / name).write_bytes(b"old")
    monkeypatch.setattr("os.fsync", full_disk)
    message = error_of(write, files, source)
    assert f"{tmp_path / name}: cannot be written (No space left on device)" in message
    assert (tmp_path / name).read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*complete, name])


def test_a_disk_that_fills_up_while_probabilities_are_written(tmp_path):
    source, files = Input(tmp_path / "x.npy", "x"), make_files(tmp_path, save_prob=True)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # writing beyond it fails
    try:
        message = error_of(write, files, source)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "x_prob.npy: cannot be written (File too large)" in message
    assert not list(tmp_path.iterdir())


def test_overlays_of_small_volumes_are_enlarged_by_a_whole_factor(tmp_path):
    source, files = Input(tmp_path / "x.npy", "x"), make_files(tmp_path, save_overlay=True)
    write(files, source)
    picture = np.asarray(Image.open(files.overlay_path(source)))
    width = 10 + 1 + 10 + 1 + 8  # three slices and what lies between
    factor = picture.shape[1] // width
    assert 256 <= picture.shape[1] < 256 + width and picture.shape[1] == factor * width
    small = picture[::factor, ::factor]
    assert (picture == small.repeat(factor, 0).repeat(factor, 1)).all()
    shape = (4, 6, 400)
    write(files, source, shape)
    assert Image.open(files.overlay_path(source)).width == 400 + 12 + 400 + 12 + 6

"""The files of predict.py for volumes; whole runs are in test_predict_volumes.py."""

import numpy as np
import pytest
import torch
from PIL import Image

from src.volume_io import read_label_volume
from src.volumes import Geometry
from train_utils.data.inputs import Input
from train_utils.reporting.volume_files import VolumeFiles

SHAPE = (6, 8, 10)


def make_files(folder, **options):
    names, colours = ["no", "left", "right"], [[0, 0, 0], [200, 0, 0], [0, 0, 200]]
    return VolumeFiles(folder, names, colours, [0, 5, 9], (1.0, 1.0, 1.0), **options)


def random_strips(shape=SHAPE):
    """(class ids [D, H, W], probabilities [3, D, H, W], strips of both)."""
    probs = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0)).softmax(0).numpy()
    ids = probs.argmax(0).astype(np.uint8)
    parts = [slice(0, 2), slice(2, shape[0])]
    return ids, probs, [(part, ids[part], probs[:, part]) for part in parts]


def write(files, source, shape=SHAPE):
    strips = random_strips(shape)[2]
    return files.write(source, torch.zeros(1, *shape), Geometry(shape), strips)


def test_strips_give_mask_probabilities_and_the_voxels_of_each_class(tmp_path):
    source = Input(tmp_path / "x.tiff", "sub/x")
    files = make_files(tmp_path / "out", save_prob=True)
    ids, probs, _ = random_strips()
    assert write(files, source).tolist() == np.bincount(ids.ravel()).tolist()
    assert files.mask_path(source) == tmp_path / "out" / "sub" / "x_mask.tif"
    mask, _ = read_label_volume(files.mask_path(source))
    assert (mask == np.array([0, 5, 9])[ids]).all()
    assert (np.load(files.prob_path(source)) == probs.astype(np.float16)).all()


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

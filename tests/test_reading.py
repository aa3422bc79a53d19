"""Images are read ahead by threads, in order; neighbours of one size form a batch."""

import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from src.errors import UserError
from src.image_io import IGNORE
from train_utils.data import reading
from train_utils.data.class_table import BINARY
from train_utils.data.inputs import Input, Job, find_inputs, find_jobs
from train_utils.data.reading import Picture, equal_sizes, read_ahead, read_picture


def make_jobs(number):
    return [Job(Input(Path(f"{index}.png"), str(index)), None, None) for index in range(number)]


def picture(job, size=(4, 5)):
    return Picture(job, torch.zeros(3, *size, dtype=torch.uint8), None, None)


def read_all(read, jobs):
    failed = {}
    with ThreadPoolExecutor(4) as pool:
        return [each.job.input.name for each in read_ahead(pool, read, jobs, failed)], failed


@pytest.mark.parametrize("number", [0, 1, 2, 40])
def test_pictures_come_in_order_whatever_is_read_first(number):
    def read(job):
        time.sleep(0.002 * (int(job.input.name) % 3))
        return picture(job)

    names, failed = read_all(read, make_jobs(number))
    assert names == [str(index) for index in range(number)] and failed == {}


@pytest.mark.parametrize("broken", [{0}, {1, 2}, {4}, {0, 1, 2, 3, 4}])
def test_broken_files_are_noted_and_left_out(broken):
    def read(job):
        if int(job.input.name) in broken:
            raise UserError(f"{job.input.path}: is broken")
        return picture(job)

    names, failed = read_all(read, make_jobs(5))
    assert names == [str(index) for index in range(5) if index not in broken]
    assert failed == {f"{index}.png": f"{index}.png: is broken" for index in sorted(broken)}


def test_the_next_pictures_are_read_while_one_is_used():
    started = threading.Semaphore(0)

    def read(job):
        started.release()
        return picture(job)

    with ThreadPoolExecutor(4) as pool:
        pictures = read_ahead(pool, read, make_jobs(3), {})
        next(pictures)
        for _ in range(3):
            assert started.acquire(timeout=10)


def test_large_pictures_are_not_read_ahead(tmp_path):
    """Two of them would not fit where one does, whatever came before them."""
    begun, jobs = [], []
    for index, side in enumerate((10, 10, 10_000, 10_000, 10)):
        path = tmp_path / f"{index}.ppm"
        path.write_bytes(f"P6 {side} {side} 255\n".encode())  # the header alone
        jobs.append(Job(Input(path, str(index)), None, None))

    def read(job):
        begun.append(job.input.name)
        return picture(job)

    with ThreadPoolExecutor(1) as pool:
        pictures = read_ahead(pool, read, jobs, {})
        for count in (2, 2, 3, 5, 5):
            next(pictures)
            pool.submit(int).result()  # begins when all that was asked for is read
            assert begun == ["0", "1", "2", "3", "4"][:count]


def test_a_large_picture_is_used_before_the_next_one_is_read():
    """And it is not in memory any more then."""
    alive = []

    def pictures():
        for job in make_jobs(3):
            assert not any(reference() for reference in alive)
            item = picture(job, (1000, 1000))
            alive.append(weakref.ref(item.image))
            yield item
            del item

    for group in equal_sizes(pictures()):
        assert len(group) == 1
        del group
    assert len(alive) == 3


def test_neighbours_of_one_size_form_a_batch():
    jobs = make_jobs(7)
    sizes = [(300, 400)] * 2 + [(400, 300)] + [(300, 400)] * 4
    pictures = [picture(job, size) for job, size in zip(jobs, sizes, strict=True)]
    groups = [[each.job.input.name for each in group] for group in equal_sizes(pictures)]
    assert groups == [["0", "1"], ["2"], ["3", "4", "5", "6"]]
    large = [picture(job, (900, 900)) for job in jobs[:3]]
    assert [len(group) for group in equal_sizes(large)] == [1, 1, 1]
    assert list(equal_sizes([])) == []
    assert reading.BATCH_PIXELS == 1024**2


def test_pixels_outside_the_roi_are_ignored_in_the_target(tmp_path):
    for name in ("in", "roi", "labels"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (6, 4)).save(tmp_path / "in" / "x.png")
    roi = np.zeros((4, 6), np.uint8)
    roi[:, 2:] = 255
    Image.fromarray(roi).save(tmp_path / "roi" / "x_mask.png")
    label = np.zeros((4, 6), np.uint8)
    label[1:] = 255
    Image.fromarray(label).save(tmp_path / "labels" / "x.png")
    folders = (str(tmp_path / name) for name in ("in", "out", "roi", "labels"))
    source, output, rois, labels = folders
    (job,) = find_jobs(find_inputs(source, False, output), rois, labels)
    found = read_picture(job, 3, None, auto_roi=False, classes=BINARY)
    assert (found.target[:, :2] == IGNORE).all()
    assert (found.target[1:, 2:] == 1).all() and (found.target[0, 2:] == 0).all()
    assert (found.label[1:] == 1).all()


@pytest.mark.parametrize("kind", ["file", "array", "folder"])
def test_ids_become_objects_with_a_gap_where_they_touch(tmp_path, kind):
    ids = np.zeros((8, 12), np.uint16)
    ids[2:6, 1:6], ids[2:6, 6:11] = 3, 300
    for name in ("in", "labels"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (12, 8)).save(tmp_path / "in" / "x.png")
    if kind == "file":
        Image.fromarray(ids).save(tmp_path / "labels" / "x.png")
    elif kind == "array":
        np.save(tmp_path / "labels" / "x.npy", ids)
    else:
        (tmp_path / "labels" / "x").mkdir()
        for index in (3, 300):
            mask = Image.fromarray((ids == index).astype(np.uint8) * 255)
            mask.save(tmp_path / "labels" / "x" / f"{index}.png")
    folders = (str(tmp_path / name) for name in ("in", "out", "labels"))
    source, output, labels = folders
    (job,) = find_jobs(find_inputs(source, False, output), "", labels, instances=True)
    found = read_picture(job, 3, None, auto_roi=False, classes=BINARY, instances=True)
    assert found.instances.dtype == torch.int32 and len(found.instances.unique()) == 3
    assert ((found.instances > 0).numpy() == (ids > 0)).all()
    assert found.target.dtype == torch.uint8 and (found.target[2:6, 5:7] == 0).all()
    assert found.target.sum() == (ids > 0).sum() - 8


def test_a_photograph_without_a_field_of_view_is_named(tmp_path):
    Image.new("RGB", (60, 50), (90, 90, 90)).save(tmp_path / "x.png")
    job = Job(Input(tmp_path / "x.png", "x"), None, None)
    with pytest.raises(UserError, match="x.png: .*--roi-mask"):
        read_picture(job, 3, None, auto_roi=True, classes=BINARY)

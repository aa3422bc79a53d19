"""Large datasets: a sample is read before training, the rest when it is used."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

import train
from my_dataset import SegmentationDataset, list_samples, open_dataset
from src.errors import UserError
from src.image_io import IGNORE
from tests.made import write_folder
from tests.tiny import EXACT, parse
from tests.watch import opened_files
from train_utils.cli.script import run_script
from train_utils.data.class_table import ClassTable
from train_utils.data.large_sets import (
    LARGE_IMAGES,
    SAMPLE_IMAGES,
    SAMPLE_PIXELS,
    choose_sample,
    choose_validation,
    in_threads,
    random_order,
)
from train_utils.data.samples import Sample


def write_many(root, count, size=16):
    """Writes small images and labels of two classes; returns root."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number in range(count):
        image = Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
        image.save(root / f"images/{number:05d}.png", compress_level=0)
        label = Image.fromarray(np.eye(size, k=number % 3, dtype=np.uint8) * np.uint8(255))
        label.save(root / f"masks/{number:05d}.png", compress_level=0)
    return root


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A folder of more images than are read before training."""
    return write_many(tmp_path_factory.mktemp("many"), LARGE_IMAGES + 100)


def test_small_sets_are_read_whole(many):
    samples = list_samples("folder", many)["all"]
    assert choose_sample(samples[:LARGE_IMAGES]) == samples[:LARGE_IMAGES]


def test_of_large_sets_a_sample_is_read_which_is_always_the_same(many, monkeypatch, capsys):
    samples = list_samples("folder", many)["all"]
    chosen = choose_sample(samples)
    assert len(set(chosen)) == SAMPLE_IMAGES and chosen == choose_sample(samples)
    assert chosen == sorted(chosen, key=samples.index)
    opened = opened_files(monkeypatch)
    dataset, pixels = open_dataset(samples, "training", for_training=True)
    assert set(opened) == {path for each in chosen for path in (each.image, each.label)}
    assert "training: read 200 of 1,100 images" in capsys.readouterr().out
    assert len(dataset) == 1100 and len(dataset.examined) == 200
    assert pixels[:2].sum() == 200 * 16 * 16
    assert not dataset.fits_in_memory() and dataset.cached_bytes == 0
    assert dataset[1099][0].shape == (3, 16, 16) and dataset.cached_bytes == 0


def test_names_and_order_do_not_change_the_sample(tmp_path):
    """Files of different sizes, some of them equal, under their names and under others."""
    for number in range(300):
        (tmp_path / f"{number:03d}.png").write_bytes(bytes(100 + number * 2 // 3))
    samples = [Sample(path.name, path) for path in sorted(tmp_path.iterdir())]
    sizes = [
        sorted(each[index].image.stat().st_size for index in random_order(each)[:60])
        for each in (samples, samples[::-1], sorted(samples, key=lambda each: each.name[::-1]))
    ]
    assert sizes[0] == sizes[1] == sizes[2]
    order = random_order(samples)
    assert sorted(order) == list(range(300)) and order != sorted(order)
    assert 20 < sum(index < 150 for index in order[:60]) < 40  # small ones and large ones


def test_files_of_one_size_are_chosen_at_random(tmp_path):
    for number in range(100):
        (tmp_path / f"{number:02d}.bmp").write_bytes(bytes(54))
    order = random_order([Sample(path.name, path) for path in sorted(tmp_path.iterdir())])
    assert sorted(order) == list(range(100)) and 3 < sum(index < 50 for index in order[:20]) < 17


def test_at_most_so_many_validation_images_are_evaluated(many, capsys):
    samples = list_samples("folder", many)["all"]
    chosen = choose_validation(samples, 30)
    assert len(chosen) == 30 and chosen == sorted(chosen, key=samples.index)
    assert chosen == choose_validation(samples, 30)
    assert "validation: 30 of 1,100 are evaluated after each epoch" in capsys.readouterr().out
    assert choose_validation(samples, 0) == choose_validation(samples, 1100) == samples
    assert capsys.readouterr().out == ""


def test_a_run_evaluates_the_chosen_validation_images_and_trains_on_none(tmp_path, capsys):
    data = write_folder(tmp_path / "data", count=12)
    argv = ("--data-path", data, "--dataset", "folder", "--output-dir", tmp_path / "out")
    options = ("--val-fraction", 0.5, "--test-fraction", 0, "--val-images", 2, "--steps", 2)
    train.main(parse(*argv, *options, "--epochs", 1, "--base-c", 4, *EXACT))
    printed = capsys.readouterr().out
    assert "validation: 2 of 6 are evaluated" in printed and "validation: 2 images" in printed
    split = json.loads((tmp_path / "out/split.json").read_text())
    assert len(split["val"]) == 6 and not set(split["val"]) & set(split["train"])


def test_of_very_large_images_fewer_are_read(tmp_path):
    Image.new("1", (12_000, 12_000)).save(tmp_path / "huge.png")
    samples = [Sample(str(number), tmp_path / "huge.png") for number in range(20)]
    chosen = choose_sample(samples)
    assert 12_000**2 > SAMPLE_PIXELS and len(chosen) == 1


def test_threads_count_what_a_single_one_counts(tmp_path):
    samples = list_samples("folder", write_folder(tmp_path, count=12))["all"]
    one, several = SegmentationDataset(samples), SegmentationDataset(samples, cache=False)
    assert torch.equal(one.count_pixels(), several.count_pixels(threads=True))
    assert one.sizes == several.sizes
    assert one.encodings == several.encodings == {"0/255": (12, samples[0].label)}
    assert in_threads(lambda index: index**2, 5) == [0, 1, 4, 9, 16]


def test_a_broken_file_of_the_rest_is_one_sentence_when_it_is_met(tmp_path, capsys):
    data = write_many(tmp_path / "data", LARGE_IMAGES + 1, size=8)
    samples = list_samples("folder", data)["all"]
    chosen = choose_sample(samples)
    for each in samples:
        if each not in chosen:
            each.image.write_bytes(b"no image")
    argv = ("--data-path", data, "--dataset", "folder", "--output-dir", tmp_path / "out")
    options = ("--steps", 40, "--base-c", 4, "--test-fraction", 0, "--val", "none", "--workers", 1)
    with pytest.raises(SystemExit) as stop:
        run_script(lambda: train.main(parse(*argv, *options, *EXACT)), "train.py")
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert re.fullmatch(r"train.py: error: \S+\.png: cannot be read .*\n", error), error


def test_a_broken_file_of_the_sample_is_found_before_training(many, monkeypatch):
    samples = list_samples("folder", many)["all"]
    broken = choose_sample(samples)[7].image
    original = Image.open

    def fail(file, *args, **kwargs):
        if getattr(file, "name", file) in (broken, str(broken)):
            raise OSError("broken")
        return original(file, *args, **kwargs)

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(UserError, match=broken.name):
        open_dataset(samples, "training", for_training=True)


def test_a_sample_whose_labels_are_all_ignored_is_refused(tmp_path):
    root = write_many(tmp_path, LARGE_IMAGES + 1)
    for path in (root / "masks").iterdir():
        Image.fromarray(np.full((16, 16), 7, np.uint8)).save(path)
    classes = ClassTable(("a", "b"), (None, None), {0: 0, 1: 1, 7: IGNORE})
    samples = list_samples("folder", root)["all"]
    with pytest.raises(UserError, match="every pixel of the training images is ignored"):
        open_dataset(samples, "training", for_training=True, classes=classes)


def test_labels_without_foreground_in_the_sample_are_a_warning(tmp_path, capsys):
    root = write_many(tmp_path, LARGE_IMAGES + 1)
    for path in (root / "masks").iterdir():
        Image.fromarray(np.zeros((16, 16), np.uint8)).save(path)
    open_dataset(list_samples("folder", root)["all"], "training", for_training=True)
    printed = capsys.readouterr().out
    assert "warning: of the images that were read, no pixel" in printed

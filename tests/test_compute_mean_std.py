"""compute_mean_std.py: pooled statistics are those of the pixels, and both kinds are printed."""

import json

import numpy as np
import pytest
import torch

import compute_mean_std
from my_dataset import SegmentationDataset, list_drive
from tests.made import write_folder
from train_utils.data.statistics import channel_statistics


class TwoImages(list):
    """A dataset of two images whose ROIs differ in size."""

    def read(self, index):
        return self[index]


@pytest.fixture
def two():
    generator = torch.Generator().manual_seed(0)
    items = []
    for roi_rows, offset in ((2, 0), (30, 100)):
        image = torch.randint(offset, offset + 100, (3, 32, 16), generator=generator).byte()
        target = torch.full((32, 16), 255, dtype=torch.uint8)
        target[:roi_rows] = 0
        items.append((image, target))
    return TwoImages(items)


def test_pooled_is_over_pixels_and_per_image_over_images(two):
    found = channel_statistics(two)
    inside = [image[:, target != 255].numpy() / 255 for image, target in two]
    pixels = np.concatenate(inside, axis=1)
    np.testing.assert_allclose(found["pooled"][0], pixels.mean(1))
    np.testing.assert_allclose(found["pooled"][1], pixels.std(1))
    np.testing.assert_allclose(found["per image"][0], np.mean([i.mean(1) for i in inside], axis=0))
    np.testing.assert_allclose(found["per image"][1], np.mean([i.std(1) for i in inside], axis=0))
    assert abs(found["pooled"][0] - found["per image"][0]).max() > 0.05  # here the two do differ


def run(capsys, *flags):
    """What the script prints."""
    compute_mean_std.main(compute_mean_std.parse_args([str(flag) for flag in flags]))
    return capsys.readouterr().out


def as_text(values):
    return " ".join(f"{value:.4f}" for value in values.tolist())


def test_prints_both_with_flags_to_paste(tiny_root, capsys):
    out = run(capsys, "--data-path", tiny_root)
    found = channel_statistics(SegmentationDataset(list_drive(tiny_root, train=True)))
    (mean, std), per_image = found["pooled"], found["per image"]
    assert out.startswith("5 training images, ")
    assert f"pooled over all pixels:       mean {as_text(mean)}   std {as_text(std)}\n" in out
    line = "mean {}   std {}".format(*map(as_text, per_image))
    assert f"mean over images of each's:   {line}\n" in out
    assert f"python train.py --mean {as_text(mean)} --std {as_text(std)}\n" in out


def test_a_split_file_names_the_training_images(tiny_root, tmp_path, capsys):
    split = {"train": ["21_training", "23_training"], "val": ["22_training"], "test": []}
    (tmp_path / "split.json").write_text(json.dumps(split))
    out = run(capsys, "--data-path", tiny_root, "--split-file", tmp_path / "split.json")
    samples = list_drive(tiny_root, train=True)
    mean, _ = channel_statistics(SegmentationDataset([samples[0], samples[2]]))["pooled"]
    assert out.startswith("2 training images, ") and f"mean {as_text(mean)} " in out


def test_a_fold_of_a_list_of_folds_names_the_training_images(tiny_root, tmp_path, capsys):
    names = [sample.name for sample in list_drive(tiny_root, train=True)]
    folds = [{"train": names[1:], "val": names[:1]}, {"train": names[:2], "val": names[2:]}]
    (tmp_path / "folds.json").write_text(json.dumps(folds))
    argv = ("--data-path", tiny_root, "--split-file", tmp_path / "folds.json", "--fold")
    assert run(capsys, *argv, 0).startswith(f"{len(names) - 1} training images, ")
    assert run(capsys, *argv, 1).startswith("2 training images, ")


def test_a_fold_needs_a_list_of_folds(tiny_root, capsys):
    with pytest.raises(SystemExit):
        compute_mean_std.parse_args(["--data-path", str(tiny_root), "--fold", "1"])
    assert "--fold is for a --split-file" in capsys.readouterr().err


@pytest.mark.parametrize("channels, what", [(1, "grey"), (3, "channels R G B")])
def test_there_are_as_many_values_as_channels(tmp_path, capsys, channels, what):
    write_folder(tmp_path, count=2)
    argv = ("--dataset", "folder", "--data-path", tmp_path, "--in-channels", channels)
    first, pooled, *_ = run(capsys, *argv).splitlines()
    assert first.startswith("2 images, not split yet") and first.endswith(what)
    assert len(pooled.split("mean ")[1].split("std")[0].split()) == channels


def test_drive_gives_the_tutorials_constants(drive_root):
    dataset = SegmentationDataset(list_drive(drive_root, train=True))
    mean, std = channel_statistics(dataset)["per image"]
    assert [round(v, 3) for v in mean.tolist()] == [0.709, 0.381, 0.224]
    assert [round(v, 3) for v in std.tolist()] == [0.127, 0.079, 0.043]


def test_volumes_have_no_mean_in_common(capsys):
    with pytest.raises(SystemExit):
        compute_mean_std.parse_args(["--dataset", "volumes"])
    assert "--dataset" in capsys.readouterr().err

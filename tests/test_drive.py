"""DRIVE: which files belong together, what is refused, and the real images."""

import shutil

import pytest
from PIL import Image

from my_dataset import DATASETS, IGNORE, DriveDataset, list_drive
from src.image_io import read_binary
from tests.pictures import FIELD, TRUTH, two_valued
from tests.small import error_of


def write_drive(root, split="training", numbers=(21, 22), labels=True):
    """A DRIVE tree of tiny pictures; returns the split's folder.

    Every pixel of the image of number n is n.
    """
    folder = root / "DRIVE" / split
    for number in numbers:
        files = {
            f"images/{number:02d}_{split}.tif": Image.new("RGB", (8, 6), (number,) * 3),
            f"mask/{number:02d}_{split}_mask.gif": two_valued(FIELD, 0, 255),
        }
        if labels:
            files[f"1st_manual/{number:02d}_manual1.gif"] = two_valued(TRUTH, 0, 255)
        for name, picture in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            picture.save(folder / name)
    return folder


# --- the layout ----------------------------------------------------------------------------------


def test_files_are_paired_by_number_and_sorted(tmp_path):
    folder = write_drive(tmp_path, numbers=(40, 21, 33))
    labels, images = folder / "1st_manual", folder / "images"
    (labels / "33_manual1.gif").rename(labels / "33_a_better_label.GIF")
    (images / "21_training.tif").rename(images / "21_zoom.TIF")
    samples = list_drive(tmp_path, train=True)
    assert [sample.name for sample in samples] == ["21_zoom", "33_training", "40_training"]
    for sample, number in zip(samples, ("21", "33", "40"), strict=True):
        assert {path.name[:2] for path in (sample.image, sample.label, sample.roi)} == {number}
    dataset = DriveDataset(tmp_path, train=True)
    assert [int(dataset[i][0].unique()) for i in range(3)] == [21, 33, 40]


@pytest.mark.parametrize(
    "train, names",
    [(True, ["21_training", "22_training"]), (False, ["01_test", "02_test", "03_test"])],
)
def test_training_and_test_are_kept_apart(tmp_path, train, names):
    write_drive(tmp_path, "training", (21, 22))
    write_drive(tmp_path, "test", (1, 2, 3))
    assert [sample.name for sample in DriveDataset(tmp_path, train).samples] == names


def test_the_row_of_the_table_finds_the_same_files(tiny_root):
    row = DATASETS["drive"]
    assert row["layout"](tiny_root).splits["train"] == list_drive(tiny_root, train=True)
    assert row["layout"](tiny_root).splits["test"] == list_drive(tiny_root, train=False)
    assert len(row["layout"](tiny_root).splits["train"]) == 5
    assert len(row["mean"]) == len(row["std"]) == 3
    assert len(row["classes"].names) == 2


def test_hidden_files_and_other_kinds_of_file_are_ignored(tmp_path):
    folder = write_drive(tmp_path)
    for name in (
        "images/.21_training.tif",
        "images/Thumbs.db",
        "mask/readme.txt",
        "1st_manual/._21_manual1.gif",
    ):
        (folder / name).write_bytes(b"x")
    assert len(DriveDataset(tmp_path, train=True)) == 2


@pytest.mark.parametrize(
    "missing, what",
    [
        ("mask/22_training_mask.gif", "ROI mask"),
        ("1st_manual/22_manual1.gif", "label"),
        ("images/22_training.tif", "image"),
    ],
)
def test_a_file_without_partner_is_named(tmp_path, missing, what):
    folder = write_drive(tmp_path, numbers=(21, 22, 23))
    (folder / missing).unlink()
    message = error_of(DriveDataset, tmp_path, train=True)
    assert f"no {what}" in message and "22_" in message
    assert "21_" not in message and "23_" not in message


def test_every_missing_partner_is_named(tmp_path):
    folder = write_drive(tmp_path, numbers=(21, 22, 23))
    shutil.rmtree(folder / "1st_manual")
    (folder / "mask" / "23_training_mask.gif").unlink()
    message = error_of(list_drive, tmp_path, train=True)
    assert message.count("no label") == message.count("no ROI mask") == 1
    assert "3 × " in message and "22_training.tif, 23_training.tif" in message


def test_of_many_problems_the_first_are_named_and_the_others_counted(tmp_path):
    folder = write_drive(tmp_path, numbers=range(21, 41))
    shutil.rmtree(folder / "1st_manual")
    message = error_of(list_drive, tmp_path, train=True)
    assert message.count("no label") == 1 and "20 × " in message and "17 more" in message
    assert "add what is missing, or remove the file" in message


def test_two_files_of_one_number_are_refused(tmp_path):
    images = write_drive(tmp_path) / "images"
    shutil.copy(images / "21_training.tif", images / "21_training.png")
    message = error_of(list_drive, tmp_path, train=True)
    assert "two files for one number" in message and str(images / "21_training") in message


def test_test_labels_are_optional(tmp_path):
    write_drive(tmp_path, "test", (1, 2), labels=False)
    dataset = DriveDataset(tmp_path, train=False)
    assert [sample.label for sample in dataset.samples] == [None, None]
    message = error_of(dataset.__getitem__, 0)
    assert str(dataset.samples[0].image) in message and "no label" in message


def test_some_test_labels_are_not_enough(tmp_path):
    folder = write_drive(tmp_path, "test", (1, 2))
    (folder / "1st_manual" / "01_manual1.gif").unlink()
    assert "01_test.tif has no label" in error_of(list_drive, tmp_path, train=False)


@pytest.mark.parametrize("existing", ["", "DRIVE", "DRIVE/training/images"])
def test_without_data_the_message_shows_the_tree_and_the_demo(tmp_path, existing):
    root = tmp_path / "data"
    if existing:
        (root / existing).mkdir(parents=True)
    message = error_of(DriveDataset, root, train=True)
    for part in (
        str(root / "DRIVE" / "training" / "images"),
        "--data-path",
        "21_manual1.gif",
        "21_training_mask.gif",
        "test/images",
        "--demo",
    ):
        assert part in message


# --- the real images -----------------------------------------------------------------------------


# Counted once from the ROI mask files by numpy alone.
@pytest.mark.parametrize(
    "train, names, inside",
    [
        (True, [f"{number}_training" for number in range(21, 41)], 4_541_006),
        (False, [f"{number:02d}_test" for number in range(1, 21)], 4_538_143),
    ],
    ids=["training", "test"],
)
def test_drive_has_20_and_20_images_and_its_pixels_inside_the_roi(drive_root, train, names, inside):
    dataset = DriveDataset(drive_root, train, cache=False)
    assert [sample.name for sample in dataset.samples] == names
    pixels = dataset.count_pixels()
    assert pixels.sum() == 20 * 584 * 565
    assert pixels[:2].sum() == inside
    assert pixels[2:IGNORE].sum() == 0
    assert dataset.encodings.keys() == {"0/255"}


def test_the_second_observer_is_read_like_the_first(drive_root):
    for sample in DriveDataset(drive_root, train=False).samples[:3]:
        folder = sample.label.parents[1] / "2nd_manual"
        first, _ = read_binary(sample.label, "label")
        second, _ = read_binary(folder / f"{sample.name[:2]}_manual2.gif", "label")
        dice = 2 * (first & second).sum() / (first.sum() + second.sum())
        assert dice > 0.7  # two people, not one and the negative

"""Datasets of volumes: layouts, labels, sparse labels, spacing, ROI, normalization, bad files."""

import gzip
import json

import numpy as np
import pytest
import torch

from my_dataset import DATASETS, IGNORE, VolumeDataset, list_samples, open_dataset
from tests.made_volumes import draw, save, write_decathlon
from tests.small import error_of
from train_utils.data.class_table import BINARY, find_table
from train_utils.data.samples import Sample
from train_utils.data.splits import read_split
from train_utils.data.volumes import SPARSE, choose_crop, choose_spacing

UNIT = (1.0, 1.0, 1.0)


def samples_of(root):
    return list_samples("volumes", root)


def table_of(root):
    return find_table(root, "", DATASETS["volumes"]["classes"])


def dataset_of(root, **options):
    splits = samples_of(root)
    samples = splits.get("train") or splits["all"]
    return VolumeDataset(samples, table_of(root), **options)


def write_folder(root, count=3, change=None, suffix=".nii.gz", roi=False):
    """images/ and masks/ (and roi/) of two classes; change(label) changes what is saved."""
    for number in range(count):
        image, label = draw(number, classes=2)
        if change:
            label = change(label)
        save(root / "images" / f"p{number}{suffix}", image)
        save(root / "masks" / f"p{number}{suffix}", label)
        if roi:
            inside = np.zeros(label.shape, np.uint8)
            inside[2:-2] = 1
            save(root / "roi" / f"p{number}{suffix}", inside)
    return root


# --- layouts --------------------------------------------------------------------------------------


def test_the_decathlons_layout_and_its_classes(tmp_path):
    root = write_decathlon(tmp_path, count=3, test=2)
    splits = samples_of(root)
    assert [sample.name for sample in splits["train"]] == ["v00", "v01", "v02"]
    assert [(sample.name, sample.label) for sample in splits["test"]] == [
        ("t0", None),
        ("t1", None),
    ]
    assert table_of(root).names == ("background", "left", "right")


def test_nnunets_dataset_json_lists_no_files(tmp_path):
    root = write_decathlon(tmp_path, count=2, test=0)
    for path in (root / "imagesTr").iterdir():
        path.rename(path.with_name(path.name.replace(".nii.gz", "_0000.nii.gz")))
    labels = {"background": 0, "left": 1, "right": 2, "ignore": 3}
    (root / "dataset.json").write_text(json.dumps({"labels": labels, "numTraining": 2}))
    found = samples_of(root)["train"]
    assert [sample.label.name for sample in found] == ["v00.nii.gz", "v01.nii.gz"]
    assert [sample.name for sample in found] == ["v00", "v01"]  # as in nnU-Net's splits
    assert table_of(root).names == ("background", "left", "right")
    assert table_of(root).numbers[3] == IGNORE


def test_nnunet_v1_lists_the_names_without_the_channel(tmp_path):
    root = write_decathlon(tmp_path, count=2, test=1)
    for path in (*root.glob("imagesTr/*"), *root.glob("imagesTs/*")):
        path.rename(path.with_name(path.name.replace(".nii.gz", "_0000.nii.gz")))
    splits = samples_of(root)
    found = [(sample.name, sample.image.name) for sample in splits["train"] + splits["test"]]
    assert found == [(name, f"{name}_0000.nii.gz") for name in ("v00", "v01", "t0")]
    path = save(root / "imagesTr" / "v01_0001.nii.gz", draw(0)[0])
    message = error_of(samples_of, root)
    assert message.startswith(f"{path}: is a further channel of the sample v01; channels are read")


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "not listed"])
def test_labels_of_test_images(tmp_path, listed):
    root, roi = write_decathlon(tmp_path, count=2, test=2), np.ones((14, 20, 16), np.uint8)
    if not listed:
        (root / "dataset.json").write_text(json.dumps({"labels": {"a": 0, "b": 1, "c": 2}}))
        for path in root.glob("imagesTs/*"):
            path.rename(path.with_name(path.name.replace(".nii.gz", "_0000.nii.gz")))
    label = save(root / "labelsTs" / "t1.nii.gz", draw(101)[1])
    for volume in ("v00", "v01", "t1"):
        save(root / "roisTr" / f"{volume}.nii.gz", roi)
    found = samples_of(root)["test"]
    assert [(sample.name, sample.label) for sample in found] == [("t0", None), ("t1", label)]
    assert [sample.roi for sample in found] == [None, root / "roisTr" / "t1.nii.gz"]
    if not listed:
        save(root / "labelsTs" / "t7.nii.gz", draw(0)[1])
        assert "labelsTs/t7.nii.gz has no image" in error_of(samples_of, root)


def test_labels_of_test_images_in_dataset_json(tmp_path):
    root = write_decathlon(tmp_path, count=2, test=2)
    content = json.loads((root / "dataset.json").read_text())
    label = save(root / "other" / "t0.nii.gz", draw(100)[1])
    content["test"] = [
        {"image": "./imagesTs/t0.nii.gz", "label": "./other/t0.nii.gz"},
        {"image": "./imagesTs/t1.nii.gz"},
    ]
    (root / "dataset.json").write_text(json.dumps(content))
    found = [(sample.name, sample.label) for sample in samples_of(root)["test"]]
    assert found == [("t0", label), ("t1", None)]
    label.unlink()
    assert f"names {label}, which is not there" in error_of(samples_of, root)


def test_images_and_masks_with_roi(tmp_path):
    root = write_folder(tmp_path, roi=True)
    dataset = dataset_of(root, spacing=UNIT)
    image, target = dataset.read(0)
    assert image.dtype == torch.float32 and target.dtype == torch.uint8
    inside = target != IGNORE
    assert inside.any(0).any(0).tolist() == [False] * 2 + [True] * 10 + [False] * 2
    assert image[:, inside].mean().item() == pytest.approx(0, abs=1e-4)
    assert image[:, inside].std().item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "not listed"])
@pytest.mark.parametrize("name", ["roisTr", "roi"])
def test_roi_volumes_in_the_decathlons_layout(tmp_path, name, listed):
    root, inside = write_decathlon(tmp_path, count=2, test=1), np.zeros((14, 20, 16), np.uint8)
    inside[2:-2] = 1
    if not listed:
        (root / "dataset.json").write_text(json.dumps({"labels": {"a": 0, "b": 1, "c": 2}}))
    for volume in ("v00", "v01", "t0"):
        save(root / name / f"{volume}.nii.gz", inside)
    samples = samples_of(root)["train"]
    assert [sample.roi for sample in samples] == [root / name / f"v0{n}.nii.gz" for n in (0, 1)]
    outside = dataset_of(root).read(0)[1] == IGNORE
    assert outside.all(0).all(0).tolist() == [True] * 2 + [False] * 10 + [True] * 2
    (root / name / "v01.nii.gz").unlink()
    assert f"v01.nii.gz has no ROI mask in {root / name}" in error_of(samples_of, root)


def test_several_files_a_sample_are_refused_but_numbers_in_names_are_not(tmp_path):
    root = write_decathlon(tmp_path, count=3, test=0)
    (root / "dataset.json").write_text(json.dumps({"labels": {"a": 0, "b": 1, "c": 2}}))
    for folder in ("imagesTr", "labelsTr"):
        for number in range(3):
            path = root / folder / f"v0{number}.nii.gz"
            path.rename(path.with_name(f"scan_000{number}.nii.gz"))
    assert len(samples_of(root)["train"]) == 3
    for number in range(3):
        path = root / "imagesTr" / f"scan_000{number}.nii.gz"
        path.rename(path.with_name(f"scan_000{number}_0000.nii.gz"))
    assert len(samples_of(root)["train"]) == 3
    save(root / "imagesTr" / "scan_0001_0001.nii.gz", draw(0)[0])
    message = error_of(samples_of, root)
    assert "scan_0001_0001.nii.gz: is a further channel of the sample scan_0001" in message


def test_files_that_dataset_json_names_and_that_are_not_there(tmp_path):
    root = write_decathlon(tmp_path, count=2)
    (root / "labelsTr" / "v01.nii.gz").unlink()
    message = error_of(samples_of, root)
    assert (
        f"{root / 'dataset.json'} names {root / 'labelsTr' / 'v01.nii.gz'}, which is not" in message
    )
    (root / "dataset.json").write_text('{"labels": 3, "training": [1]}')
    assert "dataset.json: cannot be read as the description" in error_of(samples_of, root)
    assert "dataset.json: its labels cannot be read" in error_of(table_of, root)


def test_dicom_and_empty_folders_are_refused(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "slice1.dcm").touch()
    assert "is DICOM" in error_of(samples_of, tmp_path)
    assert "no volumes there" in error_of(samples_of, tmp_path / "empty")


def test_folds_from_a_file(tmp_path):
    path = tmp_path / "splits.json"
    path.write_text(json.dumps([{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}]))
    assert read_split(path, 1) == {"train": ["b"], "val": ["a"], "test": []}
    assert "holds 2 folds, and no --fold chooses one; give --fold 0 to 1" in error_of(
        read_split, path
    )
    assert "--fold 2 chooses one" in error_of(read_split, path, 2)


# --- samples --------------------------------------------------------------------------------------


def test_each_volume_is_normalized_by_itself(tmp_path):
    dataset = dataset_of(write_decathlon(tmp_path, count=3))
    for index in range(3):
        image, target = dataset.read(index)
        assert image.shape == (1, 16, 20, 14) and target.shape == (16, 20, 14)
        assert image.mean().item() == pytest.approx(0, abs=1e-5)
        assert image.std(correction=0).item() == pytest.approx(1, abs=1e-5)
        _, label = draw(index)
        assert np.array_equal(target.numpy(), label.transpose(2, 1, 0))


def test_other_voxels_are_resampled_to_the_median(tmp_path):
    root = write_decathlon(tmp_path, count=3, spacings={1: (1.0, 2.0, 1.05)})
    samples = samples_of(root)["train"]
    spacing = choose_spacing(None, samples)
    assert spacing == [1.0, 1.0, 1.0]
    dataset = VolumeDataset(samples, table_of(root), spacing=spacing)
    shapes = [tuple(dataset.read(index)[1].shape) for index in range(3)]
    assert shapes == [(16, 20, 14), (17, 40, 14), (16, 20, 14)]
    assert dataset.read(1)[0].shape == (1, 17, 40, 14)
    assert choose_spacing([2.0, 1.0, 1.0], samples) == [2.0, 1.0, 1.0]


def test_voxels_of_a_few_nanometres_keep_their_size(tmp_path):
    """A NIfTI of an electron microscope, in mm."""
    root = write_decathlon(tmp_path, count=2, spacings={n: (4e-6, 4e-6, 3e-5) for n in (0, 1)})
    spacing = choose_spacing(None, samples_of(root)["train"])
    assert spacing == pytest.approx([3e-5, 4e-6, 4e-6], rel=1e-4)
    assert dataset_of(root, spacing=spacing).read(0)[1].shape == (16, 20, 14)


def test_files_without_voxel_size_are_taken_as_equal(tmp_path):
    (tmp_path / "x.npy").touch()
    assert choose_spacing(None, [Sample("x", tmp_path / "x.npy")]) == [1.0, 1.0, 1.0]


def test_a_file_damaged_near_its_start_is_named_when_it_is_read(tmp_path):
    root = write_decathlon(tmp_path, count=3)
    samples = samples_of(root)["train"]
    content = bytearray(gzip.compress(gzip.decompress(samples[0].image.read_bytes())))
    content[10] |= 0b110  # the first after the header of gzip: a type of block that does not exist
    samples[0].image.write_bytes(content)
    assert choose_spacing(None, samples) == [1.0, 1.0, 1.0]
    message = error_of(dataset_of(root).read, 0)
    assert f"{samples[0].image}: cannot be read as a volume" in message


def test_unlabelled_voxels_are_255_and_ignored(tmp_path):
    def sparse(label):
        label = label.copy()
        label[:, :, ::2] = 255
        return label

    root = write_folder(tmp_path / "pairs", change=sparse)
    dataset, pixels = open_dataset(
        samples_of(root)["all"], "training", classes=BINARY, channels=1, spacing=UNIT
    )
    assert pixels[IGNORE] == 3 * 14 * 20 * 8 and pixels[2:IGNORE].sum() == 0
    assert (dataset.read(0)[1][::2] == IGNORE).all()
    root = write_decathlon(tmp_path / "table", count=1)
    save(root / "labelsTr" / "v00.nii.gz", sparse(draw(0)[1]))
    assert dataset_of(root).count_pixels()[IGNORE] == 14 * 20 * 8


def test_a_label_of_foreground_and_unlabelled_voxels_is_not_read_upside_down(tmp_path):
    root = write_folder(tmp_path, change=lambda label: np.where(label, label, np.uint8(255)))
    dataset = dataset_of(root)
    pixels = dataset.count_pixels()
    assert pixels[1] == 3 * 7**3 and pixels[0] == 0 and pixels[IGNORE] == 3 * (14 * 20 * 16 - 7**3)
    assert list(dataset.encodings) == [SPARSE]


def test_0_and_255_are_two_classes_but_not_beside_sparse_labels(tmp_path):
    root = write_folder(tmp_path, change=lambda label: label * np.uint8(255))
    dataset = dataset_of(root)
    assert dataset.count_pixels()[1] == 3 * 7**3 and list(dataset.encodings) == ["0/255"]
    label = draw(0, classes=2)[1]
    label[0] = 255
    save(root / "masks" / "p0.nii.gz", label)
    assert "a value would mean two things" in error_of(dataset_of(root).count_pixels)


def test_what_255_means_is_said_where_labels_differ(tmp_path, capsys):
    root = write_folder(tmp_path)
    options = {"classes": BINARY, "channels": 1, "spacing": UNIT}
    open_dataset(samples_of(root)["all"], "training", **options)
    assert "0 and 255 alone" not in capsys.readouterr().out
    label = np.zeros((14, 20, 16), np.uint8)
    label[:, :, ::2] = 255  # half of the slices are labelled, without foreground
    save(root / "masks" / "p1.nii.gz", label)
    open_dataset(samples_of(root)["all"], "training", **options)
    said = "1 label with 0 and 255 alone, such as {}, unlike others: their 255 is read as class 1"
    assert said.format(root / "masks" / "p1.nii.gz") in capsys.readouterr().out


def test_labels_outside_the_table_or_in_another_place_are_named(tmp_path):
    root = write_decathlon(tmp_path, count=1)
    path = root / "labelsTr" / "v00.nii.gz"
    image, label = draw(0)
    save(path, label * np.uint8(3))
    assert "v00.nii.gz: holds 2 values outside the class table" in error_of(
        dataset_of(root).read, 0
    )
    save(path, label[:-1])
    assert "is 16×20×13 voxels, but its image" in error_of(dataset_of(root).read, 0)
    moved = np.eye(4)
    moved[1, 3] = 7
    save(path, label, affine=moved)
    assert "up to 7 mm away" in error_of(dataset_of(root).read, 0)
    moved[1, 3] = 1e-4
    save(path, label, affine=moved)
    dataset_of(root).read(0)
    save(path, np.stack([label, label], axis=-1))
    assert "is a label of 2 volumes" in error_of(dataset_of(root).read, 0)
    folder = write_folder(
        tmp_path / "f", change=lambda label: label + np.arange(16, dtype=np.uint8)
    )
    assert "a label of two classes holds 0 and 1" in error_of(dataset_of(folder).read, 0)


def test_an_empty_roi_is_named(tmp_path):
    root = write_folder(tmp_path, roi=True)
    save(root / "roi" / "p1.nii.gz", np.zeros((14, 20, 16), np.uint8))
    assert "p1.nii.gz: the ROI is empty" in error_of(dataset_of(root).read, 1)


def test_batches_are_padded_at_the_end_of_each_axis(tmp_path):
    root = write_decathlon(tmp_path, count=2, spacings={1: (1.0, 2.0, 1.0)})
    dataset = dataset_of(root)
    dataset.count_pixels()
    images, targets, sizes = dataset.stack()
    assert images.shape == (2, 1, 16, 40, 14) and sizes.tolist() == [[16, 20, 14], [16, 40, 14]]
    assert (targets[0, :, 20:] == IGNORE).all() and (images[0, :, :, 20:] == 0).all()
    assert torch.equal(images[0, :, :, :20], dataset.read(0)[0])
    assert dataset.fits_in_memory()
    text = dataset.describe(dataset.count_pixels())
    assert "2 volumes (v00 to v01)" in text and "valid voxels" in text


def test_crops_are_cut_to_the_volumes_and_three_numbers_are_kept():
    sizes = [(35, 51, 20), (36, 49, 90), (30, 50, 70)]
    assert choose_crop(64, sizes) == [40, 56, 64]
    assert choose_crop([8, 64, 64], sizes) == [8, 64, 64]
    assert choose_crop(132, sizes, margins=(44, 44, 44)) == [128, 132, 132]

"""The layouts: which files make up a sample, which split it is in, which files do not match."""

import pytest
from PIL import Image

from my_dataset import DATASETS, SegmentationDataset, list_samples
from src.errors import UserError
from tests.made import write_folder


def touch(root, *names):
    """Creates empty files, since layouts read names alone. Returns root."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def paths(samples):
    """(image, label, ROI mask) of each sample as file names."""
    return [
        tuple(path and path.name for path in (sample.image, sample.label, sample.roi))
        for sample in samples
    ]


def problems(dataset, root):
    return DATASETS[dataset]["layout"](root).problems


# --- folder --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image, label",
    [
        ("a.jpg", "a.png"),
        ("a.jpg", "a_mask.png"),
        ("21_training.tif", "21_manual1.gif"),
        ("Image_01L.jpg", "Image_01L_1stHO.png"),
        ("a.b.jpg", "a.b_label.png"),
        ("A.JPG", "a_GT.PNG"),
        ("x_sat.jpg", "x_mask.png"),
        ("0001TP_006690.png", "0001TP_006690_L.png"),
        ("a_l.png", "a_l.png"),
        ("a.ppm.gz", "a.ppm.gz"),
    ],
)
def test_files_are_paired_by_name(tmp_path, image, label):
    touch(tmp_path, f"images/{image}", f"masks/{label}")
    assert paths(list_samples("folder", tmp_path)["all"]) == [(image, label, None)]


def test_an_equal_name_is_preferred_to_one_without_ending(tmp_path):
    touch(tmp_path, "images/a.png", "images/a_l.png", "masks/a.png", "masks/a_l.png")
    assert paths(list_samples("folder", tmp_path)["all"]) == [
        ("a.png", "a.png", None),
        ("a_l.png", "a_l.png", None),
    ]


@pytest.mark.parametrize(
    "labels, rois", [("masks", "roi"), ("labels", "fov"), ("annotations", "rois")]
)
def test_folders_of_labels_and_rois_may_have_other_names(tmp_path, labels, rois):
    touch(tmp_path, "images/a.png", f"{labels}/a.png", f"{rois}/a_roi.png")
    assert paths(list_samples("folder", tmp_path)["all"]) == [("a.png", "a.png", "a_roi.png")]


def test_two_folders_of_labels_are_refused(tmp_path):
    touch(tmp_path, "images/a.png", "masks/a.png", "labels/a.png")
    with pytest.raises(UserError, match="masks and .*labels both exist"):
        list_samples("folder", tmp_path)


@pytest.mark.parametrize("place", ["{split}/{kind}", "{kind}/{split}"])
def test_folders_of_splits_above_or_below(tmp_path, place):
    for split, stem in (("training", "a"), ("valid", "b"), ("test", "c")):
        for kind in ("images", "masks"):
            touch(tmp_path, place.format(split=split, kind=kind) + f"/{stem}.png")
    found = list_samples("folder", tmp_path)
    assert {split: paths(samples) for split, samples in found.items()} == {
        "train": [("a.png", "a.png", None)],
        "val": [("b.png", "b.png", None)],
        "test": [("c.png", "c.png", None)],
    }


def test_only_a_test_split_may_have_no_masks(tmp_path):
    touch(
        tmp_path, "train/images/a.png", "train/masks/a.png", "test/images/c.png", "val/images/b.png"
    )
    (problem,) = problems("folder", tmp_path)
    assert "val/images/b.png has no label in " in problem


@pytest.mark.parametrize(
    "extra, named",
    [
        ("images/b.png", "b.png has no label in"),
        ("masks/b.png", "b.png has no image"),
        ("images/a.jpg", "two files for one image"),
        ("masks/a_mask.png", "two files for one image"),
        ("roi/b.png", "a.png has no ROI mask in"),
    ],
)
def test_files_that_do_not_match_are_refused(tmp_path, extra, named):
    touch(tmp_path, "images/a.png", "masks/a.png", extra)
    with pytest.raises(UserError, match=named):
        list_samples("folder", tmp_path)


@pytest.mark.parametrize("place, used", [("images/patient1", "all"), ("images", "train")])
def test_images_of_no_split_are_named(tmp_path, place, used, capsys):
    folder = "" if used == "all" else "train/"
    touch(tmp_path, f"{folder}images/a.png", f"{folder}masks/a.png", f"{place}/b.png")
    assert [sample.name for sample in list_samples("folder", tmp_path)[used]] == ["a"]
    assert f"note: {tmp_path / place} belongs to no split: 1 file not used" in (
        capsys.readouterr().out
    )


def test_hidden_and_other_files_are_skipped(tmp_path):
    touch(
        tmp_path,
        "images/a.png",
        "masks/a.png",
        "images/.b.png",
        "images/.ipynb_checkpoints/a-checkpoint.png",
        "images/notes.txt",
        "masks/Thumbs.db",
    )
    assert len(list_samples("folder", tmp_path)["all"]) == 1


@pytest.mark.parametrize("dataset", DATASETS)
def test_missing_data_is_refused_with_the_path(tmp_path, dataset):
    with pytest.raises(UserError, match="--data-path") as caught:
        list_samples(dataset, tmp_path)
    assert str(tmp_path) in str(caught.value)


# --- instances/ and weights/ ---------------------------------------------------------------------


def extra_paths(samples):
    """(label, instances, weight map) of each sample as file names."""
    files = [(sample.label, sample.instances, sample.weight) for sample in samples]
    return [tuple(path and path.name for path in paths) for paths in files]


@pytest.mark.parametrize(
    "image, ids",
    [
        ("a.jpg", "a.png"),
        ("a.jpg", "a_instances.npy"),
        ("a.jpg", "a_ids.tif"),
        ("a.jpg", "a_label.png"),
        ("a_img.jpg", "a_instanceIds.png"),
    ],
)
def test_instances_are_paired_as_labels_are(tmp_path, image, ids):
    touch(tmp_path, f"images/{image}", f"instances/{ids}")
    assert extra_paths(list_samples("folder", tmp_path)["all"]) == [(None, ids, None)]


def test_instances_may_be_folders_of_masks(tmp_path):
    touch(tmp_path, "images/a.png", "images/b.v2.png")
    touch(tmp_path, "instances/a_masks/1.png", "instances/b.v2/1.png", "instances/b.v2/2.png")
    found = extra_paths(list_samples("folder", tmp_path)["all"])
    assert found == [(None, "a_masks", None), (None, "b.v2", None)]


def test_labels_and_weights_may_lie_beside_instances(tmp_path):
    touch(tmp_path, "images/a.png", "images/b.png", "masks/a.png", "instances/b.png")
    touch(tmp_path, "weights/a_weights.npy", "weights/b.tif")
    found = extra_paths(list_samples("folder", tmp_path)["all"])
    assert found == [("a.png", None, "a_weights.npy"), (None, "b.png", "b.tif")]


@pytest.mark.parametrize("place", ["{split}/{kind}", "{kind}/{split}"])
def test_instances_and_weights_of_splits(tmp_path, place):
    for split, kinds in (
        ("train", ("images", "instances", "weights")),
        ("val", ("images", "instances")),
        ("test", ("images",)),
    ):
        for kind in kinds:
            touch(tmp_path, place.format(split=split, kind=kind) + f"/{split}.png")
    found = list_samples("folder", tmp_path)
    assert {split: extra_paths(samples) for split, samples in found.items()} == {
        "train": [(None, "train.png", "train.png")],
        "val": [(None, "val.png", None)],
        "test": [(None, None, None)],
    }


def test_the_folder_of_a_split_is_no_folder_of_masks(tmp_path):
    touch(tmp_path, "images/a.png", "instances/a.png", "images/val/b.png", "instances/val/b.png")
    found = list_samples("folder", tmp_path)
    assert extra_paths(found["train"]) == [(None, "a.png", None)]
    assert extra_paths(found["val"]) == [(None, "b.png", None)]


@pytest.mark.parametrize(
    "extra, named",
    [
        ("images/b.png", "b.png has no label in .*instances"),
        ("instances/b.npy", "b.npy has no image"),
        ("instances/a.npy", "a.npy and .*a.png are two files for one image"),
        ("weights/b.npy", "b.npy has no image"),
        ("weights/b.npy", "a.png has no weight map in .*weights"),
    ],
)
def test_instances_and_weights_that_do_not_match_are_refused(tmp_path, extra, named):
    touch(tmp_path, "images/a.png", "instances/a.png", extra)
    with pytest.raises(UserError, match=named):
        list_samples("folder", tmp_path)


@pytest.mark.parametrize("ids", ["x.npy", "x_ids.npy", "x/0.png"])
def test_ids_among_masks_are_told_to_move(tmp_path, ids):
    """There they are not read, since numbers in masks/ may be classes."""
    touch(tmp_path, "images/x.png", f"masks/{ids}", "masks/other.npy")
    lacking, unread = problems("folder", tmp_path)
    assert "x.png has no label in" in lacking
    name = ids.partition("/")[0]
    assert f"masks/{name} is not read: ids of objects as .npy, or as a folder" in unread
    assert "move it there" in unread
    (tmp_path / "masks" / "other.npy").unlink()
    (tmp_path / "masks").rename(tmp_path / "instances")
    assert problems("folder", tmp_path) == []
    assert DATASETS["folder"]["layout"](tmp_path).splits["all"][0].instances.name == name


def test_ids_beside_a_mask_of_the_same_image_are_no_problem(tmp_path):
    touch(tmp_path, "images/x.png", "masks/x.png", "masks/x.npy")
    assert problems("folder", tmp_path) == []


def test_an_image_without_label_and_instances_is_refused(tmp_path):
    touch(tmp_path, "images/a.png", "images/b.png", "images/c.png", "masks/a.png")
    touch(tmp_path, "instances/b.png")
    (problem,) = problems("folder", tmp_path)
    assert "c.png has no label in " in problem and "masks or " in problem


def test_volumes_have_no_instances_and_weights(tmp_path):
    touch(tmp_path, "images/a.nii.gz", "masks/a.nii.gz", "instances/a.png", "weights/b.npy")
    assert extra_paths(list_samples("volumes", tmp_path)["all"]) == [("a.nii.gz", None, None)]


# --- list ----------------------------------------------------------------------------------------


def test_a_list_file_with_tabs_commas_or_spaces(tmp_path):
    touch(tmp_path, "x/a b.png", "x/c.png", "y/a.png", "y/c.png", "y/r.png", "x/d.png", "y/d.png")
    (tmp_path / "all.txt").write_text(
        "# image, label, ROI\nx/a b.png\ty/a.png\n\nx/c.png, y/c.png, y/r.png\nx/d.png y/d.png\n"
    )
    assert paths(list_samples("list", tmp_path / "all.txt")["all"]) == [
        ("a b.png", "a.png", None),
        ("c.png", "c.png", "r.png"),
        ("d.png", "d.png", None),
    ]


def test_a_list_that_is_not_utf_8_is_refused(tmp_path):
    (tmp_path / "list.txt").write_text("a.png b.png", encoding="utf-16")
    with pytest.raises(UserError, match="list.txt: is not text in UTF-8"):
        list_samples("list", tmp_path / "list.txt")


def test_a_list_for_each_split(tmp_path):
    touch(tmp_path, "a.png", "b.png", "c.png", "d.png")
    (tmp_path / "train.txt").write_text("a.png b.png\n")
    (tmp_path / "test.txt").write_text("c.png\n")
    found = list_samples("list", tmp_path)
    assert paths(found["train"]) == [("a.png", "b.png", None)]
    assert paths(found["test"]) == [("c.png", None, None)]


@pytest.mark.parametrize(
    "line, named",
    [
        ("a.png", "line 1: .*a.png has no label"),
        ("a.png nowhere.png", "line 1: there is no .*nowhere.png"),
        ("a.png a.png a.png a.png", "holds 4 paths"),
        ("a.png a.png\na.png a.png", "line 2: .* listed twice"),
        ("# none", "lists no images"),
    ],
)
def test_bad_lines_are_refused_by_number(tmp_path, line, named):
    touch(tmp_path, "a.png")
    (tmp_path / "all.txt").write_text(line)
    with pytest.raises(UserError, match=named):
        list_samples("list", tmp_path / "all.txt")


# --- published datasets --------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["{}annot/{}.png", "{}_labels/{}_L.png"])
@pytest.mark.parametrize("below", ["", "CamVid/"])
def test_camvid_as_in_segnets_tutorial_and_renamed(tmp_path, labels, below):
    for split in ("train", "val", "test"):
        touch(
            tmp_path,
            f"{below}{split}/0001TP_{split}.png",
            below + labels.format(split, f"0001TP_{split}"),
        )
    found = list_samples("camvid", tmp_path)
    assert list(found) == ["train", "val", "test"]
    assert all(len(samples) == 1 and samples[0].label for samples in found.values())


def test_chase_db1_trains_on_the_first_20(tmp_path):
    names = [f"Image_{number:02d}{eye}" for number in range(1, 15) for eye in "LR"]
    touch(
        tmp_path,
        *(
            f"CHASEDB1/{name}{end}"
            for name in names
            for end in (".jpg", "_1stHO.png", "_2ndHO.png")
        ),
    )
    found = list_samples("chase_db1", tmp_path)
    assert [sample.name for sample in found["train"]] == names[:20]
    assert [sample.name for sample in found["test"]] == names[20:]
    assert paths(found["test"])[-1] == ("Image_14R.jpg", "Image_14R_1stHO.png", None)


@pytest.mark.parametrize("suffix", [".ppm", ".ppm.gz"])
def test_stare_has_no_splits(tmp_path, suffix):
    touch(
        tmp_path,
        *(f"STARE/stare-images/im{n:04d}{suffix}" for n in (1, 2, 324)),
        *(f"STARE/labels-ah/im{n:04d}.ah{suffix}" for n in (1, 2, 324)),
    )
    assert paths(list_samples("stare", tmp_path)["all"])[2] == (
        f"im0324{suffix}",
        f"im0324.ah{suffix}",
        None,
    )
    (tmp_path / f"STARE/labels-ah/im0002.ah{suffix}").unlink()
    (problem,) = problems("stare", tmp_path)
    assert "has no label" in problem


def test_hrf_trains_on_the_first_five_of_each_group(tmp_path):
    names = [f"{number:02d}_{group}" for number in range(1, 16) for group in ("dr", "g", "h")]
    touch(
        tmp_path,
        *(f"images/{name}.JPG" for name in names),
        *(f"manual1/{name}.tif" for name in names),
        *(f"mask/{name}_mask.tif" for name in names),
    )
    found = list_samples("hrf", tmp_path)
    assert [sample.name for sample in found["train"]] == names[:15]
    assert len(found["test"]) == 30
    assert paths(found["train"])[0] == ("01_dr.JPG", "01_dr.tif", "01_dr_mask.tif")


@pytest.mark.parametrize("dataset", ["chase_db1", "stare"])
def test_roi_masks_are_used_if_there_are_any(tmp_path, dataset):
    name = {"chase_db1": "Image_01L.jpg", "stare": "im0001.ppm"}[dataset]
    label = {"chase_db1": "Image_01L_1stHO.png", "stare": "im0001.ah.ppm"}[dataset]
    touch(tmp_path, name, label, f"roi/{name.split('.')[0]}_roi.png")
    assert paths(list_samples(dataset, tmp_path)["all"]) == [
        (name, label, f"{name.split('.')[0]}_roi.png")
    ]


def test_samples_of_a_folder_can_be_read(tmp_path):
    write_folder(tmp_path, count=3)
    (tmp_path / "roi").mkdir()
    for sample in list_samples("folder", tmp_path)["all"]:
        Image.new("L", (72, 64), 255).save(tmp_path / "roi" / f"{sample.name}.png")
    samples = list_samples("folder", tmp_path)["all"]
    assert SegmentationDataset(samples).count_pixels()[:2].sum() == 3 * 64 * 72

"""The label doctor on labels with one id an object, on weight maps, and its grouped problems."""

import re

import numpy as np
import pytest
from PIL import Image

from my_dataset import DATASETS
from tests.made import write_folder
from tests.made_instances import discs, write_instances
from tests.made_volumes import write_decathlon
from tests.small import error_of
from train_utils.cli import check_dataset
from train_utils.data.border_weights import border_weights
from train_utils.data.class_table import BINARY, ClassTable, find_table
from train_utils.data.doctor import check
from train_utils.data.labels import read_label
from train_utils.data.layouts import folder
from train_utils.reporting.grids import save_contact_sheet
from train_utils.reporting.object_pictures import weight_picture
from train_utils.reporting.pictures import BASE_COLOURS

SQUARES = np.zeros((20, 30), np.int32)  # the first two touch
SQUARES[2:8, 2:8], SQUARES[2:8, 8:14], SQUARES[12:16, 20:24] = 1, 2, 3


def report_on(root, label_kind="instances"):
    return check(folder(root), find_table(root, "", BINARY), label_kind=label_kind)


def command(root, tmp_path, *argv):
    """Runs the script's command line; returns (exit code, check.txt)."""
    argv = ["check", "--data-path", str(root), "--output-dir", str(tmp_path / "out"), *argv]
    try:
        check_dataset.main(DATASETS, ["--dataset", "folder", *argv])
    except SystemExit as stop:
        return stop.code, (tmp_path / "out/check.txt").read_text()
    return 0, (tmp_path / "out/check.txt").read_text()


def save_ids(path, ids):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids.astype(np.uint16)).save(path)


def write_one(root, ids=SQUARES, kind="instances"):
    """A dataset of one image; returns root."""
    save_ids(root / kind / "a.png", ids)
    (root / "images").mkdir()
    picture = np.where(ids > 0, 200, 40).astype(np.uint8)
    Image.fromarray(picture).save(root / "images/a.png")
    return root


def grid_of_ids(count, side=6):
    """int32 [H, W]: count × count squares that do not touch, with the ids 1, 2, …"""
    ids = np.zeros((count * (side + 4), count * (side + 4)), np.int32)
    for index in range(count**2):
        top, left = (side + 4) * (index // count), (side + 4) * (index % count)
        ids[top : top + side, left : left + side] = index + 1
    return ids


# --- what the report says ------------------------------------------------------------------------


def test_objects_are_counted_and_the_shares_are_those_of_the_target(tmp_path):
    text = report_on(write_one(tmp_path)).text()
    assert "1 foreground: every other id, one for each object" in text
    assert "1 × instance ids" in text and "0 errors, 0 warnings" in text
    # Two squares of 36 px and one of 16 px.
    assert "objects: 3 in all, 3 in the median image, 3 at most; 29 px large on average" in text
    assert "2 of them (66.7 %) touch another one" in text
    # Each of the two that touch loses a column of 6 px.
    assert f"foreground      {100 * (88 - 12) / 600:8.3f} %" in text


def test_the_median_is_that_of_the_images(tmp_path):
    for name, count in (("a", 1), ("b", 2), ("c", 3)):
        save_ids(tmp_path / "instances" / f"{name}.png", np.where(SQUARES <= count, SQUARES, 0))
        save_ids(tmp_path / "images" / f"{name}.png", SQUARES * 20000)
    assert "objects: 6 in all, 2 in the median image, 3 at most" in report_on(tmp_path).text()


def test_a_folder_with_one_mask_an_object_is_read(tmp_path):
    root = write_one(tmp_path)
    (root / "instances/a.png").unlink()
    for index in (1, 2, 3):
        save_ids(root / f"instances/a/cell{index}.png", SQUARES == index)
    assert "objects: 3 in all" in report_on(root).text()
    scattered = np.zeros_like(SQUARES)
    scattered[18, 2] = scattered[18, 20] = 1
    save_ids(root / "instances/a/cell3.png", scattered)
    (warning,) = report_on(root).warnings
    assert "two or more separate places: cell3.png;" in warning


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda ids: np.where(SQUARES == 3, 2, ids), "a.png: objects in .* separate places: id 2;"),
        (lambda ids: ids * 0, "a.png: holds no object"),
        (lambda ids: (ids > 0) * 7, "a.png: holds one id, 7, .*--label-kind classes"),
    ],
)
def test_strange_objects_are_warnings(tmp_path, change, words):
    report = report_on(write_one(tmp_path, change(SQUARES)))
    assert report.errors == []
    assert sum(bool(re.search(words, warning)) for warning in report.warnings) == 1


def test_an_object_that_the_gap_removes_is_a_warning(tmp_path):
    ids = SQUARES.copy()
    ids[2:8, 14], ids[2:8, 15:20] = 4, 5  # one pixel wide, between two others
    (warning,) = report_on(write_one(tmp_path, ids)).warnings
    assert "nothing is left in the target" in warning and warning.endswith("id 4")


@pytest.mark.parametrize(
    "name, ids, words",
    [
        ("a.npy", SQUARES.astype(np.float32), "a.npy: holds float32 values"),
        ("a.npy", SQUARES + 70000, "a.npy: holds the id 70003"),
        ("a.npy", SQUARES - 1, "a.npy: holds the id -1"),
        ("a.npy", SQUARES[:-1], "a.npy: is 30×19 pixels"),
    ],
)
def test_labels_that_cannot_be_used_are_errors(tmp_path, name, ids, words):
    root = write_one(tmp_path)
    (root / "instances/a.png").unlink()
    np.save(root / "instances" / name, ids)
    (error,) = report_on(root).errors
    assert words in error


def test_pixels_outside_the_roi_are_ignored(tmp_path):
    root = write_one(tmp_path)
    save_ids(root / "roi/a.png", np.indices(SQUARES.shape)[1] < 10)
    text = report_on(root).text()
    assert "objects: 3 in all" in text and "  66.667 % of all pixels" in text


# --- weight maps ---------------------------------------------------------------------------------


def write_weights(root, weights):
    (root / "weights").mkdir()
    np.save(root / "weights/a.npy", weights)
    return root


def test_weight_maps_are_described(tmp_path):
    weights = np.ones(SQUARES.shape, np.float32)
    weights[:10] = 3.5
    report = report_on(write_weights(write_one(tmp_path), weights))
    assert "weight maps: 1, weights from 1 to 3.5, mean 2.25" in report.text()
    assert report.errors == report.warnings == []


@pytest.mark.parametrize(
    "weights, words",
    [
        (np.ones((20, 31), np.float32), "a.npy: is 31×20 pixels"),
        (np.where(SQUARES == 1, np.nan, 1), "a.npy: holds 36 weights that are NaN"),
        (np.where(SQUARES == 1, -2.0, 1), "a.npy: holds the weight -2"),
        (np.zeros((20, 30)), "a.npy: all weights are 0"),
    ],
)
def test_weight_maps_that_cannot_be_used_are_errors(tmp_path, weights, words):
    report = report_on(write_weights(write_one(tmp_path), weights))
    (error,) = report.errors
    assert words in error and "weight maps" not in report.text()


def test_weights_also_belong_to_labels_of_classes(tmp_path):
    root = write_one(tmp_path, (SQUARES > 0) * 255, "masks")
    report = report_on(write_weights(root, np.full(SQUARES.shape, 2.0)), "classes")
    assert "weight maps: 1, weights from 2 to 2, mean 2" in report.text() and not report.errors


# --- labels of the other kind --------------------------------------------------------------------


@pytest.mark.parametrize("table", ["", "id,name\n0,ground\n1,cell\n"])
def test_ids_read_as_classes_give_one_hint(tmp_path, table):
    root = write_one(tmp_path, grid_of_ids(3), "masks")
    if table:
        (root / "classes.csv").write_text(table)
    report = report_on(root, "classes")
    (error,) = report.errors
    assert "one id an object: give --label-kind instances" in error
    assert "JPEG" not in error and "outside the class table" not in error
    assert ("classes.csv" in error) == (table == "")  # few ids may be classes without a table
    assert report_on(root).errors == []


def test_training_gets_the_same_hint(tmp_path):
    save_ids(tmp_path / "many.png", grid_of_ids(6))
    message = error_of(read_label, tmp_path / "many.png", BINARY)
    assert "holds 36 ids beside 0" in message
    assert "one id an object: give --label-kind instances" in message
    save_ids(tmp_path / "two.png", np.where(SQUARES < 3, SQUARES, 0))
    assert "--label-kind instances" in error_of(read_label, tmp_path / "two.png", BINARY)


def test_one_colour_an_object_is_recognized(tmp_path):
    ids = grid_of_ids(5, side=10)
    colours = np.random.default_rng(0).integers(1, 256, (26, 3)).astype(np.uint8)
    colours[0] = 0
    Image.fromarray(colours[ids]).save(tmp_path / "a.png")
    message = error_of(read_label, tmp_path / "a.png", BINARY)
    assert "holds 26 colours" in message and "save ids in a 16-bit grey" in message
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "photograph.png")
    assert "an object" not in error_of(read_label, tmp_path / "photograph.png", BINARY)


def test_with_labels_of_both_kinds_the_flag_chooses(tmp_path):
    root = write_instances(tmp_path / "data", count=3)
    for number in range(3):
        save_ids(root / f"masks/cell{number:02d}.png", (discs(number) > 0) * 255)
    code, text = command(root, tmp_path)
    assert code == 0 and "3 × 0/255" in text and "--label-kind instances reads the other" in text
    code, text = command(root, tmp_path, "--label-kind", "instances")
    assert code == 0 and "3 × instance ids" in text


def test_a_sample_without_a_label_of_the_kind_is_reported(tmp_path):
    root = write_instances(tmp_path, count=3)
    for number in (0, 1):
        save_ids(root / f"masks/cell{number:02d}.png", (discs(number) > 0) * 255)
    (error,) = report_on(root, "classes").errors
    assert "cell02.png has ids of objects, but no label of classes" in error
    (root / "instances/cell00.png").unlink()
    warnings = report_on(root).warnings
    assert any("masks/cell00.png: is read as ids of objects" in text for text in warnings)


@pytest.mark.parametrize("dataset", ["folder", "volumes"])
def test_objects_need_images_of_two_classes(tmp_path, dataset, capsys):
    if dataset == "folder":
        root = write_instances(tmp_path / "data", count=1)
        (root / "classes.csv").write_text("id,name\n0,a\n1,b\n2,c\n")
    else:
        root = write_decathlon(tmp_path / "data", count=1)
    argv = ["check", "--dataset", dataset, "--data-path", str(root), "--label-kind", "instances"]
    with pytest.raises(SystemExit) as stop:
        check_dataset.main(DATASETS, [*argv, "--output-dir", str(tmp_path / "out")])
    assert stop.value.code == 2 and "--label-kind instances: " in capsys.readouterr().err


# --- one line a kind of problem ------------------------------------------------------------------


@pytest.fixture(scope="module")
def many_faults(tmp_path_factory):
    """60 labels with three values, 5 images without a label, one that cannot be read."""
    root = write_folder(tmp_path_factory.mktemp("faults"), count=66, size=(32, 40))
    for number in range(60):
        path = root / f"masks/p{number:02d}_mask.png"
        values = np.array(Image.open(path))
        values[0, : 1 + number % 7] = 100 + number
        Image.fromarray(values).save(path)
    for number in range(60, 65):
        (root / f"masks/p{number:02d}_mask.png").unlink()
    (root / "images/p65.png").write_bytes(b"no")
    return root


def test_problems_of_one_kind_are_one_line(many_faults, tmp_path):
    code, text = command(many_faults, tmp_path)
    errors = [line for line in text.splitlines() if line.startswith("ERROR")]
    assert code == 1 and "66 errors, 0 warnings, one line for each kind (--all" in text
    no_label, three_values, unreadable = errors
    assert no_label.startswith("ERROR: 5 × ") and "p60.png has no label in" in no_label
    assert no_label.endswith("(also p61.png, p62.png, 2 more)")
    assert three_values.startswith("ERROR: 60 × ") and "p00_mask.png: a label" in three_values
    assert three_values.endswith("(also p01_mask.png, p02_mask.png, 57 more)")
    assert unreadable.startswith("ERROR: /") and "p65.png: cannot be read" in unreadable


def test_all_prints_every_problem(many_faults, tmp_path):
    code, text = command(many_faults, tmp_path, "--all")
    errors = [line for line in text.splitlines() if line.startswith("ERROR")]
    assert code == 1 and len(errors) == 66 and "66 errors, 0 warnings\n" in text
    assert all(any(f"p{number:02d}_mask.png" in line for line in errors) for number in range(60))


# --- the contact sheet ---------------------------------------------------------------------------


def sheet_of(root, path, label_kind="instances"):
    """The contact sheet of a report, uint8 [H, W, 3]."""
    save_contact_sheet(path, report_on(root, label_kind).sheet, BINARY)
    return np.asarray(Image.open(path).convert("RGB"))


def area(sheet, colour):
    return int((sheet == np.array(colour)).all(-1).sum())


def test_the_sheet_shows_touching_objects_in_two_colours_beside_the_border_weight(tmp_path):
    sheet = sheet_of(write_one(tmp_path), tmp_path / "sheet.png")
    hues = [area(sheet, hue) for hue in BASE_COLOURS[1:]]
    # Two squares of 36 px and one of 16 px, each in its own hue.
    large, second, small = sorted(hues)[:-4:-1]
    assert 0.95 < second / large <= 1 and 0.4 < small / large < 0.5
    assert sum(hues) == large + second + small
    weights = weight_picture(border_weights(SQUARES))
    gap, object_pixel = weights[4, 7], weights[4, 4]
    assert gap.tolist() == [255, 220, 100]
    # The gap is 12 px large, and 76 px are left of the objects.
    assert 0.25 < area(sheet, gap) / large < 0.45 and area(sheet, object_pixel) > 1.9 * large


def test_the_sheet_shows_weight_maps(tmp_path):
    weights = np.where(np.indices(SQUARES.shape)[1] < 15, 0.25, 1)
    root = write_weights(write_one(tmp_path, (SQUARES > 0) * 255, "masks"), weights)
    sheet = sheet_of(root, tmp_path / "sheet.png", "classes")
    low, high = (area(sheet, colour) for colour in ((64, 55, 25), (255, 220, 100)))
    assert low > 5000 and 0.9 < low / high < 1.1


def test_the_real_cells(drive_root, tmp_path):
    """DSB2018: 40 images of the Data Science Bowl, 1,803 nuclei with an id each."""
    if not (drive_root / "DSB2018").is_dir():
        pytest.skip("SEG_DATA holds no DSB2018")
    files = folder(drive_root / "DSB2018")
    assert len(files.splits["all"]) == 40 and files.problems == []
    files.splits["all"] = files.splits["all"][:3]
    assert check(files, BINARY, label_kind="instances").errors == []
    for sample in files.splits["all"]:
        assert "give --label-kind instances" in error_of(read_label, sample.instances, BINARY)


def test_one_class_outside_a_table_is_no_hint_at_objects(tmp_path):
    table = ClassTable(("a", "b", "c"), (None,) * 3, {0: 0, 1: 1, 2: 2})
    save_ids(tmp_path / "organs.png", SQUARES)
    message = error_of(read_label, tmp_path / "organs.png", table)
    assert "outside the class table" in message and "--label-kind" not in message

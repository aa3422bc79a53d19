"""`my_dataset.py check` finds every fault put into a dataset, and none in a correct one."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from my_dataset import DATASETS
from tests.made import COLOURS, TABLE, ids_of, photograph_of, write_folder, write_three_classes
from train_utils.cli import check_dataset
from train_utils.data import doctor
from train_utils.data.class_table import find_table
from train_utils.data.layouts import folder
from train_utils.reporting.grids import save_contact_sheet


def report_on(root, dataset="folder"):
    row = DATASETS[dataset]
    return doctor.check(row["layout"](root), find_table(root, "", row["classes"]))


@pytest.fixture(scope="module")
def correct(tmp_path_factory):
    """A correct dataset of two classes with train/, val/ and test/."""
    root = tmp_path_factory.mktemp("correct")
    for split, first, count in (("train", 0, 4), ("val", 4, 2), ("test", 6, 2)):
        write_folder(root, count=count, below=split, first=first)
    return root


@pytest.fixture
def faulty(correct, tmp_path):
    """A copy of the correct dataset, to put faults into."""
    return shutil.copytree(correct, tmp_path / "data")


def test_suggested_flags_say_which_images_they_are_from(correct, tmp_path):
    text = report_on(correct).text()
    assert "suggested, from the training images" in text and "(those of the plan)" in text
    write_folder(tmp_path, count=3)
    text = report_on(tmp_path).text()
    assert "suggested, from all images, which are not split yet" in text
    assert "(those of the plan)" not in text


def test_suggested_class_weights_of_more_classes_are_from_the_pixels(tmp_path):
    write_three_classes(tmp_path, count=4)
    pixels = sum(np.bincount(ids_of(n, 3).ravel(), minlength=3) for n in range(4))
    weights = np.sqrt(np.median(pixels) / pixels)
    expected = ",".join(f"{weight:.3g}" for weight in weights)
    assert f"--class-weights {expected} (" in report_on(tmp_path).text()


def mask(ids):
    """0 for background, 255 for foreground."""
    return ids * np.uint8(255)


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)


def test_a_correct_dataset_has_no_faults_and_the_right_numbers(correct):
    report = report_on(correct)
    assert report.errors == report.warnings == []
    text = report.text()
    share = 100 * np.mean([ids_of(n, 2).mean() for n in range(4)])
    for words in ("train: 4 samples, 4 labels", "4 × 72×64", "4 × 0/255", "4 × RGB"):
        assert words in text
    assert f"foreground      {share:8.3f} % of the valid pixels, in 4 images" in text
    pixels = np.concatenate([photograph_of(ids_of(n, 2), n).reshape(-1, 3) for n in range(4)]) / 255
    for numbers in (pixels.mean(0), pixels.std(0)):
        assert " ".join(f"{value:.4f}" for value in numbers) in text
    assert "--class-weights 1,1.25 (those of the plan)" in text


# fault → (puts it into the dataset, errors or warnings, words of the message)
FAULTS = {
    "image without label": (
        lambda d: (d / "train/masks/p01_mask.png").unlink(),
        "errors",
        "p01.png has no label",
    ),
    "label without image": (
        lambda d: (d / "train/images/p01.png").unlink(),
        "errors",
        "p01_mask.png has no image",
    ),
    "unreadable image": (
        lambda d: (d / "train/images/p01.png").write_bytes(b"no"),
        "errors",
        "p01.png: cannot be read",
    ),
    "unreadable label": (
        lambda d: (d / "val/masks/p04_mask.png").write_bytes(b"no"),
        "errors",
        "p04_mask.png: cannot be read",
    ),
    "other size": (
        lambda d: save(d / "train/masks/p01_mask.png", mask(ids_of(1, 2))[:-4]),
        "errors",
        "is 72×60 pixels",
    ),
    "turned": (
        lambda d: save(d / "train/masks/p01_mask.png", mask(ids_of(1, 2)).T.copy()),
        "errors",
        "turned by 90°",
    ),
    "stray value": (
        lambda d: save(
            d / "train/masks/p01_mask.png",
            np.where(ids_of(1, 2) > 0, 255, np.arange(72) % 2).astype(np.uint8),
        ),
        "errors",
        "holds 3: 0",
    ),
    "smoothed edges": (
        lambda d: (
            Image.fromarray(mask(ids_of(1, 2)))
            .resize((36, 32))
            .resize((72, 64), Image.Resampling.BICUBIC)
            .save(d / "train/masks/p01_mask.png")
        ),
        "errors",
        "along the edges",
    ),
    "photograph instead of a label": (
        lambda d: save(
            d / "train/masks/p01_mask.png", photograph_of(ids_of(1, 2), 1)[..., 0].copy()
        ),
        "errors",
        "away from the edges",
    ),
    "same image in two splits": (
        lambda d: shutil.copy(d / "train/images/p01.png", d / "val/images/p04.png"),
        "errors",
        "the same picture in several splits",
    ),
    "same image in two formats": (
        lambda d: Image.open(d / "train/images/p01.png").save(
            d / "test/images/p06.png", compress_level=0
        ),
        "errors",
        "the same picture in several splits",
    ),
    "same image twice": (
        lambda d: shutil.copy(d / "train/images/p01.png", d / "train/images/p02.png"),
        "warnings",
        "the same picture twice",
    ),
    "label of another image": (
        lambda d: shutil.copy(d / "train/masks/p01_mask.png", d / "train/masks/p02_mask.png"),
        "warnings",
        "the same label for different pictures; check that it is no copy by mistake: ",
    ),
    "empty label": (
        lambda d: save(d / "train/masks/p01_mask.png", np.zeros((64, 72), np.uint8)),
        "warnings",
        "p01_mask.png: holds a single class",
    ),
    "mixed encodings": (
        lambda d: save(d / "train/masks/p01_mask.png", ids_of(1, 2)),
        "warnings",
        "3 as 0/255, 1 as 0/1",
    ),
    "inverted": (
        lambda d: [
            save(path, 255 - np.asarray(Image.open(path))) for path in (d / "train/masks").iterdir()
        ],
        "warnings",
        "are the labels inverted",
    ),
    "12 bits in 16": (
        lambda d: save(
            d / "train/images/p01.png", (photograph_of(ids_of(1, 2), 1)[..., 0] * np.uint16(16))
        ),
        "warnings",
        "very dark",
    ),
    "label as JPEG": (
        lambda d: (
            (d / "train/masks/p01_mask.png").unlink(),
            save(d / "train/masks/p01_mask.jpg", np.full((64, 72), 255, np.uint8)),
        ),
        "warnings",
        "is a JPEG",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found(faulty, fault):
    add_fault, kind, words = FAULTS[fault]
    add_fault(faulty)
    report = report_on(faulty)
    assert any(re.search(words, text) for text in getattr(report, kind)), report.text()
    if kind == "warnings":
        assert report.errors == []


def test_a_fault_does_not_hide_others(faulty):
    for fault in ("image without label", "unreadable label", "same image in two splits"):
        FAULTS[fault][0](faulty)
    save(faulty / "train/masks/p02_mask.png", mask(ids_of(2, 2))[:-4])  # another size
    assert len(report_on(faulty).errors) == 4


def test_roi_masks_are_measured_and_empty_ones_are_errors(tmp_path):
    write_folder(tmp_path, count=2)
    for number, rows in ((0, 32), (1, 0)):
        roi = np.zeros((64, 72), np.uint8)
        roi[:rows] = 255
        (tmp_path / "roi").mkdir(exist_ok=True)
        save(tmp_path / f"roi/p{number:02d}.png", roi)
    report = report_on(tmp_path)
    assert "ROI masks cover 0.0 to 50.0 % of an image" in report.text()
    (error,) = report.errors
    assert "p01.png: the ROI mask is empty" in error


def test_stray_colours_and_absent_classes_of_a_table(tmp_path):
    write_three_classes(tmp_path, count=4)
    (tmp_path / "classes.csv").write_text(TABLE + "10,rare,1 2 3,\n")
    stray = COLOURS[ids_of(1)].copy()
    stray[:2, :5] = (9, 8, 7)
    save(tmp_path / "masks/p01_mask.png", stray)
    report = report_on(tmp_path)
    assert any("(9, 8, 7) (10 pixels)" in text and "p01_mask.png" in text for text in report.errors)
    assert any("no training image has a pixel of: rare" in text for text in report.warnings)


def test_a_class_that_only_the_test_split_has_is_a_warning(tmp_path):
    (tmp_path / "classes.csv").write_text(TABLE)
    colour = {"label": lambda ids: Image.fromarray(COLOURS[ids])}
    write_folder(tmp_path, classes=2, below="train", **colour)
    write_folder(tmp_path, classes=3, below="test", first=50, **colour)
    words = "holds classes that no training image has: water"
    assert any(words in text for text in report_on(tmp_path).warnings)


def test_the_command_saves_its_report_and_exits_with_1_for_errors(faulty, tmp_path, capsys):
    argv = [
        "check",
        "--dataset",
        "folder",
        "--data-path",
        str(faulty),
        "--output-dir",
        str(tmp_path / "out"),
    ]
    check_dataset.main(DATASETS, argv)
    assert "0 errors, 0 warnings" in capsys.readouterr().out
    assert (tmp_path / "out/check.txt").read_text().startswith("class table:")
    sheet = np.asarray(Image.open(tmp_path / "out/check.png").convert("RGB"))
    assert sheet.shape[1] > 500 and (sheet == 255).all(-1).any()
    FAULTS["unreadable image"][0](faulty)
    with pytest.raises(SystemExit) as stop:
        check_dataset.main(DATASETS, argv)
    assert stop.value.code == 1 and "ERROR: " in capsys.readouterr().out


def test_the_contact_sheet_has_the_colours_of_the_table(tmp_path):
    table = find_table(write_three_classes(tmp_path, count=2), "", None)
    report = doctor.check(folder(tmp_path), table)
    save_contact_sheet(tmp_path / "sheet.png", report.sheet, table)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    shown = set(map(tuple, np.unique(sheet.reshape(-1, 3), axis=0)))
    assert set(map(tuple, COLOURS)) <= shown


def test_the_script_itself_runs(correct, tmp_path):
    script = Path(__file__).parent.parent / "my_dataset.py"
    argv = [
        sys.executable,
        script,
        "check",
        "--dataset",
        "folder",
        "--data-path",
        correct,
        "--output-dir",
        tmp_path / "out",
    ]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0 and "0 errors, 0 warnings" in done.stdout, done.stderr


def test_missing_data_is_one_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        check_dataset.main(DATASETS, ["check", "--dataset", "folder", "--data-path", str(tmp_path)])
    assert stop.value.code == 2 and capsys.readouterr().err.startswith(
        "my_dataset.py check: error: "
    )


def test_the_real_cracks_have_one_label_twice(drive_root):
    """CrackForest's label 042.png is a copy of 065.png and does not match its photograph."""
    if not (drive_root / "CrackForest").is_dir():
        pytest.skip("SEG_DATA holds no CrackForest")
    files = folder(drive_root / "CrackForest")
    names = ("041", "042", "064", "065")
    files.splits["all"] = [sample for sample in files.splits["all"] if sample.name in names]
    report = doctor.check(files, DATASETS["folder"]["classes"])
    assert report.errors == [] and len(report.warnings) == 1
    assert "042.png" in report.warnings[0] and "065.png" in report.warnings[0]


def test_class_ids_that_look_like_pairs_are_an_error(tmp_path):
    """Each label has two values, but 1 is foreground in some and background in others."""
    write_folder(tmp_path, count=3, label=Image.fromarray)
    write_folder(tmp_path, count=3, first=3, label=lambda ids: Image.fromarray(ids + np.uint8(1)))
    assert any("would mean two things" in error for error in report_on(tmp_path).errors)


def test_a_label_of_background_alone_beside_1_and_2_is_an_error(tmp_path):
    """Alone, 1 would be read as foreground."""
    write_folder(tmp_path, count=3, label=lambda ids: Image.fromarray(ids + np.uint8(1)))
    write_folder(tmp_path, count=1, first=3, label=lambda ids: Image.fromarray(ids * 0 + 1))
    (error,) = report_on(tmp_path).errors
    assert "holds 1 alone" in error and "with 1 and 2, it is background" in error

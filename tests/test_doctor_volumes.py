"""The label doctor on volumes: what it reports, and what it finds wrong."""

import json

import numpy as np
import pytest

from my_dataset import DATASETS
from tests.made_volumes import draw, save, write_decathlon
from train_utils.cli.check_dataset import main
from train_utils.data.class_table import find_table
from train_utils.data.doctor_volumes import check_volumes


def check(root):
    row = DATASETS["volumes"]
    return check_volumes(row["layout"](root), find_table(root, "", row["classes"]))


def test_a_good_dataset_is_described(tmp_path):
    report = check(write_decathlon(tmp_path, count=4, spacings={1: (1.0, 1.0, 1.0)}))
    text = report.text()
    assert report.errors == [] and "4 labels that can be read" in text
    assert "4 × 16×20×14" in text and "4 × 1×1×1 mm" in text
    assert "4 × NIfTI float32 RAS" in text and "4 × NIfTI uint8 RAS" in text
    assert "1 left" in text and "in 4 volumes" in text


def test_what_is_wrong_or_unusual_is_named(tmp_path):
    root = write_decathlon(tmp_path, count=8, test=0, spacings={5: (1.0, 1.0, 3.0)})
    image, label = draw(0)
    save(root / "imagesTr" / "v00.nii.gz", image * 1000)
    save(root / "labelsTr" / "v01.nii.gz", label * 0)
    save(root / "labelsTr" / "v02.nii.gz", label[1:])
    save(root / "imagesTr" / "v03.nii.gz", np.where(label > 0, np.nan, image))
    (root / "imagesTr" / "v06.nii.gz").write_bytes((root / "imagesTr" / "v07.nii.gz").read_bytes())
    report = check(root)
    errors, warnings = "\n".join(report.errors), "\n".join(report.warnings)
    assert "v02.nii.gz: is 16×20×13 voxels" in errors
    assert "v03.nii.gz: holds" in errors and "NaN" in errors
    assert "the same volume twice" in errors and "v06.nii.gz" in errors
    assert "1 label without foreground" in warnings and "v01.nii.gz" in warnings
    assert "1 volume with other voxels than the median, 1×1×1 mm" in warnings
    assert "1 volume with intensities on a scale" in warnings and "v00.nii.gz" in warnings


def test_labels_of_0_and_255_beside_others_are_named(tmp_path):
    for number in range(3):
        image, label = draw(number, classes=2)
        save(tmp_path / "images" / f"p{number}.nii.gz", image)
        save(tmp_path / "masks" / f"p{number}.nii.gz", label * np.uint8(255 if number else 1))
    warning = f"2 labels with 0 and 255 alone, such as {tmp_path / 'masks' / 'p1.nii.gz'}"
    assert any(each.startswith(warning) for each in check(tmp_path).warnings)


def test_problems_of_one_kind_are_one_line(tmp_path):
    root = write_decathlon(tmp_path, count=6, test=0)
    for number in range(5):
        _, label = draw(number)
        save(root / "labelsTr" / f"v{number:02d}.nii.gz", label[number + 1 :])
    report = check(root)
    (line,) = [line for line in report.text().splitlines() if line.startswith("ERROR")]
    assert len(report.errors) == 5 and line.startswith("ERROR: 5 × ")
    assert "v00.nii.gz: is 16×20×13 voxels" in line
    assert line.endswith("(also v01.nii.gz, v02.nii.gz, 2 more)")


def test_the_command_line_checks_volumes(tmp_path, capsys):
    root = write_decathlon(tmp_path / "data", count=3)
    options = ["--data-path", str(root), "--output-dir", str(tmp_path / "out")]
    main(DATASETS, ["check", "--dataset", "volumes", *options])
    assert "train: 3 samples" in capsys.readouterr().out
    folds = [{"train": ["v00"], "val": ["v01"]}, {"train": ["v01", "v02"], "val": ["v00"]}]
    (tmp_path / "folds.json").write_text(json.dumps(folds))
    fold = ["--split-file", str(tmp_path / "folds.json"), "--fold", "1"]
    main(DATASETS, ["check", "--dataset", "volumes", *options, *fold])
    text = capsys.readouterr().out
    assert "train: 2 samples" in text and "val: 1 sample" in text
    (root / "labelsTr" / "v01.nii.gz").unlink()
    with pytest.raises(SystemExit):
        main(DATASETS, ["check", "--dataset", "volumes", *options])
    assert "names" in (tmp_path / "out" / "check.txt").read_text()

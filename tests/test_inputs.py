"""The inputs of predict.py: which images, the names of their outputs, ROI masks and labels."""

import errno
import io
import os
import random
import sys
from pathlib import Path

import pytest

from tests.small import error_of
from train_utils.data.file_kinds import VOLUMES
from train_utils.data.inputs import Input, find_inputs, find_partners, unique_names


def touch(root, *names):
    """Creates empty files, since inputs are found by their names alone. Returns root."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def names_of(root, source="", recursive=False, output="out"):
    """{name: path below root} of the inputs."""
    inputs = find_inputs(str(root / source), recursive, root / output)
    return {item.name: str(item.path.relative_to(root)) for item in inputs}


# --- which images --------------------------------------------------------------------------------


def test_a_pattern_in_a_folder_with_brackets(tmp_path):
    touch(tmp_path, "a [1]/x.png", "a [1]/y.png", "a 1/z.png")
    found = find_inputs(str(tmp_path / "a [1]" / "*.png"), False, tmp_path / "out")
    assert [item.name for item in found] == ["z"]  # the pattern as it is comes first
    (tmp_path / "a 1" / "z.png").unlink()
    found = find_inputs(str(tmp_path / "a [1]" / "*.png"), False, tmp_path / "out")
    assert [item.name for item in found] == ["x", "y"]


def test_an_image_a_folder_and_a_pattern(tmp_path):
    touch(tmp_path, "in/b.tif", "in/a.png", "in/notes.md", "in/.hidden.png", "in/sub/c.png")
    assert names_of(tmp_path, "in/a.png") == {"a": "in/a.png"}
    folder = names_of(tmp_path, "in")
    assert folder == {"a": "in/a.png", "b": "in/b.tif"} and list(folder) == ["a", "b"]
    assert names_of(tmp_path, "in/*.tif") == {"b": "in/b.tif"}
    assert names_of(tmp_path, "in/**/*.png") == {"a": "in/a.png", "sub/c": "in/sub/c.png"}


def test_gzip_images_have_the_name_without_both_suffixes(tmp_path):
    touch(tmp_path, "in/a.ppm.gz")
    assert names_of(tmp_path, "in") == {"a": "in/a.ppm.gz"}


def test_recursive_keeps_the_sub_folders_and_skips_hidden_ones(tmp_path):
    touch(tmp_path, "in/x/1/a.png", "in/x/2/a.png", "in/.cache/b.png")
    found = {"x/1/a": "in/x/1/a.png", "x/2/a": "in/x/2/a.png"}
    assert names_of(tmp_path, "in", recursive=True) == found


def test_volumes_beside_a_folder_of_dicom_are_found(tmp_path):
    """As dcm2niix leaves them."""
    touch(tmp_path, "in/p1/scan.nii.gz", "in/p1/dicom/1.dcm", "in/p2/dicom/1.dcm")
    inputs = find_inputs(str(tmp_path / "in"), True, tmp_path / "out", VOLUMES)
    assert [item.name for item in inputs] == ["p1/scan"]
    message = error_of(find_inputs, str(tmp_path / "in"), False, tmp_path / "out", VOLUMES)
    assert "there are some in its sub-folders: add --recursive" in message
    for folder in ("in/p2", "in/p2/dicom"):
        for recursive in (True, False):
            arguments = str(tmp_path / folder), recursive, tmp_path / "out", VOLUMES
            assert "is DICOM" in error_of(find_inputs, *arguments)


@pytest.mark.parametrize("source", ["in", "in/**/*.png"])
def test_outputs_of_an_earlier_call_are_no_inputs(tmp_path, source):
    touch(tmp_path, "in/x/a.png", "in/out/x/a_mask.png", "in/out/predictions.json")
    assert names_of(tmp_path, source, True, "in/out") in (
        {"x/a": "in/x/a.png"},
        {"a": "in/x/a.png"},
    )


@pytest.mark.parametrize("source", ["in", "in/**/*.png"])
def test_outputs_of_an_earlier_call_with_another_folder_are_no_inputs(tmp_path, source, capsys):
    touch(tmp_path, "in/x/a.png", "in/first/x/a_mask.png", "in/first/predictions.json")
    found = names_of(tmp_path, source, True, "in/second")
    assert list(found.values()) == ["in/x/a.png"]
    assert f"{tmp_path / 'in/first'}: is left out" in capsys.readouterr().out
    touch(tmp_path, "in/second/x/a_mask.png", "in/second/predictions.json")
    touch(tmp_path, "predictions.json")  # above all inputs
    found = names_of(tmp_path, source, True, "in/second")
    assert list(found.values()) == ["in/x/a.png"]
    capsys.readouterr()
    found = names_of(tmp_path, "in/first", True, "out")  # asked for by name
    assert list(found.values()) == ["in/first/x/a_mask.png"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("source", ["in/*/*.png", "in/[!.]*/*.png", "i?/*/*.png", "in/**"])
def test_outputs_that_match_a_pattern_of_folders_are_no_inputs(tmp_path, source):
    touch(tmp_path, "in/x/a.png", "in/y/b.png", "in/first/a_mask.png", "in/first/predictions.json")
    assert list(names_of(tmp_path, source).values()) == ["in/x/a.png", "in/y/b.png"]
    by_name = ["in/first/a_mask.png"]
    assert list(names_of(tmp_path, "in/first/*.png").values()) == by_name
    assert list(names_of(tmp_path, "in/f*/*.png").values()) == by_name


@pytest.mark.parametrize("source", ["in", "in/**/*.png"])
def test_an_output_folder_with_images_of_no_earlier_call_is_refused(tmp_path, source):
    touch(tmp_path, "in/y1/a.png", "in/y2/b.png")
    message = error_of(names_of, tmp_path, source, True, "in/y2")
    assert f"{tmp_path}/in/y2 is a folder of the inputs" in message
    assert f"({tmp_path}/in/y2/b.png is there)" in message


def test_inputs_below_the_output_folder_are_found(tmp_path):
    touch(tmp_path, "in/sub/a.png", "in/sub/deep/b.png")
    assert len(names_of(tmp_path, "in", True, ".")) == 2


def test_a_text_file_lists_paths_relative_to_here_or_to_itself(tmp_path, monkeypatch):
    touch(tmp_path, "here/a b.png", "lists/c.png", "far/d.png")
    lines = ["# a comment", "", "a b.png", "c.png", f"{tmp_path}/far/d.png", "./a b.png"]
    (tmp_path / "lists/all.txt").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    monkeypatch.chdir(tmp_path / "here")
    inputs = find_inputs("../lists/all.txt", False, "out")
    assert [item.name for item in inputs] == ["far/d", "here/a b", "lists/c"]
    assert all(item.path.is_file() for item in inputs)


def test_a_file_of_the_working_directory_comes_first(tmp_path, monkeypatch):
    touch(tmp_path, "here/a.png", "lists/a.png")
    (tmp_path / "lists/all.txt").write_text("a.png")
    monkeypatch.chdir(tmp_path / "here")
    assert find_inputs(str(tmp_path / "lists/all.txt"), False, "out") == [Input(Path("a.png"), "a")]


def test_paths_on_standard_input(tmp_path, monkeypatch):
    touch(tmp_path, "x/a.png", "y/a.png")
    monkeypatch.setattr(
        sys, "stdin", io.StringIO(f"\ufeff{tmp_path}/y/a.png\n{tmp_path}/x/a.png\n")
    )
    names = [item.name for item in find_inputs("-", False, tmp_path / "out")]
    assert names == ["x/a", "y/a"]


def test_an_image_listed_twice_is_one_input(tmp_path):
    touch(tmp_path, "x/a.png")
    (tmp_path / "all.txt").write_text("x/a.png\nx/../x/a.png\n")
    assert list(names_of(tmp_path, "all.txt")) == ["a"]


@pytest.mark.parametrize("source", ["in", "in/**/*.png"])
def test_linked_folders_are_searched_once(tmp_path, source):
    touch(tmp_path, "in/a.png", "in/z/b.png", "far/deep/c.png")
    for link, target in (("in/self", "."), ("in/b", "z"), ("in/far", "../far")):
        (tmp_path / link).symlink_to(target)
    (tmp_path / "far/deep/back").symlink_to(tmp_path / "in")
    found = {"a": "in/a.png", "far/deep/c": "in/far/deep/c.png", "z/b": "in/z/b.png"}
    assert names_of(tmp_path, source, True) == found


def test_a_pattern_finds_the_images_of_a_folder_once(tmp_path, monkeypatch):
    touch(tmp_path, "in/z/b.png", "in/x/y/c.png")
    (tmp_path / "in/b").symlink_to("z")
    assert names_of(tmp_path, "in/*/*.png") == {"b": "in/z/b.png"}
    monkeypatch.chdir(tmp_path / "in")
    for pattern, names in (("**/*.png", ["x/y/c", "z/b"]), ("**/y/*.png", ["c"])):
        assert [item.name for item in find_inputs(pattern, False, "out")] == names


def test_links_to_images_are_images_of_their_own(tmp_path):
    touch(tmp_path, "in/a.png")
    (tmp_path / "in/b.png").symlink_to("a.png")
    found = {"a": "in/a.png", "b": "in/b.png"}
    assert names_of(tmp_path, "in", True) == names_of(tmp_path, "in/*.png") == found


def test_a_sub_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    touch(tmp_path, "in/a.png", "in/locked/b.png")
    scandir = os.scandir

    def refusing(path):
        if Path(path).name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    message = error_of(names_of, tmp_path, "in", True)
    assert f"{tmp_path}/in/locked: the folder cannot be read (Permission denied)" in message


# --- names of the outputs ------------------------------------------------------------------------


def test_images_of_one_name_keep_their_suffix(tmp_path):
    touch(tmp_path, "a.png", "a.jpg", "b.png")
    assert names_of(tmp_path) == {"a.jpg": "a.jpg", "a.png": "a.png", "b": "b.png"}


@pytest.mark.parametrize(
    "files",
    [
        ["x.png", "x.jpg", "x.png.tif"],
        ["x.png", "x.jpg", "x.png.png", "x.png.png.bmp"],
        ["s/x.png", "s/x.jpg", "x.png", "s.x.png"],
        ["x.ppm.gz", "x.ppm", "x.ppm.ppm"],
    ],
)
def test_names_are_unique_and_independent_of_the_order(files):
    expected = dict(zip(files, unique_names([Path(each) for each in files]), strict=True))
    assert len(set(expected.values())) == len(files)
    for seed in range(5):
        shuffled = random.Random(seed).sample(files, len(files))
        names = unique_names([Path(each) for each in shuffled])
        assert dict(zip(shuffled, names, strict=True)) == expected


# --- what is refused -----------------------------------------------------------------------------


def test_what_has_no_images_is_refused(tmp_path, monkeypatch):
    touch(tmp_path, "in/sub/a.png", "notes/readme.md")
    (tmp_path / "empty.txt").write_text("# nothing\n\n")
    (tmp_path / "wide.txt").write_bytes("a.png\n".encode("utf-16"))
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    for source, words in (
        (tmp_path / "no/*.png", "no/*.png: no images there"),
        (tmp_path / "in", "in: the folder has no images; there are some in its sub-folders: add"),
        (tmp_path / "notes", "notes: the folder has no images; it must hold files with one of"),
        (tmp_path / "empty.txt", "empty.txt: holds no paths"),
        (tmp_path / "wide.txt", "wide.txt: is not text in UTF-8"),
        ("-", "standard input: holds no paths"),
    ):
        assert words in error_of(find_inputs, str(source), False, tmp_path / "out")


def test_standard_input_that_is_not_text_is_refused(tmp_path, monkeypatch):
    content = io.TextIOWrapper(io.BytesIO(b"caf\xe9.png\n"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", content)
    message = error_of(find_inputs, "-", False, tmp_path / "out")
    assert message.startswith("standard input: is not text in UTF-8")


def test_a_missing_path_of_a_list_is_named_with_its_line(tmp_path, monkeypatch):
    touch(tmp_path, "a.png")
    (tmp_path / "all.txt").write_text("a.png\nno.png\n")
    message = error_of(find_inputs, str(tmp_path / "all.txt"), False, tmp_path / "out")
    assert f"{tmp_path}/all.txt, line 2: there is no file no.png" in message
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{tmp_path}/no.png\n"))
    assert "standard input, line 1: there is no file" in error_of(find_inputs, "-", False, "out")


@pytest.mark.parametrize(
    "source, recursive, output",
    [
        ("in", False, "in"),
        ("in/a.png", False, "in"),
        ("in", True, "in"),
        ("in/*.png", False, "in/../in"),
        ("in/**/*.png", False, "in"),
        ("in/**/*.png", False, "in/sub/.."),
        ("links/*.png", False, "in"),
    ],
)
def test_an_output_folder_of_the_inputs_is_refused(tmp_path, source, recursive, output):
    touch(tmp_path, "in/a.png", "in/sub/b.png")
    (tmp_path / "links").symlink_to(tmp_path / "in")
    message = error_of(find_inputs, str(tmp_path / source), recursive, tmp_path / output)
    assert "folder of the inputs" in message


def test_an_output_sub_folder_that_holds_inputs_is_refused(tmp_path):
    touch(tmp_path, "x/a.png", "y/b.png")
    (tmp_path / "all.txt").write_text("x/a.png\ny/b.png\n")
    message = error_of(find_inputs, str(tmp_path / "all.txt"), False, tmp_path)
    assert f"{tmp_path}/x is a folder of the inputs" in message


# --- ROI masks and labels ------------------------------------------------------------------------


def partners(root, files, images, folder="masks"):
    """The names of the files that belong to the images, which are in images/."""
    touch(root, *[f"masks/{each}" for each in files])
    inputs = [Input(root / "images" / each, str(Path(each).with_suffix(""))) for each in images]
    found = find_partners(root / folder, inputs, "--labels")
    return [str(path.relative_to(root / folder)) for path in found]


@pytest.mark.parametrize(
    "image, partner",
    [
        ("a.jpg", "a.png"),
        ("a.jpg", "A_mask.png"),
        ("21_training.tif", "21_manual1.gif"),
        ("01_test.tif", "01_test_mask.gif"),
        ("x_sat.jpg", "x_gt.png"),
        ("a.ppm", "a.ppm.gz"),
    ],
)
def test_partners_are_found_by_name(tmp_path, image, partner):
    assert partners(tmp_path, [partner, "other.png"], [image]) == [partner]


def test_an_equal_name_belongs_to_that_image(tmp_path):
    files = ["a.png", "a_l.png"]
    assert partners(tmp_path, files, files) == files


def test_masks_of_two_splits_in_one_folder(tmp_path):
    files = ["01_test_mask.gif", "01_training_mask.gif"]
    assert partners(tmp_path, files, ["01_test.tif", "01_training.tif"]) == files


def test_masks_beside_their_images(tmp_path):
    touch(tmp_path, "images/x.jpg", "images/x_mask.png")
    assert partners(tmp_path, [], ["x.jpg"], "images") == ["x_mask.png"]


def test_sub_folders_are_mirrored_if_there(tmp_path):
    files = ["s/a_mask.png", "t/a_mask.png", "b_mask.png"]
    assert partners(tmp_path, files, ["s/a.png", "t/a.png", "u/b.png"]) == files


def test_one_file_serves_all_images(tmp_path):
    touch(tmp_path, "roi.png")
    inputs = [Input(tmp_path / each, each) for each in ("a", "b")]
    assert find_partners(tmp_path / "roi.png", inputs, "--roi-mask") == [tmp_path / "roi.png"] * 2


@pytest.mark.parametrize(
    "files, images, words",
    [
        (["b.png"], ["a.png"], "masks: 0 files for a.png; one a_mask.* is needed"),
        (["a_gt.png", "a_mask.png"], ["a.png"], "2 files for a.png (a_gt.png, a_mask.png)"),
        (["a.png"], ["s/a.png", "t/a.png"], "a.png would belong to"),
    ],
)
def test_missing_and_ambiguous_partners_are_refused(tmp_path, files, images, words):
    message = error_of(partners, tmp_path, files, images)
    assert words in message and message.startswith("--labels")

"""Files are replaced whole or not at all; output folders are checked before anything starts."""

import os

import pytest

from tests.small import error_of
from train_utils.atomic import prepare_folder, replacing


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- replacing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("old", ["old", None])
@pytest.mark.parametrize("kind", [str, lambda path: path], ids=["str", "Path"])
def test_the_file_gets_its_name_when_the_block_ends(tmp_path, old, kind):
    path = tmp_path / "a.txt"
    if old:
        path.write_text(old)
    with replacing(kind(path)) as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path  # renaming is atomic only within a file system
        assert path.exists() == bool(old) and (not old or path.read_text() == old)
    assert names(tmp_path) == ["a.txt"] and path.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt(), SystemExit()], ids=repr)
def test_a_block_that_raises_leaves_the_old_file_and_nothing_else(tmp_path, error):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(type(error)), replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise error
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a.txt"):
        pass
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


def test_the_data_are_on_the_disk_before_the_file_gets_its_name(tmp_path, monkeypatch):
    calls, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda *args: [calls.append("fsync"), fsync(*args)])
    monkeypatch.setattr(os, "replace", lambda *args: [calls.append("replace"), replace(*args)])
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert calls == ["fsync", "replace"]


# --- the output folder ---------------------------------------------------------------------------


def test_the_folder_is_created_and_left_empty(tmp_path):
    prepare_folder(tmp_path / "a" / "b", num_bytes=1000)
    assert names(tmp_path / "a" / "b") == []
    prepare_folder(str(tmp_path / "a" / "b"))


@pytest.mark.parametrize("below", ["file", "file/a", "file/a/b"])
def test_a_file_in_the_way_is_refused(tmp_path, below):
    (tmp_path / "file").write_text("mine")
    message = error_of(prepare_folder, tmp_path / below)
    assert str(tmp_path / below) in message and "cannot be written to" in message
    assert "choose another folder" in message
    assert (tmp_path / "file").read_text() == "mine"


def test_too_little_room_is_refused_with_both_numbers(tmp_path):
    message = error_of(prepare_folder, tmp_path / "out", 10**18)
    assert str(tmp_path / "out") in message
    assert "1000000000000 MB" in message and "are free" in message


def test_files_that_are_there_are_left_alone(tmp_path):
    contents = {name: name for name in ("last_model.pth", "write_test")}
    for name in contents:
        (tmp_path / name).write_text(name)
    prepare_folder(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == contents

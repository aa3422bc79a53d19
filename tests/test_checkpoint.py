"""Checkpoints are written whole or not at all, describe themselves, and never run code."""

import os
import pickle
import random
from pathlib import Path

import pytest
import torch

from src.errors import UserError
from src.image_io import IGNORE
from tests.small import KWARGS, described, error_of, make_model
from train_utils import checkpoint as checkpoints
from train_utils.checkpoint import (
    FORMAT,
    ModelDescription,
    RunRecord,
    TrainingSettings,
    TrainingState,
    fill_in,
    load,
    load_described,
    save,
)
from train_utils.data.class_table import BINARY, ClassTable
from train_utils.model_loading import load_model
from train_utils.random_state import random_state

# PyTorch's reader warns about what it finds in files that are no checkpoints.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Detected pickle protocol", "ignore:TypedStorage is deprecated"
)

TABLE = ClassTable(
    ("ground", "brick"),
    ((20, 40, 60), None),
    {0: 0, 7: 1, 9: IGNORE},
    {(20, 40, 60): 0, (200, 80, 30): 1, (250, 80, 30): 1, (255, 255, 255): IGNORE},
)


def description(classes=TABLE, **changes):
    options = {"mean": [0.5] * 3, "std": [0.2] * 3, "resize": [32, 48], **changes}
    return ModelDescription("unet", KWARGS, classes, **options)


def build(rows):
    """checkpoint.build() of a run with these rows in its history."""
    model = make_model()
    return checkpoints.build(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        torch.amp.GradScaler("cpu", enabled=False),
        description(),
        RunRecord(
            TrainingSettings("holdout", None, 5, 0.1, []), {"steps": 20}, "classes", {"lr": 0.1}
        ),
        TrainingState(0, 8, {"total_steps": 20}, 0.5, rows, "results1.txt", {"train": ["a"]}),
        [random_state()],
    )


# --- saving --------------------------------------------------------------------------------------


def test_the_file_is_readable_with_weights_only(tmp_path):
    save(tmp_path / "model.pth", described(make_model(), random_states=[random_state()]))
    assert [path.name for path in tmp_path.iterdir()] == ["model.pth"]
    assert torch.load(tmp_path / "model.pth", weights_only=True)["format"] == FORMAT


def test_a_whole_checkpoint_is_read_as_it_was_built(tmp_path):
    built = build([{"epoch": 3, "val_dice": 0.5, "val_best_threshold": 0.3}])
    save(tmp_path / "model.pth", built)
    loaded = torch.load(tmp_path / "model.pth", weights_only=True)
    assert loaded.keys() == {"format", *built}
    tensors = {"model", "random_states"}
    for name in built.keys() - tensors:
        assert loaded[name] == built[name], name
    # The entries that the head of train_utils/checkpoint.py lists.
    assert all(name in checkpoints.__doc__ for name in loaded)


def test_a_checkpoint_is_of_the_last_finished_epoch():
    built = build([{"epoch": 2}, {"epoch": 3, "val_dice": 0.5, "val_best_threshold": 0.3}])
    assert (built["epoch"], built["step"], built["threshold"], built["ranks"]) == (3, 8, 0.3, 1)
    assert built["training"] == {
        "val": "holdout",
        "folds": None,
        "epochs": 5,
        "lr": 0.1,
        "weights": [],
    }
    assert build([{"epoch": 0}])["threshold"] == 0.5  # nothing chose another one


@pytest.mark.parametrize(
    "is_best, every_epoch, names",
    [
        (False, False, ["last_model.pth"]),
        (True, False, ["best_model.pth", "last_model.pth"]),
        (False, True, ["model_3.pth", "last_model.pth"]),
        (True, True, ["model_3.pth", "best_model.pth", "last_model.pth"]),
    ],
)
def test_the_last_model_is_written_last(tmp_path, monkeypatch, is_best, every_epoch, names):
    """A run that is killed between the files repeats the epoch."""
    written, replace = [], os.replace

    def note(source, destination):
        written.append(Path(destination).name)
        replace(source, destination)

    monkeypatch.setattr(os, "replace", note)
    checkpoints.save_epoch(tmp_path, {"epoch": 3}, is_best, every_epoch)
    assert written == names and {path.name for path in tmp_path.iterdir()} == set(names)
    assert all(load(tmp_path / name)["epoch"] == 3 for name in names)


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("file write failed"),
        KeyboardInterrupt(),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("old", [True, False], ids=["over an old file", "no old file"])
def test_a_failure_while_writing_leaves_the_old_file_and_nothing_else(
    tmp_path, monkeypatch, error, old
):
    path = tmp_path / "last_model.pth"
    if old:
        save(path, {"epoch": 3})

    def fail_halfway(content, file):
        with open(file, "wb") as half:
            half.write(b"half of a checkpoint")
        raise error

    monkeypatch.setattr(torch, "save", fail_halfway)
    with pytest.raises((UserError, KeyboardInterrupt, MemoryError)) as caught:
        save(path, {"epoch": 4})
    if isinstance(error, (OSError, RuntimeError)):
        assert isinstance(caught.value, UserError)
        assert str(path) in str(caught.value) and str(error) in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == (["last_model.pth"] if old else [])
    if old:
        assert load(path)["epoch"] == 3


def test_a_failure_while_renaming_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "last_model.pth"
    save(path, {"epoch": 3})

    def fail(source, destination):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.replace", fail)
    assert "Input/output error" in error_of(save, path, {"epoch": 4})
    assert [file.name for file in tmp_path.iterdir()] == ["last_model.pth"]
    assert load(path)["epoch"] == 3


def test_saving_into_a_missing_folder_is_refused_with_the_path(tmp_path):
    path = tmp_path / "none" / "model.pth"
    assert str(path) in error_of(save, path, {})


# --- the description -----------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [TABLE, BINARY], ids=["ignored ids, palette", "any pair"])
def test_the_class_table_survives_a_checkpoint(tmp_path, classes):
    save(tmp_path / "model.pth", described(make_model(), **description(classes).entries()))
    loaded = load(tmp_path / "model.pth")
    table = ClassTable.from_dict(loaded["class_table"])
    assert table == classes and table.any_pair == (classes is BINARY)
    assert loaded["class_names"] == list(classes.names)
    assert loaded["class_ids"] == classes.ids


def test_entries_hold_colours_for_pictures_and_what_images_are_read_by():
    entries = description().entries()
    assert entries["class_colours"] == [[20, 40, 60], [255, 255, 255]]  # white is the default
    assert entries["class_ids"] == [0, 7] and entries["resize"] == [32, 48]
    assert entries["model_name"] == "unet" and entries["model_kwargs"] == KWARGS
    assert entries["mean"] == [0.5] * 3 and entries["std"] == [0.2] * 3


# --- files of earlier versions -------------------------------------------------------------------


def test_an_older_file_gets_what_it_lacks():
    flags = {"val": "test", "folds": 4, "epochs": 30, "lr": 0.02, "weights": ["a.pth"]}
    old = described(make_model(), format=FORMAT, epoch=9, args={**flags, "seed": 1})
    filled = fill_in(old)
    assert {name: filled[name] for name in old} == old
    assert filled["resize"] is None and filled["split"] == {"train": [], "val": []}
    assert filled["class_ids"] == [0, 1]
    assert filled["class_colours"] == [[0, 0, 0], [255, 255, 255]]
    assert filled["training"] == flags
    table = ClassTable.from_dict(filled["class_table"])
    assert table.names == ("no", "yes") and table.ids == [0, 1]
    assert table.colours == ((0, 0, 0), (255, 255, 255)) and not table.palette


def test_an_older_file_without_flags_is_taken_for_a_finished_run():
    filled = fill_in(described(make_model(), format=FORMAT, epoch=9))
    assert filled["training"] == {
        "val": "holdout",
        "folds": None,
        "epochs": 10,
        "lr": None,
        "weights": [],
    }


def test_nothing_that_a_file_holds_is_replaced():
    content = build([{"epoch": 0}]) | {"format": FORMAT, "args": {"val": "none", "epochs": 99}}
    content["recipe"] = {"steps": 99}
    assert fill_in(content) == content
    older = described(make_model(), class_ids=[3, 5], class_colours=[[1, 2, 3], [4, 5, 6]])
    filled = fill_in(older)
    assert filled["class_ids"] == [3, 5] and filled["class_colours"] == [[1, 2, 3], [4, 5, 6]]
    assert ClassTable.from_dict(filled["class_table"]).numbers == {3: 0, 5: 1}


def test_a_file_of_an_earlier_version_loads_with_what_it_lacks():
    """fixtures/e4bf391.pth: two of four epochs by train.py of commit e4bf391."""
    path = Path(__file__).parent / "fixtures" / "e4bf391.pth"
    raw = torch.load(path, weights_only=True)
    assert "training" not in raw and "class_table" not in raw
    loaded = load_described(path)
    assert loaded["training"] == {
        name: raw["args"][name] for name in ("val", "folds", "epochs", "lr", "weights")
    }
    assert ClassTable.from_dict(loaded["class_table"]).names == ("background", "vessel")
    for name in ("split", "plan", "threshold", "mean", "class_ids", "resize"):
        assert loaded[name] == raw[name], name
    for row, old in zip(loaded["history"], raw["history"], strict=True):
        assert row["crops_per_second"] == old.pop("images_per_second")
        assert row.keys() - old.keys() == {"crops_per_second"} and row["val_f1"] == old["val_f1"]


# --- refusing ------------------------------------------------------------------------------------


class Hostile:
    """Creates a file when a careless reader unpickles it; any command would do."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle 2", "pickle 5"])
def test_a_hostile_file_is_refused_and_not_run(tmp_path, kind):
    path, trace = tmp_path / "model.pth", tmp_path / "trace"
    content = {"model": Hostile(trace), "format": FORMAT}
    if kind.startswith("pickle"):
        path.write_bytes(pickle.dumps(content, protocol=int(kind[-1])))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    for reader in (load, load_described, load_model):
        message = error_of(reader, path)
        assert str(path) in message
        if kind != "pickle 5":  # PyTorch does not read even the frames of this protocol
            assert "could run code" in message
    assert not trace.exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_truncated_file_is_refused(tmp_path, share, zipped):
    path = tmp_path / "model.pth"
    torch.save(described(make_model()), path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    message = error_of(load, path)
    assert str(path) in message and "cut short or no checkpoint" in message


# PyTorch's reader of such files has an exception of its own for nearly every place.
def test_a_file_of_the_old_format_is_refused_wherever_it_was_cut(tmp_path):
    path = tmp_path / "model.pth"
    content = {"model": {"weight": torch.arange(3.0)}, "epoch": 3}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    content, unexpected = path.read_bytes(), {}
    for length in range(len(content) - 1):
        path.write_bytes(content[:length])
        try:
            load(path)
            unexpected[length] = "loaded"
        except UserError as error:
            assert str(path) in str(error)
        except Exception as error:
            unexpected[length] = repr(error)
    assert unexpected == {}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"test results",
        b"epoch 1\n",
        b"# Notes\n",
        b"{'model': 1}",
        b"GIF89a",
        b"\x89PNG\r\n\x1a\n",
        b"\x80\x02.",
        b"PK\x03\x04",
        bytes(100),
    ],
    ids=lambda content: repr(content[:8]),
)
def test_any_other_file_is_refused_without_a_warning_of_code(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    message = error_of(load, path)
    assert str(path) in message and "no checkpoint" in message
    assert "run code" not in message


def test_damaged_files_are_refused_or_read_but_never_crash(tmp_path):
    generator, unexpected = random.Random(0), set()
    path = tmp_path / "model.pth"
    for zipped in (True, False):
        torch.save(described(make_model()), path, _use_new_zipfile_serialization=zipped)
        content = path.read_bytes()
        for _ in range(60):
            damaged = bytearray(content)
            for _ in range(5):
                damaged[generator.randrange(min(len(damaged), 4000))] = generator.randrange(256)
            path.write_bytes(damaged)
            try:
                load(path)
            except UserError as error:
                assert str(path) in str(error)
            except Exception as error:
                unexpected.add(repr(error))
    assert unexpected == set()


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    missing = tmp_path / "none.pth"
    assert f"{missing}: there is no such file" in error_of(load, missing)
    assert str(tmp_path) in error_of(load, tmp_path)


def test_anything_but_a_dict_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    assert "list.pth: holds a list" in error_of(load, tmp_path / "list.pth")


@pytest.mark.parametrize("missing", checkpoints.REQUIRED)
def test_a_checkpoint_without_a_required_entry_is_refused(tmp_path, missing):
    content = described(make_model())
    del content[missing]
    save(tmp_path / "model.pth", content)
    message = error_of(load_described, tmp_path / "model.pth")
    assert f"model.pth: lacks {missing};" in message


def test_the_files_of_an_epoch_have_one_content_and_change_apart(tmp_path):
    content = described(make_model(), epoch=0)
    checkpoints.save_epoch(tmp_path, content, is_best=True, every_epoch=True)
    names = ["best_model.pth", "last_model.pth", "model_0.pth"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert len({(tmp_path / name).read_bytes() for name in names}) == 1
    checkpoints.save_epoch(tmp_path, content | {"epoch": 1}, is_best=False, every_epoch=False)
    assert [load(tmp_path / name)["epoch"] for name in names] == [0, 1, 0]


def test_the_files_of_an_epoch_are_copied_where_there_are_no_links(tmp_path, monkeypatch):
    def no_links(source, target):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("os.link", no_links)
    content = described(make_model(), epoch=3)
    checkpoints.save_epoch(tmp_path, content, is_best=True, every_epoch=False)
    for name in ("best_model.pth", "last_model.pth"):
        assert load(tmp_path / name)["epoch"] == 3

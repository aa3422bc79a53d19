"""Checkpoints are whole or not there, describe themselves, never run code, and are refused by name and in words."""

import argparse
import pickle
import random

import numpy as np
import pytest
import torch

from src import UNet
from src.errors import UserError
from train_utils import checkpoint as checkpoints
from train_utils.checkpoint import load, load_model, load_weights, prepare_folder, save

# PyTorch's reader remarks on what it finds in files that are no checkpoints.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Detected pickle protocol", "ignore:TypedStorage is deprecated"
)

KWARGS = {"in_channels": 3, "num_classes": 2, "bilinear": True, "base_c": 2}


def make_model(seed=0, **changes):
    torch.manual_seed(seed)
    return UNet(**{**KWARGS, **changes})


def described(network, **changes):
    """What a checkpoint needs to describe itself."""
    return {
        "model": network.state_dict(),
        "model_name": "unet",
        "model_kwargs": KWARGS,
        "class_names": ["no", "yes"],
        "mean": [0.5] * 3,
        "std": [0.2] * 3,
        "threshold": 0.4,
        **changes,
    }


def error_of(function, *args):
    """The message of the UserError that the call raises."""
    with pytest.raises(UserError) as caught:
        function(*args)
    return str(caught.value)


def same_weights(first, second):
    return (
        all(torch.equal(value, second[name]) for name, value in first.items())
        and first.keys() == second.keys()
    )


# --- saving -----------------------------------------------------------------------------------------------------------


def test_what_is_saved_is_loaded_and_builds_the_model(tmp_path):
    model = make_model()
    save(tmp_path / "model.pth", described(model, history=[{"epoch": 0, "val_dice": 0.5}]))
    assert [path.name for path in tmp_path.iterdir()] == ["model.pth"]
    loaded, checkpoint = load_model(tmp_path / "model.pth")
    assert same_weights(loaded.state_dict(), model.state_dict())
    assert not loaded.training
    assert checkpoint["threshold"] == 0.4 and checkpoint["history"] == [
        {"epoch": 0, "val_dice": 0.5}
    ]
    image = torch.randn(1, 3, 32, 32)
    assert torch.equal(loaded(image)["out"], model.eval()(image)["out"])


def test_the_file_is_readable_with_weights_only(tmp_path):
    save(
        tmp_path / "model.pth", described(make_model(), random_states=[checkpoints.random_state()])
    )
    assert torch.load(tmp_path / "model.pth", weights_only=True)["format"] == checkpoints.FORMAT


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


def test_saving_into_a_folder_that_is_not_there_says_so(tmp_path):
    assert str(tmp_path / "none" / "model.pth") in error_of(
        save, tmp_path / "none" / "model.pth", {}
    )


# --- refusing ---------------------------------------------------------------------------------------------------------


class Hostile:
    """Unpickled by a careless reader, it creates a file; any command would do."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle 2", "pickle 5"])
def test_a_hostile_file_is_refused_and_not_run(tmp_path, kind):
    path, trace = tmp_path / "model.pth", tmp_path / "trace"
    content = {"model": Hostile(trace), "format": checkpoints.FORMAT}
    if kind.startswith("pickle"):
        path.write_bytes(pickle.dumps(content, protocol=int(kind[-1])))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    for reader in (load, load_model):
        message = error_of(reader, path)
        assert str(path) in message
        assert (
            "could run code" in message or kind == "pickle 5"
        )  # whose very framing PyTorch does not read
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
    torch.save(
        {"model": {"weight": torch.arange(3.0)}, "epoch": 3},
        path,
        _use_new_zipfile_serialization=False,
    )
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
def test_any_other_file_is_refused_without_alarm(tmp_path, content):
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
    assert f"{tmp_path / 'none.pth'}: there is no such file" in error_of(
        load, tmp_path / "none.pth"
    )
    assert str(tmp_path) in error_of(load, tmp_path)


def test_something_other_than_a_dict_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    assert "list.pth: holds a list" in error_of(load, tmp_path / "list.pth")


def test_an_unknown_architecture_is_refused_with_those_there_are(tmp_path):
    save(tmp_path / "model.pth", described(make_model(), model_name="transformer"))
    message = error_of(load_model, tmp_path / "model.pth")
    assert "model.pth" in message and "'transformer'" in message and "unet" in message


@pytest.mark.parametrize(
    "other", [{"base_c": 4}, {"num_classes": 3}, {"bilinear": False}, {"in_channels": 1}], ids=str
)
def test_weights_of_another_shape_are_refused(tmp_path, other):
    save(tmp_path / "model.pth", described(make_model(**other)))
    message = error_of(load_model, tmp_path / "model.pth")
    assert "model.pth" in message and "another architecture" in message


def test_the_first_wrong_weight_is_named_with_both_shapes(tmp_path):
    with pytest.raises(
        UserError, match=r"in_conv\.0\.weight \(4, 3, 3, 3\) in place of \(2, 3, 3, 3\)"
    ):
        load_weights(make_model(), {"model": make_model(base_c=4).state_dict()}, "file.pth")


def test_a_missing_and_an_unknown_weight_are_named():
    state = make_model().state_dict()
    state["surplus.weight"] = state.pop("out_conv.0.bias")
    message = error_of(load_weights, make_model(), {"model": state}, "file.pth")
    assert "file.pth" in message and "1 weights missing (first: out_conv.0.bias)" in message
    assert "1 weights unknown (first: surplus.weight)" in message


@pytest.mark.parametrize(
    "changes",
    [
        {"model_kwargs": {"depth": 3}},
        {"model_kwargs": None},
        {"model": None},
        {"model": [1, 2]},
        {"model": {"in_conv.0.weight": 3}},
    ],
    ids=str,
)
def test_a_described_checkpoint_of_strange_content_is_refused(tmp_path, changes):
    save(tmp_path / "model.pth", described(make_model(), **changes))
    assert "model.pth" in error_of(load_model, tmp_path / "model.pth")


@pytest.mark.parametrize("missing", ["model_name", "model_kwargs", "model"])
def test_a_checkpoint_that_lacks_a_part_is_refused(tmp_path, missing):
    content = described(make_model())
    del content[missing]
    save(tmp_path / "model.pth", content)
    assert "model.pth" in error_of(load_model, tmp_path / "model.pth")


# --- the tutorials' files ---------------------------------------------------------------------------------------------


def write_tutorial_file(path, model):
    """A checkpoint as the tutorials' train.py writes it: no description, the flags as an argparse.Namespace."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    args = argparse.Namespace(
        data_path="./", num_classes=1, device="cuda", batch_size=4, amp=False, resume=""
    )
    torch.save(
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "epoch": 199,
            "args": args,
            "lr_scheduler": scheduler.state_dict(),
        },
        path,
    )


def test_the_tutorials_file_with_its_namespace_loads(tmp_path):
    path, model = tmp_path / "best_model.pth", make_model(1)
    write_tutorial_file(path, model)
    with pytest.raises(pickle.UnpicklingError):  # the defect
        torch.load(path, weights_only=True)
    checkpoint, fresh = load(path), make_model(2)
    assert checkpoint["args"].batch_size == 4 and checkpoint["epoch"] == 199
    load_weights(fresh, checkpoint, path)
    assert same_weights(fresh.state_dict(), model.state_dict())


def test_the_tutorials_file_does_not_describe_itself(tmp_path):
    write_tutorial_file(tmp_path / "best_model.pth", make_model())
    message = error_of(load_model, tmp_path / "best_model.pth")
    assert (
        "best_model.pth" in message
        and "does not say what it holds" in message
        and "--weights" in message
    )


def test_a_bare_state_dict_loads(tmp_path):
    model, fresh = make_model(1), make_model(2)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    load_weights(fresh, load(tmp_path / "weights.pth"), "weights.pth")
    assert same_weights(fresh.state_dict(), model.state_dict())


# --- random states ----------------------------------------------------------------------------------------------------


def draw():
    return (
        torch.rand(3).tolist(),
        random.random(),
        random.gauss(0, 1),
        np.random.rand(),
        np.random.randn(),
    )


def test_all_generators_go_on_where_the_file_left_them(tmp_path):
    draw()  # so that both gauss() and randn() hold a second number back
    save(tmp_path / "state.pth", {"random_states": [checkpoints.random_state()]})
    expected = [draw() for _ in range(3)]
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)
    assert draw() != expected[0]
    checkpoints.restore_random_state(load(tmp_path / "state.pth")["random_states"][0])
    assert [draw() for _ in range(3)] == expected


def test_taking_the_state_does_not_change_it():
    checkpoints.restore_random_state(first := checkpoints.random_state())
    expected = draw()
    checkpoints.restore_random_state(first)
    checkpoints.random_state()
    assert draw() == expected


# --- the output folder ------------------------------------------------------------------------------------------------


def test_the_folder_is_made_and_left_empty(tmp_path):
    prepare_folder(tmp_path / "a" / "b", num_bytes=1000)
    assert list((tmp_path / "a" / "b").iterdir()) == []
    prepare_folder(str(tmp_path / "a" / "b"))


@pytest.mark.parametrize("below", ["file", "file/a", "file/a/b"])
def test_a_file_in_the_way_is_refused(tmp_path, below):
    (tmp_path / "file").write_text("mine")
    message = error_of(prepare_folder, tmp_path / below)
    assert str(tmp_path / below) in message and "cannot be written to" in message
    assert (tmp_path / "file").read_text() == "mine"


def test_too_little_room_is_refused_with_both_numbers(tmp_path):
    message = error_of(prepare_folder, tmp_path / "out", 10**18)
    assert (
        str(tmp_path / "out") in message and "1000000000000 MB" in message and "are free" in message
    )


def test_files_that_are_there_are_left_alone(tmp_path):
    names = ["last_model.pth", "write_test"]
    for name in names:
        (tmp_path / name).write_text(name)
    prepare_folder(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        name: name for name in names
    }

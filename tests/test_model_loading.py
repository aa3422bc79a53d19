"""Models come from checkpoints with their weights, or the file is refused by name and in words."""

import argparse
import pickle
from dataclasses import replace

import pytest
import torch

from src import UNet, UNetPlusPlus, build_model
from src.inference import Ensemble, predict_probs
from tests.small import KWARGS, described, error_of, make_model, same_weights
from train_utils.checkpoint import FORMAT, ModelDescription, load, save
from train_utils.data.class_table import BINARY
from train_utils.model_loading import (
    LoadedModel,
    check_classes,
    check_description,
    check_threshold,
    combine,
    initial_model,
    load_for_evaluation,
    load_model,
    load_models,
    load_weights,
    prune,
)


def asked(name="unet", **changes):
    """The description of a model that the flags ask for."""
    kwargs = {**KWARGS, **changes}
    return ModelDescription(name, kwargs, BINARY, [0.5] * 3, [0.2] * 3, resize=None)


def save_described(path, seed=0, **changes):
    save(path, described(make_model(seed), **changes))
    return path


# --- one model -----------------------------------------------------------------------------------


def test_what_is_saved_is_loaded_and_builds_the_model(tmp_path):
    model = make_model()
    history = [{"epoch": 0, "val_dice": 0.5}]
    save(tmp_path / "model.pth", described(model, history=history))
    loaded, checkpoint = load_model(tmp_path / "model.pth")
    assert same_weights(loaded.state_dict(), model.state_dict())
    assert not loaded.training
    assert checkpoint["threshold"] == 0.4 and checkpoint["history"] == history
    image = torch.randn(1, 3, 32, 32)
    assert torch.equal(loaded(image)["out"], model.eval()(image)["out"])


def test_an_unknown_architecture_is_refused_with_those_there_are(tmp_path):
    path = save_described(tmp_path / "model.pth", model_name="transformer")
    message = error_of(load_model, path)
    assert "model.pth" in message and "'transformer'" in message and "unet" in message


@pytest.mark.parametrize(
    "other", [{"base_c": 4}, {"num_classes": 3}, {"bilinear": False}, {"in_channels": 1}], ids=str
)
def test_weights_of_another_shape_are_refused(tmp_path, other):
    save(tmp_path / "model.pth", described(make_model(**other)))
    message = error_of(load_model, tmp_path / "model.pth")
    assert "model.pth" in message and "another architecture" in message


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
    assert "model.pth" in error_of(load_model, save_described(tmp_path / "model.pth", **changes))


@pytest.mark.parametrize("missing", ["model_name", "model_kwargs", "model"])
def test_a_checkpoint_that_lacks_a_part_is_refused(tmp_path, missing):
    content = described(make_model())
    del content[missing]
    save(tmp_path / "model.pth", content)
    message = error_of(load_model, tmp_path / "model.pth")
    assert "model.pth" in message and f"lacks {missing}" in message


# --- weights -------------------------------------------------------------------------------------


def test_the_first_wrong_weight_is_named_with_both_shapes():
    weights = {"model": make_model(base_c=4).state_dict()}
    message = error_of(load_weights, make_model(), weights, "file.pth")
    assert "file.pth" in message
    assert "in_conv.0.weight (4, 3, 3, 3) in place of (2, 3, 3, 3)" in message


def test_a_missing_and_an_unknown_weight_are_named():
    state = make_model().state_dict()
    state["surplus.weight"] = state.pop("out_conv.0.bias")
    message = error_of(load_weights, make_model(), {"model": state}, "file.pth")
    assert "file.pth" in message and "1 weights missing (first: out_conv.0.bias)" in message
    assert "1 weights unknown (first: surplus.weight)" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value):
    model, state = make_model(0), make_model(1).state_dict()
    state["out_conv.0.bias"][1] = value
    message = error_of(load_weights, model, {"model": state}, "file.pth")
    assert message.startswith("file.pth: 1 weights hold NaN or infinite values")
    assert "(first: out_conv.0.bias)" in message and "--lr" in message
    assert same_weights(model.state_dict(), make_model(0).state_dict())


def test_a_bare_state_dict_loads(tmp_path):
    model, fresh = make_model(1), make_model(2)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    load_weights(fresh, load(tmp_path / "weights.pth"), "weights.pth")
    assert same_weights(fresh.state_dict(), model.state_dict())


# --- the tutorials' files ------------------------------------------------------------------------


def write_tutorial_file(path, model):
    """A checkpoint as the tutorials' train.py writes it: flags as a Namespace, no description."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    args = argparse.Namespace(
        data_path="./", num_classes=1, device="cuda", batch_size=4, amp=False, resume=""
    )
    content = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 199,
        "args": args,
        "lr_scheduler": scheduler.state_dict(),
    }
    torch.save(content, path)


def test_the_tutorials_file_with_its_namespace_loads(tmp_path):
    path, model = tmp_path / "best_model.pth", make_model(1)
    write_tutorial_file(path, model)
    with pytest.raises(pickle.UnpicklingError):  # PyTorch alone refuses the Namespace
        torch.load(path, weights_only=True)
    checkpoint, fresh = load(path), make_model(2)
    assert checkpoint["args"].batch_size == 4 and checkpoint["epoch"] == 199
    load_weights(fresh, checkpoint, path)
    assert same_weights(fresh.state_dict(), model.state_dict())


def test_the_tutorials_file_does_not_describe_itself(tmp_path):
    write_tutorial_file(tmp_path / "best_model.pth", make_model())
    message = error_of(load_model, tmp_path / "best_model.pth")
    assert "best_model.pth" in message and "does not say what it holds" in message
    assert "--weights" in message


# --- the model of a run --------------------------------------------------------------------------


def test_a_new_run_has_random_weights_by_the_seed():
    torch.manual_seed(3)
    model, checkpoint = initial_model(asked())
    assert same_weights(model.state_dict(), make_model(3).state_dict()) and checkpoint == {}


def test_a_run_starts_from_the_weights_of_a_file(tmp_path):
    path = save_described(tmp_path / "model.pth", seed=5)
    model, checkpoint = initial_model(asked(), path)
    assert same_weights(model.state_dict(), make_model(5).state_dict())
    assert checkpoint["threshold"] == 0.4


@pytest.mark.parametrize(
    "other", [asked(base_c=4), asked("attention_unet")], ids=["option", "name"]
)
def test_a_run_does_not_start_from_another_model(tmp_path, other):
    path = save_described(tmp_path / "model.pth")
    assert f"{path}: is of " in error_of(initial_model, other, path)


def test_another_architecture_is_named_with_what_the_flags_ask_for():
    message = error_of(check_description, described(make_model()), asked("resunet"), "file.pth")
    assert "file.pth: is of the model unet, but the flags ask for resunet" in message
    assert "--model" in message


def test_options_that_differ_are_named_with_both_values():
    flags = asked(base_c=4, bilinear=False)
    message = error_of(check_description, described(make_model()), flags, "file.pth")
    assert "file.pth: is of a unet with {'bilinear': True, 'base_c': 2}" in message
    assert "the flags ask for {'bilinear': False, 'base_c': 4}" in message


def test_options_that_came_later_have_their_defaults_in_older_files():
    check_description(described(make_model()), asked(norm=True), "file.pth")
    message = error_of(check_description, described(make_model()), asked(norm=False), "file.pth")
    assert "with {'norm': True}" in message and "ask for {'norm': False}" in message


def test_weights_without_metadata_may_be_of_any_description():
    check_description(make_model().state_dict(), asked("resunet", base_c=9), "file.pth")
    check_classes(make_model().state_dict(), ["a", "b"], "file.pth")


def test_other_classes_than_the_datas_are_refused_with_both_lists():
    checkpoint = described(make_model())
    check_classes(checkpoint, ("no", "yes"), "file.pth")
    message = error_of(check_classes, checkpoint, ("no", "maybe"), "file.pth")
    assert "file.pth: has the classes no, yes, the data's class table no, maybe" in message
    assert "--classes" in message


def test_a_threshold_is_for_two_classes():
    check_threshold(None, "abc")
    check_threshold(0.3, "ab")
    message = error_of(check_threshold, 0.3, "abc")
    assert "--threshold" in message and "3 classes" in message


# --- several models ------------------------------------------------------------------------------


def test_members_are_built_each_by_its_own_description(tmp_path):
    paths = [tmp_path / "unet.pth", tmp_path / "resunet.pth"]
    save_described(paths[0])
    kwargs = {"in_channels": 3, "num_classes": 2, "base_c": 2}
    other = build_model("resunet", **kwargs)
    save(paths[1], described(other, model_name="resunet", model_kwargs=kwargs))
    (first, _), (second, checkpoint) = load_models(paths)
    assert isinstance(first, UNet) and same_weights(second.state_dict(), other.state_dict())
    assert checkpoint["model_name"] == "resunet" and not (first.training or second.training)


def test_weights_without_metadata_need_a_description(tmp_path):
    path, model = tmp_path / "weights.pth", make_model(4)
    torch.save(model.state_dict(), path)
    assert "weights.pth: does not say what it holds" in error_of(load_models, [path])
    ((loaded, checkpoint),) = load_models([path], asked())
    assert same_weights(loaded.state_dict(), model.state_dict()) and not loaded.training
    assert checkpoint == {**asked().entries(), "threshold": None}
    assert "another architecture" in error_of(load_models, [path], asked(base_c=4))


def test_a_file_that_describes_itself_is_not_taken_for_the_flags_model(tmp_path):
    path = save_described(tmp_path / "model.pth")
    ((model, checkpoint),) = load_models([path], asked(base_c=4))
    assert checkpoint["model_kwargs"] == KWARGS and checkpoint["format"] == FORMAT
    assert model.in_conv[0].out_channels == 2


def test_files_to_evaluate_are_of_the_described_model_and_classes(tmp_path):
    first, other = save_described(tmp_path / "a.pth"), tmp_path / "b.pth"
    description = replace(asked(), classes=replace(BINARY, names=("no", "yes")))
    ((model, checkpoint),) = load_for_evaluation([first], description)
    assert same_weights(model.state_dict(), checkpoint["model"]) and not model.training
    save(other, described(make_model(1), class_names=["sky", "tree"]))
    assert "b.pth: has the classes" in error_of(load_for_evaluation, [first, other], description)
    assert "a.pth: is of a unet" in error_of(load_for_evaluation, [first], asked(base_c=4))
    assert "unet_plus_plus" in error_of(load_for_evaluation, [first], description, 2)


def test_weights_without_metadata_are_evaluated_with_what_the_flags_say(tmp_path):
    torch.save(make_model().state_dict(), tmp_path / "bare.pth")
    ((_, checkpoint),) = load_for_evaluation([tmp_path / "bare.pth"], asked())
    assert checkpoint["mean"] == [0.5] * 3
    unknown = replace(asked(), mean=None)
    message = error_of(load_for_evaluation, [tmp_path / "bare.pth"], unknown)
    assert message.startswith(str(tmp_path)) and "give --mean and --std" in message


def test_an_ensemble_has_the_mean_probabilities_and_threshold():
    models = [make_model(seed).eval() for seed in (1, 2)]
    members = [
        LoadedModel(model, described(model, threshold=threshold, resize=None))
        for model, threshold in zip(models, (0.2, 0.5), strict=True)
    ]
    model, checkpoint = combine(members, ["a.pth", "b.pth"])
    assert isinstance(model, Ensemble)
    assert checkpoint["threshold"] == pytest.approx(0.35)
    image = torch.randn(1, 3, 32, 40)
    mean = (predict_probs(models[0], image) + predict_probs(models[1], image)) / 2
    torch.testing.assert_close(predict_probs(model, image), mean)
    first = {name: value for name, value in members[0].checkpoint.items() if name != "threshold"}
    assert {name: checkpoint[name] for name in first} == first


def test_a_single_member_is_returned_as_it_is():
    member = LoadedModel(make_model(), described(make_model()))
    model, checkpoint = combine([member], ["a.pth"])
    assert model is member.model and checkpoint is member.checkpoint


def test_without_a_threshold_of_every_member_there_is_none():
    members = [
        LoadedModel(make_model(), described(make_model(), threshold=threshold, resize=None))
        for threshold in (0.2, None)
    ]
    assert combine(members, ["a.pth", "b.pth"])[1]["threshold"] is None


@pytest.mark.parametrize(
    "changes",
    [
        {"class_names": ["a", "b"]},
        {"class_ids": [0, 7]},
        {"mean": [0.1] * 3},
        {"std": [0.1] * 3},
        {"resize": [32, 32]},
    ],
    ids=str,
)
def test_members_that_read_images_differently_are_refused(changes):
    own = described(make_model(), resize=None, class_ids=[0, 1])
    checkpoints = own, own, {**own, **changes}
    members = [LoadedModel(make_model(), checkpoint) for checkpoint in checkpoints]
    ((name, value),) = changes.items()
    message = error_of(combine, members, ["a.pth", "b.pth", "c.pth"])
    assert f"c.pth: was trained with {name} {value}" in message
    assert f"a.pth with {own[name]}" in message and "leave one of them out" in message
    assert ("--mean and --std" in message) == (name in ("mean", "std"))


def test_members_take_images_of_as_many_channels():
    own = described(make_model(), resize=None)
    grey = {**own, "model_kwargs": {**own["model_kwargs"], "in_channels": 1}}
    members = [LoadedModel(make_model(), own), LoadedModel(make_model(in_channels=1), grey)]
    message = error_of(combine, members, ["a.pth", "b.pth"])
    assert "b.pth: was trained with in_channels 1, but a.pth with 3" in message


# --- pruning -------------------------------------------------------------------------------------


def nested(**changes):
    torch.manual_seed(0)
    return UNetPlusPlus(**{"in_channels": 3, "num_classes": 2, "base_c": 2, **changes})


def test_a_pruned_model_has_the_output_of_its_level():
    image = torch.randn(1, 3, 32, 32)
    whole, pruned, kept = nested().eval(), nested().eval(), nested().eval()
    prune(pruned, 2, "file.pth")
    prune(kept, None, "file.pth")
    assert not torch.equal(pruned(image)["out"], whole(image)["out"])
    assert torch.equal(kept(image)["out"], whole(image)["out"])


def test_only_a_unet_plus_plus_has_levels():
    prune(make_model(), None, "file.pth")
    message = error_of(prune, make_model(), 2, "file.pth")
    assert "file.pth: is a UNet, " in message and "--prune is for unet_plus_plus" in message


def test_a_level_without_an_output_is_refused():
    message = error_of(prune, nested(deep_supervision=False), 2, "file.pth")
    assert "file.pth: --prune 2: " in message

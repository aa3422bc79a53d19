"""--test-only --held-out: each run of a cross-validation is evaluated on what it held out."""

import json

import pytest
import torch
from PIL import Image

import train
from my_dataset import DriveDataset
from src.errors import UserError
from src.inference import predict_probs
from tests.small import error_of
from tests.tiny import EXACT, parse, run_train
from tests.watch import opened_files
from train_utils.checkpoint import load
from train_utils.cli.script import run_script
from train_utils.data.samples import Sample
from train_utils.held_out import held_out_samples, log_used_in_training
from train_utils.model_loading import load_model
from transforms import eval_preset


@pytest.fixture(scope="module")
def folds(tiny_root, tmp_path_factory):
    """last_model.pth of both runs of a 2-fold cross-validation: 21, 23, 25 are held out, then 22,
    24."""
    folders = [
        run_train(
            tiny_root, tmp_path_factory.mktemp("fold"), "--epochs", 1, "--folds", 2, "--fold", k
        )
        for k in (0, 1)
    ]
    return [folder / "last_model.pth" for folder in folders]


def evaluated(tiny_root, folder, *options):
    run_train(tiny_root, folder, "--test-only", "--held-out", *options, settings=EXACT)
    return json.loads((folder / "held_out_scores.json").read_text())


def test_each_file_is_evaluated_on_what_its_run_held_out(folds, tiny_root, tmp_path, capsys):
    found = evaluated(tiny_root, tmp_path, "--weights", *folds, "--flips")
    models = [load_model(path) for path in folds]
    dataset = DriveDataset(
        tiny_root, train=True, transforms=eval_preset(models[0][1]["mean"], models[0][1]["std"])
    )
    named = {sample.name: item for sample, item in zip(dataset.samples, dataset, strict=True)}
    rows = iter(found["images"])
    every, truth = [], []
    for names, (model, _) in zip((("21", "23", "25"), ("22", "24")), models, strict=True):
        for name in names:
            image, target = named[f"{name}_training"]
            row = next(rows)
            probs = torch.stack(
                [
                    predict_probs(model, image[None].flip(axes)).flip(axes)
                    for axes in ([], [2], [3], [2, 3])
                ]
            ).mean(0)[0, 1]
            assert row["name"] == f"{name}_training"
            assert (row["tp"], row["fp"]) == (
                int(((probs > 0.5) & (target == 1)).sum()),
                int(((probs > 0.5) & (target == 0)).sum()),
            )
            every.append(probs[target != 255])
            truth.append(target[target != 255] == 1)
    assert next(rows, None) is None

    # over all images the chosen threshold is better than any other
    every, truth = torch.cat(every), torch.cat(truth)
    f1 = {
        t: 2 * (truth & (every > t)).sum().item() / ((every > t).sum() + truth.sum()).item()
        for t in (found["scores"]["best_threshold"], *torch.linspace(0.01, 0.99, 50).tolist())
    }
    assert f1[found["scores"]["best_threshold"]] == pytest.approx(
        found["scores"]["best_f1"], abs=1e-4
    )
    assert max(f1.values()) <= found["scores"]["best_f1"] + 1e-4
    assert (
        f"choose {found['scores']['best_threshold']:.3f}, F1 there {found['scores']['best_f1']:.4f}"
        in capsys.readouterr().out
    )


def test_each_part_has_the_scores_of_its_run(folds, tiny_root, tmp_path):
    found = evaluated(tiny_root, tmp_path, "--weights", *folds)
    for path, part in zip(folds, found["parts"], strict=True):
        row = load(path)["history"][-1]
        assert part["weights"] == str(path) and part["scores"]["f1"] == pytest.approx(row["val_f1"])
        assert part["scores"]["best_threshold"] == pytest.approx(
            row["val_best_threshold"], abs=1e-3
        )
    assert found["scores"]["images"] == 5 and [split["val"][0] for split in found["split"]] == [
        "21_training",
        "22_training",
    ]
    assert found["flips"] is False and found["weights"] == [str(path) for path in folds]


def test_the_test_images_are_not_read(folds, tiny_root, tmp_path, monkeypatch):
    opened = opened_files(monkeypatch)
    found = evaluated(tiny_root, tmp_path, "--weights", *folds)
    assert sorted(row["name"] for row in found["images"]) == [
        f"{n}_training" for n in range(21, 26)
    ]
    read = [path for path in opened if tiny_root in path.parents]
    assert read and all(tiny_root / "DRIVE/training" in path.parents for path in read)
    assert not (tmp_path / "test_scores.json").exists()


def test_weights_that_their_own_images_chose_are_named(folds, tiny_root, tmp_path, capsys):
    path = tmp_path / "best_model.pth"
    torch.save(changed(load(folds[0]), epochs=2), path)
    evaluated(tiny_root, tmp_path, "--weights", path, folds[1])
    notes = notes_of(capsys)
    assert (
        len(notes) == 1
        and str(path) in notes[0]
        and "epoch 0 of 0 to 1" in notes[0]
        and "optimistic" in notes[0]
    )


def changed(checkpoint, **training):
    """The checkpoint with other settings of its training."""
    return checkpoint | {"training": checkpoint["training"] | training}


def notes_of(capsys):
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("note:")]


def test_runs_that_started_from_other_weights_are_named(folds, tiny_root, tmp_path, capsys):
    torch.save(changed(load(folds[0]), weights=["a.pth"]), tmp_path / "tuned.pth")
    evaluated(tiny_root, tmp_path, "--weights", tmp_path / "tuned.pth", folds[1])
    notes = notes_of(capsys)
    assert len(notes) == 1 and "tuned.pth started from other weights" in notes[0]


def test_a_fold_that_is_missing_is_named(folds, tiny_root, tmp_path, capsys):
    assert evaluated(tiny_root, tmp_path, "--weights", folds[1])["scores"]["images"] == 2
    assert notes_of(capsys) == [
        "note: 3 of the 5 images are held out by none of these files: "
        "21_training, 23_training, 25_training"
    ]


def test_files_are_normalized_each_by_its_own_mean_and_std(folds, tiny_root, tmp_path):
    """For other datasets than DRIVE they are computed from the images of each fold."""
    torch.save(
        load(folds[1]) | {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}, tmp_path / "other.pth"
    )
    alone = evaluated(tiny_root, tmp_path / "alone", "--weights", tmp_path / "other.pth")
    same = evaluated(tiny_root, tmp_path / "same", "--weights", folds[1])
    both = evaluated(tiny_root, tmp_path / "both", "--weights", folds[0], tmp_path / "other.pth")
    assert both["images"][3:] == alone["images"] != same["images"]


@pytest.fixture(scope="module")
def listed(tiny_root, tmp_path_factory):
    """last_model.pth of two runs with --split-file and --val none: 22, 21 and then 23 are tests."""
    files = []
    for names in ({"train": [21, 23], "test": [22]}, {"train": [22], "test": [21, 23]}):
        folder = tmp_path_factory.mktemp("listed")
        split = {part: [f"{n}_training" for n in numbers] for part, numbers in names.items()}
        (folder / "mine.json").write_text(json.dumps({"val": [], **split}))
        options = ("--epochs", 2, "--val", "none", "--split-file", folder / "mine.json")
        files.append(run_train(tiny_root, folder, *options) / "last_model.pth")
    return files


def test_test_images_of_split_files_are_pooled_and_choose_nothing(listed, tiny_root, tmp_path):
    found = evaluated(tiny_root, tmp_path, "--weights", *listed, "--threshold", 0.3)
    own = [json.loads(path.with_name("test_scores.json").read_text()) for path in listed]
    assert [part["scores"]["f1"] for part in found["parts"]] == [
        pytest.approx(scores["scores"]["f1"]) for scores in own
    ]
    assert [row["name"][:2] for row in found["images"]] == ["22", "21", "23"]
    hits, wrong = (
        sum(row[count] for row in found["images"] for count in counts)
        for counts in (["tp"], ["fp", "fn"])
    )
    assert found["scores"]["f1"] == pytest.approx(2 * hits / (2 * hits + wrong))
    assert (
        found["selection"] == "the held-out images choose nothing"
        and "f1_at_threshold" in found["scores"]
    )
    for scores in (found["scores"], *(part["scores"] for part in found["parts"])):
        assert "best_threshold" not in scores


def test_a_threshold_is_chosen_only_if_no_run_has_test_images(listed, folds, tiny_root, tmp_path):
    """Those of the folds are 21, 23, 25 and then 22, 24."""
    mixed = evaluated(tiny_root, tmp_path, "--weights", listed[0], folds[0])
    assert (
        mixed["selection"] == "the held-out images choose nothing"
        and "best_threshold" not in mixed["scores"]
    )


def test_a_name_in_two_splits_is_refused_since_it_may_be_the_other_image():
    run = {"split": {"train": [], "val": [], "test": ["001"]}, "training": {"val": "none"}}
    layout = {"val": [Sample("001", "val/001.png")], "test": [Sample("001", "test/001.png")]}
    assert "several splits have this name" in error_of(held_out_samples, layout, run, "a.pth")


def test_images_of_two_split_files_are_refused(listed, folds, tiny_root, tmp_path):
    with pytest.raises(UserError, match="an earlier file held out 22_training, too"):
        evaluated(tiny_root, tmp_path, "--weights", listed[0], folds[1])


def test_a_run_continues_with_the_same_test_images(listed, tiny_root, tmp_path):
    options = ("--resume", listed[0], "--epochs", 3, "--output-dir", tmp_path)
    train.main(parse("--data-path", tiny_root, *options, *EXACT))
    assert load(tmp_path / "last_model.pth")["split"] == load(listed[0])["split"]
    (tmp_path / "other.json").write_text(
        json.dumps({"train": ["21_training", "23_training"], "val": [], "test": ["24_training"]})
    )
    with pytest.raises(UserError, match="these flags split the images differently"):
        other = ("--split-file", tmp_path / "other.json")
        train.main(parse("--data-path", tiny_root, *options, *EXACT, *other))


def test_the_test_images_of_a_dataset_are_not_held_out(tiny_root, tmp_path):
    run = run_train(tiny_root, tmp_path / "run", "--epochs", 1, "--val", "none")
    with pytest.raises(UserError, match="held out no images, .*or --split-file"):
        evaluated(tiny_root, tmp_path, "--weights", run / "last_model.pth")


def test_tolerance_and_threshold_are_those_of_all_images(folds, tiny_root, tmp_path):
    """The held-out images, once evaluated together, once those of each file."""
    options = ("--tolerance", 1, "--threshold", 0.3)
    both = evaluated(tiny_root, tmp_path / "both", "--weights", *folds, *options)
    each = [
        evaluated(tiny_root, tmp_path / f"{i}", "--weights", path, *options)
        for i, path in enumerate(folds)
    ]
    assert both["threshold"] == 0.3 and both["images"] == each[0]["images"] + each[1]["images"]
    assert [part["scores"]["f1_tolerant"] for part in both["parts"]] == [
        one["scores"]["f1_tolerant"] for one in each
    ]
    for score in ("f1", "f1_tolerant", "f1_at_threshold"):
        low, high = sorted(one["scores"][score] for one in each)
        assert low <= both["scores"][score] <= high and low < high


def test_folds_are_of_the_training_images_even_if_validation_images_have_their_names(tmp_path):
    torch.manual_seed(0)
    for part, value in (("train", 60), ("val", 200)):
        for kind in ("images", "masks"):
            (tmp_path / "mine" / part / kind).mkdir(parents=True)
        for i in range(4):
            pixels = torch.randint(0, 255, (64, 64, 3), dtype=torch.uint8).numpy()
            Image.fromarray(pixels).save(tmp_path / f"mine/{part}/images/{i}.png")
            Image.fromarray(pixels[..., 0] > value).convert("L").save(
                tmp_path / f"mine/{part}/masks/{i}.png"
            )
    data = tmp_path / "mine"
    run = run_train(
        data, tmp_path / "run", "--dataset", "folder", "--epochs", 1, "--folds", 2, "--fold", 0
    )
    found = evaluated(data, tmp_path, "--dataset", "folder", "--weights", run / "last_model.pth")
    assert found["scores"]["f1"] == pytest.approx(
        load(run / "last_model.pth")["history"][-1]["val_f1"]
    )


@pytest.mark.parametrize(
    "change, named",
    [
        (
            {"split": {"train": ["21_training"], "val": []}},
            "changed.pth: its run held out no images, .*--folds",
        ),
        (
            {"split": {"train": [], "val": ["23_training"]}},
            "changed.pth: an earlier file held out 23_training, too",
        ),
        ({"split": {"train": [], "val": ["99_training"]}}, "not there any more: 99_training"),
        ({"resize": [48, 48]}, r"changed.pth: was trained with resize \[48, 48\], .*with None"),
        ({"in_channels": 1}, "changed.pth: was trained with in_channels 1, .*with 3"),
        ({"training": "val test"}, "changed.pth: its run .--val test. used the test images"),
    ],
)
def test_what_cannot_be_pooled_is_refused_before_evaluating(
    folds, tiny_root, tmp_path, change, named, monkeypatch
):
    checkpoint = load(folds[1])
    if "training" in change:
        change = {"training": checkpoint["training"] | {"val": "test"}}
    if "in_channels" in change:
        folder = run_train(
            tiny_root,
            tmp_path / "grey",
            "--epochs",
            1,
            "--folds",
            2,
            "--fold",
            1,
            "--in-channels",
            1,
        )
        checkpoint, change = load(folder / "last_model.pth"), {}
    torch.save(checkpoint | change, tmp_path / "changed.pth")
    opened = opened_files(monkeypatch)
    with pytest.raises(UserError, match=named):
        evaluated(tiny_root, tmp_path / "out", "--weights", folds[0], tmp_path / "changed.pth")
    assert not (tmp_path / "out").exists() and not opened


def test_weights_without_metadata_do_not_know_what_they_held_out(folds, tiny_root, tmp_path):
    torch.save(load(folds[0])["model"], tmp_path / "plain.pth")
    with pytest.raises(UserError, match="plain.pth: its run held out no images"):
        evaluated(tiny_root, tmp_path, "--weights", folds[0], tmp_path / "plain.pth")


@pytest.mark.parametrize(
    "flags, named",
    [
        ((), "belong to --test-only"),
        (("--test-only", "--report", "x"), "--report and --held-out cannot be combined"),
        (
            ("--test-only", "--split-file", "split.json"),
            "--split-file: --held-out uses the splits in the checkpoints",
        ),
    ],
)
def test_flags_that_do_not_go_together(folds, tiny_root, tmp_path, capsys, flags, named):
    with pytest.raises(SystemExit):
        run_script(
            lambda: run_train(
                tiny_root, tmp_path, "--weights", folds[0], "--held-out", *flags, settings=EXACT
            ),
            "train.py",
        )
    assert named in capsys.readouterr().err


def test_a_fold_may_be_evaluated_on_a_split_of_ones_own(folds):
    args = parse("--test-only", "--weights", folds[0], "--split-file", "mine.json")
    assert (args.split_file, args.folds) == ("mine.json", 2)


def test_test_images_with_names_of_images_of_the_run_are_named(folds, tiny_root, tmp_path, capsys):
    """A copy of the data has no split.json of its own, and its random test split may hold them."""
    _, checkpoint = load_model(folds[0])
    dataset = DriveDataset(tiny_root, train=True)
    log_used_in_training([checkpoint], dataset.samples, [folds[0]])
    training, validation = capsys.readouterr().out.splitlines()
    assert "2 test images with names of training images" in training
    assert "22_training, 24_training; if" in training
    assert "3 test images with names of validation images" in validation
    assert "21_training, 23_training, 25_training; if" in validation
    log_used_in_training([checkpoint], DriveDataset(tiny_root, train=False).samples, [folds[0]])
    assert capsys.readouterr().out == ""
    on_test = {"split": {"train": [], "val": ["21_training"]}, "training": {"val": "test"}}
    log_used_in_training([on_test], dataset.samples, [folds[0]])  # test_scores.json says so
    assert capsys.readouterr().out == ""

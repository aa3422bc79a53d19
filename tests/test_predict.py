"""predict.py: its files agree with the scores of train.py and have the size of the input."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import predict
from src.errors import UserError
from src.image_io import read_image
from src.inference import predict_probs
from tests.small import error_of
from tests.tiny import EXACT, run_train
from train_utils.checkpoint import load
from train_utils.model_loading import load_model
from train_utils.reporting.prediction_settings import fingerprint
from transforms import eval_preset


@pytest.fixture(scope="module")
def run(tiny_root, tmp_path_factory):
    """A run that is long enough to predict both classes."""
    options = ("--epochs", 12, "--optimizer", "adamw", "--lr", 0.01)
    return run_train(tiny_root, tmp_path_factory.mktemp("run"), *options)


@pytest.fixture
def images(tiny_root):
    return tiny_root / "DRIVE/test/images"


def segment(weights, source, output, *options):
    """Runs predict.main; returns the files that it wrote by their names."""
    argv = ["--weights", *weights, "--input", source, "--output", output, *EXACT, *options]
    predict.main(predict.parse_args([str(arg) for arg in argv]))
    return {path.name: path for path in output.iterdir()}


def pixels_of(path):
    return np.asarray(Image.open(path))


def test_masks_reproduce_the_scored_predictions(run, tiny_root, images, tmp_path):
    files = segment([run / "best_model.pth"], images, tmp_path, "--threshold", 0.5)
    for row in json.loads((run / "test_scores.json").read_text())["images"]:
        number = row["name"].split("_")[0]
        mask = pixels_of(files[f"{row['name']}_mask.png"])
        names = f"1st_manual/{number}_manual1.gif", f"mask/{number}_test_mask.gif"
        truth, roi = (pixels_of(tiny_root / "DRIVE/test" / name) > 0 for name in names)
        predicted = (mask > 0) & roi
        assert set(np.unique(mask)) == {0, 255}
        assert row["tp"] == (predicted & truth).sum() and row["fp"] == (predicted & ~truth).sum()


def test_flips_and_several_weights_average_the_probabilities(run, images, tmp_path, capsys):
    checkpoint = load(run / "last_model.pth")
    torch.save(checkpoint | {"threshold": checkpoint["threshold"] / 2}, tmp_path / "half.pth")
    paths, path = [run / "best_model.pth", tmp_path / "half.pth"], images / "01_test.tif"
    files = segment(paths, path, tmp_path / "out", "--flips", "--save-prob")
    thresholds = [load(path)["threshold"] for path in paths]
    assert f"threshold {sum(thresholds) / 2:.3f}" in capsys.readouterr().out
    normalize = eval_preset(checkpoint["mean"], checkpoint["std"])
    image, _ = normalize(read_image(path), torch.zeros(96, 104))
    every = [
        predict_probs(load_model(path)[0], image[None].flip(axes)).flip(axes)[0, 1]
        for path in paths
        for axes in ([], [2], [3], [2, 3])
    ]
    found = pixels_of(files["01_test_prob.png"]) / 65535
    np.testing.assert_allclose(found, torch.stack(every).mean(0).numpy(), atol=1e-5)


def test_predictions_are_those_of_the_weights_as_they_are_stored(run, images, tmp_path):
    """Their fingerprint must not depend on what is done to the model for speed."""
    path = run / "best_model.pth"
    files = segment([path], images / "01_test.tif", tmp_path)
    settings = json.loads(files["predictions.json"].read_text())
    assert settings["weights"] == fingerprint(load_model(path)[0])


def test_threshold_comes_from_the_checkpoint(run, images, tmp_path, capsys):
    segment([run / "best_model.pth"], images / "01_test.tif", tmp_path)
    assert f"threshold {load(run / 'best_model.pth')['threshold']:.3f}" in capsys.readouterr().out


def test_probabilities_roi_and_overlay(run, tiny_root, images, tmp_path):
    rois = tiny_root / "DRIVE/test/mask"
    options = ("--save-prob", "--overlay", "--threshold", 0.5, "--roi-mask", rois)
    files = segment([run / "best_model.pth"], images, tmp_path, *options)
    image, roi = pixels_of(images / "02_test.tif"), pixels_of(rois / "02_test_mask.gif") > 0
    probs, mask = pixels_of(files["02_test_prob.png"]), pixels_of(files["02_test_mask.png"])
    overlay = pixels_of(files["02_test_overlay.png"])
    assert probs.dtype == np.uint16 and probs[~roi].max() == 0 and probs.max() > 32768
    assert ((probs > 32768) == (mask > 0)).mean() > 0.999
    assert (overlay[mask == 0] == image[mask == 0]).all()
    assert (overlay[mask > 0] != image[mask > 0]).any()


@pytest.mark.parametrize("size", [(31, 20), (97, 131)])
def test_output_has_the_inputs_size(run, tmp_path, size):
    Image.new("RGB", size, (150, 80, 50)).save(tmp_path / "odd.png")
    files = segment([run / "best_model.pth"], tmp_path / "odd.png", tmp_path / "out")
    assert Image.open(files["odd_mask.png"]).size == size


def test_a_pattern_selects_the_files_that_match_it(run, images, tmp_path, capsys):
    files = segment([run / "best_model.pth"], images / "*1_test.tif", tmp_path)
    assert sorted(files) == ["01_test_mask.png", "predictions.csv", "predictions.json"]
    assert "1 image, " in capsys.readouterr().out


def test_images_of_one_name_do_not_overwrite_each_other(run, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, size in (("a.png", (40, 50)), ("a.jpg", (60, 70)), ("b.png", (32, 33))):
        Image.new("RGB", size).save(folder / name)
    files = segment([run / "best_model.pth"], folder, tmp_path / "out")
    masks = sorted(name for name in files if name.endswith("_mask.png"))
    sizes = {Image.open(files[name]).size for name in masks}
    assert len(masks) == 3 and "b_mask.png" in masks
    assert sizes == {(40, 50), (60, 70), (32, 33)}


def test_sub_folders_are_searched_and_kept(run, images, tmp_path):
    for folder in ("one", "two/three"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        shutil.copy(images / "01_test.tif", tmp_path / "in" / folder / "x.tif")
    segment([run / "best_model.pth"], tmp_path / "in", tmp_path / "out", "--recursive")
    found = [str(path.relative_to(tmp_path / "out")) for path in tmp_path.glob("out/**/*_mask.png")]
    assert sorted(found) == ["one/x_mask.png", "two/three/x_mask.png"]
    assert [row["image"] for row in table_of(tmp_path / "out")] == ["one/x", "two/three/x"]


def test_warns_when_one_class_is_predicted(run, images, tmp_path, capsys):
    checkpoint = load(run / "best_model.pth")
    checkpoint["model"]["out_conv.0.bias"] = torch.tensor([100.0, -100.0])
    torch.save(checkpoint, tmp_path / "black.pth")
    segment([tmp_path / "black.pth"], images, tmp_path / "out")
    warning = "only one class was predicted in 2 of 2 images: 01_test (all background)"
    assert warning in capsys.readouterr().out


# --- folders --------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Seven images of three sizes; the third and the last one are broken."""
    place = tmp_path / "photos"
    place.mkdir()
    generator = np.random.default_rng(0)
    for index in range(7):
        size = (40 + 8 * (index % 3), 50, 3)
        values = generator.integers(0, 255, size, dtype=np.uint8)
        Image.fromarray(values).save(place / f"{index}.png")
    for index in (2, 6):
        content = (place / f"{index}.png").read_bytes()
        (place / f"{index}.png").write_bytes(content[: len(content) // 2])
    return place


def table_of(output):
    """The rows of predictions.csv."""
    with open(output / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_broken_files_are_named_at_the_end_and_the_others_are_done(run, folder, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        segment([run / "best_model.pth"], folder, tmp_path / "out")
    assert stop.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "predict.py: 2 of 7 images failed:"
    for name, line in zip(("2.png", "6.png"), lines[1:], strict=True):
        assert str(folder / name) in line
    masks = sorted(path.name for path in (tmp_path / "out").glob("*_mask.png"))
    assert masks == [f"{index}_mask.png" for index in (0, 1, 3, 4, 5)]
    assert [row["image"] for row in table_of(tmp_path / "out")] == ["0", "1", "3", "4", "5"]


def test_the_table_has_sizes_and_shares(run, images, tmp_path):
    files = segment([run / "best_model.pth"], images, tmp_path)
    for row in table_of(tmp_path):
        mask = pixels_of(files[f"{row['image']}_mask.png"])
        assert (int(row["height"]), int(row["width"])) == mask.shape
        assert float(row["share_vessel"]) == pytest.approx((mask > 0).mean(), abs=1e-6)
        assert float(row["share_background"]) == pytest.approx((mask == 0).mean(), abs=1e-6)
        assert float(row["seconds"]) > 0


def test_equal_sizes_in_one_batch_give_the_same_as_alone(run, images, tmp_path):
    together = segment([run / "best_model.pth"], images, tmp_path / "all", "--save-prob")
    for path in sorted(images.iterdir()):
        alone = segment([run / "best_model.pth"], path, tmp_path / path.stem, "--save-prob")
        first, second = (pixels_of(files[f"{path.stem}_prob.png"]) for files in (together, alone))
        assert np.abs(first.astype(int) - second).max() <= 1


def test_skip_existing_does_what_is_missing_or_cut_short(run, folder, tmp_path, capsys):
    out, options = tmp_path / "out", ("--overlay", "--skip-existing")
    for name in ("2.png", "6.png"):
        (folder / name).unlink()
    segment([run / "best_model.pth"], folder, out, *options)
    before = {path.name: path.read_bytes() for path in out.glob("*.png")}
    (out / "0_mask.png").unlink()
    (out / "1_overlay.png").write_bytes(before["1_overlay.png"][:-5])
    lines = (out / "predictions.csv").read_text().splitlines(keepends=True)
    # Image 4 has no row, and the row of image 5 was cut short by a kill.
    (out / "predictions.csv").write_text("".join(lines[:4]) + lines[5][:6])
    kept = (out / "3_mask.png").stat().st_mtime_ns
    capsys.readouterr()
    segment([run / "best_model.pth"], folder, out, *options)
    printed = capsys.readouterr().out
    assert "1 image was left out" in printed and "\n4 images, " in printed
    assert {path.name: path.read_bytes() for path in out.glob("*.png")} == before
    assert (out / "3_mask.png").stat().st_mtime_ns == kept
    assert [row["image"] for row in table_of(out)] == ["0", "1", "3", "4", "5"]


def test_skip_existing_forgets_the_row_of_a_file_that_is_broken_now(run, folder, tmp_path, capsys):
    out = tmp_path / "out"
    with pytest.raises(SystemExit):
        segment([run / "best_model.pth"], folder, out)
    (out / "0_mask.png").unlink()
    (folder / "0.png").write_bytes(b"")
    with pytest.raises(SystemExit):
        segment([run / "best_model.pth"], folder, out, "--skip-existing")
    assert "3 of 3 images failed" in capsys.readouterr().err
    assert [row["image"] for row in table_of(out)] == ["1", "3", "4", "5"]


def test_a_name_that_is_not_utf_8_is_done_like_others(run, images, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    try:
        shutil.copy(images / "01_test.tif", folder / "caf\udce9.tif")
    except OSError:
        pytest.skip("the file system has no such names")
    for _ in range(2):
        segment([run / "best_model.pth"], folder, out, "--skip-existing")
    assert (out / "caf\udce9_mask.png").is_file()
    assert b"\ncaf\xe9," in (out / "predictions.csv").read_bytes()


def test_a_name_that_is_not_utf_8_is_scored_and_reported(run, tiny_root, images, tmp_path):
    folder, out, label = tmp_path / "in", tmp_path / "out", tmp_path / "label.gif"
    folder.mkdir()
    try:
        shutil.copy(images / "01_test.tif", folder / "caf\udce9.tif")
    except OSError:
        pytest.skip("the file system has no such names")
    shutil.copy(tiny_root / "DRIVE" / "test" / "1st_manual" / "01_manual1.gif", label)
    segment([run / "best_model.pth"], folder, out, "--labels", label, "--report", tmp_path)
    (row,) = json.loads((out / "scores.json").read_text())["images"]
    assert row["name"] == "caf\udce9"
    assert b"\ncaf\xe9," in (tmp_path / "images.csv").read_bytes()
    assert "caf\\udce9" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_run_with_other_outputs_is_not_complete(run, images, tmp_path):
    segment([run / "best_model.pth"], images, tmp_path)
    files = segment([run / "best_model.pth"], images, tmp_path, "--skip-existing", "--overlay")
    assert "01_test_overlay.png" in files and "02_test_overlay.png" in files


def test_skip_existing_does_not_keep_files_of_other_weights(run, images, tmp_path):
    first, second = run / "best_model.pth", tmp_path / "other.pth"
    checkpoint = load(first)
    checkpoint["model"]["out_conv.0.bias"] += torch.tensor([1.0, -1.0])
    torch.save(checkpoint, second)
    source, out = images / "01_test.tif", tmp_path / "out"
    before = segment([first], source, out, "--save-prob")["01_test_prob.png"].read_bytes()
    segment([second], source, out)
    segment([second], source, out, "--save-prob", "--skip-existing")
    assert (out / "01_test_prob.png").read_bytes() != before


def test_no_files_of_an_earlier_call_contradict_the_masks(run, tiny_root, images, tmp_path):
    weights, out = [run / "best_model.pth"], tmp_path / "out"
    options = "--overlay", "--save-prob", "--labels", tiny_root / "DRIVE/test/1st_manual"
    segment(weights, images, out, *options)
    (out / "01_test_notes.png").touch()
    files = segment(weights, images / "01_test.tif", out, "--threshold", 0.9, "--overlay")
    first, second = ({name for name in files if name.startswith(number)} for number in ("01", "02"))
    assert first == {"01_test_mask.png", "01_test_overlay.png", "01_test_notes.png"}
    assert second == {"02_test_mask.png", "02_test_overlay.png", "02_test_prob.png"}
    assert "scores.json" not in files


def test_skip_existing_does_not_take_another_image_of_the_name(run, folder, tmp_path):
    out, other = tmp_path / "out", tmp_path / "other"
    other.mkdir()
    shutil.copy(folder / "1.png", other / "0.png")
    segment([run / "best_model.pth"], folder / "0.png", out)
    files = segment([run / "best_model.pth"], other, out, "--skip-existing")
    assert pixels_of(files["0_mask.png"]).shape == pixels_of(folder / "1.png").shape[:2]


def test_a_sub_folder_that_cannot_be_made_is_named_first(run, images, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    for name in ("one", "two"):
        (folder / name).mkdir(parents=True)
        shutil.copy(images / "01_test.tif", folder / name / "x.tif")
    out.mkdir()
    (out / "two").touch()
    message = error_of(segment, [run / "best_model.pth"], folder, out, "--recursive")
    assert f"{out / 'two'}: cannot be written to" in message
    assert not list(out.glob("**/*_mask.png"))


def test_ctrl_c_says_how_to_continue(run, folder, tmp_path, capsys, monkeypatch):
    for name in ("2.png", "6.png"):
        (folder / name).unlink()
    softmax, calls = torch.Tensor.softmax, []

    def interrupted(*args, **kwargs):
        calls.append(0)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return softmax(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch.Tensor, "softmax", interrupted)
        segment([run / "best_model.pth"], folder, folder / "out")
    message = capsys.readouterr().err
    done = int(message.partition("predict.py: stopped after ")[2].partition(" of 5 images")[0])
    assert done <= 2 and "the same command with --skip-existing does the others" in message
    options = "--recursive", "--skip-existing"  # the masks below the images are none
    segment([run / "best_model.pth"], folder, folder / "out", *options)
    assert [row["image"] for row in table_of(folder / "out")] == ["0", "1", "3", "4", "5"]


def test_skip_existing_refuses_other_weights_and_another_threshold(run, images, tmp_path):
    weights, path = run / "best_model.pth", images / "01_test.tif"
    segment([weights], path, tmp_path / "out", "--threshold", 0.4)
    message = error_of(
        segment, [weights], path, tmp_path / "out", "--skip-existing", "--threshold", 0.6
    )
    assert message.startswith(f"--skip-existing: the predictions in {tmp_path / 'out'} were made")
    assert "threshold 0.4, this call has 0.6; give the same, name another --output" in message
    checkpoint = load(weights)
    checkpoint["model"]["out_conv.0.bias"] += 1
    (tmp_path / "new").mkdir()
    torch.save(checkpoint, tmp_path / "new" / "best_model.pth")
    options = "--skip-existing", "--threshold", 0.4
    others = [tmp_path / "new" / "best_model.pth"]
    assert " weights " in error_of(segment, others, path, tmp_path / "out", *options)
    segment([weights], path, tmp_path / "out", *options)
    segment(others, path, tmp_path / "out", "--threshold", 0.6)


# --- tiles, ROI, scores ---------------------------------------------------------------------------


def test_tiles_are_written_by_strips(run, images, tmp_path):
    options = ("--save-prob", "--overlay")
    whole = segment([run / "best_model.pth"], images, tmp_path / "whole", *options)
    tiled = segment(
        [run / "best_model.pth"],
        images,
        tmp_path / "tiles",
        *options,
        "--tile",
        64,
        "--overlap",
        32,
    )
    assert sorted(whole) == sorted(tiled)
    for name in ("01_test_mask.png", "01_test_overlay.png"):
        assert pixels_of(whole[name]).shape == pixels_of(tiled[name]).shape
    first, second = (pixels_of(files["01_test_prob.png"]) / 65535 for files in (whole, tiled))
    assert np.abs(first - second).mean() < 0.02 and (first != second).any()


@pytest.mark.parametrize(
    "flags, words",
    [
        (("--tile", 32), "--tile 32: is too small for an overlap of 32 px; it must be at least 64"),
        (("--overlap", 2000), "--overlap 2000: is too large for tiles of 1024 px"),
    ],
)
def test_wrong_tiles_are_refused_before_anything_is_written(run, images, tmp_path, flags, words):
    files = segment([run / "best_model.pth"], images, tmp_path)
    before = [files[name].read_bytes() for name in ("predictions.csv", "predictions.json")]
    assert words in error_of(segment, [run / "best_model.pth"], images, tmp_path, *flags)
    after = [files[name].read_bytes() for name in ("predictions.csv", "predictions.json")]
    assert after == before


def test_a_model_that_resizes_images_takes_no_tiles(run, images, tmp_path):
    checkpoint = load(run / "best_model.pth") | {"resize": [48, 64]}
    torch.save(checkpoint, tmp_path / "resized.pth")
    for flag in ("--tile", "--overlap"):
        with pytest.raises(UserError, match=f"{flag} 64: the model sees images at the size"):
            segment([tmp_path / "resized.pth"], images, tmp_path / "out", flag, 64)
    files = segment([tmp_path / "resized.pth"], images / "01_test.tif", tmp_path / "out")
    assert pixels_of(files["01_test_mask.png"]).shape == (96, 104)


def test_auto_roi_predicts_background_outside_the_field_of_view(run, tmp_path):
    y, x = np.mgrid[:200, :220]
    inside = np.hypot(x - 110, y - 100) < 90
    photo = np.where(inside[..., None], [180, 90, 40], [2, 2, 2]).astype(np.uint8)
    Image.fromarray(photo).save(tmp_path / "eye.png")
    options = ("--auto-roi", "--threshold", 0, "--save-prob")
    files = segment([run / "best_model.pth"], tmp_path / "eye.png", tmp_path / "out", *options)
    mask = pixels_of(files["eye_mask.png"]) > 0
    agree = (mask & inside).sum() / (mask | inside).sum()
    assert agree > 0.97


def test_scores_are_those_of_the_run_whole_and_in_tiles(run, tiny_root, images, tmp_path, capsys):
    test = tiny_root / "DRIVE/test"
    options = ("--roi-mask", test / "mask", "--labels", test / "1st_manual")
    saved = json.loads((run / "test_scores.json").read_text())
    segment([run / "best_model.pth"], images, tmp_path / "whole", *options)
    found = json.loads((tmp_path / "whole" / "scores.json").read_text())
    assert found["scores"] == saved["scores"] and found["images"] == saved["images"]
    assert f"{saved['scores']['f1']:.4f}" in capsys.readouterr().out
    options += ("--tile", 64, "--report", tmp_path / "report")
    segment([run / "best_model.pth"], images, tmp_path / "tiles", *options)
    tiled = json.loads((tmp_path / "tiles" / "scores.json").read_text())["scores"]
    assert tiled["pixels"] == saved["scores"]["pixels"]
    assert tiled["f1"] == pytest.approx(saved["scores"]["f1"], abs=0.05)
    assert (tmp_path / "report" / "report.html").is_file()


def test_one_label_is_not_that_of_two_images(run, tiny_root, images, tmp_path):
    label = tiny_root / "DRIVE/test/1st_manual/01_manual1.gif"
    message = error_of(segment, [run / "best_model.pth"], images, tmp_path, "--labels", label)
    assert f"--labels {label}: is one file, for 2 images; give the folder" in message
    files = segment([run / "best_model.pth"], images / "01_test.tif", tmp_path, "--labels", label)
    assert "scores.json" in files


def test_labels_of_another_size_fail_by_name(run, tiny_root, images, tmp_path, capsys):
    labels = tmp_path / "labels"
    labels.mkdir()
    for name in ("01", "02"):
        Image.new("L", (20, 20)).save(labels / f"{name}_manual1.png")
    with pytest.raises(SystemExit):
        segment([run / "best_model.pth"], images, tmp_path / "out", "--labels", labels)
    message = capsys.readouterr().err
    assert "01_manual1.png: is 20×20 pixels, its image" in message
    assert "104×96; give the one that was drawn on this image, or resize it" in message


# --- files made of the weights --------------------------------------------------------------------


def make_file(*argv):
    predict.main(predict.parse_args([str(arg) for arg in argv]))


def test_stripped_weights_predict_the_same(run, images, tmp_path, capsys):
    weights, small = run / "best_model.pth", tmp_path / "new" / "small.pth"
    make_file("--weights", weights, "--strip", small)
    assert "MB) -> " in capsys.readouterr().out
    assert small.stat().st_size < 0.6 * weights.stat().st_size
    first, second = (
        segment([path], images / "01_test.tif", tmp_path / path.stem, "--save-prob")
        for path in (weights, small)
    )
    for name in ("01_test_mask.png", "01_test_prob.png"):
        assert first[name].read_bytes() == second[name].read_bytes()


@pytest.mark.parametrize("link", [False, True])
def test_strip_does_not_overwrite_what_it_strips(run, tmp_path, link):
    weights = small = shutil.copy(run / "best_model.pth", tmp_path / "best_model.pth")
    if link:
        small = tmp_path / "last_model.pth"
        small.hardlink_to(weights)
    with pytest.raises(UserError, match=f"--strip {small}: is the file of --weights"):
        make_file("--weights", weights, "--strip", small)
    assert "optimizer" in load(weights)


def test_strip_needs_room_for_the_weights(run, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(UserError, match="0 MB are free, but about . MB are needed"):
        make_file("--weights", run / "best_model.pth", "--strip", tmp_path / "small.pth")
    assert list(tmp_path.iterdir()) == []


def test_an_export_has_the_threshold_of_the_flag(run, tmp_path):
    path = tmp_path / "model.pt2"
    make_file("--weights", run / "best_model.pth", "--export", path, "--threshold", 0.3)
    files = {"description.json": ""}
    torch.export.load(path, extra_files=files)
    assert json.loads(files["description.json"])["threshold"] == 0.3


def test_a_refused_export_makes_no_folder(run, tmp_path):
    path = tmp_path / "new" / "m.txt"
    message = error_of(make_file, "--weights", run / "best_model.pth", "--export", path)
    assert "m.txt: ends in '.txt'; export to a .onnx or a .pt2 file" in message
    assert not path.parent.exists()


def test_an_exported_network_gives_the_probabilities_of_the_files(run, images, tmp_path):
    make_file("--weights", run / "best_model.pth", "--export", tmp_path / "model.pt2")
    assert (tmp_path / "model.pt2").is_file()


@pytest.mark.parametrize(
    "flags, message",
    [
        ((), "name the images to segment"),
        (("--input", "x", "--strip", "y"), "--input: leave it out with --strip"),
        (("--output", "x", "--export", "y.onnx"), "--output: leave it out with --export"),
        (("--threshold", "0.3", "--strip", "y"), "--threshold: leave it out with --strip"),
        (("--save-prob", "--export", "y.pt2"), "--save-prob: leave it out with --export"),
        (("--strip", "x", "--export", "y"), "one of them at a time"),
        (("--input", "x", "--report", "y"), "give --labels"),
        (("--input", "x", "--auto-roi", "--roi-mask", "y"), "leave it out where --roi-mask"),
        (("--input", "x", "--labels", "y", "--skip-existing"), "all images are scored"),
        (("--input", "x", "--tile", "0", "--overlap", "32"), "has no meaning with --tile 0"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(flags, message):
    with pytest.raises(UserError, match=message):
        predict.parse_args(["--weights", "w.pth", *flags])

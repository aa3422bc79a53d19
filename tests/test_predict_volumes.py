"""predict.py on volumes: orientation, header, resampling, tiles, ROI, probabilities, bad inputs."""

import csv
import json
import re

import nibabel
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import predict
from src import UNet3D
from src.inference import decide, predict_probs
from src.volume_io import read_label_volume, read_volume, write_volume
from src.volumes import Geometry, normalize_volume, resampled_strips
from tests.made_volumes import draw, save
from tests.small import described, error_of, make_model
from tests.test_volume_io import ORIENTATIONS, turned
from train_utils import checkpoint as checkpoints

KWARGS = {"in_channels": 1, "num_classes": 3, "base_c": 2}


@torch.no_grad()
def make_unet(**changes):
    """A model with random weights that predicts each class somewhere."""
    torch.manual_seed(0)
    model = UNet3D(**{**KWARGS, **changes}).eval()
    logits = model(torch.randn(1, 1, 16, 16, 16))["out"]
    model.out_conv[0].bias -= logits.mean((0, 2, 3, 4))
    model.out_conv[0].weight *= 20
    model.out_conv[0].bias *= 20
    return model


@pytest.fixture
def weights(tmp_path):
    return write_weights(tmp_path / "model.pth")


def write_weights(path, spacing=(1.0, 1.0, 1.0), class_ids=(0, 5, 9), **changes):
    """Saves a model with random weights; returns the path."""
    model = make_unet(**changes)
    content = {
        "model": model.state_dict(),
        "model_name": "unet_3d",
        "model_kwargs": {**KWARGS, **changes},
        "class_names": ["background", "left", "right"][: model.num_classes],
        "class_ids": list(class_ids)[: model.num_classes],
        "mean": None,
        "std": None,
        "spacing": list(spacing),
        "threshold": 0.5,
    }
    checkpoints.save(path, content)
    return path


def run(weights, source, output, *options):
    argv = ["--weights", weights, "--input", source, "--output", output, "--device", "cpu"]
    argv = [str(each) for each in (*argv, "--no-amp", *options)]
    predict.main(predict.parse_args(argv))
    return output


def expected_probs(model, path):
    """[K, D, H, W], of the whole volume."""
    values, _ = read_volume(path)
    return predict_probs(model, normalize_volume(torch.from_numpy(values))[None])[0]


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_another_orientation_gets_the_same_prediction_in_space(weights, tmp_path, codes):
    path = save(tmp_path / "in" / "x.nii.gz", draw(3)[0], (1.0, 1.05, 0.95))
    other = turned(path, codes, tmp_path / "y.nii")
    run(weights, tmp_path / "in", tmp_path / "out")
    run(weights, other, tmp_path / "out")
    first, second = (nibabel.load(tmp_path / "out" / f"{name}_mask.nii.gz") for name in ("x", "y"))
    source = nibabel.load(other)
    assert second.shape == source.shape and second.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(second.affine, source.affine)
    closest = nibabel.as_closest_canonical(second)
    ids = np.asarray(nibabel.as_closest_canonical(first).dataobj)
    np.testing.assert_array_equal(np.asarray(closest.dataobj), ids)
    mask = expected_probs(make_unet(), path).argmax(0).numpy()
    np.testing.assert_array_equal(ids.transpose(2, 1, 0), np.array([0, 5, 9])[mask])
    assert set(np.unique(ids)) <= {0, 5, 9} and len(np.unique(ids)) > 1


def test_other_voxels_are_predicted_at_the_models_and_brought_back(tmp_path):
    weights = write_weights(tmp_path / "model.pth", spacing=(1.0, 1.0, 2.0))
    path = save(tmp_path / "x.nii.gz", draw(3)[0], (1.0, 1.0, 1.5))  # X, Y, Z
    run(weights, path, tmp_path / "out", "--save-prob")
    values, geometry = read_volume(path)
    image = normalize_volume(torch.from_numpy(values))[None]
    resized = F.interpolate(image, (24, 20, 7), mode="trilinear")  # 16·1.5, 20, 14/2
    probs = predict_probs(make_unet(), resized)
    probs = F.interpolate(probs, geometry.shape, mode="trilinear")[0]
    stored = np.load(tmp_path / "out" / "x_prob.npy")
    np.testing.assert_allclose(stored, probs, atol=1e-3)
    labels, own = read_label_volume(tmp_path / "out" / "x_mask.nii.gz")
    assert own.shape == geometry.shape
    assert (labels != np.array([0, 5, 9])[probs.argmax(0)]).mean() < 0.001


@pytest.mark.parametrize("wanted", [(9, 8, 5), (5, 4, 6), (23, 7, 7), (1, 5, 6)], ids=str)
@pytest.mark.parametrize("cuts", [[0, 9], [0, 1, 2, 9], [0, 4, 8, 9]], ids=str)
def test_strips_are_resampled_like_the_whole(wanted, cuts):
    whole = torch.rand(3, 9, 5, 6, generator=torch.Generator().manual_seed(0))
    pairs = zip(cuts, cuts[1:], strict=False)
    strips = [(slice(start, stop), whole[:, start:stop]) for start, stop in pairs]
    parts = list(resampled_strips(iter(strips), (9, 5, 6), wanted))
    covered = [index for part, _ in parts for index in range(*part.indices(wanted[0]))]
    assert covered == list(range(wanted[0]))
    expected = F.interpolate(whole[None], wanted, mode="trilinear")[0]
    torch.testing.assert_close(torch.cat([probs for _, probs in parts], dim=1), expected)


def test_tiles_give_nearly_the_whole_and_the_same_files(tmp_path):
    """Far from a cut, tiles and the whole are equal; at the cuts they are blended."""
    image = np.random.default_rng(0).normal(size=(40, 44, 130)).astype(np.float32)
    path, weights = save(tmp_path / "x.nii.gz", image), write_weights(tmp_path / "model.pth")
    masks = []
    for folder, *options in (("whole", "--tile", 0), ("tiles", "--tile", 96, "--overlap", 8)):
        run(weights, path, tmp_path / folder, *options)
        masks.append(read_label_volume(tmp_path / folder / "x_mask.nii.gz")[0])
    whole, tiled = masks
    assert (whole != tiled).mean() < 0.02 and (whole != tiled).any()
    np.testing.assert_array_equal(whole[:20], tiled[:20])


def test_outside_the_roi_all_is_background_and_intensities_do_not_matter(weights, tmp_path):
    image, _ = draw(3)
    inside = np.zeros(image.shape, np.uint8)
    inside[3:-3] = 1
    save(tmp_path / "roi" / "x.nii.gz", inside)
    path = save(tmp_path / "x.nii.gz", np.where(inside, image, image.max() * 50))
    run(weights, path, tmp_path / "out", "--roi-mask", tmp_path / "roi")
    ids = np.asarray(nibabel.load(tmp_path / "out" / "x_mask.nii.gz").dataobj)
    assert (ids[inside == 0] == 0).all() and (ids[inside == 1] > 0).any()


def test_stacks_give_stacks_and_two_classes_a_probability_volume(tmp_path):
    weights = write_weights(tmp_path / "model.pth", num_classes=2)
    stack = np.random.default_rng(0).integers(0, 255, (10, 12, 14), dtype=np.uint8)
    (tmp_path / "in").mkdir()
    write_volume(tmp_path / "in" / "x.tif", stack, Geometry(stack.shape))
    np.save(tmp_path / "in" / "y.npy", stack)
    run(weights, tmp_path / "in", tmp_path / "out", "--save-prob", "--overlay", "--threshold", 0.4)
    probs = expected_probs(make_unet(num_classes=2), tmp_path / "in" / "x.tif")
    for name, suffix in (("x", ".tif"), ("y", ".npy")):
        mask, _ = read_label_volume(tmp_path / "out" / f"{name}_mask{suffix}")
        np.testing.assert_array_equal(mask, 5 * decide(probs[None], 0.4)[0].numpy())
        stored, _ = read_volume(tmp_path / "out" / f"{name}_prob{suffix}")
        np.testing.assert_allclose(stored[0], probs[1], atol=1e-6)


def test_flips_are_the_mean_of_eight(weights, tmp_path):
    path = save(tmp_path / "x.nii.gz", draw(3)[0])
    run(weights, path, tmp_path / "out", "--flips", "--save-prob")
    values, _ = read_volume(path)
    image, model = normalize_volume(torch.from_numpy(values))[None], make_unet()
    flips = [[axis for axis in (2, 3, 4) if number >> axis & 1] for number in range(0, 32, 4)]
    probs = sum(predict_probs(model, image.flip(axes)).flip(axes) for axes in flips) / 8
    np.testing.assert_allclose(np.load(tmp_path / "out" / "x_prob.npy"), probs[0], atol=1e-3)


def rows_of(folder):
    with open(folder / "predictions.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_table_has_a_row_for_each_volume(weights, tmp_path, capsys):
    for number in (3, 4):
        save(tmp_path / "in" / f"x{number}.nii.gz", draw(number)[0])
    run(weights, tmp_path / "in", tmp_path / "out")
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.match(r"2 volumes, [\d.]+ s each, the most probable class; [\d.]+ s in all", last)
    rows = rows_of(tmp_path / "out")
    assert [row["image"] for row in rows] == ["x3", "x4"]
    ids = np.asarray(nibabel.load(tmp_path / "out" / "x3_mask.nii.gz").dataobj)
    assert [rows[0][side] for side in ("width", "height", "depth")] == ["14", "20", "16"]
    for name, index in (("background", 0), ("left", 5), ("right", 9)):
        assert float(rows[0][f"share_{name}"]) == pytest.approx((ids == index).mean(), abs=1e-8)
    assert float(rows[0]["seconds"]) > 0


def test_existing_outputs_are_skipped_and_keep_their_rows(weights, tmp_path, capsys):
    for number in (3, 4, 5):
        save(tmp_path / "in" / f"x{number}.nii.gz", draw(number)[0])
    out = run(weights, tmp_path / "in", tmp_path / "out", "--save-prob")
    before = rows_of(out)
    (out / "x4_prob.npy").unlink()
    kept = (out / "x3_mask.nii.gz").stat().st_mtime_ns
    capsys.readouterr()
    run(weights, tmp_path / "in", out, "--save-prob", "--skip-existing")
    printed = capsys.readouterr().out
    assert "x4.nii.gz ->" in printed and "x3.nii.gz" not in printed
    assert "2 volumes were left out: all outputs are there" in printed
    assert (out / "x4_prob.npy").exists() and (out / "x3_mask.nii.gz").stat().st_mtime_ns == kept
    rows = rows_of(out)
    assert [row["image"] for row in rows] == ["x3", "x4", "x5"]
    assert rows[0] == before[0] and rows[2] == before[2]
    run(weights, tmp_path / "in", out, "--overlay", "--skip-existing")
    assert (out / "x3_overlay.png").exists()  # another output was asked for
    message = error_of(run, weights, tmp_path / "in", out, "--flips", "--skip-existing")
    assert "were made with flips False, this call has True" in message


def test_labels_are_scored_at_the_volumes_own_size(tmp_path):
    weights = write_weights(tmp_path / "model.pth", spacing=(1.0, 1.0, 2.0))
    inside = np.zeros((14, 20, 16), np.uint8)
    inside[3:-3] = 1
    masks = {}
    for number in (3, 4):
        image, label = draw(number)
        name, spacing = f"x{number}.nii.gz", (1.0, 1.0, 1.5)
        save(tmp_path / "in" / name, image, spacing)
        save(tmp_path / "labels" / name, np.array([0, 5, 9], np.uint8)[label], spacing)
        save(tmp_path / "roi" / name, inside, spacing)
        masks[number] = label
    options = ("--labels", tmp_path / "labels", "--roi-mask", tmp_path / "roi")
    out = run(weights, tmp_path / "in", tmp_path / "out", *options)
    content = json.loads((out / "scores.json").read_text())
    assert content["weights"] == [str(weights)] and content["scores"]["images"] == 2
    for row, (number, label) in zip(content["images"], masks.items(), strict=True):
        ids = np.asarray(nibabel.load(out / f"x{number}_mask.nii.gz").dataobj)
        found = np.searchsorted([0, 5, 9], ids)[inside == 1]
        truth = label[inside == 1]
        for index in (1, 2):
            assert row["tp"][index - 1] == ((found == index) & (truth == index)).sum()
            assert row["fp"][index - 1] == ((found == index) & (truth != index)).sum()
            assert row["fn"][index - 1] == ((found != index) & (truth == index)).sum()
        assert row["tp"][0] + row["fp"][0] + row["fn"][0] + row["tn"][0] == inside.sum()


def test_one_class_alone_and_flags_of_images_are_said(tmp_path, capsys):
    model = make_unet()
    model.out_conv[0].bias.data[0] += 1e4
    weights = write_weights(tmp_path / "model.pth")
    content = checkpoints.load(weights)
    checkpoints.save(weights, {**content, "model": model.state_dict()})
    path = save(tmp_path / "x.nii.gz", draw(3)[0])
    run(weights, path, tmp_path / "out")
    warning = "only one class was predicted in 1 of 1 volume: x (all background)"
    assert warning in capsys.readouterr().out
    message = error_of(run, weights, path, tmp_path / "out", "--auto-roi")
    assert "--auto-roi: is for images" in message
    options = ("--labels", path, "--report", tmp_path)
    message = error_of(run, weights, path, tmp_path / "out", *options)
    assert "--report: of volumes, train.py --test-only writes it" in message


def test_what_255_is_read_as_is_said_beside_the_scores(tmp_path, capsys):
    weights = write_weights(tmp_path / "model.pth", num_classes=2, class_ids=[0, 1])
    for number in (3, 4):
        image, label = draw(number, classes=2)
        save(tmp_path / "in" / f"x{number}.nii.gz", image)
        label = label * np.uint8(255 if number == 4 else 1)
        save(tmp_path / "labels" / f"x{number}.nii.gz", label)
    run(weights, tmp_path / "in", tmp_path / "out", "--labels", tmp_path / "labels")
    said = capsys.readouterr().out
    assert "1 label with 0 and 255 alone, such as" in said
    assert "their 255 is read as class 1" in said


def test_models_of_folds_with_nearly_equal_voxels_are_an_ensemble(tmp_path):
    first = write_weights(tmp_path / "first.pth", spacing=(1.0, 1.0, 1.0))
    second = write_weights(tmp_path / "second.pth", spacing=(1.0, 1.0001, 0.97))
    path = save(tmp_path / "x.nii.gz", draw(3)[0])
    run(first, path, tmp_path / "out", "--weights", first, second)
    other = write_weights(tmp_path / "other.pth", spacing=(1.0, 1.0, 1.5))
    message = error_of(run, first, path, tmp_path / "out", "--weights", first, other)
    assert "other.pth: was trained with spacing [1.0, 1.0, 1.5], but" in message


def test_a_label_that_does_not_fit_fails_alone(weights, tmp_path, capsys):
    for number in (3, 4):
        image, label = draw(number)
        save(tmp_path / "in" / f"x{number}.nii.gz", image)
        label = np.array([0, 5, 9], np.uint8)[label[: 10 + number - 3]]
        save(tmp_path / "labels" / f"x{number}.nii.gz", label)
    image, label = draw(5)
    save(tmp_path / "in" / "x5.nii.gz", image)
    save(tmp_path / "labels" / "x5.nii.gz", np.array([0, 5, 9], np.uint8)[label])
    with pytest.raises(SystemExit):
        run(weights, tmp_path / "in", tmp_path / "out", "--labels", tmp_path / "labels")
    said = capsys.readouterr()
    assert "2 of 3 volumes failed" in said.err
    assert "valid voxels" in said.out and "Dice, mean of 1 volume " in said.out
    content = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert [row["name"] for row in content["images"]] == ["x5"]


def test_voxels_in_micrometres_are_named_and_the_others_are_predicted(weights, tmp_path, capsys):
    for number, spacing in ((3, 1000.0), (4, 1.0)):
        save(tmp_path / "in" / f"x{number}.nii.gz", draw(number)[0], [spacing] * 3)
    with pytest.raises(SystemExit) as stop:
        run(weights, tmp_path / "in", tmp_path / "out")
    message = capsys.readouterr().err
    assert stop.value.code == 1 and "1 of 2 volumes failed" in message
    assert f"{tmp_path / 'in' / 'x3.nii.gz'}: has voxels of 1000×1000×1000 mm" in message
    assert "the model 1×1×1 mm" in message and "1,000,000,000 times as many" in message
    assert [row["image"] for row in rows_of(tmp_path / "out")] == ["x4"]


def test_inputs_that_cannot_be_used_are_named(weights, tmp_path):
    (tmp_path / "empty").mkdir()
    message = error_of(run, weights, tmp_path / "empty", tmp_path / "out")
    assert "the folder has no volumes" in message
    (tmp_path / "x.png").touch()
    message = error_of(run, weights, tmp_path / "x.png", tmp_path / "out")
    assert "x.png: is no volume that can be read, and the weights are of a model for vol" in message
    (tmp_path / "x.dcm").touch()
    assert "x.dcm: is DICOM" in error_of(run, weights, tmp_path / "x.dcm", tmp_path / "out")
    path = save(tmp_path / "in" / "x.nii.gz", draw(3)[0])
    images = tmp_path / "images.pth"
    checkpoints.save(images, described(make_model()))
    message = error_of(run, images, path, tmp_path / "out")
    assert "is a volume, but the weights are of a model for images" in message

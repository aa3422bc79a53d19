"""predict.py --instances: objects that touch come back with an id each, in files and in scores.

The network is made by hand: it calls a pixel foreground by its brightness alone, so every object is
known beforehand.
"""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

import predict
import transforms
from my_dataset import Sample, SegmentationDataset
from src import UNet, UNet3D
from src.instances import separate
from tests.small import KWARGS, described, error_of, make_model
from tests.tiny import EXACT
from train_utils import checkpoint as checkpoints
from train_utils.data.class_table import BINARY
from train_utils.metrics import summarize
from train_utils.train_and_eval import evaluate

TABLES = ("predictions", "objects")
DARK, DIM, BRIGHT = 20, 120, 230  # DIM has the probability 0.38


def brightness_network():
    """A UNet whose probability of class 1 is sigmoid(10 · (red / 255 − 0.52))."""
    model = UNet(**KWARGS)
    state = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    for name, value in state.items():
        if name.endswith("running_var") or (value.ndim == 1 and name.endswith(".weight")):
            value.fill_(1)  # BatchNorm changes nothing
    for name in ("in_conv.0", "in_conv.3", "up4.conv.0", "up4.conv.3"):
        state[f"{name}.weight"][0, 0, 1, 1] = 1  # the first level's skip, pixel by pixel
    state["out_conv.0.weight"][1, 0] = 10
    state["out_conv.0.bias"][1] = -5.2
    model.load_state_dict(state)
    return model


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    changes = {"mean": [0.0] * 3, "std": [1.0] * 3, "threshold": 0.5}
    checkpoints.save(path, described(brightness_network(), **changes))
    return path


def cells(number):
    """Ids of cells [96, 130]: two that share a border, a disc, and `number` − 3 small ones."""
    ids = np.zeros((96, 130), np.int32)
    ids[10:30, 10:30] = 1
    ids[10:30, 30:55] = 2
    y, x = np.mgrid[:96, :130]
    ids[np.hypot(x - 90, y - 50) < 18] = 3
    for index in range(4, number + 1):
        ids[80:86, 8 * index : 8 * index + 5] = index
    return ids


def save_photo(path, ids):
    """A photograph in which objects are bright, with a dark line between those that touch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = np.where(separate(ids) > 0, BRIGHT, DARK).astype(np.uint8)
    Image.fromarray(grey).convert("RGB").save(path)


@pytest.fixture
def photos(tmp_path):
    """A folder of two photographs, a with 5 cells and b with 8."""
    for name, number in (("a", 5), ("b", 8)):
        save_photo(tmp_path / "photos" / f"{name}.png", cells(number))
    return tmp_path / "photos"


def segment(weights, source, output, *options):
    argv = ["--weights", weights, "--input", source, "--output", output, *EXACT, "--instances"]
    predict.main(predict.parse_args([str(arg) for arg in (*argv, *options)]))


def ids_of(output, name):
    picture = Image.open(output / f"{name}_instances.png")
    assert picture.mode == "I;16"
    return np.asarray(picture).astype(np.int32)


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def agreement(first, second):
    """The least IoU of the objects of the two with their best partner."""
    worst = 1
    for one, other in ((first, second), (second, first)):
        for index in np.unique(one[one > 0]):
            inside = one == index
            partner = np.bincount(other[inside]).argmax()
            assert partner > 0
            union = (inside | (other == partner)).sum()
            worst = min(worst, (inside & (other == partner)).sum() / union)
    return worst


def test_objects_that_touch_get_an_id_each(weights, photos, tmp_path, capsys):
    segment(weights, photos, tmp_path / "out")
    for name, number in (("a", 5), ("b", 8)):
        ids, truth = ids_of(tmp_path / "out", name), cells(number)
        assert np.unique(ids).tolist() == list(range(number + 1))
        assert agreement(ids, truth) > 0.98
        mask = np.asarray(Image.open(tmp_path / "out" / f"{name}_mask.png"))
        assert ((mask > 0) == (separate(truth) > 0)).all()
    printed = capsys.readouterr().out
    assert ", 5 objects\n" in printed and "13 objects; " in printed


def test_the_tables_are_those_of_the_file(weights, photos, tmp_path):
    segment(weights, photos, tmp_path / "out")
    images, objects = (rows_of(tmp_path / "out" / f"{name}.csv") for name in TABLES)
    assert [(row["image"], row["objects"]) for row in images] == [("a", "5"), ("b", "8")]
    ids = ids_of(tmp_path / "out", "a")
    areas = np.bincount(ids.ravel())[1:]
    assert float(images[0]["mean_area"]) == pytest.approx(areas.mean(), abs=0.01)
    assert [row["image"] for row in objects] == ["a"] * 5 + ["b"] * 8
    for row in objects[:5]:
        rows, columns = np.nonzero(ids == int(row["id"]))
        assert int(row["area"]) == len(rows)
        assert float(row["x"]) == pytest.approx(columns.mean(), abs=0.01)
        assert float(row["y"]) == pytest.approx(rows.mean(), abs=0.01)


def test_tiles_give_the_objects_of_the_whole(weights, photos, tmp_path):
    segment(weights, photos, tmp_path / "whole", "--overlay")
    segment(weights, photos, tmp_path / "tiles", "--overlay", "--tile", 64, "--overlap", 32)
    for name in ("a_instances.png", "a_overlay.png", "b_mask.png", "objects.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "tiles" / name).read_bytes()


def test_outside_the_roi_there_are_no_objects(weights, photos, tmp_path):
    roi = np.zeros((96, 130), np.uint8)
    roi[:, :70] = 255
    Image.fromarray(roi).save(tmp_path / "roi.png")
    segment(weights, photos / "a.png", tmp_path / "out", "--roi-mask", tmp_path / "roi.png")
    ids = ids_of(tmp_path / "out", "a")
    assert (ids[:, 70:] == 0).all() and len(np.unique(ids)) == 5


def test_the_overlay_outlines_each_object(weights, photos, tmp_path):
    segment(weights, photos / "a.png", tmp_path / "out", "--overlay")
    photo, drawn = (
        np.asarray(Image.open(path)) for path in (photos / "a.png", tmp_path / "out/a_overlay.png")
    )
    ids, changed = ids_of(tmp_path / "out", "a"), (photo != drawn).any(2)
    assert changed[ids > 0].any() and not changed[ids == 0].any()
    assert changed[15, 29] and changed[15, 30] and not changed[15, 20]
    assert (drawn[15, 29] != drawn[15, 30]).any()  # on both sides of the shared border


# --- a run that is continued ----------------------------------------------------------------------


def test_skip_existing_completes_both_tables(weights, photos, tmp_path, capsys):
    out = tmp_path / "out"
    segment(weights, photos, out)
    before = {path.name: path.read_bytes() for path in out.glob("*.csv")}
    lines = (out / "objects.csv").read_bytes().splitlines(keepends=True)
    (out / "objects.csv").write_bytes(b"".join(lines[:-2]) + lines[-2][:4])  # a kill
    kept = (out / "a_instances.png").stat().st_mtime_ns
    capsys.readouterr()
    segment(weights, photos, out, "--skip-existing")
    assert "1 image was left out" in capsys.readouterr().out
    assert (out / "a_instances.png").stat().st_mtime_ns == kept
    assert (out / "objects.csv").read_bytes() == before["objects.csv"]
    (out / "b_instances.png").unlink()
    segment(weights, photos, out, "--skip-existing")
    assert (out / "objects.csv").read_bytes() == before["objects.csv"]
    assert np.unique(ids_of(out, "b")).tolist() == list(range(9))


def test_too_many_objects_fail_by_name_and_the_others_are_done(weights, photos, tmp_path, capsys):
    grey = np.full((520, 512), DARK, np.uint8)
    grey[:512:2, ::2] = BRIGHT
    Image.fromarray(grey).save(photos / "noise.png")
    with pytest.raises(SystemExit) as stop:
        segment(weights, photos, tmp_path / "out")
    assert stop.value.code == 1
    message = capsys.readouterr().err
    assert f"1 of 3 images failed:\n  {photos / 'noise.png'}: 65,536 objects, more than" in message
    assert [row["image"] for row in rows_of(tmp_path / "out" / "predictions.csv")] == ["a", "b"]


# --- labels ---------------------------------------------------------------------------------------


def save_labels(folder, kind):
    """Labels of the photographs a and b: ids as 16 bits, as an array, or one mask an object."""
    folder.mkdir()
    for name, number in (("a", 5), ("b", 8)):
        ids = cells(number)
        if kind == "png":
            Image.fromarray(ids.astype(np.uint16)).save(folder / f"{name}.png")
        elif kind == "npy":
            np.save(folder / f"{name}.npy", ids)
        else:
            (folder / name).mkdir()
            for index in range(1, number + 1):
                mask = Image.fromarray(((ids == index) * 255).astype(np.uint8))
                mask.save(folder / name / f"{index:02d}.png")
    return folder


@pytest.mark.parametrize("kind", ["png", "npy", "folders"])
def test_right_objects_have_a_score_of_one(weights, photos, tmp_path, kind, capsys):
    labels = save_labels(tmp_path / "labels", kind)
    segment(weights, photos, tmp_path / "out", "--labels", labels)
    content = json.loads((tmp_path / "out" / "scores.json").read_text())
    scores = content["scores"]
    assert scores["object_ap"] == 1 and scores["f1"] == 1
    assert (scores["objects"], scores["objects_found"]) == (13, 13)
    assert scores["aji"] > 0.98 and scores["objects_merged"] == scores["objects_split"] == 0
    first, second = content["images"]
    assert (first["objects"], first["objects_predicted"], second["objects_found"]) == (5, 5, 8)
    printed = capsys.readouterr().out
    assert "objects at p > 0.5: AP 1.0000 (at IoU 0.5 1.0000, at 0.75 1.0000)" in printed
    assert "  13 true, 13 predicted, 13 found, 0 merged, 0 split" in printed


def test_scores_are_those_of_evaluate(weights, photos, tmp_path):
    """Of a network that finds other objects than the labels have."""
    labels = tmp_path / "labels"
    labels.mkdir()
    for name in ("a", "b"):
        ids = np.roll(cells(7), 4, axis=1)
        ids[ids == 2] = 1  # predicted as two
        Image.fromarray(ids.astype(np.uint16)).save(labels / f"{name}.png")
    segment(weights, photos, tmp_path / "out", "--labels", labels)
    found = json.loads((tmp_path / "out" / "scores.json").read_text())["scores"]
    samples = [Sample(name, photos / f"{name}.png", labels / f"{name}.png") for name in ("a", "b")]
    dataset = SegmentationDataset(
        samples,
        BINARY,
        transforms.eval_preset([0.0] * 3, [1.0] * 3),
        label_kind="instances",
        maps=("instances",),
    )
    batches = [dataset.collate_fn([dataset[index]]) for index in range(2)]
    counts, _ = evaluate(brightness_network(), batches, "cpu", 2)
    expected = summarize(counts, 0.5)
    assert 0 < expected["object_ap"] < 1 and expected["objects_split"] == 2
    del found["object_ap_at_threshold"]
    assert found == {name: expected[name] for name in found}


def test_a_bridge_between_two_objects_merges_them_at_its_threshold(weights, tmp_path):
    """The bridge has the probability 0.38: one object at the threshold 0.3, two at 0.5."""
    ids = np.zeros((64, 80), np.int32)
    ids[20:40, 10:30], ids[20:40, 35:55] = 1, 2
    save_photo(tmp_path / "in" / "x.png", ids)
    grey = np.asarray(Image.open(tmp_path / "in" / "x.png").convert("L")).copy()
    grey[25:35, 30:35] = DIM
    Image.fromarray(grey).save(tmp_path / "in" / "x.png")
    np.save(tmp_path / "x.npy", ids)
    options = "--labels", tmp_path / "x.npy", "--report", tmp_path / "report", "--threshold", 0.3
    segment(weights, tmp_path / "in", tmp_path / "out", *options)
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())["scores"]
    assert scores["object_ap"] == 1 and scores["object_ap_at_threshold"] == 0
    assert len(np.unique(ids_of(tmp_path / "out", "x"))) == 2
    page = (tmp_path / "report" / "report.html").read_text()
    assert "AP of objects at the chosen threshold" in page and "2 of 2" in page
    (line,) = rows_of(tmp_path / "report" / "images.csv")
    assert (line["objects"], line["objects_predicted"]) == ("2", "2")


def test_objects_outside_the_roi_are_not_scored(weights, photos, tmp_path):
    labels = save_labels(tmp_path / "labels", "png")
    roi = np.zeros((96, 130), np.uint8)
    roi[:, :60] = 255
    Image.fromarray(roi).save(tmp_path / "roi.png")
    options = "--labels", labels, "--roi-mask", tmp_path / "roi.png"
    segment(weights, photos / "a.png", tmp_path / "out", *options)
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())["scores"]
    assert scores["objects"] == scores["objects_found"] == 4  # without the disc
    assert scores["pixels"] == 96 * 60


def test_labels_that_are_no_ids_fail_by_name(weights, photos, tmp_path, capsys):
    labels = tmp_path / "labels"
    labels.mkdir()
    np.save(labels / "a.npy", cells(5).astype(np.float32))
    np.save(labels / "b.npy", cells(8)[:-1])
    with pytest.raises(SystemExit):
        segment(weights, photos, tmp_path / "out", "--labels", labels)
    message = capsys.readouterr().err
    assert "a.npy: holds float32 values; ids are whole numbers" in message
    assert "b.npy: is 130×95 pixels, its image" in message


def test_masks_of_two_classes_are_no_ids(weights, photos, tmp_path, capsys):
    Image.fromarray(np.uint8(cells(5) > 0) * 255).save(tmp_path / "mask.png")
    segment(weights, photos / "a.png", tmp_path / "out", "--labels", tmp_path / "mask.png")
    assert "warning: no label holds more than one id; if they are masks" in capsys.readouterr().out


# --- models without objects -----------------------------------------------------------------------


def test_more_than_two_classes_are_refused(photos, tmp_path):
    options = {**KWARGS, "num_classes": 3}
    names = {"model_kwargs": options, "class_names": ["ground", "brick", "water"]}
    path = tmp_path / "three.pth"
    checkpoints.save(path, described(make_model(num_classes=3), **names))
    message = error_of(segment, path, photos, tmp_path / "out")
    assert message.startswith("--instances: is for two classes, background and objects, but the")
    assert "has 3 (ground, brick, water); leave it out" in message


def test_volumes_are_refused(tmp_path):
    options = {"in_channels": 1, "num_classes": 2, "base_c": 2}
    content = described(UNet3D(**options), model_name="unet_3d", model_kwargs=options)
    checkpoints.save(tmp_path / "model.pth", content | {"mean": None, "std": None})
    message = error_of(segment, tmp_path / "model.pth", tmp_path, tmp_path / "out")
    assert message == "--instances: is for images; leave it out with a model for volumes"

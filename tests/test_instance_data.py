"""From labels with one id an object to the loss and the scores: dataset, loader, loop, run."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from my_dataset import IGNORE, Sample, SegmentationDataset, list_samples
from src.instances import separate
from tests.made import write_folder
from tests.made_instances import discs, write_instances
from tests.small import error_of
from tests.test_train_and_eval import CPU, Pointwise, make_items, make_loader, run_epoch, tiny
from tests.tiny import AFFINE, run_train
from train_utils import criterion, evaluate
from train_utils.data.border_weights import border_weights
from train_utils.data_loader import CropLoader, EpochBatches, StackedImages, make_training_loader
from train_utils.metrics import summarize
from transforms import RandomAffineCrops, train_preset

ENTROPY = partial(criterion, dice=False)
BORDER = partial(border_weights, w0=10.0, sigma=5.0)
MEAN_STD = [0.5] * 3, [0.25] * 3


def samples_of(root):
    return list_samples("folder", root)["all"]


def dataset_of(root, **options):
    return SegmentationDataset(samples_of(root), label_kind="instances", **options)


# --- the item ------------------------------------------------------------------------------------


def test_an_item_of_ids_is_a_target_of_two_classes_with_gaps_and_the_maps(tmp_path):
    image, target, weight, ids = dataset_of(
        write_instances(tmp_path, 1), maps=["weight", "instances"], border=BORDER
    )[0]
    truth = discs(0)
    assert image.dtype == target.dtype == torch.uint8 and image.shape == (3, 64, 72)
    assert ids.dtype == torch.int32 and np.array_equal(ids, truth)
    assert np.array_equal(target, separate(truth) > 0)
    lost = (truth > 0) & (target.numpy() == 0)  # the gaps between discs that touch
    assert 0 < lost.sum() < 0.2 * (truth > 0).sum()
    assert weight.dtype == torch.float32 and np.array_equal(weight, border_weights(truth))
    assert weight[lost].min() > 5 and weight[truth == 0].min() >= 1


def test_without_maps_an_item_is_a_pair(tmp_path):
    assert len(dataset_of(write_instances(tmp_path, 1))[0]) == 2


def test_pixels_outside_the_roi_have_no_object_and_no_weight(tmp_path):
    root = write_instances(tmp_path, 1)
    roi = np.zeros((64, 72), np.uint8)
    roi[:, :40] = 255
    (root / "roi").mkdir()
    Image.fromarray(roi).save(root / "roi/cell00.png")
    options = {"maps": ["weight", "instances"], "border": BORDER}
    _, target, weight, ids = dataset_of(root, **options)[0]
    assert (target[:, 40:] == IGNORE).all() and (target[:, :40] != IGNORE).all()
    assert not weight[:, 40:].any() and not ids[:, 40:].any() and ids[:, :40].any()


def test_resized_ids_are_those_of_the_old_pixels_and_the_weight_is_that_of_the_new_size(tmp_path):
    options = {"maps": ["weight", "instances"], "border": BORDER, "size": (32, 36)}
    _, target, weight, ids = dataset_of(write_instances(tmp_path, 1), **options)[0]
    assert ids.shape == target.shape == (32, 36) and set(ids.unique().tolist()) <= set(range(7))
    assert np.array_equal(weight, border_weights(ids.numpy()))


def test_weights_of_a_file_are_multiplied_with_those_of_the_border(tmp_path):
    root = write_instances(tmp_path, 1)
    own = np.linspace(0, 2, 64 * 72, dtype=np.float32).reshape(64, 72)
    (root / "weights").mkdir()
    np.save(root / "weights/cell00.npy", own)
    _, _, alone = dataset_of(root, maps=["weight"])[0]
    _, _, both = dataset_of(root, maps=["weight"], border=BORDER)[0]
    assert np.array_equal(alone, own)
    np.testing.assert_allclose(both, own * border_weights(discs(0)), rtol=1e-6)


def test_objects_of_a_label_of_two_classes_are_its_connected_regions(tmp_path):
    label = np.zeros((40, 40), np.uint8)
    label[10:30, 5:18] = label[10:30, 22:35] = 255
    for kind, picture in (("images", label), ("masks", label)):
        (tmp_path / kind).mkdir()
        Image.fromarray(picture).save(tmp_path / kind / "a.png")
    dataset = SegmentationDataset(samples_of(tmp_path), maps=["weight"], border=BORDER)
    _, target, weight = dataset[0]
    assert np.array_equal(target, label > 0)
    between = np.exp(-(2.5**2 + 2 * 2.5**2 + 2.5**2) / 50)  # d1 + d2 = 5
    np.testing.assert_allclose(weight[20, 18:22], 1 + 10 * between, rtol=1e-6)
    assert weight[20, 0] < weight[20, 20] and (weight[label > 0] == 1).all()


def test_a_weight_map_of_another_size_is_refused(tmp_path):
    root = write_instances(tmp_path, 1)
    (root / "weights").mkdir()
    np.save(root / "weights/cell00.npy", np.ones((64, 71), np.float32))
    message = error_of(lambda: dataset_of(root, maps=["weight"])[0])
    assert "cell00.npy: is 71×64 pixels" in message and "72×64" in message


def test_ids_in_the_place_of_classes_are_read_as_ids_when_asked(tmp_path):
    root = write_instances(tmp_path, 1)
    sample = samples_of(root)[0]
    moved = Sample(sample.name, sample.image, sample.instances)
    dataset = SegmentationDataset([moved], label_kind="instances", maps=["instances"])
    assert np.array_equal(dataset[0][2], discs(0))
    both = replace(moved, instances=sample.instances)
    assert SegmentationDataset([both], label_kind="instances")[0][1].max() == 1


# --- the loader ----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_maps_are_cut_with_their_image_from_memory_and_from_files(tmp_path, workers):
    root = write_instances(tmp_path, 4)
    crops = RandomAffineCrops(*MEAN_STD, 32, elastic=4.0)
    loaders = []
    for cache in (True, False):
        dataset = dataset_of(root, maps=["weight"], border=BORDER, cache=cache)
        dataset.count_pixels()
        batches = EpochBatches(4, 3, seed=0, repeats=2)
        if cache:
            source = StackedImages(dataset.stack(), batches, CPU)
        else:
            collate = dataset.collate_with_sizes
            source = make_training_loader(dataset, CPU, batches, collate, workers=workers)
        loaders.append(CropLoader(source, batches, crops, 7, CPU))
    for one, other in zip(*loaders, strict=True):
        assert len(one) == len(other) == 3 and one[2].shape == one[1].shape
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_tutorials_transforms_cut_maps_too(tmp_path):
    transforms = train_preset(*MEAN_STD, crop_size=32, base_size=64, elastic=4.0)
    options = {"maps": ["instances"], "transforms": transforms}
    image, target, ids = dataset_of(write_instances(tmp_path, 1), **options)[0]
    assert image.shape == (3, 32, 32) and target.shape == ids.shape == (32, 32)
    assert ((target == 1) <= (ids > 0)).all() and ids.dtype == torch.int32


# --- the loop ------------------------------------------------------------------------------------


def test_pixels_of_weight_0_are_not_trained_on():
    items = make_items(4)
    weights = (torch.rand(4, *items[0][1].shape) < 0.5).float()
    weighted = [(image, target, each) for (image, target), each in zip(items, weights, strict=True)]
    ignored = [
        (image, target.masked_fill(each == 0, IGNORE))
        for (image, target), each in zip(items, weights, strict=True)
    ]
    models = tiny(), tiny(), tiny()
    run_epoch(models[0], make_loader(weighted, 2), loss=ENTROPY)
    run_epoch(models[1], make_loader(ignored, 2), loss=ENTROPY)
    run_epoch(models[2], make_loader(items, 2), loss=ENTROPY)
    first, second, third = (nn.utils.parameters_to_vector(model.parameters()) for model in models)
    torch.testing.assert_close(first, second)
    assert not torch.allclose(first, third)


def item_of(prediction, ids):
    """(image, target, ids) whose image makes Pointwise predict class 1 where `prediction` is."""
    image = torch.where(torch.from_numpy(prediction), 1.0, -1.0).expand(3, -1, -1)
    return image, torch.from_numpy((separate(ids) > 0).astype(np.int64)), torch.from_numpy(ids)


def test_objects_are_found_where_the_gap_is_predicted_and_merged_where_it_is_not():
    ids = np.zeros((24, 40), np.int32)
    ids[4:20, 4:18], ids[4:20, 18:34] = 1, 2
    loader = make_loader([item_of(separate(ids) > 0, ids), item_of(ids > 0, ids)], 2)
    scores = summarize(evaluate(Pointwise(), loader, CPU, 2)[0])
    assert scores["objects"] == 4 and scores["objects_predicted"] == 3
    assert scores["objects_merged"] == 2 and scores["objects_split"] == 0
    # In the second image the larger one fills 8 / 15 of what is predicted.
    assert scores["objects_found"] == 3
    assert scores["object_ap"] == pytest.approx((1 + 0.1 * 1 / 2) / 2)


def test_padding_and_ignored_pixels_hold_no_objects():
    ids = np.zeros((24, 40), np.int32)
    ids[4:20, 4:18] = 1
    image, target, instances = item_of(np.ones_like(ids, bool), ids)
    target[ids == 0] = IGNORE
    small = tuple(each[..., :20, :20] for each in (image, target, instances))
    scores = summarize(
        evaluate(Pointwise(), make_loader([(image, target, instances), small], 2), CPU, 2)[0]
    )
    assert scores["objects_predicted"] == 2 and scores["object_ap"] == 1.0


def test_without_ids_there_are_no_scores_of_objects():
    counts, _ = evaluate(Pointwise(), make_loader(make_items(2), 2), CPU, 2)
    assert "object_ap" not in summarize(counts)


# --- a run ---------------------------------------------------------------------------------------


def test_a_run_on_ids_trains_with_the_border_weight_and_scores_objects(tmp_path, capsys):
    root = write_instances(tmp_path / "data", 10)
    flags = ("--dataset", "folder", "--epochs", "2", "--border-weight", "10", "--elastic", "4")
    folder = run_train(root, tmp_path / "out", *flags, settings=AFFINE)
    scores = json.loads((folder / "test_scores.json").read_text())
    assert scores["scores"]["objects"] == sum(row["objects"] for row in scores["images"]) > 0
    assert 0 <= scores["scores"]["object_ap"] <= 1
    header, *rows = (folder / "results.csv").read_text().splitlines()
    assert "val_object_ap" in header.split(",") and len(rows) == 2
    assert "instance ids" in capsys.readouterr().out

    again = ("--test-only", "--weights", folder / "best_model.pth")
    repeated = run_train(root, tmp_path / "again", *again, settings=())
    assert json.loads((repeated / "test_scores.json").read_text())["images"] == scores["images"]


def test_the_border_weight_changes_the_training(tmp_path):
    root = write_instances(tmp_path / "data", 6)
    losses = []
    for number, weight in enumerate(("0", "10")):
        flags = ("--dataset", "folder", "--epochs", "1", "--border-weight", weight, "--val", "none")
        folder = run_train(root, tmp_path / f"out{number}", *flags, settings=AFFINE)
        content = torch.load(folder / "last_model.pth", weights_only=False)
        losses.append(content["history"][0]["train_loss"])
    assert losses[0] != losses[1]


def test_the_preset_original_trains_the_original_network(tmp_path):
    root = write_folder(tmp_path / "data", count=6)
    flags = ("--preset", "original", "--crop-size", "188", "--crops", "1", "--epochs", "1")
    settings = ("--base-c", "4", "--no-amp", "--device", "cpu", "--dataset", "folder")
    folder = run_train(root, tmp_path / "out", *flags, "--val", "none", settings=settings)
    content = torch.load(folder / "last_model.pth", weights_only=False)
    args = content["args"]
    assert content["model_name"] == "unet_original" and args["momentum"] == 0.99
    assert (args["border_weight"], args["elastic"], args["dice"]) == (10.0, 10.0, False)
    assert content["optimizer"]["param_groups"][0]["momentum"] == 0.99


def test_objects_and_border_weights_need_two_classes(tmp_path):
    root = write_instances(tmp_path / "data", 6)
    (root / "classes.csv").write_text("id,name\n0,a\n1,b\n2,c\n")
    flags = ("--dataset", "folder")
    message = error_of(run_train, root, tmp_path / "out", *flags, settings=AFFINE)
    assert "--label-kind instances" in message and "3 classes" in message
    root = write_folder(tmp_path / "classes", count=6, classes=3, label=Image.fromarray)
    (root / "classes.csv").write_text("id,name\n0,a\n1,b\n2,c\n")
    flags += ("--border-weight", "5")
    message = error_of(run_train, root, tmp_path / "out", *flags, settings=AFFINE)
    assert "--border-weight 5" in message and "3 classes" in message


def test_a_finished_run_reads_labels_as_it_did_in_training(tmp_path):
    """Also where the test images have labels of both kinds."""
    root = tmp_path / "data"
    write_instances(root / "train", 4)
    write_instances(root / "test", 2)
    (root / "test/masks").mkdir()
    for path in (root / "test/instances").iterdir():
        Image.fromarray(np.full((64, 72), 255, np.uint8)).save(root / "test/masks" / path.name)
    flags = ("--dataset", "folder", "--epochs", "1", "--val", "none")
    folder = run_train(root, tmp_path / "out", *flags, settings=AFFINE)
    again = ("--test-only", "--weights", folder / "best_model.pth")
    repeated = run_train(root, tmp_path / "again", *again, settings=())
    first, second = (
        json.loads((path / "test_scores.json").read_text()) for path in (folder, repeated)
    )
    assert first["images"] == second["images"] and first["scores"]["objects"] > 0


def test_the_log_says_what_weighs_pixels(tmp_path, capsys):
    root = write_instances(tmp_path / "data", 6)
    (root / "masks").mkdir()
    for path in (root / "instances").iterdir():
        mask = np.asarray(Image.open(path)) > 0
        Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(root / "masks" / path.name)
    flags = ("--dataset", "folder", "--epochs", "1", "--border-weight", "7", "--val", "none")
    run_train(root, tmp_path / "out", *flags, settings=AFFINE)
    printed = capsys.readouterr().out
    assert "border weight 7, sigma 5 px, between the objects that are the regions" in printed
    assert "instances/ is not read; --label-kind instances" in printed


def test_a_run_without_validation_is_timed_on_images_without_weights(tmp_path, capsys):
    """The eleventh step tells how long the run takes, evaluations of test images included."""
    data = write_instances(tmp_path / "data", count=5)
    options = ("--dataset", "folder", "--border-weight", 5, "--val", "none", "--steps", 12)
    run_train(data, tmp_path / "out", *options, settings=[*AFFINE[:4], *AFFINE[6:]])
    assert "12 steps in all" in capsys.readouterr().out

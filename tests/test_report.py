"""The report: its counts by hand, and a page that is complete and needs no other file."""

import csv
import html
import json
import math
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from my_dataset import DriveDataset, list_drive
from src import UNet
from tests.tiny import run_train
from train_utils.evaluation import collect_report_data
from train_utils.metrics import summarize
from train_utils.rank_metrics import BINS
from train_utils.reporting import report
from train_utils.reporting.report_data import (
    ReportData,
    ScoredImages,
    bootstrap,
    count_found,
    rank_curves,
    thick_pixels,
)
from train_utils.reporting.text_files import image_rows

VOID = {
    "area",
    "base",
    "br",
    "col",
    "embed",
    "hr",
    "img",
    "input",
    "link",
    "meta",
    "source",
    "track",
    "wbr",
}


class Page(HTMLParser):
    """Checks that every element is closed in order; keeps the tags, the attributes and the text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.note(tag, attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.note(tag, attributes)

    def note(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data if self.open[-1:] != ["style"] else ""


def stands_alone(text):
    """The Page, which loads nothing from elsewhere and runs no script."""
    page = Page(text)
    assert "script" not in page.tags and "link" not in page.tags and "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    for _, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            assert value.startswith(("data:image/", "#")), value
        assert not name.startswith("on")
    assert page.tags.count("h1") == 1 and ("meta", "name", "viewport") in page.attributes
    return page


# --- intervals ------------------------------------------------------------------------------------


def confusion(*cells):
    """[images, 2, 2] of (TP, FP, FN, TN) of each image."""
    return torch.tensor([[[tn, fp], [fn, tp]] for tp, fp, fn, tn in cells])


def test_images_that_are_alike_leave_no_interval():
    intervals = bootstrap(confusion(*[(30, 10, 20, 40)] * 7))
    for name in ("f1", "dice"):
        assert intervals[name] == pytest.approx((60 / 90, 60 / 90))


def test_interval_of_two_images_by_hand():
    a, b = (10, 0, 0, 90), (1, 3, 6, 90)  # F1 1 and 2/11; pooled 22/31
    wide = bootstrap(confusion(a, b))  # a quarter of the resamples is twice b, a quarter twice a
    assert (
        wide["f1"]
        == wide["dice"]
        == bootstrap(confusion(a, b), level=0.6)["f1"]
        == pytest.approx((2 / 11, 1))
    )
    narrow = bootstrap(confusion(a, b), level=0.4)  # within the half that has one of each
    assert narrow["f1"] == pytest.approx((22 / 31, 22 / 31))
    assert narrow["dice"] == pytest.approx(((1 + 2 / 11) / 2,) * 2)


def test_interval_depends_on_the_seed_alone():
    rng = np.random.default_rng(0)
    counts = torch.from_numpy(rng.integers(1, 1000, (20, 2, 2)))
    state = torch.get_rng_state()
    assert bootstrap(counts) == bootstrap(counts) != bootstrap(counts, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    low, high = bootstrap(counts)["f1"]
    wider = bootstrap(counts, level=0.99)["f1"]
    assert wider[0] < low < high < wider[1]


def test_interval_without_foreground_in_some_images_or_all():
    some = bootstrap(confusion((10, 10, 10, 10), (0, 0, 0, 40)))
    assert some["f1"] == some["dice"] == pytest.approx((0.5, 0.5))
    assert all(
        math.isnan(value) for pair in bootstrap(confusion((0, 0, 0, 40))).values() for value in pair
    )


def test_interval_of_more_classes_is_of_the_mean_over_the_foreground():
    matrix = torch.tensor([[[5, 1, 0], [0, 4, 2], [1, 0, 3]]])
    dice = (8 / (6 + 5) + 6 / (4 + 5)) / 2
    assert bootstrap(matrix)["f1"] == bootstrap(matrix)["dice"] == pytest.approx((dice, dice))


# --- thin and thick -------------------------------------------------------------------------------


@pytest.mark.parametrize("width, thick", [(1, False), (2, False), (3, True), (4, True), (7, True)])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("start", [0, 5])
def test_a_bar_is_thick_from_three_pixels_on(width, thick, turned, start):
    label = torch.zeros(20, 25, dtype=torch.bool)
    label[start : start + width, 4:] = True  # at the rim and inside
    label = label.T if turned else label
    assert torch.equal(thick_pixels(label), label if thick else torch.zeros_like(label))


def test_widths_of_ones_own():
    label = torch.zeros(30, 30, dtype=torch.bool)
    label[5:9], label[15:20] = True, True
    assert thick_pixels(label, size=5).nonzero()[:, 0].unique().tolist() == [15, 16, 17, 18, 19]
    assert torch.equal(thick_pixels(label, size=4), label)
    assert torch.equal(thick_pixels(label, size=1), label)


@pytest.mark.parametrize("diagonals, thick", [(3, False), (4, False), (5, True)])
def test_a_diagonal_bar_is_thick_from_five_diagonals_on(diagonals, thick):
    down, right = torch.meshgrid(torch.arange(30), torch.arange(30), indexing="ij")
    label = (down - right + diagonals // 2 >= 0) & (down - right + diagonals // 2 < diagonals)
    assert bool(thick_pixels(label)[15, 15]) == thick


def test_a_branch_and_a_bump_of_a_thick_vessel_are_thin():
    label = torch.zeros(12, 12, dtype=torch.bool)
    label[4:8] = True
    label[:4, 6] = True  # a branch of one pixel
    label[8, 2] = True  # a bump
    thick = thick_pixels(label)
    assert thick[4:8].all() and thick.sum() == 4 * 12


def test_an_image_smaller_than_the_square_has_nothing_thick():
    assert not thick_pixels(torch.ones(2, 9, dtype=torch.bool)).any()
    assert thick_pixels(torch.ones(3, 3, dtype=torch.bool)).all()


def test_found_pixels_by_hand():
    target = torch.tensor([[1, 1, 255, 0], [1, 1, 1, 0]])
    thick = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 0]]).bool()
    predicted = torch.tensor([[1, 0, 1, 1], [1, 1, 0, 1]]).bool()
    assert count_found(target, predicted, thick).tolist() == [[2, 3], [1, 2]]


# --- report data ----------------------------------------------------------------------------------


def of_vessel(values):
    vessel = torch.tensor(values)
    return torch.stack([1 - vessel, vessel])


def cells(scored):
    (tn, fp), (fn, tp) = scored.counts.image_mats.sum(0).tolist()
    return tp, fp, fn, tn


def test_roi_and_whole_frame_by_hand():
    target = torch.tensor([[1, 0, 255], [1, 0, 255]], dtype=torch.uint8)
    frame = torch.tensor([[1, 0, 1], [1, 0, 0]], dtype=torch.uint8)
    report_data = ReportData(2, [target], [frame])
    report_data(of_vessel([[0.9, 0.8, 0.7], [0.2, 0.1, 0.6]]))
    assert cells(report_data.roi) == (1, 1, 1, 1)
    assert cells(report_data.frame) == (
        1,
        1,
        2,
        2,
    )  # outside the ROI: one label missed, one background for nothing
    assert cells(report_data.raw) == (2, 2, 1, 1)
    assert report_data.has_outside() and not report_data.observer.images
    assert report_data.predictions[0].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert report_data.found.tolist() == [[1, 2], [0, 0]]
    # inside, .9 beats .8 and .1, .2 beats .1 alone; over the frame two pixels of 0 are last
    assert summarize(report_data.roi.counts)["auc"] == pytest.approx(3 / 4)
    assert summarize(report_data.frame.counts)["auc"] == pytest.approx((3 + 2 + 0.5) / 9)


def test_without_roi_all_conventions_are_one():
    label = torch.tensor([[1, 0], [0, 1]], dtype=torch.uint8)
    report_data = ReportData(2, [label], [label])
    report_data(of_vessel([[0.9, 0.8], [0.2, 0.1]]))
    assert not report_data.has_outside() and cells(report_data.roi) == cells(
        report_data.frame
    ) == cells(report_data.raw)


def test_thin_and_thick_are_told_by_the_whole_label_and_counted_inside_the_roi():
    frame = torch.zeros(9, 9, dtype=torch.uint8)
    frame[:, 3:6] = 1
    target = frame.clone()
    target[:, 4:] = 255  # the ROI leaves one column of the bar, which is thick all the same
    report_data = ReportData(2, [target], [frame])
    report_data(of_vessel([[0.0] * 3 + [1.0] + [0.0] * 5] * 9))
    assert report_data.found.tolist() == [[0, 0], [9, 9]]


def test_second_observer_by_hand_and_only_where_there_is_one():
    target = torch.tensor([[1, 1, 0, 0, 255]], dtype=torch.uint8)
    second = torch.tensor([[1, 0, 1, 0, 255]], dtype=torch.uint8)
    report_data = ReportData(2, [target, target], [target % 255, target % 255], [None, second])
    for _ in range(2):
        report_data(of_vessel([[0.0] * 5]))
    assert cells(report_data.observer) == (1, 1, 1, 1) and len(report_data.observer.images) == 1
    assert report_data.observer_found.tolist() == [[1, 2], [0, 0]]


def test_rows_that_a_loader_took_for_padding_are_background():
    target = torch.tensor([[1, 0], [255, 255]], dtype=torch.uint8)
    frame = torch.tensor([[1, 0], [0, 0]], dtype=torch.uint8)
    report_data = ReportData(2, [target], [frame])
    report_data(of_vessel([[0.9, 0.8]]))
    assert cells(report_data.frame) == cells(report_data.raw) == (1, 1, 0, 2)


def test_scores_of_single_images_and_their_mean():
    scored = ScoredImages(2)
    scored.add_image(torch.tensor([[1, 0]]), of_vessel([[0.9, 0.1]]))
    scored.add_image(torch.tensor([[1, 0]]), of_vessel([[0.4, 0.6]]))
    scored.add_image(
        torch.tensor([[0, 0]]), of_vessel([[0.4, 0.1]])
    )  # no foreground: no Dice, no sensitivity, no AUC
    assert [image["accuracy"] for image in scored.images] == [1, 0, 1]
    assert scored.mean_and_sd("sensitivity") == scored.mean_and_sd("auc") == (0.5, 0.5)
    assert scored.mean_and_sd("accuracy") == pytest.approx((2 / 3, math.sqrt(2) / 3))
    assert all(map(math.isnan, ScoredImages(2).mean_and_sd("dice")))


def test_rank_curves_by_hand():
    negatives, positives = torch.zeros(2, BINS, dtype=torch.int64)
    positives[[60000, 100]], negatives[[60000, 30000]] = torch.tensor([3, 1]), torch.tensor([1, 3])
    false, true, precision = rank_curves(negatives, positives)
    assert false.tolist() == [0.25, 1, 1] and true.tolist() == [0.75, 0.75, 1]
    assert precision.tolist() == pytest.approx([3 / 4, 3 / 7, 4 / 8])
    assert (
        rank_curves(negatives * 0, positives) is None
        and rank_curves(negatives, positives * 0) is None
    )


def test_the_second_observer_of_drive_scores_as_published(drive_root):
    dataset = DriveDataset(drive_root, train=False)
    report_data = collect_report_data(dataset)
    for target in report_data.targets:
        report_data(torch.zeros(2, *target.shape))
    scores = summarize(report_data.observer.counts)
    expected = {
        "f1": 0.7891,
        "dice": 0.7881,
        "accuracy": 0.9473,
        "sensitivity": 0.7746,
        "specificity": 0.9725,
        "mean_iou": 0.797,
    }
    assert {
        name: round(scores[name], 3 if name == "mean_iou" else 4) for name in expected
    } == expected
    assert scores["pixels"] == 4_538_143 and len(report_data.observer.images) == 20
    assert summarize(report_data.frame.counts)["pixels"] == 20 * 565 * 584
    (thin_found, thin), (thick_found, thick) = report_data.observer_found.tolist()
    assert thin_found / thin < thick_found / thick and 0.1 < thin / (thin + thick) < 0.5


def test_the_second_observer_is_listed_where_there_is_one(tiny_copy):
    assert all(sample.second is None for sample in list_drive(tiny_copy, train=False))
    (tiny_copy / "DRIVE/test/2nd_manual").mkdir()
    shutil.copy(
        tiny_copy / "DRIVE/test/1st_manual/02_manual1.gif",
        tiny_copy / "DRIVE/test/2nd_manual/02_manual2.gif",
    )
    assert [
        sample.second and sample.second.name for sample in list_drive(tiny_copy, train=False)
    ] == [
        None,
        "02_manual2.gif",
    ]


# --- the page -------------------------------------------------------------------------------------


def made_up(num_classes=2, num_images=5, names=None, outside=True, size=(40, 30), spacing=None):
    """(content, report_data, class names, image_of) of an evaluation of random pictures."""
    generator = torch.Generator().manual_seed(num_classes)
    frames = [
        torch.randint(num_classes, size, generator=generator).byte() for _ in range(num_images)
    ]
    targets = [frame.clone() for frame in frames]
    for target in targets:
        target[:5] = 255 if outside else target[:5]
    seconds = [frame.roll(1, 0) for frame in frames]
    report_data = ReportData(num_classes, targets, frames, seconds, spacing=spacing)
    for frame in frames:
        truth = torch.eye(num_classes)[frame.long()].movedim(-1, 0)
        report_data((3 * torch.rand(num_classes, *size, generator=generator) + truth).softmax(0))
    names = names or [f"image {i}" for i in range(num_images)]
    scores = summarize(report_data.roi.counts, 0.4)
    content = {
        "command": "python train.py",
        "commit": None,
        "versions": {"torch": "2"},
        "weights": ["a.pth", "b.pth"],
        "flips": True,
        "selection": "validation images",
        "epoch": [3, 4],
        "split": [{"train": ["x"], "val": []}] * 2,
        "threshold": 0.4,
        "scores": scores,
        "images": image_rows(names, report_data.roi.counts),
    }
    class_names = ["background", *(f"class {c}" for c in range(1, num_classes))]
    if spacing:
        return content, report_data, class_names, lambda i: torch.rand(1, *size)
    return content, report_data, class_names, lambda i: np.full((*size, 3), 20 * i, np.uint8)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_page_of_volumes_shows_slices_and_no_thin_structures(num_classes):
    content, report_data, class_names, image_of = made_up(
        num_classes, size=(9, 12, 14), spacing=[3.0, 1.0, 1.0]
    )
    page = stands_alone(report.page("volumes", content, report_data, class_names, image_of))
    assert "5 volumes" in page.text and "voxels of 3×1×1 (D×H×W)" in page.text
    assert page.tags.count("img") == 8  # slices and errors of the two best and the two worst
    assert "hin and thick" not in page.text and "whole frame, raw" in page.text


@pytest.mark.parametrize("num_classes", [2, 3, 12])
def test_page_is_whole_and_stands_alone(num_classes):
    content, report_data, class_names, image_of = made_up(num_classes)
    page = stands_alone(report.page("a dataset", content, report_data, class_names, image_of))
    for name in (
        "f1",
        "dice",
        "auc",
        "average_precision",
        "accuracy",
        "sensitivity",
        "specificity",
        "mean_iou",
    ):
        assert f"{content['scores'][name]:.4f}" in page.text
    for value in content["scores"]["iou_per_class"]:
        assert f"{value:.4f}" in page.text
    for low, high in bootstrap(report_data.roi.counts.image_mats).values():
        assert f"95 % interval {low:.4f} to {high:.4f}" in page.text
    assert (
        "whole frame" in page.text
        and f"{summarize(report_data.frame.counts)['accuracy']:.4f}" in page.text
    )
    assert all(name in page.text for name in class_names) and page.tags.count("svg") == 2
    assert (
        page.tags.count("img") == 8
        and "ensemble of 2 models" in page.text
        and "four flips" in page.text
    )
    binary = num_classes == 2
    assert (
        (f"recall, thin {class_names[1]}" in page.text)
        == ("second observer" in page.text)
        == ("chosen threshold" in page.text)
        == binary
    )


def test_names_are_escaped():
    bad = '<script src="http://evil/x.js">&\'$_{'
    content, report_data, class_names, image_of = made_up(names=[f"{bad}{i}" for i in range(5)])
    content |= {"command": bad, "selection": bad, "weights": [bad]}
    text = report.page(bad, content, report_data, ["background", f"_{bad}"], image_of)
    page = stands_alone(text)
    assert page.text.count(bad) >= 10 and "<script" not in text and f"{html.escape(bad)}3" in text


def test_without_anything_outside_the_roi_one_convention_is_shown():
    content, report_data, class_names, image_of = made_up(outside=False)
    text = stands_alone(report.page("a dataset", content, report_data, class_names, image_of)).text
    assert "No pixel lies outside" in text and "whole frame, raw" not in text


@pytest.mark.parametrize(
    "num_images, best, worst", [(1, 1, 0), (2, 1, 1), (3, 2, 1), (4, 2, 2), (9, 2, 2)]
)
def test_no_image_is_best_and_worst(num_images, best, worst):
    content, report_data, class_names, image_of = made_up(num_images=num_images)
    titles = re.findall(
        r"<h3>(Best|Worst): (.*?), Dice",
        report.page("a dataset", content, report_data, class_names, image_of),
    )
    dice = sorted(content["images"], key=lambda row: -row["dice"])
    assert [kind for kind, _ in titles] == ["Best"] * best + ["Worst"] * worst
    assert [name for _, name in titles[:best]] == [row["name"] for row in dice[:best]]
    assert [name for _, name in titles[best:]] == [row["name"] for row in dice[::-1][:worst]]


def test_what_has_no_score_is_a_dash():
    label = torch.zeros(8, 8, dtype=torch.uint8)
    report_data = ReportData(2, [label], [label])
    report_data(torch.stack([torch.ones(8, 8), torch.zeros(8, 8)]))
    content = made_up()[0] | {
        "scores": summarize(report_data.roi.counts),
        "threshold": None,
        "images": image_rows(["empty"], report_data.roi.counts),
    }
    text = stands_alone(report.page("a dataset", content, report_data, ["a", "b"], None)).text
    assert (
        "nan" not in text.lower()
        and "–" in text
        and "have no Dice" in text
        and "chosen threshold" not in text
    )


def test_csv_counts_classes_from_the_background(tmp_path):
    content, report_data, class_names, image_of = made_up(3)
    report.save(tmp_path, "a dataset", content, report_data, class_names, image_of)
    row = list(csv.DictReader((tmp_path / "images.csv").open(encoding="utf-8")))[2]
    matrix = report_data.roi.counts.image_mats[2]
    for c in range(3):
        assert float(row[f"recall_{c}"]) == pytest.approx(float(matrix[c, c] / matrix[c].sum()))
        assert c == 0 or int(row[f"tp_{c}"]) == matrix[c, c]
    assert row["name"] == "image 2" and "tp_0" not in row


# --- whole runs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tiny_root, tmp_path_factory):
    options = ("--epochs", 8, "--optimizer", "adamw", "--lr", "0.01")
    return run_train(tiny_root, tmp_path_factory.mktemp("run"), *options) / "best_model.pth"


def test_train_py_writes_the_report(weights, tiny_copy, tmp_path):
    (tiny_copy / "DRIVE/test/2nd_manual").mkdir()
    for path in (
        tiny_copy / "DRIVE/test/1st_manual"
    ).iterdir():  # an observer who saw all one pixel lower
        label = np.roll(np.asarray(Image.open(path)), 1, axis=0)
        Image.fromarray(np.where(label > 0, 253, 3).astype(np.uint8)).save(
            tiny_copy / f"DRIVE/test/2nd_manual/{path.name[:2]}_manual2.gif", optimize=False
        )
    options = ("--test-only", "--weights", weights)
    passes = []
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, *_: passes.append(1) if isinstance(module, UNet) else None
    )
    with hook:
        run_train(tiny_copy, tmp_path / "without", *options)
        expected = len(passes)
        run_train(tiny_copy, tmp_path, *options, "--report", tmp_path / "deep/report")
    assert len(passes) == 2 * expected > 0  # the report needs no pass of its own
    scores = json.loads((tmp_path / "test_scores.json").read_text())
    text = (tmp_path / "deep/report/report.html").read_text(encoding="utf-8")
    page = stands_alone(text)
    for name, value in scores["scores"].items():
        if isinstance(value, float):
            assert f"{value:.4f}" in page.text, name
    for fact in ("command", "commit", "machine", "selection"):
        assert (scores[fact] or "–") in page.text  # outside of a repository there is no commit
    assert (
        "second observer, 2 images" in page.text
        and "01_test" in page.text
        and str(weights) in page.text
    )
    rows = list(csv.DictReader((tmp_path / "deep/report/images.csv").open(encoding="utf-8")))
    for row, image in zip(rows, scores["images"], strict=True):
        assert row["name"] == image["name"]
        assert all(float(row[name]) == image[name] for name in ("dice", "tp", "fp", "fn", "tn"))
        assert (
            float(row["sensitivity"]) == image["tp"] / (image["tp"] + image["fn"])
            and 0.4 < float(row["auc"]) <= 1
        )


def test_report_leaves_the_scores_as_they_are(weights, tiny_root, tmp_path):
    for folder, options in (("with", ("--report", tmp_path / "report")), ("without", ())):
        run_train(tiny_root, tmp_path / folder, "--test-only", "--weights", weights, *options)
    one, other = (
        json.loads((tmp_path / folder / "test_scores.json").read_text())
        for folder in ("with", "without")
    )
    assert one["scores"] == other["scores"] and one["images"] == other["images"]
    assert "second observer" not in (tmp_path / "report/report.html").read_text(encoding="utf-8")
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "images.csv",
        "report.html",
    ]

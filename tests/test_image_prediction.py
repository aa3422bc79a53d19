"""Few images are held in memory, and one fails alone; whole runs are in test_predict.py."""

from concurrent.futures import Future

import pytest
import torch
from PIL import Image

from src.predictor import Predictor
from src.tiles import Tiling
from tests.small import make_model
from train_utils.data.inputs import Input, Job
from train_utils.data.reading import Picture
from train_utils.image_prediction import ImagePredictor, Written, is_too_much
from train_utils.prediction_scores import ImageScores
from train_utils.reporting.image_files import ImageFiles
from train_utils.reporting.prediction_tables import ImageTable


def test_images_being_written_are_few_where_they_are_large(tmp_path):
    def written(count, side):
        job = Job(Input(tmp_path / "x.png", "x"), None, None)
        return [Written(job, (side, side), 0.1, Future()) for _ in range(count)]

    assert not is_too_much(written(16, 500)) and is_too_much(written(17, 500))
    assert not is_too_much(written(2, 4000)) and is_too_much(written(3, 4000))


@pytest.mark.parametrize("tiling", [Tiling(), Tiling(64, 32)], ids=["batch", "tiles"])
def test_an_image_without_finite_probabilities_fails_alone(tmp_path, tiling):
    """One of three images, whose last rows overflow: the others are written and scored."""
    jobs = [Job(Input(tmp_path / f"{name}.png", name), None, None) for name in "abc"]
    label = torch.zeros(160, 24, dtype=torch.uint8)

    def read(job):
        image = torch.full((3, 160, 24), 10, dtype=torch.uint8)
        if job.input.name == "b":
            image[:, -10:] = 255
        return Picture(job, image, None, label)

    def prepare(images):
        return images.float().masked_fill(images == 255, torch.nan)

    for job in jobs:
        Image.new("RGB", (24, 160)).save(job.input.path)
    names = ["no", "yes"]
    predictor = Predictor(make_model().eval(), torch.device("cpu"), None, prepare, tiling=tiling)
    files = ImageFiles(tmp_path, names, [[0, 0, 0], [255, 255, 255]], [0, 1])
    table, scores = ImageTable(tmp_path, names, False), ImageScores(names, 0.5)
    failed = ImagePredictor(predictor, read, 0.5, files, table, scores).predict_all(jobs)
    [(path, reason)] = failed.items()
    assert path == str(tmp_path / "b.png") and f"{path}: " in reason and "not finite" in reason
    assert scores.names == ["a", "c"] and "b" not in table and "c" in table
    assert scores.counts.mat.sum() == 2 * 160 * 24
    assert sorted(path.name for path in tmp_path.glob("*_mask.png")) == ["a_mask.png", "c_mask.png"]

"""The loop of predict.py holds few images in memory; whole runs are in test_predict.py."""

from concurrent.futures import Future

import torch
from PIL import Image

from src.predictor import Predictor
from tests.small import make_model
from train_utils.data.inputs import Input
from train_utils.data.reading import Job, Picture
from train_utils.prediction import ImagePredictor, Written, is_too_much
from train_utils.prediction_scores import PredictionScores
from train_utils.reporting.prediction_files import PredictionFiles
from train_utils.reporting.prediction_tables import PredictionTable


def test_images_being_written_are_few_where_they_are_large(tmp_path):
    def written(count, side):
        job = Job(Input(tmp_path / "x.png", "x"), None, None)
        return [Written(job, (side, side), 0.1, Future()) for _ in range(count)]

    assert not is_too_much(written(16, 500)) and is_too_much(written(17, 500))
    assert not is_too_much(written(2, 4000)) and is_too_much(written(3, 4000))


def test_an_image_without_finite_probabilities_fails_alone(tmp_path):
    """One of three images of a batch: the others are written and scored."""
    jobs = [Job(Input(tmp_path / f"{name}.png", name), None, None) for name in "abc"]

    def read(job):
        value = 255 if job.input.name == "b" else 10
        image = torch.full((3, 20, 24), value, dtype=torch.uint8)
        return Picture(job, image, None, torch.zeros(20, 24, dtype=torch.uint8))

    def prepare(images):
        return images.float().masked_fill(images == 255, torch.nan)

    for job in jobs:
        Image.new("RGB", (24, 20)).save(job.input.path)
    model, names = make_model().eval(), ["no", "yes"]
    table = PredictionTable(tmp_path, names, False)
    scores = PredictionScores(names, 0.5, with_objects=False, with_report=False)
    files = PredictionFiles(tmp_path, names, [[0, 0, 0], [255, 255, 255]], [0, 1])
    predictor = Predictor(model, torch.device("cpu"), None, prepare)
    failed = ImagePredictor(predictor, read, 0.5, files, table, scores).predict_all(jobs)
    [(path, reason)] = failed.items()
    assert path == str(tmp_path / "b.png") and f"{path}: " in reason and "not finite" in reason
    assert scores.names == ["a", "c"] and "b" not in table and "c" in table
    assert sorted(path.name for path in tmp_path.glob("*_mask.png")) == ["a_mask.png", "c_mask.png"]

"""The loop of predict.py holds few images in memory; whole runs are in test_predict.py."""

from concurrent.futures import Future

from train_utils.data.inputs import Input
from train_utils.data.reading import Job
from train_utils.prediction import Written, is_too_much


def test_images_being_written_are_few_where_they_are_large(tmp_path):
    def written(count, side):
        job = Job(Input(tmp_path / "x.png", "x"), None, None)
        return [Written(job, (side, side), 0.1, Future()) for _ in range(count)]

    assert not is_too_much(written(16, 500)) and is_too_much(written(17, 500))
    assert not is_too_much(written(2, 4000)) and is_too_much(written(3, 4000))

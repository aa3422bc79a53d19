"""How long a run takes: measured on ten steps and some evaluated images, by a clock of its own."""

import re
import time

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import train
from my_dataset import Data, DriveDataset
from tests.small import make_model
from train_utils.budget import trial_steps
from train_utils.data_loader import batches_ahead
from train_utils.step_timer import (
    DRAWN_IMAGES,
    PICTURES_SECONDS,
    StepTimer,
    image_seconds,
    saving_seconds,
)
from transforms import eval_preset


def timer_of(steps, times, **options):
    """A StepTimer whose clock shows these times."""
    settings = {"epochs": 10, "val_images": 4, "test_images": 3, **options}
    shown = iter(times)
    settings |= {"image_seconds": lambda: (0.5, 0.125), "saving_seconds": lambda: 0.25}
    return StepTimer(steps, now=lambda: next(shown), **settings)


def test_the_time_left_is_that_of_the_steps_and_the_evaluations(capsys):
    timer = timer_of(100, [1000.0, 1018.0])  # nine steps of two seconds
    for _ in range(9):
        timer.count_batch()
    assert capsys.readouterr().out == "" and timer.step_seconds == 0
    timer.count_batch()
    assert timer.step_seconds == 2.0
    assert timer.evaluation_seconds() == 4 * 0.5 + 0.25
    assert timer.end_seconds() == (3 + DRAWN_IMAGES) * 0.5 + 3 * 0.125 + PICTURES_SECONDS
    left = 90 * 2 + 10 * timer.evaluation_seconds() + timer.end_seconds()
    line = capsys.readouterr().out
    found = re.match(r"100 steps in all: about 0:(\d\d):(\d\d) left, until", line)
    assert 60 * int(found[1]) + int(found[2]) == pytest.approx(left, abs=1)
    for _ in range(90):
        timer.count_batch()
    assert capsys.readouterr().out == ""


def test_optimizer_steps_are_counted_and_the_steps_said_are_those_of_the_whole_run(capsys):
    """Nine steps of two seconds, each of three batches, of a run that continues at step 40."""
    timer = timer_of(100, [0.0, 18.0], first_step=40, accumulate=3)
    for _ in range(29):
        timer.count_batch()
    assert capsys.readouterr().out == "" and timer.step_seconds == 0
    timer.count_batch()
    assert timer.step_seconds == 2.0
    left = 50 * 2 + 10 * timer.evaluation_seconds() + timer.end_seconds()
    found = re.match(r"100 steps in all: about 0:(\d\d):(\d\d) left", capsys.readouterr().out)
    assert 60 * int(found[1]) + int(found[2]) == pytest.approx(left, abs=1)


@pytest.mark.parametrize("first_step, hinted", [(0, True), (40, False)])
def test_a_long_run_names_the_flag_that_makes_it_shorter(first_step, hinted, capsys):
    timer = timer_of(1000, [0.0, 90.0], first_step=first_step)  # ten seconds a step
    for _ in range(10):
        timer.count_batch()
    assert ("--minutes 60" in capsys.readouterr().out) == hinted


def test_while_the_length_is_not_known_the_speed_is_measured_silently(capsys):
    timer = timer_of(100, [0.0, 18.0], silent=True)
    for _ in range(10):
        timer.count_batch()
    assert timer.step_seconds == 2.0 and capsys.readouterr().out == ""


def test_a_short_run_measures_its_speed_and_says_nothing(capsys):
    timer = timer_of(10, [0.0, 0.9])
    for _ in range(10):
        timer.count_batch()
    assert timer.step_seconds == pytest.approx(0.1) and capsys.readouterr().out == ""


def test_images_are_timed_once():
    calls = []
    times = {"image_seconds": lambda: calls.append(1) or (1.0, 0.5)}
    timer = StepTimer(5, 2, 3, 4, **times, saving_seconds=lambda: calls.append(2) or 1.0)
    assert timer.evaluation_seconds() + timer.end_seconds() > 8
    assert timer.evaluation_seconds() == 4 and sorted(calls) == [1, 2]


def test_steps_whose_batches_were_loaded_ahead_are_left_out(capsys):
    """Two workers hold two batches each: the speed is that of steps 6 to 14, three seconds each."""
    dataset = TensorDataset(torch.zeros(40, 1))
    loader = DataLoader(dataset, 4, num_workers=2, prefetch_factor=2)
    trial = trial_steps(batches_ahead(loader), accumulate=1)
    assert trial == 14
    timer = timer_of(100, [5.0, 32.0], trial=trial)
    with timer.epoch():
        for _ in range(13):
            timer.count_batch()
        assert capsys.readouterr().out == "" and timer.step_seconds == 0
        timer.count_batch()
    assert timer.step_seconds == 3.0
    left = 86 * 3 + 10 * timer.evaluation_seconds() + timer.end_seconds()
    found = re.match(r"100 steps in all: about 0:(\d\d):(\d\d) left", capsys.readouterr().out)
    assert 60 * int(found[1]) + int(found[2]) == pytest.approx(left, abs=1)


@pytest.mark.parametrize("ahead, accumulate, steps", [(0, 1, 10), (16, 1, 26), (16, 3, 16)])
def test_the_batches_loaded_ahead_are_those_of_some_steps(ahead, accumulate, steps):
    assert trial_steps(ahead, accumulate) == steps


def test_validation_images_are_read_again_unless_they_are_in_memory():
    slow_reading = {"image_seconds": lambda: (0.5, 2.0), "saving_seconds": lambda: 0.25}
    for in_memory, seconds in ((True, 0.5), (False, 2.0)):
        timer = StepTimer(100, 10, 4, 3, **slow_reading, val_in_memory=in_memory)
        assert timer.evaluation_seconds() == 4 * seconds + 0.25
        assert timer.end_seconds() == (3 + DRAWN_IMAGES) * 0.5 + 3 * 2.0 + PICTURES_SECONDS


def test_without_validation_an_epoch_is_only_saved():
    timer = StepTimer(100, 10, 0, 0, lambda: (0.5, 2.0), lambda: 0.25)
    assert timer.evaluation_seconds() == 0.25


def test_what_is_done_between_epochs_is_no_part_of_a_step(capsys):
    """Epochs of four steps of two seconds, the first step of the run apart; 30 s between them."""
    times = [5.0, 11.0, 41.0, 49.0, 79.0, 83.0]  # steps 1 to 4, 5 to 8, 9 and 10
    timer = timer_of(20, times, epochs=5, val_images=0)
    for count in (4, 4, 4):
        with timer.epoch():
            for _ in range(count):
                timer.count_batch()
    assert timer.step_seconds == 2.0 and timer.epochs == 2
    left = 10 * 2 + 3 * 0.25 + timer.end_seconds()  # at step 10 three epochs are left
    found = re.match(r"20 steps in all: about 0:(\d\d):(\d\d) left", capsys.readouterr().out)
    assert 60 * int(found[1]) + int(found[2]) == pytest.approx(left, abs=1)


def test_epochs_may_be_shorter_than_a_step():
    """Of eight batches, in epochs of three: the first step ends in the third epoch."""
    timer = timer_of(9, [float(second) for second in range(100)], accumulate=8)
    for _ in range(2):
        with timer.epoch():
            for _ in range(3):
                timer.count_batch()
    assert timer.start is None and timer.seconds == 0


def test_the_time_of_a_checkpoint_is_measured_without_leaving_a_file(tmp_path, monkeypatch):
    shown, written = iter([1.0, 1.5]), []
    save = torch.save
    monkeypatch.setattr(time, "perf_counter", lambda: next(shown))
    monkeypatch.setattr(torch, "save", lambda *args: written.append(args[0]) or save(*args))
    model = make_model()
    assert saving_seconds(tmp_path, model) == 1.5 and list(tmp_path.iterdir()) == []
    assert written[0].keys() == model.state_dict().keys()


def test_the_timed_images_are_a_few_of_the_dataset_and_training_continues(tiny_root):
    dataset = DriveDataset(tiny_root, True, eval_preset([0.5] * 3, [0.2] * 3))
    model, seen = make_model().train(), []

    def evaluate(model, dataset):
        model.eval()
        seen.append([sample.name for sample in dataset.samples])
        assert dataset.fits_in_memory() and dataset[0][0].dtype == torch.float32

    evaluating, reading = image_seconds(evaluate, model, dataset)
    assert evaluating > 0 and reading > 0
    assert seen == [["21_training", "23_training", "25_training"]] * 2
    assert model.training


def test_small_and_large_images_are_timed(tiny_root):
    dataset = DriveDataset(tiny_root, True, eval_preset([0.5] * 3, [0.2] * 3))
    dataset.samples = dataset.samples[:4] * 2  # of eight, every second one by size
    dataset.sizes = {index: (8 - index, 10) for index in range(8)}
    data = Data(dataset, None, [], {}, torch.zeros(256), [0.5] * 3, [0.2] * 3)
    images = train.whole_training_images(data, eval_preset(data.mean, data.std))
    seen = []
    for each in (dataset, images):
        image_seconds(lambda model, timed: seen.append(timed.samples), make_model(), each)
    assert seen == 4 * [[dataset.samples[index] for index in (7, 5, 3, 1)]]

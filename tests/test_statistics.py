"""Channel statistics, computed by hand."""

import pytest
import torch

from src.image_io import IGNORE
from train_utils.data.statistics import channel_statistics, choose_mean_and_std, rounded


class TwoImages:
    """Images of one channel with 3 and 1 valid pixels; the ignored pixels are 255."""

    values = [[0, 51, 102, 255], [204, 255, 255, 255]]
    targets = [[0, 1, 0, IGNORE], [1, IGNORE, IGNORE, IGNORE]]

    def __len__(self):
        return 2

    def read(self, index):
        image = torch.tensor(self.values[index], dtype=torch.uint8).view(1, 2, 2)
        return image, torch.tensor(self.targets[index], dtype=torch.uint8).view(2, 2)


def test_channel_statistics_by_hand():
    found = channel_statistics(TwoImages())
    mean, std = found["pooled"]  # of 0, 0.2, 0.4 and 0.8
    assert mean.item() == pytest.approx(0.35)
    assert std.item() == pytest.approx(0.0875**0.5)
    mean, std = found["per image"]  # of 0, 0.2, 0.4, and of 0.8
    assert mean.item() == pytest.approx((0.2 + 0.8) / 2)
    assert std.item() == pytest.approx((0.08 / 3) ** 0.5 / 2)
    assert mean.dtype == torch.float64 and mean.shape == std.shape == (1,)


def test_only_missing_statistics_are_computed():
    assert choose_mean_and_std([0.5], [0.25], None) == ([0.5], [0.25])
    assert choose_mean_and_std(None, None, TwoImages()) == ([0.35], [0.2958])
    assert choose_mean_and_std([0.5], None, TwoImages()) == ([0.5], [0.2958])


def test_a_blank_channel_has_a_std_above_0():
    class Blank(TwoImages):
        values = [[9, 9, 9, 9]] * 2

    assert choose_mean_and_std(None, None, Blank())[1] == [0.001]


def test_rounded_values_are_those_that_training_uses():
    found = channel_statistics(TwoImages())["pooled"]
    assert rounded(found) == choose_mean_and_std(None, None, TwoImages())
    assert rounded((torch.tensor([0.00321]), torch.tensor([0.0]))) == ([0.0032], [0.001])

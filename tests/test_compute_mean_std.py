"""compute_mean_std.py: pooled statistics are those of the pixels, and both kinds are printed."""

import numpy as np
import pytest
import torch

import compute_mean_std
from my_dataset import SegmentationDataset, list_drive


class TwoImages(list):
    """A data set of two images whose ROIs differ in size."""

    def read(self, index):
        return self[index]


@pytest.fixture
def two():
    generator = torch.Generator().manual_seed(0)
    items = []
    for roi_rows, offset in ((2, 0), (30, 100)):
        image = torch.randint(offset, offset + 100, (3, 32, 16), generator=generator).byte()
        target = torch.full((32, 16), 255, dtype=torch.uint8)
        target[:roi_rows] = 0
        items.append((image, target))
    return TwoImages(items)


def test_pooled_is_over_pixels_and_per_image_over_images(two):
    found = compute_mean_std.statistics(two)
    inside = [image[:, target != 255].numpy() / 255 for image, target in two]
    pixels = np.concatenate(inside, axis=1)
    np.testing.assert_allclose(found["pooled"][0], pixels.mean(1))
    np.testing.assert_allclose(found["pooled"][1], pixels.std(1))
    np.testing.assert_allclose(found["per image"][0], np.mean([i.mean(1) for i in inside], axis=0))
    np.testing.assert_allclose(found["per image"][1], np.mean([i.std(1) for i in inside], axis=0))
    assert abs(found["pooled"][0] - found["per image"][0]).max() > 0.05  # here the two do differ


def test_prints_both_with_flags_to_paste(tiny_root, capsys):
    compute_mean_std.main(compute_mean_std.parse_args(["--data-path", str(tiny_root)]))
    out = capsys.readouterr().out
    assert (
        "pooled over all pixels" in out
        and "mean over images" in out
        and "train.py --mean 0." in out
    )


def test_drive_gives_the_tutorials_constants(drive_root):
    mean, std = compute_mean_std.statistics(
        SegmentationDataset(list_drive(drive_root, train=True))
    )["per image"]
    assert [round(v, 3) for v in mean.tolist()] == [0.709, 0.381, 0.224]
    assert [round(v, 3) for v in std.tolist()] == [0.127, 0.079, 0.043]

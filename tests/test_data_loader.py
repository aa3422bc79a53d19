"""The two ways to the same crops: images stacked on the device, and images read from files batch by batch."""

import numpy as np
import pytest
import torch
from PIL import Image

from my_dataset import SegmentationDataset, list_samples
from tests.made import ids_of, photograph_of, write_folder
from train_utils.data_loader import CropLoader, StackedImages, cores, make_loader
from train_utils.distributed_utils import EpochBatches
from transforms import RandomAffineCrops

CPU = torch.device("cpu")
CROPS = RandomAffineCrops(40, [0.5] * 3, [0.25] * 3)


def loaders(root, workers=0, repeats=2):
    """The same run by both ways: (stacked, from files)."""
    samples = list_samples("folder", root)["all"]
    both = []
    for cache in (True, False):
        dataset = SegmentationDataset(samples, cache=cache)
        dataset.count_pixels()
        assert dataset.fits_in_memory() == cache
        batches = EpochBatches(len(dataset), 3, seed=0, repeats=repeats)
        if cache:
            source = StackedImages(*dataset.stack(), batches, CPU)
        else:
            source = make_loader(
                dataset, CPU, workers, batch_sampler=batches, collate_fn=dataset.collate_with_sizes
            )
        both.append(CropLoader(source, batches, CROPS, 7, CPU))
    return both


@pytest.mark.parametrize("workers", [0, 2])
def test_both_ways_give_the_same_crops(tmp_path, workers):
    stacked, read = loaders(write_folder(tmp_path, count=4), workers)
    for epoch in (0, 1):
        for loader in (stacked, read):
            loader.batches.set_epoch(epoch)
        pairs = list(zip(stacked, read, strict=True))
        assert len(pairs) == len(stacked) == len(read) == 3
        for one, other in pairs:
            assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_images_of_several_sizes_give_the_same_crops_whatever_they_are_padded_to(tmp_path):
    """The crops' places are those in the image itself, though a batch without the largest image is padded less."""
    for number, size in enumerate([(64, 72), (50, 44), (64, 40), (90, 100)]):
        write_folder(tmp_path, count=1, first=number, size=size)
    for one, other in zip(*loaders(tmp_path, repeats=4), strict=True):
        torch.testing.assert_close(one[0], other[0], atol=1e-3, rtol=0)
        assert (one[1] != other[1]).float().mean() < 1e-3
        assert (one[1] == 0).any() and (one[1] == 1).any()


def test_the_cache_keeps_as_much_as_its_limit_holds(tmp_path):
    samples = list_samples("folder", write_folder(tmp_path, count=3))["all"]
    item = 4 * 64 * 72  # bytes: three channels and the target
    for limit, kept in ((0, 0), (item - 1, 0), (2 * item, 2), (3 * item, 3)):
        dataset = SegmentationDataset(samples, cache=limit)
        dataset.count_pixels()
        for sample in samples:  # what was kept is not read again
            sample.image.rename(sample.image.with_suffix(".away"))
        found = 0
        for i in range(3):
            try:
                dataset.read(i)
                found += 1
            except ValueError:
                pass
        for sample in samples:
            sample.image.with_suffix(".away").rename(sample.image)
        assert found == kept and dataset.fits_in_memory() == (kept == 3)


def test_padding_counts_towards_the_limit(tmp_path):
    write_folder(tmp_path, count=3, size=(40, 100))
    write_folder(tmp_path, count=3, first=3, size=(100, 40))
    dataset = SegmentationDataset(list_samples("folder", tmp_path)["all"], cache=6 * 4 * 4000)
    dataset.count_pixels()
    assert len(dataset._cache) == 6 and not dataset.fits_in_memory()


def test_workers_prefetch_and_pinned_memory_set_themselves_and_can_be_set(tmp_path):
    dataset = SegmentationDataset(list_samples("folder", write_folder(tmp_path, count=2))["all"])
    plain = make_loader(dataset, CPU)
    assert (plain.num_workers, plain.pin_memory, plain.prefetch_factor) == (0, False, None)
    assert make_loader(dataset, CPU, in_memory=False).num_workers == min(8, cores())
    gpu = make_loader(dataset, torch.device("cuda"))
    assert (gpu.num_workers, gpu.pin_memory) == (min(8, cores()), True)
    own = make_loader(dataset, torch.device("cuda"), workers=1, prefetch=5, pin_memory=False)
    assert (own.num_workers, own.pin_memory, own.prefetch_factor) == (1, False, 5)


@pytest.mark.parametrize("channels", [1, 4])
def test_crops_of_other_numbers_of_channels(channels):
    crops = RandomAffineCrops(32, [0.5] * channels, [0.25] * channels)
    images = torch.randint(0, 256, (2, channels, 48, 48), dtype=torch.uint8)
    image, target = crops(
        images,
        torch.zeros(2, 48, 48, dtype=torch.uint8),
        torch.tensor([[48, 48]] * 2),
        torch.Generator(),
    )
    assert image.shape == (2, channels, 32, 32) and image.isfinite().all()


@pytest.mark.parametrize(
    "flip_prob, upside_down, seen",
    [
        (0.5, True, {(1, 1), (1, -1), (-1, 1), (-1, -1)}),
        (0.5, False, {(1, 1), (-1, 1)}),
        (0.0, True, {(1, 1)}),
    ],
)
def test_mirroring_can_be_left_and_right_alone(flip_prob, upside_down, seen):
    crops = RandomAffineCrops(
        32, [0.5], [0.25], rotate=0, flip_prob=flip_prob, upside_down=upside_down
    )
    matrices = crops.random_matrices(
        torch.tensor([[48, 48]] * 200), (48, 48), torch.Generator().manual_seed(0)
    )
    assert {
        (int(x), int(y)) for x, y in zip(matrices[:, 0, 0].sign(), matrices[:, 1, 1].sign())
    } == seen


def test_resizing_at_reading_takes_true_pixels_of_the_label(tmp_path):
    sample = list_samples("folder", write_folder(tmp_path, count=1))["all"][0]
    image, target = SegmentationDataset([sample], size=(32, 36))[0]
    assert (
        image.shape == (3, 32, 36)
        and target.shape == (32, 36)
        and set(target.unique().tolist()) == {0, 1}
    )
    ids = ids_of(0, 2)
    assert np.array_equal(target, ids[1::2, 1::2]) or np.array_equal(target, ids[::2, ::2])
    wanted = np.asarray(
        Image.fromarray(photograph_of(ids, 0)).resize((36, 32), Image.Resampling.BILINEAR)
    )
    assert (
        np.abs(image.permute(1, 2, 0).numpy().astype(int) - wanted).max() <= 1
    )  # Pillow smooths, too, when it shrinks

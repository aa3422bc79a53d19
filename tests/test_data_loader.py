"""The order of an epoch, whole images for evaluation, and the two ways to the same crops."""

import os
import random

import numpy as np
import pytest
import torch
from PIL import Image

from my_dataset import SegmentationDataset, list_samples
from tests.made import ids_of, photograph_of, write_folder
from train_utils.data_loader import (
    CropLoader,
    EpochBatches,
    StackedImages,
    cores,
    make_evaluation_loader,
    make_loader,
    make_training_loader,
    pick_memory,
)
from transforms import RandomAffineCrops

CPU = torch.device("cpu")
CROPS = RandomAffineCrops([0.5] * 3, [0.25] * 3, 40)
RANKED = pytest.mark.parametrize(
    "size, batch_size, ranks",
    [(20, 4, 8), (1, 4, 3), (20, 4, 1), (20, 3, 2), (7, 2, 3), (2, 1, 5), (5, 4, 4), (16, 4, 4)],
)


# --- EpochBatches --------------------------------------------------------------------------------


def batches_of_ranks(size, batch_size, ranks, epoch=0):
    """[batches of rank 0, batches of rank 1, …] of one epoch."""
    samplers = [
        EpochBatches(size, batch_size, seed=5, rank=rank, ranks=ranks) for rank in range(ranks)
    ]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    return [list(sampler) for sampler in samplers]


def items(batches):
    return [item for batch in batches for item in batch]


@pytest.mark.parametrize(
    "size, batch_size, lengths", [(20, 4, [4] * 5), (16, 3, [3] * 5 + [1]), (3, 8, [3])]
)
def test_a_single_process_gets_each_item_once_in_batches(size, batch_size, lengths):
    sampler = EpochBatches(size, batch_size, seed=0)
    batches = list(sampler)
    assert sorted(items(batches)) == list(range(size))
    assert [len(batch) for batch in batches] == lengths
    assert len(sampler) == len(lengths)


def test_each_epoch_and_seed_has_an_order_of_its_own():
    orders = set()
    for seed in range(4):
        sampler = EpochBatches(20, 4, seed)
        for epoch in range(25):
            sampler.set_epoch(epoch)
            orders.add(tuple(items(sampler)))
    assert len(orders) == 100


def test_an_epoch_can_be_repeated_whatever_ran_before():
    sampler, fresh = EpochBatches(20, 4, seed=7), EpochBatches(20, 4, seed=7)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        first = list(sampler)
        assert list(sampler) == first == sampler.batches()
    fresh.set_epoch(2)
    assert list(fresh) == first


@RANKED
@pytest.mark.parametrize("epoch", [0, 3])
def test_ranks_have_equally_many_batches_and_at_least_one(size, batch_size, ranks, epoch):
    per_rank = batches_of_ranks(size, batch_size, ranks, epoch)
    shapes = {tuple(len(batch) for batch in batches) for batches in per_rank}
    assert len(shapes) == 1
    assert min(len(batch) for batches in per_rank for batch in batches) >= 1
    lengths = {len(EpochBatches(size, batch_size, 5, rank, ranks)) for rank in range(ranks)}
    assert lengths == {len(per_rank[0])} and len(per_rank[0]) >= 1


@RANKED
@pytest.mark.parametrize("epoch", [0, 3])
def test_ranks_together_get_every_item_and_repeat_as_few_as_possible(
    size, batch_size, ranks, epoch
):
    per_rank = batches_of_ranks(size, batch_size, ranks, epoch)
    used = [item for batches in per_rank for item in items(batches)]
    assert set(used) == set(range(size))
    assert len(used) - size < ranks


def test_of_evenly_dividing_items_no_two_ranks_get_the_same():
    first, second = batches_of_ranks(20, 4, 2)
    assert set(items(first)).isdisjoint(items(second))


def test_repeated_items_come_equally_often_in_an_order_that_mixes_them():
    sampler = EpochBatches(5, 3, seed=1, repeats=4)
    order = items(sampler)
    assert sorted(order) == sorted(list(range(5)) * 4) and len(sampler) == 7
    assert order[:5] != sorted(order[:5]) and order != order[:5] * 4
    halves = [items(EpochBatches(5, 3, seed=1, rank=rank, ranks=2, repeats=4)) for rank in (0, 1)]
    assert sorted(halves[0] + halves[1]) == sorted(order) and len(halves[0]) == 10


# --- crops ---------------------------------------------------------------------------------------


def loaders(root, workers=0, repeats=2):
    """Two loaders of the same crops: (of stacked images, of images read from files)."""
    samples = list_samples("folder", root)["all"]
    both = []
    for cache in (True, False):
        dataset = SegmentationDataset(samples, cache=cache)
        dataset.count_pixels()
        assert dataset.fits_in_memory() == cache
        batches = EpochBatches(len(dataset), 3, seed=0, repeats=repeats)
        if cache:
            source = StackedImages(dataset.stack(), batches, CPU)
        else:
            source = make_training_loader(
                dataset, CPU, batches, dataset.collate_with_sizes, workers=workers
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
    """Places of crops are relative to the image, but a batch of small images is padded less."""
    for number, size in enumerate([(64, 72), (50, 44), (64, 40), (90, 100)]):
        write_folder(tmp_path, count=1, first=number, size=size)
    for one, other in zip(*loaders(tmp_path, repeats=4), strict=True):
        torch.testing.assert_close(one[0], other[0], atol=1e-3, rtol=0)
        assert (one[1] != other[1]).float().mean() < 1e-3
        assert (one[1] == 0).any() and (one[1] == 1).any()


@pytest.mark.parametrize("channels", [1, 4])
def test_crops_of_other_numbers_of_channels(channels):
    crops = RandomAffineCrops([0.5] * channels, [0.25] * channels, 32)
    images = torch.randint(0, 256, (2, channels, 48, 48), dtype=torch.uint8)
    targets = torch.zeros(2, 48, 48, dtype=torch.uint8)
    image, target = crops(images, targets, torch.tensor([[48, 48]] * 2), torch.Generator())
    assert image.shape == (2, channels, 32, 32) and image.isfinite().all()


@pytest.mark.parametrize(
    "flip_probs, expected",
    [
        ((0.5, 0.5), {(1, 1), (1, -1), (-1, 1), (-1, -1)}),
        ((0.0, 0.5), {(1, 1), (-1, 1)}),
        ((0.5, 0.0), {(1, 1), (1, -1)}),
        ((0.0, 0.0), {(1, 1)}),
    ],
)
def test_each_axis_has_its_own_probability_of_a_flip(flip_probs, expected):
    crops = RandomAffineCrops([0.5], [0.25], 32, rotate=0, flip_probs=flip_probs)
    sizes = torch.tensor([[48, 48]] * 200)
    matrices = crops.random_matrices(sizes, torch.Generator().manual_seed(0))
    signs = zip(matrices[:, 0, 0].sign(), matrices[:, 1, 1].sign(), strict=True)
    assert {(int(x), int(y)) for x, y in signs} == expected


# --- loaders -------------------------------------------------------------------------------------


class Noise(torch.utils.data.Dataset):
    """Item i: i, random numbers as transforms take them, and the process that loaded it."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        numbers = [torch.rand(()).item(), random.random(), np.random.rand()]
        return torch.tensor([index, *numbers, os.getpid()], dtype=torch.float64)


def epochs_of_noise(workers, epochs, rank=0):
    """[items of each epoch], and the processes that loaded each epoch."""
    batches = EpochBatches(6, 2, seed=3, rank=rank, ranks=2, repeats=2)
    loader = make_training_loader(Noise(), CPU, batches, torch.stack, workers=workers)
    items, processes = [], []
    for epoch in epochs:
        batches.set_epoch(epoch)
        items.append(torch.cat(list(loader)))
        processes.append({int(process) for process in items[-1][:, 4]})
    return torch.stack(items)[:, :, :4], processes


@pytest.mark.parametrize("workers", [1, 2])
def test_random_transforms_depend_on_seed_epoch_rank_and_place_alone(workers):
    straight, _ = epochs_of_noise(0, range(4))
    torch.manual_seed(99)
    resumed, _ = epochs_of_noise(workers, range(2, 4))
    assert torch.equal(straight[2:], resumed)
    other_rank, _ = epochs_of_noise(0, range(4), rank=1)
    numbers = torch.cat([straight, other_rank])[:, :, 1:].flatten()
    assert len(numbers.unique()) == len(numbers) == 2 * 4 * 6 * 3


def test_loading_leaves_the_processs_own_random_numbers_alone():
    """Dropout takes them, and a resumed run must not start workers at another point of them."""
    for workers in (0, 1):
        torch.manual_seed(1)
        expected = torch.rand(3)
        torch.manual_seed(1)
        epochs_of_noise(workers, range(2))
        assert torch.equal(torch.rand(3), expected)


def test_workers_are_kept_from_epoch_to_epoch():
    _, processes = epochs_of_noise(2, range(3))
    assert processes[0] == processes[1] == processes[2]
    assert len(processes[0]) == 2 and os.getpid() not in processes[0]


@pytest.mark.parametrize("free, kept_on", [(8e9, "cuda"), (7.9e9, "cpu")])
def test_images_stay_on_the_cpu_if_they_would_fill_the_gpu(free, kept_on, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(free), int(80e9)))
    assert pick_memory(4_000_000_000, torch.device("cuda:0")).type == kept_on
    message = "the training images take 4.0 GB, more than half of the 7.9 GB that are free on cuda"
    assert (message in capsys.readouterr().out) == (kept_on == "cpu")
    assert pick_memory(10**15, CPU) == CPU


def test_the_cache_keeps_as_much_as_its_limit_allows(tmp_path):
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


def test_padding_is_included_in_the_limit(tmp_path):
    write_folder(tmp_path, count=3, size=(40, 100))
    write_folder(tmp_path, count=3, first=3, size=(100, 40))
    size = 6 * 4 * 4000  # bytes of the six samples without padding
    dataset = SegmentationDataset(list_samples("folder", tmp_path)["all"], cache=size)
    dataset.count_pixels()
    assert dataset.cached_bytes == size and not dataset.fits_in_memory()


def test_workers_prefetch_and_pinned_memory_have_defaults_and_can_be_given(tmp_path):
    dataset = SegmentationDataset(list_samples("folder", write_folder(tmp_path, count=2))["all"])
    plain = make_loader(dataset, CPU)
    assert (plain.num_workers, plain.pin_memory, plain.prefetch_factor) == (0, False, None)
    assert make_loader(dataset, CPU, in_memory=False).num_workers == min(8, cores())
    gpu = make_loader(dataset, torch.device("cuda"))  # in memory: there is nothing to wait for
    assert (gpu.num_workers, gpu.pin_memory) == (0, True)
    gpu = make_loader(dataset, torch.device("cuda"), in_memory=False)
    assert (gpu.num_workers, gpu.pin_memory) == (min(8, cores()), True)
    own = make_loader(dataset, torch.device("cuda"), workers=1, prefetch=5, pin_memory=False)
    assert (own.num_workers, own.pin_memory, own.prefetch_factor) == (1, False, 5)


@pytest.mark.parametrize("cache", [True, False])
def test_evaluation_gets_every_whole_image_in_order(tmp_path, cache):
    for number, size in enumerate([(64, 72), (50, 44), (90, 100)]):
        write_folder(tmp_path, count=1, first=number, size=size)
    dataset = SegmentationDataset(list_samples("folder", tmp_path)["all"], cache=cache)
    dataset.count_pixels()
    loader = make_evaluation_loader(dataset, CPU, workers=0 if cache else 2)
    for (images, targets), (image, target) in zip(loader, dataset, strict=True):
        assert torch.equal(images, image[None]) and torch.equal(targets, target[None])


def test_resizing_at_reading_takes_true_pixels_of_the_label(tmp_path):
    sample = list_samples("folder", write_folder(tmp_path, count=1))["all"][0]
    image, target = SegmentationDataset([sample], size=(32, 36))[0]
    assert image.shape == (3, 32, 36) and target.shape == (32, 36)
    assert set(target.unique().tolist()) == {0, 1}
    ids = ids_of(0, 2)
    assert np.array_equal(target, ids[1::2, 1::2]) or np.array_equal(target, ids[::2, ::2])
    picture = Image.fromarray(photograph_of(ids, 0))
    wanted = np.asarray(picture.resize((36, 32), Image.Resampling.BILINEAR))
    difference = np.abs(image.permute(1, 2, 0).numpy().astype(int) - wanted)
    assert difference.max() <= 1  # Pillow, too, smooths when it shrinks

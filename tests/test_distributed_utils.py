"""EpochBatches: every epoch a new order that the seed repeats, every rank equally many batches, no item left out."""

import pytest

from train_utils.distributed_utils import EpochBatches

RANKED = pytest.mark.parametrize(
    "size, batch_size, ranks",
    [(20, 4, 8), (1, 4, 3), (20, 4, 1), (20, 3, 2), (7, 2, 3), (2, 1, 5), (5, 4, 4), (16, 4, 4)],
)


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
def test_a_single_process_sees_each_item_once_in_batches(size, batch_size, lengths):
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
def test_ranks_have_equally_many_batches_and_never_none(size, batch_size, ranks, epoch):
    per_rank = batches_of_ranks(size, batch_size, ranks, epoch)
    shapes = {tuple(len(batch) for batch in batches) for batches in per_rank}
    assert len(shapes) == 1
    assert min(len(batch) for batches in per_rank for batch in batches) >= 1
    lengths = {len(EpochBatches(size, batch_size, 5, rank, ranks)) for rank in range(ranks)}
    assert lengths == {len(per_rank[0])} and len(per_rank[0]) >= 1


@RANKED
@pytest.mark.parametrize("epoch", [0, 3])
def test_ranks_together_see_every_item_and_repeat_as_few_as_possible(
    size, batch_size, ranks, epoch
):
    seen = [
        item
        for batches in batches_of_ranks(size, batch_size, ranks, epoch)
        for item in items(batches)
    ]
    assert set(seen) == set(range(size))
    assert len(seen) - size < ranks


def test_of_evenly_dividing_items_no_rank_sees_anothers():
    first, second = batches_of_ranks(20, 4, 2)
    assert set(items(first)).isdisjoint(items(second))


def test_repeated_items_come_equally_often_in_an_order_that_mixes_them():
    sampler = EpochBatches(5, 3, seed=1, repeats=4)
    order = items(sampler)
    assert sorted(order) == sorted(list(range(5)) * 4) and len(sampler) == 7
    assert order[:5] != sorted(order[:5]) and order != order[:5] * 4
    halves = [items(EpochBatches(5, 3, seed=1, rank=rank, ranks=2, repeats=4)) for rank in (0, 1)]
    assert sorted(halves[0] + halves[1]) == sorted(order) and len(halves[0]) == 10

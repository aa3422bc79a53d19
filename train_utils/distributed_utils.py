"""Work shared by several processes. In a single process every function here is the identity."""

import torch
import torch.distributed as dist


def is_distributed():
    return dist.is_available() and dist.is_initialized()


def rank():
    return dist.get_rank() if is_distributed() else 0


def world_size():
    return dist.get_world_size() if is_distributed() else 1


def is_main_process():
    return rank() == 0


def sum_over_ranks(tensor):
    """The sum of the tensor over all ranks, on every rank."""
    if is_distributed():
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor


def gather_objects(value):
    """[value of rank 0, value of rank 1, …] on every rank."""
    if not is_distributed():
        return [value]
    values = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def gather_counts(counts):
    """SegmentationCounts of all ranks, rank r of R having judged the items r, r + R, …; its rows in the items' order."""
    if not is_distributed():
        return counts
    images = torch.tensor(len(counts.confusion))
    total = int(sum_over_ranks(images))
    confusion = counts.confusion.new_zeros(total, *counts.confusion.shape[1:])
    confusion[rank()::world_size()] = counts.confusion
    counts.confusion, counts.histograms = sum_over_ranks(confusion), sum_over_ranks(counts.histograms)
    return counts


class EpochBatches:
    """Batch sampler whose order is a pure function of the seed and the epoch, so that a resumed run repeats it.

    Each epoch is a new permutation of `size` items; rank r of `ranks` takes every ranks-th of it. If the items do not
    divide evenly, the permutation's first items come once more, so that all ranks have equally many batches, and never
    none. In a single process nothing is repeated and the last batch may be smaller.
    """

    def __init__(self, size, batch_size, seed, rank=0, ranks=1):
        self.size, self.batch_size, self.seed, self.rank, self.ranks = size, batch_size, seed, rank, ranks
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return -(-self._items_per_rank() // self.batch_size)

    def __iter__(self):
        return iter(self.batches())

    def batches(self):
        """This epoch's batches of this rank, a list of lists of indices."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.size, generator=generator).tolist()
        order += order * (self.ranks // self.size + 1)
        mine = order[self.rank : self._items_per_rank() * self.ranks : self.ranks]
        return [mine[i : i + self.batch_size] for i in range(0, len(mine), self.batch_size)]

    def _items_per_rank(self):
        return -(-self.size // self.ranks)

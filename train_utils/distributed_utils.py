"""Work shared by several processes: torch.distributed's group, and what the rest of the code asks of it.

In a single process every function here is the identity, so that nothing else needs to know how many there are.
"""

import os
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


@contextmanager
def process_group(backend, timeout_seconds):
    """The process group that torchrun describes in the environment; without torchrun, none.

    Ranks that wait for each other longer than the timeout end with an error. At a good end all ranks meet before the
    group is taken down (gloo aborts if one leaves early); after an error this one leaves at once, and torchrun stops
    the others.
    """
    if "RANK" not in os.environ:
        yield
        return
    timeout = timedelta(seconds=timeout_seconds)
    if backend == "gloo":
        connect_gloo(timeout)
    else:
        dist.init_process_group(backend, timeout=timeout)
    yield
    dist.barrier()
    dist.destroy_process_group()


def connect_gloo(timeout, tries=4, connect_timeout=timedelta(seconds=20)):
    """init_process_group("gloo"), tried again if ranks fail to connect.

    About one handshake in a hundred is lost on a busy machine: the ranks wait for each other's call until the time-out.
    So it gets a short one, the ranks tell each other through the store how it went, and all try again if one failed.
    """
    store, rank, ranks = next(dist.rendezvous("env://", timeout=timeout))
    store.set_timeout(timeout)
    for attempt in range(tries):
        store.set(f"try{attempt}/here{rank}", "yes")
        store.wait([f"try{attempt}/here{r}" for r in range(ranks)])
        failure = None
        try:
            dist.init_process_group("gloo", store=dist.PrefixStore(f"try{attempt}", store), rank=rank, world_size=ranks,
                                    timeout=min(timeout, connect_timeout))
        except RuntimeError as error:
            failure = error
        store.set(f"try{attempt}/outcome{rank}", str(failure or "connected"))
        outcomes = [store.get(f"try{attempt}/outcome{r}").decode() for r in range(ranks)]
        if outcomes == ["connected"] * ranks:
            dist.distributed_c10d._set_pg_timeout(timeout, dist.group.WORLD)
            return
        if failure is None:
            dist.destroy_process_group()
    raise RuntimeError(f"the processes could not connect in {tries} tries: {outcomes}")


def is_distributed():
    return dist.is_available() and dist.is_initialized()


def rank():
    return dist.get_rank() if is_distributed() else 0


def world_size():
    return dist.get_world_size() if is_distributed() else 1


def is_main_process():
    return rank() == 0


def wait_for_all():
    """Returns when every rank has come here."""
    if is_distributed():
        dist.barrier()


def from_main(function):
    """The value of function() on rank 0, on every rank: for files that only the first machine may have.

    If it raises there, rank 0 raises, and the others leave with exit code 2 and no word.
    """
    if not is_distributed():
        return function()
    box = [None, None]
    if is_main_process():
        try:
            box = [function(), None]
        except Exception:
            dist.broadcast_object_list([None, "failed"])
            raise
    dist.broadcast_object_list(box)
    if box[1]:
        raise SystemExit(2)
    return box[0]


def sum_over_ranks(tensor):
    """The sum of a CPU tensor over all ranks, on every rank."""
    if not is_distributed():
        return tensor
    tensor = tensor.to("cuda" if dist.get_backend() == "nccl" else "cpu", copy=True)
    dist.all_reduce(tensor)
    return tensor.cpu()


def gather_objects(value):
    """[value of rank 0, value of rank 1, …] on every rank."""
    if not is_distributed():
        return [value]
    values = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def gather_counts(counts, data_loader):
    """SegmentationCounts of all images of the loader's data set in order; this rank r of R judged r, r + R, …

    One sum of integers over the ranks, so the counts are those of a single process to the last digit.
    """
    if not is_distributed():
        return counts
    confusion = counts.confusion.new_zeros(len(data_loader.dataset), *counts.confusion.shape[1:])
    confusion[rank()::world_size()] = counts.confusion
    total = sum_over_ranks(torch.cat([confusion.flatten(), counts.histograms.flatten()]))
    counts.confusion = total[: confusion.numel()].view_as(confusion)
    counts.histograms = total[confusion.numel():].view_as(counts.histograms)
    return counts


def share_model(model, device, sync_bn=False):
    """The model to train with: gradients are averaged over the ranks. With `sync_bn` BatchNorm's statistics are, too."""
    if not is_distributed():
        return model
    if sync_bn:
        model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None,
                                   gradient_as_bucket_view=True)


def share_buffers(model):
    """Gives every rank rank 0's BatchNorm statistics: after a step each has counted its own batch alone."""
    if is_distributed():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


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

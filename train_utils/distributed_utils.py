"""Work shared by several processes: torch.distributed's group, and what the rest of the code asks of it.

In a single process every function here is the identity, so that nothing else needs to know how many there are.
"""

import hashlib
import os
import time
import uuid
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
    store, rank, ranks = next(dist.rendezvous("env://", timeout=timeout))
    store = dist.PrefixStore(agree_on_start(store, rank, ranks, timeout_seconds), store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=ranks, timeout=timeout)
    yield
    dist.barrier()
    dist.destroy_process_group()


def agree_on_start(store, rank, ranks, timeout_seconds):
    """A name for this start of all ranks that no earlier start had.

    After a restart torchrun may hand out the same store once more, in which a rank can find the address of a process that
    is gone, and then waits for its call. So each rank writes a fresh mark; rank 0 lists the marks; and a rank goes on
    when all have seen one list that holds its own. RuntimeError after the time-out.
    """
    mark, deadline = uuid.uuid4().hex, time.monotonic() + timeout_seconds
    store.set(f"mark{rank}", mark)
    while time.monotonic() < deadline:
        if rank == 0:
            store.set("start", " ".join(read(store, f"mark{r}") for r in range(ranks)))
        start = read(store, "start")
        if start.split(" ")[rank : rank + 1] == [mark]:
            store.set(f"seen{rank}", start)
            if all(read(store, f"seen{r}") == start for r in range(ranks)):
                return hashlib.sha256(start.encode()).hexdigest()
        time.sleep(0.02)
    raise RuntimeError(
        f"rank {rank} waited {timeout_seconds:.0f} s for the other {ranks - 1} rank(s) to start"
    )


def read(store, key):
    """The text under the key, "" if there is none yet."""
    return store.get(key).decode() if store.check([key]) else ""


def is_distributed():
    return dist.is_available() and dist.is_initialized()


def rank():
    return dist.get_rank() if is_distributed() else 0


def world_size():
    return dist.get_world_size() if is_distributed() else 1


def is_main_process():
    return rank() == 0


def log(message):
    """Prints on the first rank."""
    if is_main_process():
        print(message, flush=True)


def broadcast_from_rank_zero(function):
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


def all_reduce_sum(tensor):
    """The sum of a CPU tensor over all ranks, on every rank."""
    if not is_distributed():
        return tensor
    tensor = tensor.to("cuda" if dist.get_backend() == "nccl" else "cpu", copy=True)
    dist.all_reduce(tensor)
    return tensor.cpu()


def all_gather_objects(value):
    """[value of rank 0, value of rank 1, …] on every rank."""
    if not is_distributed():
        return [value]
    values = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def all_reduce_counts(counts, data_loader):
    """SegmentationCounts of all images of the loader's data set in order; this rank r of R judged r, r + R, …

    One sum of integers over the ranks, so the counts are those of a single process to the last digit.
    """
    if not is_distributed():
        return counts
    confusion = counts.confusion.new_zeros(len(data_loader.dataset), *counts.confusion.shape[1:])
    confusion[rank() :: world_size()] = counts.confusion
    parts = [confusion, counts.histograms, counts.near]
    total = all_reduce_sum(torch.cat([part.flatten() for part in parts])).split(
        [part.numel() for part in parts]
    )
    counts.confusion, counts.histograms, counts.near = (
        flat.view_as(part) for flat, part in zip(total, parts)
    )
    return counts


def wrap_in_ddp(model, device, sync_bn=False):
    """The model to train with: gradients are averaged over the ranks. With `sync_bn` BatchNorm's statistics are, too."""
    if not is_distributed():
        return model
    if sync_bn:
        model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return DistributedDataParallel(
        model, device_ids=[device] if device.type == "cuda" else None, gradient_as_bucket_view=True
    )


def broadcast_buffers(model):
    """Gives every rank rank 0's BatchNorm statistics: after a step each has counted its own batch alone."""
    if is_distributed():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


class EpochBatches:
    """Batch sampler whose order is a pure function of the seed and the epoch, so that a resumed run repeats it.

    Each epoch is a new permutation of `size` items, each `repeats` times; rank r of `ranks` takes every ranks-th of it.
    If the items do not divide evenly, the permutation's first items come once more, so that all ranks have equally many
    batches, and never none. In a single process nothing is repeated and the last batch may be smaller.
    """

    def __init__(self, size, batch_size, seed, rank=0, ranks=1, repeats=1):
        self.size, self.batch_size, self.seed, self.rank, self.ranks = (
            size,
            batch_size,
            seed,
            rank,
            ranks,
        )
        self.repeats, self.epoch = repeats, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return -(-self._items_per_rank() // self.batch_size)

    def __iter__(self):
        return iter(self.batches())

    def batches(self):
        """This epoch's batches of this rank, a list of lists of indices."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = (torch.randperm(self.size * self.repeats, generator=generator) % self.size).tolist()
        order += order * (self.ranks // self.size + 1)
        mine = order[self.rank : self._items_per_rank() * self.ranks : self.ranks]
        return [mine[i : i + self.batch_size] for i in range(0, len(mine), self.batch_size)]

    def _items_per_rank(self):
        return -(-self.size * self.repeats // self.ranks)

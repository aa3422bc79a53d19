"""Several processes: torch.distributed's process group, and what the rest of the code asks of it.

In a single process every function here does nothing or returns its argument, so no other module
needs to know how many processes there are.
"""

import hashlib
import inspect
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


# Longest wait for another rank outside training steps: it may be reading a large dataset. It does
# not delay the end of a run that fails, for torchrun stops all ranks when one ends.
PATIENCE = timedelta(days=1)


def training_backend(device: torch.device) -> str:
    """NCCL for gradients on a GPU; gloo on the CPU, and where PyTorch has no NCCL (Windows)."""
    if device.type == "cuda" and dist.is_nccl_available():
        return "nccl"
    return "gloo"


@contextmanager
def process_group(device: torch.device, timeout_seconds: float) -> Iterator[None]:
    """The process group that torchrun describes in the environment; without torchrun, none.

    It is a gloo group, for what is on the CPU; gradients have their own, see wrap_in_ddp().
    `device` is this process's own. RuntimeError if a rank does not start before the timeout. At a
    normal end all ranks meet before the group is destroyed, since gloo aborts if one leaves early.
    After an error this rank leaves at once, and torchrun stops the others.
    """
    if "RANK" not in os.environ:
        yield
        return
    if device.type == "cuda":  # before any collective: two ranks on one GPU are an error in NCCL
        torch.cuda.set_device(device)
    timeout = timedelta(seconds=timeout_seconds)
    store, rank, ranks = next(dist.rendezvous("env://", timeout=timeout))
    store = dist.PrefixStore(agree_on_start(store, rank, ranks, timeout_seconds), store)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks, timeout=PATIENCE)
    yield
    dist.barrier()
    dist.destroy_process_group()


def agree_on_start(store: dist.Store, rank: int, ranks: int, timeout_seconds: float) -> str:
    """A name for this start of all ranks that no earlier start had.

    After a restart torchrun may hand out the same store again. A rank could then find the address
    of a process that has ended, and wait for it. So each rank writes a new mark, and rank 0 writes
    the list of all marks. A rank continues when all ranks have seen one list with its own mark.
    RuntimeError after the timeout.
    """
    mark, deadline = uuid.uuid4().hex, time.monotonic() + timeout_seconds
    store.set(f"mark{rank}", mark)
    while time.monotonic() < deadline:
        if rank == 0:
            marks = [read(store, f"mark{each}") for each in range(ranks)]
            store.set("start", " ".join(marks))
        start = read(store, "start")
        if start.split(" ")[rank : rank + 1] == [mark]:
            store.set(f"seen{rank}", start)
            if all(read(store, f"seen{each}") == start for each in range(ranks)):
                return hashlib.sha256(start.encode()).hexdigest()
        time.sleep(0.02)
    raise RuntimeError(
        f"rank {rank} waited {timeout_seconds:.0f} s for the other {ranks - 1} rank(s) to start"
    )


def read(store: dist.Store, key: str) -> str:
    """The text under the key, "" if there is none yet."""
    return store.get(key).decode() if store.check([key]) else ""


def is_distributed() -> bool:
    """Whether this process is in a process group."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if is_distributed() else 1


def local_world_size() -> int:
    """The number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if is_distributed() else 1


def is_main_process() -> bool:
    """Whether this is rank 0, which alone prints and writes files."""
    return rank() == 0


def log(message: str) -> None:
    """Prints on rank 0."""
    if is_main_process():
        print(message, flush=True)


def broadcast_from_rank_zero(function: Callable[[], T]) -> T:
    """The value of function() on rank 0, on every rank: for files that only one machine may have.

    If it raises on rank 0, rank 0 raises, and the other ranks exit silently with code 2.
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


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """The sum of a CPU tensor over all ranks, on every rank."""
    if not is_distributed():
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)
    return total


def all_gather_objects(value: T) -> list[T]:
    """[value of rank 0, value of rank 1, …] on every rank."""
    if not is_distributed():
        return [value]
    values = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def wrap_in_ddp(
    model: nn.Module, device: torch.device, timeout_seconds: float, sync_bn: bool = False
) -> nn.Module:
    """The model to train with: its gradients are averaged over the ranks.

    timeout_seconds: longest time that a rank waits for the others' gradients before it fails.
    sync_bn: BatchNorm computes its statistics over all ranks as well.
    """
    if not is_distributed():
        return model
    dist.barrier()  # some ranks may take longer than the timeout to read their data
    timeout = timedelta(seconds=timeout_seconds)
    group = dist.new_group(backend=training_backend(device), timeout=timeout)
    if sync_bn:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model, group)
    return DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        process_group=group,
        gradient_as_bucket_view=True,
        **{buffers_option(): False},  # once an epoch is enough, see broadcast_buffers()
    )


def buffers_option() -> str:
    """What this version of PyTorch calls DDP's option to broadcast buffers in each forward pass."""
    options = inspect.signature(DistributedDataParallel).parameters
    return "forward_sync_buffers" if "forward_sync_buffers" in options else "broadcast_buffers"


def broadcast_buffers(model: nn.Module) -> None:
    """Copies rank 0's BatchNorm statistics to every rank: each has only seen its own batches."""
    if not is_distributed():
        return
    buffers = list(model.buffers())
    values = broadcast_from_rank_zero(lambda: [buffer.cpu() for buffer in buffers])
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value)

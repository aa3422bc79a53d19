"""The device to compute on, and the precision."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def pick_device(name: str = "auto") -> torch.device:
    """The device named "auto", "cpu", "mps", "cuda" or "cuda:N"; auto prefers CUDA, then MPS.

    Raises ValueError for any other name and for a device that this machine does not have.
    """
    if name == "auto":
        name = best_device()
    kind, colon, index = name.partition(":")
    if kind not in ("cpu", "mps", "cuda") or (colon and not index.isdigit()):
        raise ValueError(f"device {name!r} is not one of auto, cpu, mps, cuda, cuda:N")
    device = torch.device(name)
    found = count_devices(kind)
    if (device.index or 0) >= found:
        raise ValueError(
            f"device {name!r} is not there: PyTorch {torch.__version__} finds {found} {kind} "
            "device(s); use --device auto or --device cpu"
        )
    return device


def use_device(name: str = "auto") -> torch.device:
    """pick_device(name); on CUDA also what PyTorch uses where no device is named.

    That is the GPU whose data types are asked for and through which memory is pinned.
    """
    device = pick_device(name)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device


def best_device() -> str:
    """ "cuda", "mps" or "cpu", the first of them that this machine has."""
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def count_devices(kind: str) -> int:
    """How many devices of the kind "cpu", "mps" or "cuda" this machine has."""
    if kind == "cuda":
        return torch.cuda.device_count()
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    return 1


def pick_amp_dtype(device: torch.device, enabled: bool = True) -> torch.dtype | None:
    """The dtype for torch.autocast on `device`, or None for full precision.

    CUDA: bfloat16 if the GPU supports it, otherwise float16, which needs a gradient scaler. CPU:
    bfloat16 if the processor has instructions for it; emulation is slower than float32.
    """
    if not enabled:
        return None
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16
        return torch.float16
    if device.type == "cpu" and cpu_has_bf16():
        return torch.bfloat16
    return None


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 natively: x86 with AVX512-BF16 or AMX."""
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        check = getattr(torch.cpu, name, None)  # some versions of PyTorch do not have it
        if check is not None and check():
            return True
    return False


def use_deterministic_algorithms(device: torch.device) -> None:
    """Makes CUDA compute the same bits in every run.

    Otherwise atomic additions in cuDNN's weight gradients and in the backward of bilinear
    upsampling add in a random order, and cudnn.benchmark may choose another algorithm.
    """
    if device.type == "cuda":
        # Of its own workspace cuBLAS says that several streams might use it in another order.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


@contextmanager
def benchmark_convolutions(device: torch.device, wanted: bool = True) -> Iterator[None]:
    """Within the block cuDNN times its algorithms for each new shape and keeps the fastest.

    That is worth it for batches of one size, not for images that each have their own. Off after
    use_deterministic_algorithms(), since another run may find another one the fastest, and where it
    is not `wanted`.
    """
    before = torch.backends.cudnn.benchmark
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.backends.cudnn.benchmark = wanted and device.type == "cuda" and not deterministic
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def reuse_freed_memory(device: torch.device) -> None:
    """Makes a process that computes on the CPU keep freed memory.

    By default glibc returns the memory of every large tensor to the system, and the kernel clears
    its pages each time they are needed again: a quarter of the time of a training step. Does
    nothing on other devices and with other C libraries.
    """
    if device.type != "cpu" or sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        m_trim_threshold, m_mmap_max, m_arena_max = -1, -4, -8  # as in glibc's malloc.h
        libc.mallopt(m_arena_max, 1)  # what a thread has freed is there for the others
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def memory_format(
    device: torch.device, dims: int = 2, inference: bool = False
) -> torch.memory_format:
    """The memory format of a model's weights: channels_last where convolutions are faster with it.

    That is CUDA and the CPU, with one exception: training on images on a CPU without bf16
    instructions. There (AMD EPYC) a training step of UNet(base_c=32) on 2 × 480² took 7.0 s with it
    and 4.9 s without. On MPS BatchNorm's backward is wrong with it in some versions
    (pytorch#175189, #181411).

    A model gets its format where it is moved to its device. Images to predict need none: a
    convolution gives its input and output the format of its weights.

    Args:
        dims: 2 for images, 3 for volumes. A training step of UNet3D(base_c=16) on 2 × 32³ took
            1.8 s with channels_last_3d and 2.1 s without, on one core in float32.
        inference: for a model that is not trained.
    """
    if device.type not in ("cuda", "cpu"):
        return torch.contiguous_format
    if dims == 3:
        return torch.channels_last_3d
    if device.type == "cuda" or inference or cpu_has_bf16():
        return torch.channels_last
    return torch.contiguous_format


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copies a tensor of the CPU to the device. On CUDA the CPU does not wait for the copy.

    It is then made from pinned memory: from other memory it would block. On MPS a copy that does
    not wait may read memory that is freed already (pytorch#189690).
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def synchronize(device: torch.device) -> None:
    """Waits until all work queued on `device` is done, so that elapsed time can be measured."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()

"""Which device to compute on, and in which precision."""

import ctypes
import sys

import torch


def pick_device(name="auto"):
    """torch.device for "auto", "cpu", "mps", "cuda" or "cuda:N"; auto prefers CUDA, then MPS, then the CPU.

    Raises ValueError for a name PyTorch does not know and for a device that is not there.
    """
    if name == "auto":
        name = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    kind, colon, index = name.partition(":")
    if kind not in ("cpu", "mps", "cuda") or (colon and not index.isdigit()):
        raise ValueError(f"device {name!r} is not one of auto, cpu, mps, cuda, cuda:N")
    device = torch.device(name)
    found = {
        "cpu": 1,
        "mps": int(torch.backends.mps.is_available()),
        "cuda": torch.cuda.device_count(),
    }[kind]
    if (device.index or 0) >= found:
        raise ValueError(
            f"device {name!r} is not there: PyTorch {torch.__version__} sees {found} {kind} device(s); "
            "use --device auto or --device cpu"
        )
    return device


def pick_amp_dtype(device, enabled=True):
    """The dtype for torch.autocast on `device`, or None for full precision.

    CUDA: bfloat16 where the GPU has it, else float16 (which needs a gradient scaler). CPU: bfloat16 where the
    processor has instructions for it; emulating them is slower than float32.
    """
    if not enabled:
        return None
    if device.type == "cuda":
        return (
            torch.bfloat16
            if torch.cuda.is_bf16_supported(including_emulation=False)
            else torch.float16
        )
    if device.type == "cpu" and _cpu_has_bf16():
        return torch.bfloat16
    return None


def _cpu_has_bf16():
    """Whether the processor multiplies bfloat16 natively (x86: AVX512-BF16 or AMX). Elsewhere the answer is no."""
    checks = (
        getattr(torch.cpu, name, None)
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return any(check() for check in checks if check is not None)


def reuse_freed_memory(device):
    """For a process that computes on the CPU: keeps freed memory in place of handing it back to the system.

    glibc maps every large tensor anew and the kernel clears its pages each time: a quarter of a training step. It is
    told to keep them. Does nothing on other devices and other C libraries.
    """
    m_trim_threshold, m_mmap_max = -1, -4  # names and values of glibc's malloc.h
    if device.type == "cpu" and sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt"):
        ctypes.CDLL(None).mallopt(m_mmap_max, 0)
        ctypes.CDLL(None).mallopt(m_trim_threshold, 2**31 - 1)


def synchronize(device):
    """Waits until the work queued on `device` is done, so that a clock read after it tells the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()

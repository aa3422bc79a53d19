"""What a device is asked to do for speed."""

import pytest
import torch

from src.device import benchmark_convolutions, memory_format, use_device


@pytest.mark.parametrize(
    "device, deterministic, expected",
    [("cuda", False, True), ("cuda", True, False), ("cpu", False, False)],
)
def test_cudnn_chooses_by_time_only_within_the_block(device, deterministic, expected, monkeypatch):
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: deterministic)
    for before in (False, True):
        monkeypatch.setattr(torch.backends.cudnn, "benchmark", before)
        with pytest.raises(ValueError), benchmark_convolutions(torch.device(device)):
            assert torch.backends.cudnn.benchmark == expected
            raise ValueError
        with benchmark_convolutions(torch.device(device), wanted=False):
            assert not torch.backends.cudnn.benchmark
        assert torch.backends.cudnn.benchmark == before


def test_a_gpu_that_is_named_becomes_the_current_one(monkeypatch):
    current = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    for name in ("cuda:2", "cuda", "cpu"):
        assert use_device(name) == torch.device(name)
    assert current == [torch.device("cuda:2")]


def pretend_bf16(monkeypatch, there):
    """Makes PyTorch say whether the processor has instructions for bfloat16."""
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: there, raising=False)


@pytest.mark.parametrize("bf16", [False, True])
def test_inference_is_channels_last_on_every_device_but_mps(bf16, monkeypatch):
    pretend_bf16(monkeypatch, bf16)
    for name in ("cpu", "cuda"):
        device = torch.device(name)
        assert memory_format(device, 2, inference=True) == torch.channels_last
        assert memory_format(device, 3, inference=True) == torch.channels_last_3d
    for dims in (2, 3):
        mps = memory_format(torch.device("mps"), dims, inference=True)
        assert mps == memory_format(torch.device("mps"), dims) == torch.contiguous_format


def test_training_on_images_is_contiguous_on_a_cpu_without_bf16(monkeypatch):
    for bf16, expected in ((False, torch.contiguous_format), (True, torch.channels_last)):
        pretend_bf16(monkeypatch, bf16)
        assert memory_format(torch.device("cpu")) == expected
        assert memory_format(torch.device("cpu"), 3) == torch.channels_last_3d
        assert memory_format(torch.device("cuda")) == torch.channels_last

"""What a device is asked to do for speed."""

import pytest
import torch

from src.device import benchmark_convolutions


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
        assert torch.backends.cudnn.benchmark == before

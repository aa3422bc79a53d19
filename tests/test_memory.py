"""The memory of a network is found without computing."""

import pytest

from src import UNet
from src.memory import activation_bytes


def test_memory_is_estimated_from_the_network():
    """UNet's peak, counted by hand in units of base_c float32 values for each pixel.

    It is in the last Up, after the first BatchNorm: the skip 1, the upsampled features 1, both
    concatenated 2, the convolution's output 1 and BatchNorm's 1. The deeper levels still exist:
    the input of Up 2/4, the skips 2/4, 4/16 and 8/64. Together 7.375.
    """
    for base_c in (8, 16):
        found = activation_bytes(UNet(3, 2, bilinear=False, base_c=base_c), 3)
        assert found == pytest.approx(7.375 * base_c * 4, rel=1e-3)

"""The random generators of a process: their states, for an exact continuation, and their seeds."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils.data import Dataset


def random_state() -> dict:
    """The states of PyTorch's, Python's and NumPy's generators, in plain types.

    That of the current GPU is included, if it is in use.
    """
    version, internal, gauss = random.getstate()
    name, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        "python": (version, internal, gauss),
        "numpy": (name, keys.tolist(), *rest),
    }


def restore_random_state(state: dict) -> None:
    """Sets the generators to what random_state() returned. A GPU without a state keeps its own."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(state["cuda"])
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block the CPU's random numbers depend on the seed (from 0 to 2⁶³ − 1) alone.

    After it the generators continue as if nothing had happened. Those of GPUs are left alone.
    """
    state = random_state() | {"cuda": None}
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        restore_random_state(state)


class SeededSamples(Dataset):
    """The samples of `dataset`, for keys (index, seed).

    Random transforms depend on the seed alone, whichever process loads the sample and whatever it
    has loaded before.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> tuple:
        index, seed = key
        with seeded(seed):
            return self.dataset[index]

"""The states of all random generators of a process, for an exact continuation."""

import random

import numpy as np
import torch


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

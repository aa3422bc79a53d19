"""How much memory a network needs, found without computing."""

import weakref
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@lru_cache(maxsize=1)  # it takes as long as a small image, and is asked for each image
def activation_bytes(model: nn.Module, channels: int, dims: int = 2) -> float:
    """Bytes for each pixel that a forward pass in eval mode and float32 needs at its peak.

    Found without computing, by a pass on PyTorch's meta device.
    """
    side = 512 if dims == 2 else 64
    state = {name: value.to("meta") for name, value in full_state(model).items()}
    image = torch.empty(1, channels, *[side] * dims, device="meta")
    live = LiveBytes()
    with torch.no_grad(), live:
        functional_call(model, state, (image,))
    return live.peak / side**dims


def full_state(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by name."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that were made since it was entered and still exist.

    Attributes: `now` and `peak`, in bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = set()

    def __torch_dispatch__(
        self, func: Callable, types: Sequence[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size

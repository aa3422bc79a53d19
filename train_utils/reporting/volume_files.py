"""The probabilities of a volume as a file that is written slices after slices."""

from pathlib import Path

import numpy as np
from torch import Tensor

from src.volume_io import volume_suffix, write_volume
from src.volumes import Geometry
from train_utils.atomic import replacing


class ProbabilityFile:
    """x_prob of a volume, written strip by strip.

    Of two classes the probability of class 1 as a float32 volume in the input's space; of more
    float16 [K, D, H, W] in a .npy file, which is on the disk, not in memory. D runs from inferior
    to superior, H from posterior to anterior, W from left to right.

    Args:
        path: of the file.
        classes: their number.
        geometry: that of the input.
        wanted: False: nothing is written.
    """

    def __init__(self, path: Path, classes: int, geometry: Geometry, wanted: bool) -> None:
        self.path, self.classes, self.geometry, self.wanted = path, classes, geometry, wanted
        self.partial = path.with_name(f".{path.name}.part")
        self.values = None

    def __enter__(self) -> "ProbabilityFile":
        if self.wanted and self.classes == 2:
            self.values = np.empty(self.geometry.shape, np.float32)
        elif self.wanted:
            shape = self.classes, *self.geometry.shape
            self.values = np.lib.format.open_memmap(self.partial, "w+", np.float16, shape)
        return self

    def add(self, part: slice, probs: Tensor) -> None:
        """Adds slices: probs [K, d, H, W]."""
        if self.values is None:
            return
        if self.classes == 2:
            self.values[part] = probs[1].numpy()
        else:
            self.values[:, part] = probs.numpy()

    def __exit__(self, kind: type | None, *error: object) -> None:
        if self.values is None:
            return
        if self.classes > 2:
            self.values.flush()
            if kind is None:
                self.partial.replace(self.path)
            self.partial.unlink(missing_ok=True)
        elif kind is None:
            with replacing(self.path) as temporary:
                write_volume(temporary, self.values, self.geometry, volume_suffix(self.path))

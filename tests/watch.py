"""Whole runs watched and stopped from outside, through torch and Pillow, not our own modules."""

from pathlib import Path

import pytest
import torch
from PIL import Image


def opened_files(patch):
    """A list of the paths that Pillow opens from now on, in order."""
    opened, original = [], Image.open

    def watched(file, *args, **kwargs):
        opened.append(Path(getattr(file, "name", file)))
        return original(file, *args, **kwargs)

    patch.setattr(Image, "open", watched)
    return opened


def forbid_training(patch):
    """Fails the test at the first training step."""
    patch.setattr(torch.Tensor, "backward", lambda *args, **kwargs: pytest.fail("training began"))


def stop_after(patch, folder, epochs):
    """Ctrl-C in the first step after last_model.pth in the folder holds this many epochs."""
    path, original = Path(folder) / "last_model.pth", torch.Tensor.backward

    def interrupted(*args, **kwargs):
        if path.exists() and torch.load(path, weights_only=True)["epoch"] == epochs - 1:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    patch.setattr(torch.Tensor, "backward", interrupted)

"""TensorBoard on request: the scalars and pictures of a run, or nothing at all."""

import numpy as np
from PIL import Image


class TensorBoardLogger:
    """Logs to `folder`, or does nothing if that is None, so that callers need not ask."""

    def __init__(self, folder):
        self.writer = None
        if folder is not None:
            from torch.utils.tensorboard import (
                SummaryWriter,
            )  # slow to import, and only wanted here

            self.writer = SummaryWriter(folder)

    def scalars(self, row, step):
        """Logs the finite numbers of a flat dict."""
        if self.writer:
            for name, value in row.items():
                if isinstance(value, (int, float)) and np.isfinite(value):
                    self.writer.add_scalar(name.replace("val_", "val/"), value, step)

    def picture(self, path, step):
        """Logs an image file under its name."""
        if self.writer and path.exists():
            self.writer.add_image(
                path.stem, np.asarray(Image.open(path).convert("RGB")), step, dataformats="HWC"
            )

    def close(self):
        if self.writer:
            self.writer.close()

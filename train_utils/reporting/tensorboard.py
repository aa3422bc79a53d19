"""TensorBoard logging, which does nothing unless it is asked for."""

from pathlib import Path

import numpy as np
from PIL import Image

from train_utils.distributed_utils import is_main_process


class TensorBoardLogger:
    """Logs to `folder`. Without one every method does nothing, so that callers need no branches."""

    def __init__(self, folder: Path | None) -> None:
        self.writer = None
        if folder is not None:
            # Imported here because it is slow to import and most runs do without it.
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(folder)

    def scalars(self, row: dict, step: int) -> None:
        """Log the finite numbers of a flat dict, those named val_… in a group of their own."""
        if self.writer is None:
            return
        for name, value in row.items():
            if isinstance(value, (int, float)) and np.isfinite(value):
                self.writer.add_scalar(name.replace("val_", "val/"), value, step)

    def picture(self, path: Path, step: int) -> None:
        """Log an image file under its name, if it exists."""
        if self.writer is None or not path.exists():
            return
        picture = np.asarray(Image.open(path).convert("RGB"))
        self.writer.add_image(path.stem, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is still in memory and close the file."""
        if self.writer is not None:
            self.writer.close()


def make_logger(output_dir: str | Path, wanted: bool) -> TensorBoardLogger:
    """Logs to output_dir/tensorboard on rank 0, if wanted; else it does nothing."""
    if wanted and is_main_process():
        return TensorBoardLogger(Path(output_dir) / "tensorboard")
    return TensorBoardLogger(None)

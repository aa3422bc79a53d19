"""Files that predict.py makes of weights alone: smaller checkpoints, and exported networks."""

from pathlib import Path

from torch import nn

from src.errors import UserError
from src.export import check_exportable, export_model
from train_utils import checkpoint as checkpoints
from train_utils.atomic import prepare_folder


def write_stripped(checkpoint: dict, source: str, path: str) -> None:
    """--strip: writes the checkpoint, read from `source`, without what only --resume needs."""
    stripped = checkpoints.strip_checkpoint(checkpoint)
    prepare_folder(Path(path).parent, sum(each.nbytes for each in stripped["model"].values()))
    if Path(path).exists() and Path(path).samefile(source):
        raise UserError(
            f"--strip {path}: is the file of --weights, which --resume could not use any more; "
            "name another file"
        )
    checkpoints.save(path, stripped)
    before, after = (Path(each).stat().st_size / 1e6 for each in (source, path))
    print(f"{source} ({before:.1f} MB) -> {path} ({after:.1f} MB), for prediction and evaluation")


def write_export(model: nn.Module, checkpoint: dict, path: str) -> None:
    """--export: writes the network as a file that runs without this repository."""
    check_exportable(model, Path(path))  # before a folder is made for it
    prepare_folder(Path(path).parent)
    export_model(model, checkpoint, path)
    print(f"{path} ({Path(path).stat().st_size / 1e6:.1f} MB): agrees with PyTorch")
    if checkpoint["resize"]:
        height, width = checkpoint["resize"]
        print(f"it was trained on images resized to {height}×{width}: resize them for it, too")

"""predictions.json: what the predictions in a folder were made with, for --skip-existing."""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from src.errors import UserError
from train_utils.reporting.text_files import write_json

NAME = "predictions.json"


def fingerprint(model: nn.Module) -> str:
    """Eight hexadecimal digits, the CRC-32 of all weights: other weights have other ones."""
    code = 0
    for value in model.state_dict().values():
        values = value.detach().cpu().contiguous().reshape(-1)
        code = zlib.crc32(values.view(torch.uint8).numpy(), code)
    return f"{code:08x}"


def start_settings(folder: str | Path, settings: dict, weights: Sequence[str], check: bool) -> None:
    """Refuses a folder of other settings if asked to, then writes predictions.json into it.

    settings: name → value, of all that changes what is predicted. weights: the files, which are
    written but not compared: "weights" of the settings is their fingerprint().
    check: UserError if the folder has predictions of other settings. A folder of an earlier
    version of this program, without the file, is taken as it is.
    """
    path = Path(folder) / NAME
    if check:
        check_same(path, settings)
    write_json(path, {**settings, "files": list(weights)})


def check_same(path: Path, settings: dict) -> None:
    """UserError if the settings in the file `path` are others."""
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if not isinstance(earlier, dict):
        return
    for name, value in settings.items():
        if earlier.get(name, value) != value:
            raise UserError(
                f"--skip-existing: the predictions in {path.parent} were made with {name} "
                f"{earlier[name]}, this call has {value}; give the same, name another --output, or "
                "leave out --skip-existing to predict all images anew"
            )

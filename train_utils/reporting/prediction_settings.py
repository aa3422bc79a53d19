"""predictions.json: what the predictions in a folder were made with and of, for --skip-existing."""

import json
import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import nn

from src.errors import UserError
from train_utils.data.inputs import RECORD, Job
from train_utils.reporting.png import naming
from train_utils.reporting.text_files import write_json


def fingerprint(model: nn.Module) -> str:
    """Eight hexadecimal digits, the CRC-32 of all weights: other weights have other ones."""
    code = 0
    for value in model.state_dict().values():
        values = value.detach().cpu().contiguous().reshape(-1)
        code = zlib.crc32(values.view(torch.uint8).numpy(), code)
    return f"{code:08x}"


class PredictionRecord:
    """predictions.json: what the predictions in a folder were made with, and of which files.

    Args:
        folder: of the predictions.
        settings: name → value, of all that changes what is predicted.
        weights: the files, which are written but not compared: "weights" of the settings is their
            fingerprint().
        keep: keep what an earlier call recorded. UserError if its settings were others. A folder
            without the file, or with that of an earlier version, is taken as it is.
    """

    def __init__(
        self, folder: str | Path, settings: dict, weights: Sequence[str], keep: bool
    ) -> None:
        self.path = Path(folder) / RECORD
        self.content = {**settings, "files": list(weights)}
        self.images = {}  # {name: entry}; None: not known
        if keep:
            earlier = read_earlier(self.path)
            check_same(self.path, settings, earlier)
            self.images = earlier.get("images")
            if not isinstance(self.images, dict):
                self.images = None

    def covers(self, job: Job, outputs: Sequence[str]) -> bool:
        """Whether its predictions are of these very files, with all these outputs."""
        if self.images is None:
            return True
        entry = self.images.get(job.input.name, {})
        earlier = entry.get("outputs", [])
        return entry == entry_of(job, earlier) and set(outputs) <= set(earlier)

    def begin(self, jobs: Iterable[Job], outputs: Sequence[str], kept: Iterable[Job] = ()) -> None:
        """Writes the file: `jobs` are predicted with these outputs, `kept` stay as they are.

        Call it when the table has no rows of `jobs` any more. UserError if it cannot be written.
        """
        images = dict(self.images or {})
        for job in kept:  # of an earlier version
            images.setdefault(job.input.name, entry_of(job, outputs))
        for job in jobs:
            images[job.input.name] = entry_of(job, outputs)
        with naming(self.path):
            write_json(self.path, {**self.content, "images": images})


def entry_of(job: Job, outputs: Sequence[str]) -> dict:
    """What is recorded of an image: its file, its ROI mask, and the outputs beside its mask."""
    entry = file_state(job.input.path)
    if job.roi_path:
        entry["roi"] = file_state(job.roi_path)
    return entry | {"outputs": list(outputs)}


def file_state(path: Path) -> dict:
    """A file by its path, size and time."""
    state = {"path": os.path.abspath(path), "bytes": None, "modified_ns": None}
    try:
        stat = path.stat()
    except OSError:  # such as a link to nothing, which fails when it is read
        return state
    return state | {"bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}


def read_earlier(path: Path) -> dict:
    """The content of a predictions.json; {} if there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def check_same(path: Path, settings: dict, earlier: dict) -> None:
    """UserError if the settings in the file `path`, whose content is `earlier`, are others."""
    for name, value in settings.items():
        if earlier.get(name, value) != value:
            raise UserError(
                f"--skip-existing: the predictions in {path.parent} were made with {name} "
                f"{earlier[name]}, this call has {value}; give the same, name another --output, or "
                "leave out --skip-existing to predict all images anew"
            )

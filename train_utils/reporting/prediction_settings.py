"""predictions.json: what the predictions in a folder were made with and of, for --skip-existing."""

import json
import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from src.errors import UserError
from train_utils.data.inputs import RECORD, Job
from train_utils.plurals import counted, first_names
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
        self.path, self.keep = Path(folder) / RECORD, keep
        self.content = {**settings, "files": list(weights)}
        self.images = {}  # {name: entry}; None: not known
        self.earlier = read_earlier(self.path)
        if keep:
            check_same(self.path, settings, self.earlier)
            self.images = self.earlier.get("images")
            if not isinstance(self.images, dict):
                self.images = None

    def covers(self, job: Job, outputs: Iterable[str]) -> bool:
        """Whether its predictions are of these very files, with the outputs of these flags."""
        if self.images is None:
            return True
        entry = self.images.get(job.input.name, {})
        earlier = entry.get("outputs", [])
        return entry == entry_of(job, earlier) and set(outputs) <= set(earlier)

    def begin(
        self,
        jobs: Iterable[Job],
        outputs_of: Callable[[Job], dict[str, str]],
        kept: Iterable[Job] = (),
        scored: bool = False,
    ) -> None:
        """Writes the file: `jobs` are predicted with their outputs, `kept` stay as they are.

        Without `keep`, the files of an earlier call that this one does not write are removed. Call
        it when the table has no rows of `jobs` any more. UserError if it cannot be written.

        outputs_of: gives {flag: name of the file beside the mask} of a job.
        scored: whether this call writes scores.json.
        """
        images = dict(self.images or {})
        for job in kept:  # of an earlier version
            images.setdefault(job.input.name, entry_of(job, outputs_of(job)))
        outputs = {job.input.name: outputs_of(job) for job in jobs}
        for job in jobs:
            images[job.input.name] = entry_of(job, outputs[job.input.name])
        if self.keep:
            scored = scored or self.earlier.get("scored") is True
        else:
            remove_stale(self.path.parent, self.earlier, outputs)
        with naming(self.path):
            write_json(self.path, {**self.content, "scored": scored, "images": images})


def entry_of(job: Job, outputs: Mapping[str, str] | Sequence[str]) -> dict:
    """What is recorded of an image: its file, its ROI mask, and the outputs beside its mask.

    outputs: {flag: name of the file}, in an earlier version only the flags.
    """
    entry = file_state(job.input.path)
    if job.roi_path:
        entry["roi"] = file_state(job.roi_path)
    return entry | {"outputs": outputs}


def remove_stale(folder: Path, earlier: dict, outputs: dict[str, dict[str, str]]) -> None:
    """Removes the stale_files() and prints their names."""
    stale = [path for path in stale_files(folder, earlier, outputs) if path.is_file()]
    for path in stale:
        path.unlink()
    if stale:
        number, names = counted(len(stale), "files"), first_names([path.name for path in stale])
        print(f"{folder}: {number} of an earlier call removed, new masks replace its own: {names}")


def stale_files(folder: Path, earlier: dict, outputs: dict[str, dict[str, str]]) -> list[Path]:
    """What an earlier call recorded that does not belong to the masks of this one.

    That is scores.json, objects.csv where this call finds no objects, and what lies beside the
    masks of its images and is not written anew.

    earlier: the content of predictions.json. outputs: {image: {flag: name of the file}}.
    """
    recorded, stale = {}, []
    if isinstance(earlier.get("images"), dict):
        recorded = {name: recorded_outputs(name, each) for name, each in earlier["images"].items()}
    if earlier.get("scored") is True:
        stale.append(folder / "scores.json")
    flags, earlier_flags = (set().union(*each.values()) for each in (outputs, recorded))
    if "instances" in earlier_flags - flags:
        stale.append(folder / "objects.csv")
    for name, written in outputs.items():
        files = set(recorded.get(name, {}).values()) - set(written.values())
        stale += [(folder / name).parent / file for file in sorted(files)]
    return stale


def recorded_outputs(name: str, entry: dict) -> dict[str, str]:
    """{flag: name of the file} of the entry of an image; {} for one of an earlier version.

    Names that no output of the image can have are left out.
    """
    outputs, found = entry.get("outputs") if isinstance(entry, dict) else None, {}
    if isinstance(outputs, dict):
        for flag, file in outputs.items():
            if file == Path(str(file)).name and file.startswith(f"{Path(name).name}_"):
                found[flag] = file
    return found


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

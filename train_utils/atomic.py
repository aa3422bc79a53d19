"""Output folders that can be written to, and files that are never half-written."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from src.errors import UserError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder. On normal exit that file replaces `path`.

    It is flushed with fsync before, so a crash leaves either the old or the new file. If the block
    raises, the temporary file is removed. Its suffix is .tmp: give Pillow and matplotlib a format.
    FileNotFoundError if the block writes nothing.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def prepare_folder(folder: str | Path, num_bytes: float = 0) -> None:
    """Creates the folder; UserError if it is not writable or has less than `num_bytes` free."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written to ({error.strerror}); choose another folder"
        ) from error
    if free < num_bytes:
        raise UserError(
            f"{folder}: {free / 1e6:.0f} MB are free, but about {num_bytes / 1e6:.0f} MB are "
            "needed; free some space or choose another folder"
        )

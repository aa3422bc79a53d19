"""Files that appear under their name only when they are complete."""

import os
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path):
    """Yields a temporary path in the same folder, which replaces `path` when the block ends well.

    A crash at any moment leaves the old file or the new one, never half of one: the data reach the disk (fsync) before
    the name is given to them. If the block raises, the temporary file is removed.
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

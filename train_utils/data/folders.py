"""Folders below a folder, and patterns of files, where symbolic links may lead in circles."""

import glob
import os
from collections import deque
from pathlib import Path

from src.errors import UserError


def visible_folders(folder: Path) -> list[Path]:
    """The folder and those below it, without hidden ones. Symbolic links are followed.

    A folder that several paths lead to, as in a circle of links, is listed once, by the path with
    the fewest links. UserError for a folder that cannot be read.
    """
    found, seen, starts = [], set(), deque([folder])
    while starts:
        for place, below, _ in os.walk(starts.popleft(), onerror=refuse_folder):
            path = Path(place)
            resolved = path.resolve()
            if resolved in seen:
                below.clear()
                continue
            seen.add(resolved)
            found.append(path)
            below[:] = sorted(name for name in below if not name.startswith("."))
            starts += [path / name for name in below if (path / name).is_symlink()]
    return found


def refuse_folder(error: OSError) -> None:
    """UserError because a folder cannot be read."""
    raise UserError(
        f"{error.filename}: the folder cannot be read ({error.strerror}); change its permissions, "
        "or give the paths of the files in a text file"
    )


def matching_files(pattern: str) -> list[Path]:
    """The files that match a pattern, those of each folder once; ** stands for any sub-folders."""
    paths = sorted({Path(each) for each in matches(pattern) if os.path.isfile(each)})
    folders = sorted({path.parent for path in paths})
    folder_of = {}
    for folder in sorted(folders, key=links_in):
        folder_of.setdefault(folder.resolve(), folder)
    kept = set(folder_of.values())
    return [path for path in paths if path.parent in kept]


def matches(pattern: str) -> list[str]:
    """glob.glob(), but ** does not follow links in circles."""
    parts = Path(pattern).parts
    if "**" not in parts:
        return glob.glob(pattern)
    index = parts.index("**")
    rest = parts[index + 1 :] or ("*",)
    found = []
    for start in glob.glob(os.path.join(".", *parts[:index])):
        if os.path.isdir(start):
            for folder in visible_folders(Path(start)):
                found += matches(os.path.join(glob.escape(str(folder)), *rest))
    return found


def links_in(folder: Path) -> int:
    """How many of the folders in the path are symbolic links."""
    return sum(each.is_symlink() for each in (folder, *folder.parents))

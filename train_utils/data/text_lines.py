"""Text files with one path, or the paths of one sample, on each line."""

from pathlib import Path

from src.errors import UserError


def read_lines(file: Path) -> list[str]:
    """The lines of a text file; UserError if it is not text."""
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(
            f"{file}: is not text in UTF-8; save it as UTF-8, with one path on each line"
        ) from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None

"""Numbers with their nouns, and lists of names, for messages."""

from collections.abc import Sequence

NAMES_SHOWN = 8  # of a list


def counted(number: int, plural: str) -> str:
    """ "1 image" or "1,234 images" for the noun `plural`, which ends in s."""
    if number != 1:
        return f"{number:,} {plural}"
    ending = "es" if plural.endswith("sses") else "s"
    return f"1 {plural.removesuffix(ending)}"


def first_names(names: Sequence[str]) -> str:
    """ "a, b, c", and ", …" in place of those after the first NAMES_SHOWN."""
    more = ", …" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more

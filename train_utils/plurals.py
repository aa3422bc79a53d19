"""Numbers with their nouns."""


def counted(number: int, plural: str) -> str:
    """ "1 image" or "1,234 images" for the noun `plural`, which ends in s."""
    noun = plural.removesuffix("s") if number == 1 else plural
    return f"{number:,} {noun}"

"""Numbers with their nouns."""


def counted(number: int, plural: str) -> str:
    """ "1 image" or "1,234 images" for the noun `plural`, which ends in s."""
    if number != 1:
        return f"{number:,} {plural}"
    ending = "es" if plural.endswith("sses") else "s"
    return f"1 {plural.removesuffix(ending)}"

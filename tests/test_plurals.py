"""Numbers with their nouns."""

from train_utils.plurals import counted


def test_one_is_singular_and_thousands_are_grouped():
    assert [counted(number, "images") for number in (0, 1, 2)] == [
        "0 images",
        "1 image",
        "2 images",
    ]
    assert counted(12345, "objects") == "12,345 objects"
    assert counted(1, "processes") == "1 process"

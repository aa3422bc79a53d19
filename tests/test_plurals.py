"""Numbers with their nouns, and lists of names."""

from train_utils.plurals import counted, first_names


def test_one_is_singular_and_thousands_are_grouped():
    assert [counted(number, "images") for number in (0, 1, 2)] == [
        "0 images",
        "1 image",
        "2 images",
    ]
    assert counted(12345, "objects") == "12,345 objects"
    assert counted(1, "processes") == "1 process"


def test_of_a_long_list_the_first_names_are_shown():
    assert first_names(["a", "b"]) == "a, b"
    assert first_names([str(number) for number in range(8)]) == "0, 1, 2, 3, 4, 5, 6, 7"
    assert first_names([str(number) for number in range(9)]) == "0, 1, 2, 3, 4, 5, 6, 7, …"

"""Problems are grouped by their kind, those of caught errors by where they were raised."""

from pathlib import Path

from src.errors import UserError
from train_utils.data.problems import Problem, grouped, problem_of


def refuse(path, size):
    if size > 10:
        raise UserError(f"{path}: is {size} px wide, too large")
    raise UserError(f"{path}: is {size} px wide, too small")


def caught(name, size, note=""):
    try:
        refuse(Path("data") / name, size)
    except UserError as error:
        return problem_of(error, Path("data") / name, note)


def test_a_problem_alone_is_its_sentence():
    assert grouped([caught("a.png", 3)]) == ["data/a.png: is 3 px wide, too small"]
    assert grouped([]) == []


def test_errors_of_one_raise_statement_are_one_kind_whatever_their_values():
    problems = [caught("a.png", 3), caught("b.png", 30), caught("c.png", 4), caught("d.png", 2)]
    problems.append(caught("e.png", 5))
    assert grouped(problems) == [
        "4 × data/a.png: is 3 px wide, too small (also c.png, d.png, 1 more)",
        "data/b.png: is 30 px wide, too large",
    ]


def test_notes_divide_a_kind():
    problems = [caught("a.png", 3), caught("b.png", 3, " [smoothed]"), caught("c.png", 3)]
    assert grouped(problems) == [
        "2 × data/a.png: is 3 px wide, too small (also c.png)",
        "data/b.png: is 3 px wide, too small [smoothed]",
    ]


def test_a_plain_string_is_a_kind_of_its_own():
    problem = Problem("x.png has no label", "no label", "x.png")
    assert grouped(["one", problem, "two", "one"]) == ["one", problem, "two"]

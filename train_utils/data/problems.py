"""Problems of a dataset's files: sentences that know what kind of problem they tell of."""

import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path

from src.errors import UserError

PROBLEMS_SHOWN = 12  # kinds of problems that an error names
NAMES_SHOWN = 3  # files of one kind of problem that are named


class Problem(str):
    """A sentence about a file, shown as it is or together with others of its kind.

    Args:
        text: the whole sentence.
        kind: equal for problems that are the same but for the file and its values.
        name: of the file, for the list of files with one kind of problem.
    """

    def __new__(cls, text: str, kind: str, name: str) -> "Problem":
        problem = super().__new__(cls, text)
        problem.kind, problem.name = kind, name
        return problem


def problem_of(error: UserError, path: Path, note: str = "") -> Problem:
    """The problem of a file that a caught UserError tells of; `note` is added to its text.

    Errors that the same line of the code raised are of one kind, as are their notes.
    """
    raised = traceback.extract_tb(error.__traceback__)[-1]
    return Problem(f"{error}{note}", f"{raised.filename}:{raised.lineno}{note}", path.name)


def grouped(problems: Iterable[str]) -> list[str]:
    """One sentence for each kind of problem, in the order in which the kinds occur first.

    It is the sentence of the first file, with the number of files and the names of the next ones.
    A string that is no Problem is a kind of its own.
    """
    groups = {}
    for problem in problems:
        kind = problem.kind if isinstance(problem, Problem) else problem
        groups.setdefault(kind, []).append(problem)
    return [describe_group(group) for group in groups.values()]


def describe_group(group: list[str]) -> str:
    """One sentence for problems of one kind."""
    first, others = group[0], group[1:]
    if not others or not isinstance(first, Problem):  # the same string again
        return first
    words = [problem.name for problem in others[: NAMES_SHOWN - 1]]
    unnamed = len(others) - len(words)
    if unnamed:
        words.append(f"{unnamed} more")
    return f"{len(group)} × {first} (also {', '.join(words)})"


def refuse_problems(problems: Sequence[str]) -> None:
    """UserError that names the first problems, if there are any."""
    if not problems:
        return
    kinds = grouped(problems)
    text = "; ".join(kinds[:PROBLEMS_SHOWN])
    if len(kinds) > PROBLEMS_SHOWN:
        text += f"; and {len(kinds) - PROBLEMS_SHOWN} more"
    raise UserError(
        f"files that do not fit together (add what is missing, or remove the file): {text}"
    )

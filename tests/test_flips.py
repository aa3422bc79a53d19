"""--flips is for models that were trained with flips."""

import pytest

from src.errors import UserError
from train_utils.flips import check_flips, trained_mirror


def test_a_model_trained_without_flips_is_refused_and_named():
    trained = {"recipe": {"mirror": "both"}}
    check_flips([trained], ["a.pth"])
    with pytest.raises(UserError, match=r"^b\.pth: --flips: .*--mirror none"):
        check_flips([trained, {"recipe": {"mirror": "none"}}], ["a.pth", "b.pth"])


def test_horizontal_flips_alone_are_noted(capsys):
    check_flips([{"recipe": {"mirror": "horizontal"}}], ["a.pth"])
    assert "a.pth was trained with horizontal flips alone" in capsys.readouterr().out


@pytest.mark.parametrize(
    "checkpoint, mirror",
    [
        ({"recipe": {"mirror": "none"}, "args": {"mirror": "both"}}, "none"),
        ({"args": {"mirror": "horizontal"}}, "horizontal"),  # before there were recipes
        ({"args": "an object of the tutorials"}, None),
        ({"recipe": {}}, None),
    ],
)
def test_the_recipe_says_it_else_the_flags(checkpoint, mirror):
    assert trained_mirror(checkpoint) == mirror

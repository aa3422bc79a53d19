"""The flags of a run that later commands add to, repeat or leave out."""

from train_utils.checkpoint_flags import changed_flags, record_of_flags


def test_the_values_that_a_run_was_given_or_planned_are_not_new():
    run = {"args": {"steps": None, "epochs": 40, "minutes": 5.0}}
    run["recipe"] = {"steps": 200, "epochs": 20}
    for flags in ({"epochs": 40, "minutes": 5.0}, {"epochs": 20, "steps": 200}, {"steps": None}):
        assert changed_flags(run, flags) == set()
    assert changed_flags(run, {"epochs": 41, "steps": 199, "minutes": 4}) == {
        *("epochs", "steps", "minutes")
    }
    assert changed_flags({"args": run["args"]}, {"steps": 200, "epochs": 40}) == {"steps"}


def test_the_flags_that_are_kept_are_those_of_the_first_command():
    run = {"args": {"steps": 20, "epochs": 40, "minutes": None}}
    run["recipe"] = {"steps": 20, "epochs": 20}
    same, longer = {"steps": 20, "epochs": 20, "minutes": None, "lr": 1}, {"steps": 30}
    assert record_of_flags(same, run) == {"steps": 20, "epochs": 40, "minutes": None, "lr": 1}
    assert record_of_flags(same | longer, run) == run["args"] | longer | {"lr": 1}
    assert record_of_flags(same, {}) == same

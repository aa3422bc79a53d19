"""The flags in a checkpoint: which were given, which are new to its run, and which are kept."""

LENGTH_FLAGS = ("steps", "epochs", "minutes")


def changed_flags(checkpoint: dict, flags: dict) -> set[str]:
    """The names of the flags whose value is new to the run of a checkpoint.

    Two values are not new: the one that its command gave, and the one in its recipe, which may
    differ (--steps 20 --epochs 40 makes a run of 20 epochs). Nor is None.
    """
    given, recipe = given_flags(checkpoint), checkpoint.get("recipe", {})
    return {
        name
        for name, value in flags.items()
        if value not in (None, given.get(name), recipe.get(name))
    }


def record_of_flags(flags: dict, checkpoint: dict) -> dict:
    """The flags as the next checkpoint keeps them.

    checkpoint: the one that is resumed, {} for a new run. Where --steps, --epochs or --minutes do
    not change the length of its run, the values of its first command are kept: that command can
    then be given again to continue the run.
    """
    earlier = given_flags(checkpoint)
    lengths = {name: flags[name] for name in LENGTH_FLAGS if name in earlier}
    kept = lengths.keys() - changed_flags(checkpoint, lengths)
    return flags | {name: earlier[name] for name in kept}


def given_flags(checkpoint: dict) -> dict:
    """The flags in a checkpoint; {} in the tutorials' files, which hold other ones."""
    flags = checkpoint.get("args")
    return flags if isinstance(flags, dict) else {}

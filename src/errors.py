"""The exception for what a user can fix."""


class UserError(ValueError):
    """A file, folder, flag or checkpoint that cannot be used.

    The message names it, says what was found, and what to do. The scripts print it as one sentence.
    """

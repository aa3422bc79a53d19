"""The exception for errors that the user can fix."""


class UserError(ValueError):
    """A file, folder, flag or checkpoint that cannot be used.

    The message names it and says what is wrong and what to do. The scripts print it in one line.
    """

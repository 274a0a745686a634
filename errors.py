"""The one error that users are meant to read."""


class UserError(ValueError):
    """Say in one line what was wrong with an input and what to do about it.

    The command line prints the message and exits with 2; everything else is a bug of ours
    and keeps its traceback.
    """

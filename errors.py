"""The one error that users are meant to read."""

import re
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """Say in one line what was wrong with an input and what to do about it.

    The command line prints the message and exits with 2; everything else is a bug of ours
    and keeps its traceback.
    """


MORE_MEMORY = "end what else uses it, or give another device"
"""What to do where what is loaded is too large."""


@contextmanager
def memory_permitting(advice: str) -> Iterator[None]:
    """Say what to do where memory is used up.

    Raises:
        UserError: it is.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # torch has a class of its own for the GPU's memory, and none for that of the CPU.
        lack = re.search(r"out of memory|can't allocate", str(error), re.IGNORECASE)
        if isinstance(error, RuntimeError) and not lack:
            raise
        reason = str(error).partition("\n")[0]
        raise UserError(f"out of memory ({reason}): {advice}") from error

"""What the terminal shows while something takes long."""

import sys
from typing import Any

from rich.console import Console
from tqdm import tqdm


def progress_bar(total: int, unit: str, quiet: bool = False) -> Any:
    """Return a progress bar on stderr, silent where nobody watches."""
    return tqdm(total=total, unit=f" {unit}", disable=quiet or not sys.stderr.isatty(), leave=False)


def console() -> Console:
    """Return a console that cuts no table, whether it writes to a terminal or to a file."""
    found = _Console(highlight=False)
    return found if found.is_terminal else _Console(width=140, highlight=False)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the command line; Rich would exit with 1."""
        raise BrokenPipeError

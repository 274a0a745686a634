"""The Python tool: programs of agents, run where they can do no harm."""

from dataclasses import dataclass
from typing import Protocol

from ...errors import UserError
from . import Tool, ToolError
from .bubblewrap import Bubblewrap
from .monty import Monty

MAX_CODE_LENGTH, MAX_RESULT_LENGTH = 20_000, 1000
"""Characters of a program, and of what the tool says about it."""
OUTPUT_ROOM = 10_000
"""Characters that are kept of what a program prints."""


class Sandbox(Protocol):
    """Somewhere to run a program: no files, network, processes or environment of the host.

    Each program starts afresh, and whatever it started ends with it. It has one second, and
    is ended within another half.
    """

    @property
    def name(self) -> str:
        """What runs the programs, for `info`."""

    def run(self, code: str, room: int = OUTPUT_ROOM) -> str:
        """Run a program and return what it prints and the value of its last expression.

        Args:
            code: The program.
            room: Characters to keep; the rest is dropped.

        Raises:
            ToolError: the program failed; the message is the last line of its error.
            ToolTimeout: the program took too long.
            OSError: the sandbox is broken, which is not the program's fault.
        """


def sandbox(name: str = "auto") -> Sandbox:
    """Return the sandbox of that name: "monty", "bubblewrap", or "auto", which is Monty.

    Monty is everywhere, quick and exact on replay, but knows only a part of Python.
    Bubblewrap has all of CPython, where `bwrap` is installed and allowed.

    Raises:
        UserError: there is no such sandbox, or Bubblewrap does not work here.
    """
    match name:
        case "auto" | "monty":
            return Monty()
        case "bubblewrap":
            return Bubblewrap()
        case _:
            raise UserError(f"unknown sandbox {name!r}; the sandboxes are: auto, monty, bubblewrap")


def python_tool(place: Sandbox) -> Tool:
    """Return a tool named `python` that runs a program in a sandbox."""
    return Tool(_Interpreter(place).python)


@dataclass(frozen=True)
class _Interpreter:
    place: Sandbox

    def python(self, code: str) -> str:
        """Run a Python program and return what it prints and its last expression's value.

        Args:
            code: The program, which has one second and starts afresh each time.
        """
        if len(code) > MAX_CODE_LENGTH:
            raise ToolError(f"the program is longer than {MAX_CODE_LENGTH} characters")
        return _shortened(self.place.run(code, MAX_RESULT_LENGTH + 1))


def _shortened(text: str) -> str:
    text = text.rstrip("\n")
    return text if len(text) <= MAX_RESULT_LENGTH else text[: MAX_RESULT_LENGTH - 1] + "…"

"""A tool is a typed Python function; its JSON schema is read from its signature."""

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_type_hints

from .killable import Killable, Late


class ToolError(Exception):
    """The call was understood and refused, or failed; the message is for the agent."""

    failure = "tool"


class ToolTimeout(ToolError):
    """The call used up its limit and its work was ended."""

    failure = "timeout"


class BadArguments(ValueError):
    """The arguments of a call do not fit the tool's signature."""


_JSON_TYPES: dict[type, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}


@dataclass(frozen=True)
class Tool:
    """Something an agent may call by name.

    The function's parameters are annotated `str`, `int`, `float` or `bool`, and its docstring
    is Google-style: an imperative line, then `Args:`. It returns the text that the agent is
    shown, or raises `ToolError`. Any other exception is a failure of the machinery, not of the
    agent. A function that cannot be sure to end its own work and raise `ToolTimeout` is given a
    time-out: then it runs in a process of its own, which is killed when it is late.
    """

    function: Callable[..., str]
    """What is run."""
    timeout: float | None = None
    """Seconds that a call may take; None where the function sees to that itself."""

    def __post_init__(self) -> None:
        if self.timeout is not None and not 0 < self.timeout < math.inf:
            raise ValueError(f"a time-out is a number of seconds above 0, not {self.timeout}")
        if self.timeout:
            _ = self._run  # refuses a function that another process could not find

    def call(self, arguments: dict[str, Any]) -> str:
        """Run the tool with arguments that `check` let pass.

        Raises:
            ToolError: the call failed, and it is the agent's doing.
            ToolTimeout: it took too long and was ended.
            Exception: anything else is a failure of the machinery.
        """
        try:
            result = self._run(**arguments)
        except Late:
            raise ToolTimeout(f"{self.name} took longer than {self.timeout:g} s") from None
        if type(result) is not str:
            raise TypeError(f"{self.name} returned {type(result).__name__} instead of a text")
        return result

    @cached_property
    def _run(self) -> Callable[..., str]:
        return Killable(self.function, self.timeout) if self.timeout else self.function

    @property
    def name(self) -> str:
        """The function's name, by which it is called."""
        return self.function.__name__

    @cached_property
    def parameters(self) -> dict[str, type]:
        """Names and types of the parameters, in order."""
        hints = get_type_hints(self.function)
        return {name: hints[name] for name in inspect.signature(self.function).parameters}

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of a call, in the shape that chat templates take."""
        summary = (inspect.getdoc(self.function) or "").partition("\n")[0]
        properties = {
            name: {"type": _JSON_TYPES[kind], "description": self._described(name)}
            for name, kind in self.parameters.items()
        }
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": summary,
                "parameters": {
                    "type": "object",
                    "properties": properties,
                    "required": self._required,
                },
            },
        }

    def check(self, arguments: dict[str, Any]) -> None:
        """Compare arguments with the signature.

        Raises:
            BadArguments: a name is unknown or missing, or a value has another type.
        """
        unknown = arguments.keys() - self.parameters.keys()
        missing = [name for name in self._required if name not in arguments]
        if unknown or missing:
            raise BadArguments(f"{self.name} takes {', '.join(self.parameters)}")
        for name, value in arguments.items():
            expected = self.parameters[name]
            fits = type(value) is expected or (expected is float and type(value) is int)
            if not fits:
                raise BadArguments(f"{name} must be of type {_JSON_TYPES[expected]}")
            if expected is float and not math.isfinite(value):
                raise BadArguments(f"{name} must be finite")

    @cached_property
    def _required(self) -> list[str]:
        parameters = inspect.signature(self.function).parameters.values()
        return [p.name for p in parameters if p.default is inspect.Parameter.empty]

    def _described(self, name: str) -> str:
        found = re.search(rf"^\s*{name}: (.+)$", self.function.__doc__ or "", re.MULTILINE)
        return found[1] if found else ""

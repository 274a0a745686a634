"""Compiled functions without the look at the types of their arguments."""

from collections.abc import Callable
from typing import Any


def is_compiled(function: Any) -> bool:
    """Tell whether Numba compiles a function, which it can be told not to (`NUMBA_DISABLE_JIT`)."""
    return hasattr(function, "get_overload")


def direct(function: Any, signature: Any) -> Callable[..., Any]:
    """Return what takes for granted that its arguments are as a signature says.

    To look at their types takes as long as to step eight members. Where Numba compiles nothing it
    is the function itself.
    """
    if not is_compiled(function):
        plain: Callable[..., Any] = function
        return plain
    made: Callable[..., Any] = function.get_overload(signature)
    return made

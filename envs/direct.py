"""Compiled functions without the look at the types of their arguments."""

from collections.abc import Callable
from typing import Any


def direct(function: Any, signature: Any) -> Callable[..., Any]:
    """Return what takes for granted that its arguments are as a signature says.

    To look at their types takes as long as to step eight members. Where Numba is told to compile
    nothing (`NUMBA_DISABLE_JIT`) it is the function itself.
    """
    if not hasattr(function, "get_overload"):
        plain: Callable[..., Any] = function
        return plain
    made: Callable[..., Any] = function.get_overload(signature)
    return made

"""Whether a callback wants to see every step of a rollout."""

import dis
import itertools
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    ConvertCallback,
    EventCallback,
)

from ..infra import MaskInfra


def watches_steps(callback: BaseCallback) -> bool:
    """Tell whether a callback does anything when the environments of a kernel are stepped.

    Every callback must have `_on_step`; many only return True there. `MaskInfra` looks for
    failures of the machinery, of which a kernel has none.
    """
    return any(_watches(one) for one in _all(callback))


def count_steps(callback: BaseCallback, steps: int) -> None:
    """Let callbacks that were not called count the steps, as if they had been."""
    for one in _all(callback):
        one.n_calls += steps
        one.num_timesteps = one.model.num_timesteps


def _all(callback: BaseCallback) -> Iterator[BaseCallback]:
    """Yield the callbacks that are called at each step: a callback, and those of a list."""
    yield callback
    if isinstance(callback, CallbackList):
        for one in callback.callbacks:
            yield from _all(one)


def _watches(callback: BaseCallback) -> bool:
    kind = type(callback)
    if kind.on_step is not BaseCallback.on_step or kind.update_locals is not _UPDATE:
        return True
    if kind.update_child_locals not in _UPDATE_CHILDREN:
        return True
    if kind is ConvertCallback:
        return callback.callback is not None  # type: ignore[attr-defined]
    if kind is MaskInfra:
        return False
    on_step = kind._on_step
    quiet = on_step is CallbackList._on_step or _returns_true(on_step)
    return "_on_step" in vars(callback) or not quiet or _names_locals(kind)


_UPDATE = BaseCallback.update_locals
_UPDATE_CHILDREN = tuple(
    kind.update_child_locals for kind in (BaseCallback, CallbackList, EventCallback)
)


def _names_locals(kind: type[BaseCallback]) -> bool:
    """Tell whether a method of a callback may read what only steps say, when they are over."""
    own = itertools.takewhile(lambda base: base is not BaseCallback, kind.__mro__)
    held = [
        part
        for base in own
        if base not in (CallbackList, EventCallback)
        for name, part in vars(base).items()
        if name not in _BEFORE
    ]
    codes = [code for part in held if isinstance(code := _code(part), CodeType)]
    for code in codes:  # which grows: a comprehension has a code of its own
        codes += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
    return any("locals" in code.co_names for code in codes)


def _code(part: Any) -> Any:
    """Return the code of a function, or of what is around one."""
    for inner in ("fget", "__func__", "__wrapped__"):
        part = getattr(part, inner, None) or part
    return getattr(part, "__code__", None)


_BEFORE = ("_init_callback", "_on_training_start")
"""Methods that are called before the first step."""


def _returns_true(function: object) -> bool:
    """Tell whether a function does nothing else."""
    if not isinstance(function, FunctionType):
        return False
    code = [i for i in dis.get_instructions(function) if i.opname not in ("RESUME", "NOP")]
    names = {i.opname for i in code} - {"LOAD_CONST", "RETURN_CONST", "RETURN_VALUE"}
    return not names and [i.argval for i in code if i.opname != "RETURN_VALUE"] == [True]

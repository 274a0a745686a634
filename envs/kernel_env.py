"""A single environment that is stepped by a kernel."""

import math
from numbers import Real
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.utils import maybe_parse_reset_bounds
from gymnasium.error import ResetNeeded
from numba import njit, types
from numpy.typing import NDArray

from .direct import direct
from .kernel import Kernel

_NEVER = np.iinfo(np.int32).max


class KernelEnv(gymnasium.Env[NDArray[np.float32], Any]):
    """Base of a single environment that is stepped by a kernel.

    It stands before the class of Gymnasium from which the environment inherits its spaces, its
    reset and its renderer. `state` is what Gymnasium's would be, and may be set. The constants
    of the world that are `compiled`, such as `gravity`, have one value: to set another, or to
    give a subclass another, is an AttributeError. To set one of those in `adjustable` to what is
    no finite number is a ValueError. Actions are taken as float32.
    """

    kernel: ClassVar[Kernel]
    state: Any = None
    compiled: ClassVar[dict[str, Any]] = {}
    """Constants that are part of the kernel's code, and their values."""
    adjustable: ClassVar[frozenset[str]] = frozenset()
    """Constants that the kernel is told at each step."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, value in cls.compiled.items():
            cls.check_constant(name, getattr(cls, name, value))

    @classmethod
    def check_constant(cls, name: str, value: Any) -> None:
        """See whether an attribute may have a value.

        Raises:
            AttributeError: another value is compiled.
        """
        if name in cls.compiled:
            usual = cls.compiled[name]
            if not (isinstance(value, Real | str | tuple) and value == usual):
                raise AttributeError(
                    f"{name} = {usual} is compiled into {cls.__name__}: for another value take "
                    "Gymnasium's own environment"
                )

    def __setattr__(self, name: str, value: Any) -> None:
        self.check_constant(name, value)
        if name in self.adjustable:
            _check_adjusted(name, value, getattr(type(self), name, None))
        super().__setattr__(name, value)

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Take one step.

        Raises:
            ValueError: the action is not one of the action space, or not finite. A number
                beyond the bounds of a `Box` is taken as Gymnasium takes it. Or somebody has set a
                state of another length.
            ResetNeeded: `reset` was never called.
        """
        try:
            actions_1_A = checked_actions(np.asarray(action)[None], self.action_space, 1)
        except ValueError:
            raise ValueError(f"action {action!r} is not in {self.action_space}") from None
        if self.state is None:
            raise ResetNeeded("call reset() before step()")
        state_1_S = self.checked_row()[None]
        observations_1_D = np.empty((1, *(self.observation_space.shape or ())), np.float32)
        reward_1, no_flag_1, rng_1_4 = np.empty(1), np.zeros(1, np.bool_), np.empty((1, 4), "u8")
        terminated_1, truncated_1 = np.empty(1, np.bool_), np.empty(1, np.bool_)
        self.kernel.step(
            state_1_S,
            np.zeros(1, np.int32),
            no_flag_1,
            rng_1_4,
            actions_1_A,
            observations_1_D,
            observations_1_D,
            reward_1,
            terminated_1,
            truncated_1,
            _NEVER,
            False,
            self.settings(),
        )
        self.take_row(state_1_S[0])
        self._note(actions_1_A[0])
        if self.render_mode == "human":
            self.render()
        return observations_1_D[0], float(reward_1[0]), bool(terminated_1[0]), False, {}

    def settings(self, options: dict[str, Any] | None = None) -> NDArray[np.float64]:
        """Return the kernel's settings, those of a reset with options where some are given.

        Raises:
            ValueError: an option is out of range.
        """
        raise NotImplementedError

    def state_row(self) -> NDArray[np.float64]:
        """Return the state as the kernel keeps it, shape (S,)."""
        return np.array(self.state, np.float64)

    def checked_row(self) -> NDArray[np.float64]:
        """Return `state_row`, of which kernels see no end.

        Raises:
            ValueError: the state has another length.
        """
        row_S = self.state_row()
        if row_S.shape != (self.kernel.state_size,):
            raise ValueError(f"the state is {self.state!r}, of which {type(self).__name__} makes "
                             f"{row_S.shape}, not {self.kernel.state_size} numbers")  # fmt: skip
        return row_S

    def take_row(self, row_S: NDArray[np.float64]) -> None:
        """Go on from a state as the kernel keeps it."""
        self.state = row_S.copy()

    def _note(self, action_A: NDArray[np.float32]) -> None:
        """Remember what the renderer shows of an action."""


def _check_adjusted(name: str, value: Any, usual: Any) -> None:
    if isinstance(usual, str):
        if not isinstance(value, str):
            raise ValueError(f"{name}={value!r}: give a word, such as {usual!r}")
    elif not (isinstance(value, Real) and math.isfinite(value)):
        raise ValueError(f"{name}={value!r}: give a finite number")


def reset_bounds(options: dict[str, Any] | None, low: float, high: float) -> tuple[float, float]:
    """Return the options `low` and `high` of a reset, or what stands for them.

    Raises:
        ValueError: they are no finite numbers, or in the wrong order.
    """
    low, high = maybe_parse_reset_bounds(options, low, high)
    if not np.isfinite(high - low):
        raise ValueError(f"the bounds low={low} and high={high} must be finite")
    return low, high


def checked_actions(actions: Any, space: spaces.Space[Any], count: int) -> NDArray[np.float32]:
    """Return the actions of so many environments as a kernel takes them, shape (N, A).

    Raises:
        ValueError: they have another shape, type or range.
    """
    given = np.asarray(actions)
    if isinstance(space, spaces.Discrete):
        if given.shape != (count,) or given.dtype.kind not in "iu":
            raise ValueError(f"{_shown(given)}: give {count} integers, each one of {space}")
        actions_N_1 = np.empty((count, 1), np.float32)
        whole_N = np.ascontiguousarray(given, np.int64)
        wrong = take_whole(whole_N, space.n, actions_N_1)
        if wrong >= 0:
            raise ValueError(f"action {given[wrong]} of environment {wrong} is not in {space}")
        return actions_N_1
    if given.shape != (count, *(space.shape or ())) or given.dtype.kind not in "iuf":
        raise ValueError(f"{_shown(given)}: give {count} x {space.shape} numbers of {space}")
    actions_N_A = as_kernels_take(given, np.float32)
    wrong = _not_finite(actions_N_A)
    if wrong >= 0:
        raise ValueError(f"action {given[wrong]} of environment {wrong} is not finite")
    return actions_N_A


def as_kernels_take(given: NDArray[Any], kind: type[np.generic]) -> NDArray[Any]:
    """Return an array of a type; a copy where what is given lies otherwise or is read-only."""
    taken = np.ascontiguousarray(given, kind)
    return taken if taken.flags.carray else taken.copy()


def _shown(given: NDArray[Any]) -> str:
    return f"actions have shape {given.shape} and type {given.dtype}"


_TAKE = types.int64(types.int64[::1], types.int64, types.float32[:, ::1])


@njit(_TAKE, cache=True)
def _take_whole(actions_N: NDArray[np.int64], count: int, actions_N_1: NDArray[np.float32]) -> int:
    """Copy whole numbers; return the place of one outside of 0..count-1, or -1."""
    wrong = -1
    for n in range(len(actions_N)):
        actions_N_1[n, 0] = actions_N[n]
        if actions_N[n] < 0 or actions_N[n] >= count:
            wrong = n
    return wrong


take_whole = direct(_take_whole, _TAKE)


@njit(types.int64(types.float32[:, ::1]), cache=True)
def _not_finite(actions_N_A: NDArray[np.float32]) -> int:
    """Return the row of a number that is not finite, or -1."""
    wrong = -1
    for n in range(actions_N_A.shape[0]):
        for a in range(actions_N_A.shape[1]):
            if not np.isfinite(actions_N_A[n, a]):
                wrong = n
    return wrong

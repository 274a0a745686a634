"""A kernel's vector as stable-baselines3 takes one."""

from . import libraries  # noqa: F401 # isort: skip - before what it imports

import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from numba import from_dtype, njit, types
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from ..envs.direct import direct
from ..envs.kernel_env import KernelEnv
from ..envs.kernel_vector import KernelVector
from ..errors import UserError

_FLOAT, _BOOL = np.dtype(np.float32), np.dtype(np.bool_)
_ENDED = np.dtype(
    [("member", "i8"), ("length", "i8"), ("total", "f8"), ("cut_off", "?")], align=True
)
"""An episode that ended."""


class KernelVecEnv(VecEnv):
    """Show a kernel's vector to stable-baselines3.

    It says, step for step, what `DummyVecEnv` of as many environments says, each in a
    `Monitor`: `episode`, `terminal_observation` and `TimeLimit.truncated` in the infos. The
    arrays are new in each call; the info of a member whose episode goes on is the same until
    somebody changes it, for making a thousand dictionaries takes longer than a thousand steps.

    There are no single environments inside: `get_attr` and `env_method` ask one that is made
    for them and stands where the member of the vector stands. What a method changes in it does
    not reach the vector.

    Args:
        vector: Resets its members in the step in which an episode ends (SAME_STEP).

    Raises:
        UserError: it is another vector, or resets them at another time.
    """

    def __init__(self, vector: KernelVector) -> None:
        if not isinstance(vector, KernelVector):
            raise UserError(
                f"a {type(vector).__name__} is not stepped by a kernel: give "
                "`gymnasium.make_vec(...).unwrapped` of one of palaestra's, without wrappers"
            )
        if vector.autoreset_mode is not AutoresetMode.SAME_STEP:
            raise UserError("stable-baselines3 needs a vector with autoreset_mode=SAME_STEP")
        self.vector = vector
        self.episode_returns_N = np.zeros(vector.num_envs)
        """Return of each episode so far."""
        self.episode_lengths_N = np.zeros(vector.num_envs, np.int32)
        """Steps of each episode so far."""
        count = vector.num_envs
        self._shape_N_D = (count, *(vector.single_observation_space.shape or ()))
        self._final_N_D = np.empty(self._shape_N_D, _FLOAT)
        self._rewards_N = np.empty(count)
        self._terminated_N = np.empty(count, np.bool_)
        self._ended_N = np.empty(count, _ENDED)
        self._going_on = _GoingOn(count)
        self.began = time.time()
        """When it was made; episodes tell the seconds since then, as `Monitor` does."""
        self._attributes: list[dict[str, Any]] = [{} for _ in range(vector.num_envs)]
        super().__init__(
            vector.num_envs, vector.single_observation_space, vector.single_action_space
        )

    def reset(self) -> NDArray[np.float32]:
        """Begin new episodes, with the seeds and options that were set for them."""
        waiting, options, parts = list(range(self.num_envs)), self._options, []
        while waiting:
            asked = options[waiting[0]]
            mask_N = np.zeros(self.num_envs, np.bool_)
            mask_N[[n for n in waiting if options[n] == asked]] = True  # they begin together
            waiting = [n for n in waiting if options[n] != asked]
            parts.append((mask_N, asked or {}))
        observations_N_D = self.vector.reset_parts(self._seeds, parts)
        self._reset_seeds()
        self._reset_options()
        self.episode_returns_N[:] = 0.0
        self.episode_lengths_N[:] = 0
        return observations_N_D

    def step_async(self, actions: NDArray[Any]) -> None:
        """Note the actions."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Take the actions that were noted."""
        return self.step(self._actions)

    def step(self, actions: NDArray[Any]) -> VecEnvStepReturn:
        """Take the actions.

        Raises:
            ValueError: the actions have another shape, type or range.
            ResetNeeded: `reset` was never called.
        """
        observations_N_D = np.empty(self._shape_N_D, _FLOAT)
        paid_N, dones_N = np.empty(self.num_envs, _FLOAT), np.empty(self.num_envs, _BOOL)
        rewards_N, terminated_N = self._rewards_N, self._terminated_N
        count = self.vector.step_into(
            actions, observations_N_D, self._final_N_D, rewards_N, terminated_N, dones_N
        )
        _account_now(
            rewards_N, terminated_N, dones_N, self.episode_returns_N, self.episode_lengths_N,
            paid_N, self._ended_N,
        )  # fmt: skip
        infos = self._going_on.copy()
        if count:
            self._tell(infos, count)
        return observations_N_D, paid_N, dones_N, infos

    def close(self) -> None:
        """Close the vector."""
        self.vector.close()

    def get_images(self) -> Sequence[NDArray[Any] | None]:
        """Return nothing: to watch, make a single environment."""
        return [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of some members; a method is returned, not called."""
        return [
            self._attributes[n][attr_name]
            if attr_name in self._attributes[n]
            else getattr(self._member(n), attr_name)
            for n in self._chosen(indices)
        ]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of some members that is none of the environment's own.

        Raises:
            AttributeError: it is one, which the kernel would not see.
        """
        if hasattr(self.vector.make_alone(), attr_name):
            raise AttributeError(
                f"{attr_name!r} cannot be set in a vector that a kernel steps: give it to the "
                "environment's constructor"
            )
        for n in self._chosen(indices):
            self._attributes[n][attr_name] = value

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """Call a method of some members.

        Raises:
            AttributeError: there is none, or it is one that steps or resets.
        """
        if method_name in ("step", "reset"):
            raise AttributeError(f"{method_name}() goes through the vector, not through a member")
        methods = self.get_attr(method_name, indices)
        return [method(*method_args, **kwargs) for method in methods]

    def env_is_wrapped(
        self,
        wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]],
        indices: VecEnvIndices = None,
    ) -> list[bool]:
        """Tell whether members do what a wrapper does: they do what `Monitor` does."""
        return [wrapper_class is Monitor for _ in self._chosen(indices)]

    def _chosen(self, indices: VecEnvIndices) -> list[int]:
        """Return the members that are meant; one that is not there is an IndexError."""
        return [range(self.num_envs)[n] for n in self._get_indices(indices)]

    def _member(self, n: int) -> KernelEnv:
        """Return a single environment that stands where a member of the vector stands."""
        alone = self.vector.make_alone()
        if self.vector.over_N[n]:  # it was never reset
            return alone
        alone.take_row(self.vector.state_N_S[n])
        return alone

    def _tell(self, infos: list[dict[str, Any]], count: int) -> None:
        """Say of each episode that ended what `Monitor` and `DummyVecEnv` say."""
        passed = int((time.time() - self.began) * 1e6) / 1e6  # whole microseconds
        # Those who ended keep rows of this array, as to copy them takes longer than a new one.
        final_N_D, self._final_N_D = self._final_N_D, np.empty(self._shape_N_D, _FLOAT)
        for n, length, total, cut_off in self._ended_N[:count].tolist():
            # A whole number is its own rounding, and to round takes longer than all the rest.
            paid = total if total.is_integer() else round(total, 6)
            infos[n] = {
                "episode": {"r": paid, "l": length, "t": passed},
                "TimeLimit.truncated": cut_off,
                "terminal_observation": final_N_D[n],
            }


class _GoingOn(list[dict[str, Any]]):
    """What is said of members whose episodes go on."""

    def __init__(self, count: int) -> None:
        super().__init__(_Info(self, n) for n in range(count))

    def __reduce__(self) -> tuple[Any, ...]:
        return _GoingOn, (len(self),)


class _Info(dict[str, Any]):
    """What is said of one of them, in every step until somebody changes it.

    Whoever does keeps it, and the member gets a new one for the steps to come. A copy is a plain
    dictionary.
    """

    __slots__ = ("_member", "_told")

    def __init__(self, told: _GoingOn, member: int) -> None:
        super().__init__({"TimeLimit.truncated": False})
        self._told, self._member = told, member

    def leave(self) -> None:
        """Be no longer the member's."""
        if self._told[self._member] is self:
            self._told[self._member] = _Info(self._told, self._member)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


def _leaving(change: Callable[..., Any]) -> Callable[..., Any]:
    def left(info: _Info, *args: Any, **kwargs: Any) -> Any:
        info.leave()
        return change(info, *args, **kwargs)

    return left


for _change in (
    "__setitem__", "__delitem__", "__ior__", "clear", "pop", "popitem", "setdefault", "update"
):  # fmt: skip
    setattr(_Info, _change, _leaving(getattr(dict, _change)))


_FLOATS, _FLAGS = types.float64[::1], types.boolean[::1]
_SIGNATURE = types.void(
    _FLOATS, _FLAGS, _FLAGS, _FLOATS, types.int32[::1],
    types.float32[::1], from_dtype(_ENDED)[::1],
)  # fmt: skip


@njit(_SIGNATURE, cache=True, nogil=True)
def _account(  # type: ignore[no-untyped-def]
    rewards_N, terminated_N, dones_N, returns_N, lengths_N, paid_N, ended_N
):  # fmt: skip
    """Add the rewards to the returns, write what stable-baselines3 takes, and note who ended.

    `dones_N` comes with those that were truncated and leaves with those that are done: to take
    an array from Python takes as long as to account for eight members, so there are few.
    """
    e = 0
    for n in range(len(rewards_N)):
        returns_N[n] += rewards_N[n]
        lengths_N[n] += 1
        paid_N[n] = rewards_N[n]
        dones_N[n] |= terminated_N[n]
        if dones_N[n]:
            episode = ended_N[e]
            episode["member"], episode["length"] = n, lengths_N[n]
            episode["total"], episode["cut_off"] = returns_N[n], not terminated_N[n]
            returns_N[n], lengths_N[n] = 0.0, 0
            e += 1


_account_now = direct(_account, _SIGNATURE)

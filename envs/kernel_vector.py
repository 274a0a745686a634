"""Many environments that are stepped in one call of their kernel."""

from collections.abc import Sequence
from operator import index
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from gymnasium.error import Error, ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from .kernel import Kernel
from .kernel_env import KernelEnv, as_kernels_take, checked_actions, take_whole
from .pcg64 import states_from_generators, states_from_seeds

_INT64 = np.dtype(np.int64)


class KernelVector(VectorEnv[NDArray[np.float32], NDArray[Any], NDArray[Any]]):
    """Step N environments in one kernel call, each with the stream that it would have alone.

    Environment i of `reset(seed=s)` plays what a single environment plays after
    `reset(seed=s + i)`, later episodes included: the kernel re-implements NumPy's PCG64.

    Args:
        num_envs: Number of environments, N.
        max_episode_steps: Steps after which an episode is truncated; None for the usual number.
        autoreset_mode: As in Gymnasium. NEXT_STEP spends one step with reward 0 on the reset;
            SAME_STEP resets at once and keeps the last observation in `info["final_obs"]`;
            DISABLED leaves it to `reset(options={"reset_mask": ...})`.
        render_mode: None only; to watch, make a single environment.
        kwargs: For the environment, as alone.

    Raises:
        ValueError: a count that is no whole number or below 1, or a render mode.
    """

    alone_class: ClassVar[type[KernelEnv]]
    """The single environment."""
    usual_steps: ClassVar[int]
    """Steps after which an episode is truncated, unless told otherwise."""
    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        **kwargs: Any,
    ) -> None:
        steps = self.usual_steps if max_episode_steps is None else max_episode_steps
        num_envs, steps = _count("num_envs", num_envs), _count("max_episode_steps", steps)
        if render_mode is not None:
            raise ValueError(
                f"{type(self).__name__} does not render: make one environment to watch"
            )
        self._kwargs = kwargs
        self._alone = self.make_alone()
        self.num_envs, self.max_episode_steps = num_envs, steps
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.single_observation_space = self._alone.observation_space
        self.single_action_space = self._alone.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.settings = self._alone.settings()
        self.state_N_S = np.zeros((num_envs, self.kernel.state_size))
        self.steps_N = np.zeros(num_envs, np.int32)
        self.over_N = np.ones(num_envs, np.bool_)
        self.rng_N_4 = np.zeros((num_envs, 4), np.uint64)
        self._seeded = False
        (size,) = self.single_observation_space.shape or ()
        self._shape_N, self._shape_N_D = (num_envs,), (num_envs, size)
        space = self.single_action_space
        self._choices = int(space.n) if isinstance(space, spaces.Discrete) else 0
        self._actions_N_1 = np.empty((num_envs, 1), np.float32)
        self._same_step = self.autoreset_mode is AutoresetMode.SAME_STEP
        self._no_reset = self.autoreset_mode is AutoresetMode.DISABLED

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.alone_class
        own.check_constant(name, value)
        if name in own.adjustable:
            raise AttributeError(
                f"{name} cannot be set in a vector that a kernel steps: give it to the "
                f"constructor, or to a subclass of {own.__name__} that is its `alone_class`"
            )
        super().__setattr__(name, value)

    @property
    def kernel(self) -> Kernel:
        """The compiled part."""
        return self.alone_class.kernel

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start new episodes, in all environments or in those of `options["reset_mask"]`.

        Args:
            seed: Environment i gets `seed + i`, or entry i of a list; None goes on drawing.
            options: Those of the single environment, for the episodes that start now.

        Raises:
            ValueError: the mask or the list of seeds does not fit the environments, or an
                option is out of range.
            Error: a seed is no whole number, or below 0.
            ResetNeeded: the first reset is not for all.
        """
        options = dict(options or {})
        mask_N = self._mask(options.pop("reset_mask", np.ones(self.num_envs, np.bool_)))
        return self.reset_parts(seed, [(mask_N, options)]), {}

    def reset_parts(
        self,
        seed: int | list[int | None] | None,
        parts: Sequence[tuple[NDArray[np.bool_], dict[str, Any]]],
    ) -> NDArray[np.float32]:
        """Start new episodes in parts of the vector, each with options of its own.

        What is refused changes nothing.

        Args:
            seed: As `reset` takes it.
            parts: Masks, of which no two choose the same environment, and their options.

        Returns:
            Observations of all, shape (N, D).

        Raises:
            ValueError, Error, ResetNeeded: as `reset`.
        """
        settings = [self._alone.settings(options) for _, options in parts]
        asked_N = np.any([mask_N for mask_N, _ in parts], axis=0)
        if not self._seeded and not asked_N.all():
            raise ResetNeeded("the first reset is for all members")
        self._seed(seed, asked_N)
        observations_N_D = np.empty(self._shape_N_D, np.float32)
        world = (self.state_N_S, self.steps_N, self.over_N, self.rng_N_4)
        for (mask_N, _), own in zip(parts, settings, strict=True):
            self.kernel.reset(*world, mask_N, observations_N_D, own)
        return observations_N_D

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[
        NDArray[np.float32], NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
    ]:
        """Step every environment.

        Args:
            actions: Integers, shape (N,), or for a `Box` finite numbers, shape (N, A).

        Returns:
            Observations (N, D) float32, rewards (N,) float64, terminations (N,),
            truncations (N,), and infos; with SAME_STEP `final_obs` and `final_info` hold what
            the reset would have hidden.

        Raises:
            ValueError: the actions have another shape, type or range.
            ResetNeeded: `reset` was never called, or an episode is over under DISABLED.
        """
        observations_N_D = np.empty(self._shape_N_D, np.float32)
        final_N_D = np.empty(self._shape_N_D, np.float32)
        rewards_N = np.empty(self.num_envs)
        terminated_N = np.empty(self.num_envs, np.bool_)
        truncated_N = np.empty(self.num_envs, np.bool_)
        into = (observations_N_D, final_N_D, rewards_N, terminated_N, truncated_N)
        ended = self.step_into(actions, *into)
        infos: dict[str, Any] = {}
        if ended and self._same_step:
            infos = self._final(final_N_D, terminated_N | truncated_N)
        return observations_N_D, rewards_N, terminated_N, truncated_N, infos

    def step_into(
        self,
        actions: NDArray[Any],
        observations_N_D: NDArray[np.float32],
        final_N_D: NDArray[np.float32],
        rewards_N: NDArray[np.float64],
        terminated_N: NDArray[np.bool_],
        truncated_N: NDArray[np.bool_],
    ) -> int:
        """Do what `step` does, into arrays that are given, which must be such as it returns.

        Under SAME_STEP the last observations of episodes that end are written into their rows
        of `final_N_D`, and its other rows are left as they are.

        Returns:
            The number of episodes that ended.

        Raises:
            ValueError: the actions have another shape, type or range.
            ResetNeeded: `reset` was never called, or an episode is over under DISABLED.
        """
        actions_N_A = self._taken(actions)
        if not self._seeded or self._no_reset:
            self.check_begun()
        ended: int = self.alone_class.kernel.step_direct(
            self.state_N_S,
            self.steps_N,
            self.over_N,
            self.rng_N_4,
            actions_N_A,
            observations_N_D,
            final_N_D,
            rewards_N,
            terminated_N,
            truncated_N,
            self.max_episode_steps,
            self._same_step,
            self.settings,
        )
        return ended

    def check_begun(self) -> None:
        """See whether the members can be stepped.

        Raises:
            ResetNeeded: `reset` was never called, or an episode is over under DISABLED.
        """
        if not self._seeded:
            raise ResetNeeded("call reset() before step()")
        if self._no_reset and self.over_N.any():
            raise ResetNeeded("an episode is over: call reset(options={'reset_mask': mask}) first")

    def _taken(self, actions: Any) -> NDArray[np.float32]:
        """Return checked actions, shape (N, A); what is usual goes a shorter way."""
        if (
            self._choices
            and type(actions) is np.ndarray
            and actions.dtype is _INT64
            and actions.shape == self._shape_N
            and actions.flags.c_contiguous
            and take_whole(actions, self._choices, self._actions_N_1) < 0
        ):
            return self._actions_N_1
        return checked_actions(actions, self.single_action_space, self.num_envs)

    def make_alone(self) -> KernelEnv:
        """Return a new single environment, with the arguments of the vector."""
        return self.alone_class(**self._kwargs)

    def _mask(self, mask: Any) -> NDArray[np.bool_]:
        mask_N = np.asarray(mask)
        if mask_N.shape != (self.num_envs,) or mask_N.dtype != np.bool_:
            raise ValueError(
                f"reset_mask has shape {mask_N.shape} and type {mask_N.dtype}: "
                f"give {self.num_envs} booleans"
            )
        return as_kernels_take(mask_N, np.bool_)

    def _seed(self, seed: Any, mask_N: NDArray[np.bool_]) -> None:
        asked = mask_N.tolist()
        given = {
            i: _checked_seed(s)
            for i, s in enumerate(self._listed(seed))
            if s is not None and asked[i]
        }
        states = states_from_seeds(list(given.values()))
        if not self._seeded and len(given) < self.num_envs:
            fresh = [np.random.Generator(np.random.PCG64()) for _ in range(self.num_envs)]
            self.rng_N_4[:] = states_from_generators(fresh)
        self.rng_N_4[list(given)] = states
        self._seeded = True

    def _listed(self, seed: Any) -> list[Any]:
        """Return what each environment is seeded with; None goes on drawing."""
        if seed is None:
            return [None] * self.num_envs
        if np.ndim(seed) == 0:
            first = _checked_seed(seed)
            return [first + i for i in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"{len(seed)} seeds were given for {self.num_envs} environments")
        return list(seed)

    def _final(self, final_N_D: NDArray[np.float32], ended_N: NDArray[np.bool_]) -> dict[str, Any]:
        observations = np.full(self.num_envs, None, dtype=object)
        for i in np.flatnonzero(ended_N):
            observations[i] = final_N_D[i]
        return {
            "final_obs": observations,
            "_final_obs": ended_N.copy(),
            "final_info": {},
            "_final_info": ended_N.copy(),
        }


def _count(name: str, given: Any) -> int:
    try:
        whole = index(given)
    except TypeError:
        whole = 0
    if not 1 <= whole < 2**63:
        raise ValueError(f"{name}={given!r} must be a whole number, at least 1 and below 2^63")
    return whole


def _checked_seed(seed: Any) -> int:
    """Return a seed as a Python integer, or say what Gymnasium says."""
    try:
        whole = index(seed)
    except TypeError:
        raise Error(f"Seed must be a whole number, actual value: {seed!r}") from None
    if whole < 0:
        raise Error(f"Seed must be greater or equal to zero, actual value: {whole}")
    return whole

"""Many environments that are stepped in one call of their kernel."""

from operator import index
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from .kernel import Kernel
from .kernel_env import KernelEnv, checked_actions, take_whole
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
        ValueError: a count below 1, or a render mode.
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
        if num_envs < 1 or steps < 1:
            raise ValueError(
                f"num_envs={num_envs} and max_episode_steps={steps} must be at least 1"
            )
        if render_mode is not None:
            raise ValueError(
                f"{type(self).__name__} does not render: make one environment to watch"
            )
        self._kwargs = kwargs
        self.alone = self.make_alone()
        self.num_envs, self.max_episode_steps = num_envs, steps
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.single_observation_space = self.alone.observation_space
        self.single_action_space = self.alone.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.settings = self.alone.settings()
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
            ResetNeeded: the first reset is not for all.
        """
        options = dict(options or {})
        mask_N = self._mask(options.pop("reset_mask", np.ones(self.num_envs, np.bool_)))
        settings = self.alone.settings(options)
        if not self._seeded and not mask_N.all():
            raise ResetNeeded("the first reset is for all members")
        self._seed(seed, mask_N)
        observations_N_D = np.empty(self._shape_N_D, np.float32)
        world = (self.state_N_S, self.steps_N, self.over_N, self.rng_N_4)
        self.kernel.reset(*world, mask_N, observations_N_D, settings)
        return observations_N_D, {}

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
        return np.ascontiguousarray(mask_N)

    def _seed(self, seed: int | list[int | None] | None, mask_N: NDArray[np.bool_]) -> None:
        if isinstance(seed, int | np.integer):
            seed = [int(seed) + i for i in range(self.num_envs)]
        listed = () if seed is None else seed
        seeds = [None if s is None else index(s) for s in listed]
        if seed is not None and len(seeds) != self.num_envs:
            raise ValueError(f"{len(seeds)} seeds were given for {self.num_envs} environments")
        asked = mask_N.tolist()
        given = {i: s for i, s in enumerate(seeds) if s is not None and asked[i]}
        if not self._seeded and len(given) < self.num_envs:
            fresh = [np.random.Generator(np.random.PCG64()) for _ in range(self.num_envs)]
            self.rng_N_4[:] = states_from_generators(fresh)
        self._seeded = True
        self.rng_N_4[list(given)] = states_from_seeds(list(given.values()))

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

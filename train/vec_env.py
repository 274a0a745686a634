"""A vector of environments as stable-baselines3 takes one."""

from . import libraries  # noqa: F401 # isort: skip - before what it imports

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import (
    VecEnvIndices,
    VecEnvObs,
    VecEnvStepReturn,
)

from ..envs.vector import Vector
from ..envs.vector.members import Info, Outcome, assign, attribute, has, is_wrapped
from ..errors import UserError


class AsVecEnv(VecEnv):
    """Show a vector to stable-baselines3, in any of its modes; what SB3's `DummyVecEnv` says.

    The infos of each member pass through as they are, `reward_valid` and `failure` among them,
    and say `TimeLimit.truncated` and at the end of an episode `terminal_observation`; those of
    the reset that follows are in `reset_infos`. `env_method("action_masks")` works as
    sb3-contrib asks. Closing it closes the vector. Pickled, it takes its members along as they
    are, wherever they live, and its copy goes on from there.

    Args:
        vector: Resets its members in the step in which an episode ends (SAME_STEP).
        monitor: Whether infos tell of episodes that ended what SB3's `Monitor` tells, their
            return and length; here, so that no process of a worker has to load torch for it.

    Raises:
        UserError: it resets them at another time.
    """

    def __init__(self, vector: Vector, monitor: bool = False) -> None:
        if vector.autoreset_mode is not AutoresetMode.SAME_STEP:
            raise UserError("stable-baselines3 needs a vector with autoreset=SAME_STEP")
        self.vector = vector
        super().__init__(
            vector.num_envs, vector.single_observation_space, vector.single_action_space
        )
        self._monitor, self._began = monitor, time.time()
        self._rewards: list[list[float]] = [[] for _ in range(vector.num_envs)]

    def reset(self) -> VecEnvObs:
        """Begin new episodes, with the seeds and options that were set for them."""
        outcomes = self.vector.reset_members(self._seed(), [o or None for o in self._options])
        self._reset_seeds()
        self._reset_options()
        self._rewards = [[] for _ in outcomes]
        self.reset_infos = [outcome[4] for outcome in outcomes]
        return self._observed(outcomes)

    def step_async(self, actions: Any) -> None:
        """Note the actions."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Take the actions."""
        return self._returned(range(self.num_envs), self.vector.step_members(self._actions))

    def step_some(self, indices: Sequence[int], actions: Any) -> VecEnvStepReturn:
        """Take actions in some members, and return what `step` does, of these."""
        return self._returned(indices, self.vector.step_members(actions, indices))

    def close(self) -> None:
        """Close the vector."""
        self.vector.close()

    def get_images(self) -> Sequence[NDArray[Any] | None]:
        """Return what every member renders, if that is an image."""
        if self.render_mode != "rgb_array":
            return [None] * self.num_envs
        return self.vector.render()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of some members; a method is returned, not called."""
        return [*self.vector.apply(partial(attribute, name=attr_name), self._chosen(indices))]

    def has_attr(self, attr_name: str) -> bool:
        """Tell whether all members have an attribute, which need not be one that can be sent."""
        return all(self.vector.apply(partial(has, name=attr_name)))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of some members to one value."""
        self.vector.apply(partial(assign, name=attr_name, value=value), self._chosen(indices))

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """Call a method of some members."""
        chosen = self._chosen(indices)
        return [*self.vector.call_some(chosen, method_name, *method_args, **kwargs)]

    def env_is_wrapped(
        self,
        wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]],
        indices: VecEnvIndices = None,
    ) -> list[bool]:
        """Tell whether a wrapper is around some members."""
        # By its name, so that no process has to import SB3, and with it torch.
        name = f"{wrapper_class.__module__}.{wrapper_class.__qualname__}"
        return [*self.vector.apply(partial(is_wrapped, wrapper=name), self._chosen(indices))]

    def _seed(self) -> int | list[int | None] | None:
        if all(seed is None for seed in self._seeds):
            return None
        return self._seeds[0] if self.vector.group_size > 1 else self._seeds

    def _returned(self, indices: Sequence[int], outcomes: Sequence[Outcome]) -> VecEnvStepReturn:
        return (
            self._observed(outcomes),
            np.array([outcome[1] for outcome in outcomes], np.float32),
            np.array([outcome[2] or outcome[3] for outcome in outcomes], np.bool_),
            [self._told(i, outcome) for i, outcome in zip(indices, outcomes, strict=True)],
        )

    def _observed(self, outcomes: Sequence[Outcome]) -> VecEnvObs:
        observed: VecEnvObs = self.vector.batches.observations([o[0] for o in outcomes])
        return observed

    def _told(self, index: int, outcome: Outcome) -> Info:
        _, reward, terminated, truncated, info, final = outcome
        told: Info = {"TimeLimit.truncated": bool(truncated and not terminated)}
        if self._monitor:
            self._rewards[index].append(float(reward))
        if final is None:
            return info | told
        self.reset_infos[index] = info
        if self._monitor:
            told["episode"] = self._ended(index)
        return final[1] | told | {"terminal_observation": final[0]}

    def _ended(self, index: int) -> Info:
        """Return what there is to say about an episode, in SB3's names and digits."""
        rewards, self._rewards[index] = self._rewards[index], []
        passed = round(time.time() - self._began, 6)
        return {"r": round(sum(rewards), 6), "l": len(rewards), "t": passed}

    def _chosen(self, indices: VecEnvIndices) -> list[int]:
        return [int(i) for i in self._get_indices(indices)]

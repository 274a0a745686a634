"""Group-relative policy optimisation inside stable-baselines3: no critic, but neighbours.

Members of a group play the same tasks. How much better an episode went than those of its
neighbours on the same task is the advantage of all its steps; everything else is PPO.
"""

from . import libraries  # noqa: F401 # isort: skip - before what it imports

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common import buffers
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from ..errors import UserError
from .buffers import RolloutBuffer
from .ppo import PPO

Baseline = Literal["group", "leave-one-out"]
"""`group`: the mean of the group, and its standard deviation as the unit (Shao et al.,
"DeepSeekMath", 2024). `leave-one-out`: the mean of the others (Ahmadian et al., "Back to Basics:
Revisiting REINFORCE-Style Optimization", 2024), which leaves returns their unit."""


class GroupRolloutBuffer(RolloutBuffer):
    """`RolloutBuffer` whose advantages compare episodes of one task.

    A rollout begins with new episodes everywhere, so episode e of each member of a group is of
    one task. Steps of episodes that the rollout does not hold to their end, that the machinery
    spoilt, or that nobody else of the group has played, are invalid. Returns are values plus
    advantages, as of any buffer.

    Args:
        args: For `RolloutBuffer`.
        group_size: Members of a group, which stand side by side.
        baseline: What episodes are compared with.
        kwargs: For `RolloutBuffer`.

    Raises:
        UserError: the members cannot be divided so, or there is no such baseline.
    """

    def __init__(
        self, *args: Any, group_size: int, baseline: Baseline = "group", **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        if group_size < 2 or self.n_envs % group_size:
            raise UserError(
                f"{self.n_envs} environments cannot be divided into groups of {group_size}: give "
                "a multiple of it, and 2 at least"
            )
        if baseline not in ("group", "leave-one-out"):
            raise UserError(f"unknown baseline {baseline!r}; give group or leave-one-out")
        self._group_size, self._baseline = group_size, baseline

    def compute_returns_and_advantage(
        self, last_values: torch.Tensor, dones: NDArray[np.bool_]
    ) -> None:
        """Compare the episodes of each task.

        Args:
            last_values: Not looked at: what has not ended is not learned from.
            dones: Whether the last step ended an episode, shape (N,).

        Raises:
            UserError: no two episodes of one task were played to their ends.
        """
        self._check_full()
        starts_T_N = self.episode_starts.astype(bool)
        starts_T_N[0] = True
        episode_T_N = np.cumsum(starts_T_N, axis=0) - 1
        advantage_T_N = np.zeros_like(self.rewards)
        counted_T_N = np.zeros(self.rewards.shape, bool)
        whole_E_N, returns_E_N = self._episodes(episode_T_N, np.asarray(dones, bool))
        for first in range(0, self.n_envs, self._group_size):
            group = slice(first, first + self._group_size)
            for e in range(len(whole_E_N)):
                whole_K = whole_E_N[e, group]
                if whole_K.sum() < 2:
                    continue
                compared_K = np.zeros(self._group_size, np.float32)
                compared_K[whole_K] = compare(returns_E_N[e, group][whole_K], self._baseline)
                here_T_K = (episode_T_N[:, group] == e) & whole_K
                counted_T_N[:, group] |= here_T_K
                advantage_T_N[:, group] += here_T_K * compared_K
        if not counted_T_N.any() and not self.spoilt_T_N.any():
            raise UserError(
                f"no two episodes of one task ended within the {self.buffer_size} steps of a "
                "rollout, so there is nothing to compare: give a larger n_steps"
            )
        self.valid_T_N &= counted_T_N
        self.advantages[:] = advantage_T_N
        self.returns[:] = self.values + advantage_T_N

    def _episodes(
        self, episode_T_N: NDArray[np.int64], dones_N: NDArray[np.bool_]
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Return of each member's episodes whether they are whole and valid, and their returns."""
        count, members = int(episode_T_N.max()) + 1, np.arange(self.n_envs)
        returns_E_N = np.zeros((count, self.n_envs), np.float32)
        spoilt_E_N = np.zeros((count, self.n_envs), bool)
        np.add.at(returns_E_N, (episode_T_N, members), self.rewards)
        np.logical_or.at(spoilt_E_N, (episode_T_N, members), ~self.valid_T_N)
        last_N = episode_T_N[-1]
        ended_E_N = np.arange(count)[:, None] < last_N + dones_N
        return ended_E_N & ~spoilt_E_N, returns_E_N


def compare(returns_K: NDArray[np.float32], baseline: Baseline) -> NDArray[np.float32]:
    """Return how much better each of K episodes of one task went than the others, shape (K,)."""
    if baseline == "group":
        unit = returns_K.std() + 1e-4
    else:  # r - mean of the others, which is the distance from the mean of all, stretched
        unit = (len(returns_K) - 1) / len(returns_K)
    compared: NDArray[np.float32] = ((returns_K - returns_K.mean()) / unit).astype(np.float32)
    return compared


class GRPO(PPO):
    """PPO without a critic, over environments that play in groups.

    `make_vec(env_id, n, group_size=k)` makes such environments. Advantages are never normalised
    once more, and nothing is discounted.

    Args:
        args: For `PPO`.
        group_size: Members that play the same tasks.
        baseline: What episodes are compared with.
        kwargs: For `PPO`.
    """

    has_critic = False

    def __init__(
        self, *args: Any, group_size: int = 8, baseline: Baseline = "group", **kwargs: Any
    ) -> None:
        given = {"group_size": group_size, "baseline": baseline}
        kwargs |= {"normalize_advantage": False, "vf_coef": 0.0}
        # What SB3 adds to the reward of a truncated step is this times what a critic expects.
        kwargs["gamma"] = 0.0
        kwargs |= {"rollout_buffer_class": GroupRolloutBuffer, "rollout_buffer_kwargs": given}
        super().__init__(*args, **kwargs)

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: buffers.RolloutBuffer,
        n_rollout_steps: int,
    ) -> bool:
        """Play; all then go on to new tasks, so that all of a group are at the same one."""
        going = super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)
        # Now and not before the next rollout, whose start is where a run is saved.
        self._last_obs = env.reset()  # type: ignore[assignment]
        self._last_episode_starts = np.ones(env.num_envs, bool)
        return going

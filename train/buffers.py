"""Rollout buffers that leave out of training what the machinery spoilt.

Idea: where `info["reward_valid"]` is False the machinery failed, not the agent, so there is
nothing to learn from that transition, and nothing to learn from its reward of 0. SB3's
algorithms take everything that they learn from out of the rollout buffer, so that is the one
place where it can be kept from them:

    PPO("MlpPolicy", envs, rollout_buffer_class=MaskedRolloutBuffer).learn(n, MaskInfra())

With every transition valid these buffers are SB3's own, to the last bit.
"""

from collections.abc import Generator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback

from ..errors import UserError


class MaskInfra(BaseCallback):
    """Mark the transitions in which the machinery failed, and log their number a rollout.

    SB3 calls a callback after it has stepped the environments and before it adds the
    transitions to the buffer and the episodes that ended to its statistics. So those of a
    spoilt episode are left out as well: `rollout/ep_rew_mean` is about the agent.
    """

    def _init_callback(self) -> None:
        if not isinstance(self._buffer, MaskedRolloutBuffer):
            raise UserError(
                f"a {type(self._buffer).__name__} cannot leave out what the machinery spoilt: "
                "make the model with rollout_buffer_class=MaskedRolloutBuffer, or "
                "MaskedDictRolloutBuffer where observations are dictionaries"
            )

    def _on_step(self) -> bool:
        infos: list[dict[str, Any]] = self.locals["infos"]
        valid_N = np.array([info.get("reward_valid", True) for info in infos], bool)
        self._buffer.mark(valid_N)
        for n in np.flatnonzero(~valid_N):
            infos[n].pop("episode", None)
            infos[n].pop("is_success", None)
        return True

    def _on_rollout_end(self) -> None:
        self.logger.record("rollout/infra", int((~self._buffer.valid_T_N).sum()))

    @property
    def _buffer(self) -> Any:
        return self.model.rollout_buffer  # type: ignore[attr-defined]


class MaskedRolloutBuffer(RolloutBuffer):
    """SB3's `RolloutBuffer` without the transitions that the machinery spoilt.

    For the advantages an invalid transition is a cut-off: its return is its own value, so the
    steps before it bootstrap on the value of the state in which the machinery failed. At least
    one transition of a rollout must be valid.
    """

    valid_T_N: NDArray[np.bool_]
    """Whether transition t of environment n is one to learn from, shape (T, N)."""

    def reset(self) -> None:
        """Forget the rollout; the next is valid as far as nobody says otherwise."""
        super().reset()
        self.valid_T_N = np.ones((self.buffer_size, self.n_envs), bool)

    def mark(self, valid_N: NDArray[np.bool_]) -> None:
        """Say which of the transitions that are added next are valid, shape (N,)."""
        self.valid_T_N[self.pos] = valid_N

    def compute_returns_and_advantage(
        self, last_values: torch.Tensor, dones: NDArray[np.bool_]
    ) -> None:
        """Compute GAE(lambda) and its returns (Schulman et al., 2016), cut at invalid steps.

        Args:
            last_values: Values of the states after the last step, shape (N,).
            dones: Whether that step ended an episode, shape (N,).
        """
        # An episode of one step whose reward is the value that was expected of it: then SB3's
        # own recursion finds an advantage of exactly 0 and carries nothing across.
        invalid_T_N = ~self.valid_T_N
        self.rewards[invalid_T_N] = self.values[invalid_T_N]
        self.episode_starts[1:][invalid_T_N[:-1]] = 1.0
        super().compute_returns_and_advantage(last_values, dones | invalid_T_N[-1])

    def get(self, batch_size: int | None = None) -> Generator[Any, None, None]:
        """Yield the valid transitions in random minibatches, in the way of SB3."""
        assert self.full
        if not self.generator_ready:
            self._flatten()
            self.generator_ready = True
        count = len(self.returns)
        indices = np.random.permutation(count)  # noqa: NPY002  (SB3 draws from it)
        size = batch_size or count
        for start in range(0, count, size):
            yield self._get_samples(indices[start : start + size])

    def _flatten(self) -> None:
        """Line the transitions up, environment by environment, without the invalid ones."""
        valid_NT = self.valid_T_N.T.ravel()
        for name in ("observations", "actions", "values", "log_probs", "advantages", "returns"):
            value = getattr(self, name)
            flat = (
                {key: self.swap_and_flatten(part)[valid_NT] for key, part in value.items()}
                if isinstance(value, dict)
                else self.swap_and_flatten(value)[valid_NT]
            )
            setattr(self, name, flat)


class MaskedDictRolloutBuffer(MaskedRolloutBuffer, DictRolloutBuffer):
    """SB3's `DictRolloutBuffer` without the transitions that the machinery spoilt."""

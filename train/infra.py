"""Keep out of training what the machinery spoilt.

Idea: where `info["reward_valid"]` is False the machinery failed, not the agent, so there is
nothing to learn from that transition, and nothing to learn from its reward of 0. SB3's
algorithms take everything that they learn from out of the rollout buffer, so that is the one
place where it can be kept from them:

    PPO("MlpPolicy", envs, rollout_buffer_class=RolloutBuffer).learn(n, MaskInfra())
"""

from . import libraries  # noqa: F401 # isort: skip - before what it imports

from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from ..errors import UserError
from .buffers import RolloutBuffer


class MaskInfra(BaseCallback):
    """Mark the transitions in which the machinery failed, and log their number a rollout.

    SB3 calls a callback after it has stepped the environments and before it adds the
    transitions to the buffer and the episodes that ended to its statistics. So those of a
    spoilt episode are left out as well: `rollout/ep_rew_mean` is about the agent.
    """

    def _init_callback(self) -> None:
        if not isinstance(self._buffer, RolloutBuffer):
            raise UserError(
                f"{type(self._buffer).__module__}.{type(self._buffer).__name__} cannot leave out "
                "what the machinery spoilt: make the model with rollout_buffer_class="
                "RolloutBuffer, or DictRolloutBuffer where observations are dictionaries, from "
                f"{RolloutBuffer.__module__}"
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
        self.logger.record("rollout/infra", int(self._buffer.spoilt_T_N.sum()))

    @property
    def _buffer(self) -> Any:
        return self.model.rollout_buffer  # type: ignore[attr-defined]

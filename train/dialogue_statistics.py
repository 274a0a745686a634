"""What TensorBoard shows of dialogues while somebody learns in them."""

import time
from collections import Counter
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import MultiDiscrete
from stable_baselines3.common.callbacks import BaseCallback

from ..policies.language import LanguagePolicy

_SOME = 32
"""Dialogues of a step that are enough for a mean."""


class DialogueStatistics(BaseCallback):
    """Log how the dialogues of each rollout went, where there are dialogues.

    `rollout/success` is the share of episodes that ended solved, as the policy samples;
    `rollout/tool_calls` the share of messages that called a tool; `rollout/failed_format` and so
    on the shares of messages that failed. What the machinery spoilt counts for nothing.
    `rollout/ep_len_mean`, which is SB3's, counts turns. Of a language model,
    `rollout/kl_to_start` is how far the policy has come, the KL divergence of a message in nats,
    and `rollout/entropy` how sure it is of a token, or of a choice, in nats; both over some of the
    messages. Where actions are tokens, `time/tokens_per_second` is how fast a rollout wrote them.
    """

    def _on_rollout_start(self) -> None:
        self._counts: Counter[str] = Counter()
        self._began = time.perf_counter()

    def _on_step(self) -> bool:
        infos: list[dict[str, Any]] = self.locals["infos"]
        dones_N = np.asarray(self.locals["dones"])
        counts = self._counts
        for info, done in zip(infos, dones_N, strict=True):
            if "parsed_action" not in info or not info["reward_valid"]:
                continue
            counts["messages"] += 1
            counts["episodes"] += bool(done)
            counts["solved"] += bool(done and info["success"])
            parsed = info["parsed_action"]
            counts["tool_calls"] += parsed is not None and parsed[0] != "answer"
            if info["failure"]:
                counts[f"failed_{info['failure']}"] += 1
        policy = self.model.policy
        if isinstance(policy, LanguagePolicy) and isinstance(policy.action_space, MultiDiscrete):
            ends_N_L = np.asarray(self.locals["actions"]) == policy.chat.end
            before_N_L = np.cumsum(ends_N_L, axis=1) - ends_N_L == 0
            counts["tokens"] += int(before_N_L.sum())
        return True

    def _on_rollout_end(self) -> None:
        counts = self._counts
        if not counts["messages"]:
            return
        if counts["episodes"]:
            self.logger.record("rollout/success", counts["solved"] / counts["episodes"])
        for name in ("tool_calls", *(f"failed_{kind}" for kind in ("format", "tool", "timeout"))):
            self.logger.record(f"rollout/{name}", counts[name] / counts["messages"])
        if counts["tokens"]:
            passed = time.perf_counter() - self._began
            self.logger.record("time/tokens_per_second", counts["tokens"] / passed)
        if isinstance(policy := self.model.policy, LanguagePolicy):
            self._measure(policy)

    def _measure(self, policy: LanguagePolicy) -> None:
        """Look at the first step of a rollout and the last, where dialogues stand apart."""
        buffer = self.locals["rollout_buffer"]
        steps = sorted({0, len(buffer.actions) - 1})

        def some(values_T: Any) -> Any:
            if isinstance(values_T, dict):
                return {part: some(values) for part, values in values_T.items()}
            picked = np.concatenate([values_T[t][:_SOME] for t in steps])
            return torch.as_tensor(picked, device=policy.device)

        played = some(buffer.observations), some(buffer.actions)
        for name, found_B in zip(
            ("kl_to_start", "entropy"), policy.kl_and_entropy(*played), strict=True
        ):
            self.logger.record(f"rollout/{name}", float(found_B.mean()))

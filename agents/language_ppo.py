"""A language model that has learned from reward."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ..policies.token_choice import Sampler, likeliest
from .agent import Actions, Seat, View, digest
from .ppo import PPOAgent


class TrainedLanguageModel(PPOAgent):
    """A language model that PPO has trained, whatever its actions are.

    Args:
        seat: Where it plays.
        model: What was trained, with a `LanguagePolicy`.
        card: What is known of the training; see `ppo.save_model`.
        sample: Whether to sample actions instead of taking the likeliest.
    """

    does: ClassVar[str] = ""
    """What its name says of its actions, where they are no messages."""

    @property
    def name(self) -> str:
        """The model and what it was trained with, and `(sampled)` if it samples."""
        model = Path(self.card["model"]).name  # of a warm start, what it began with
        return f"{model} {self.does}{self.card['algorithm']}" + (
            " (sampled)" if self.options["sample"] else ""
        )

    def fingerprint(self) -> str:
        """Return a hash of the weights, and of the rest that decides what is said."""
        return digest({"weights": super().fingerprint(), **self._policy.manner})

    @property
    def _policy(self) -> Any:
        return self.model.policy


class LanguagePPOAgent(TrainedLanguageModel):
    """Write what a language model has learned to write."""

    view: ClassVar[View] = "dialogue"

    def act(
        self,
        observations: Sequence[Any],
        infos: Sequence[dict[str, Any]],
        rngs: Sequence[np.random.Generator],
    ) -> Actions:
        """Continue the dialogue of each episode by one message."""
        policy = self._policy
        hot = self.options["sample"]
        choose = Sampler(policy.temperature, rngs) if hot else likeliest
        seen = torch.as_tensor(np.stack(observations), device=policy.device)
        said = [continuation.tokens for continuation in policy.speak(seen, choose)]
        return Actions([policy.chat.text(ids) for ids in said], [len(ids) for ids in said])

    def _fits(self, seat: Seat) -> bool:
        """Tell whether what was trained can play there: it reads any dialogue."""
        return self.model.observation_space == seat.observation_space

"""A language model that has learned from reward what to choose."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from .agent import Actions, Seat, View
from .language_ppo import LanguagePPOAgent
from .ppo import PPOAgent


class LanguageChoicesAgent(LanguagePPOAgent):
    """Choose what a language model has learned to find likely.

    Args:
        seat: Where it plays.
        model: What was trained, with a `LanguagePolicy`.
        card: What is known of the training; see `ppo.save_model`.
        sample: Whether to sample choices instead of taking the likeliest.
    """

    view: ClassVar[View] = "choices"
    does: ClassVar[str] = "choices "

    def act(
        self,
        observations: Sequence[Any],
        infos: Sequence[dict[str, Any]],
        rngs: Sequence[np.random.Generator],
    ) -> Actions:
        """Choose a message in each episode."""
        return PPOAgent.act(self, observations, infos, rngs)

    def _fits(self, seat: Seat) -> bool:
        """Tell whether what was trained can play there."""
        return PPOAgent._fits(self, seat)

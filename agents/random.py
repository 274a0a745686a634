"""The random agent, whose score every board calls 0."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .agent import Actions, Agent


class Random(Agent):
    """Play a uniformly random action, or a uniformly random admissible message."""

    view = "native"
    name = "random"

    def act(
        self,
        observations: Sequence[Any],
        infos: Sequence[dict[str, Any]],
        rngs: Sequence[np.random.Generator],
    ) -> Actions:
        """Draw from `info["choices"]` where there are any, else from the action space."""
        return Actions([self._draw(i, rng) for i, rng in zip(infos, rngs, strict=True)])

    def _draw(self, info: dict[str, Any], rng: np.random.Generator) -> Any:
        if info.get("choices"):
            return info["choices"][rng.integers(len(info["choices"]))]
        self.seat.action_space.seed(int(rng.integers(2**31)))
        return self.seat.action_space.sample()

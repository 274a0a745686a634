"""The oracle, whose score every board calls 1."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .agent import Actions, Agent


class Oracle(Agent):
    """Play the environment's own solution."""

    view = "native"
    reveals = True
    name = "oracle"

    def act(
        self,
        observations: Sequence[Any],
        infos: Sequence[dict[str, Any]],
        rngs: Sequence[np.random.Generator],
    ) -> Actions:
        """Return `info["solution"]`."""
        return Actions([info["solution"] for info in infos])

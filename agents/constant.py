"""The constant agent: what can be had without looking."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from .agent import Actions, Agent


class Constant(Agent):
    """Repeat one action: 0 where actions are numbers, one message where they are words.

    Args:
        seat: Where it plays.
        action: The number.
        message: The message.
    """

    view = "native"
    name = "constant"

    def __init__(self, seat: Any, action: int = 0, message: str = "<answer>0</answer>") -> None:
        super().__init__(seat, action=action, message=message)
        space = seat.action_space
        if isinstance(space, spaces.Text):
            self._action: Any = message
        elif isinstance(space, spaces.Discrete):
            self._action = int(space.start) + action
        else:
            self._action = np.full(space.shape, action, space.dtype)

    def act(
        self,
        observations: Sequence[Any],
        infos: Sequence[dict[str, Any]],
        rngs: Sequence[np.random.Generator],
    ) -> Actions:
        """Return the same action for everybody."""
        return Actions([self._action] * len(observations))

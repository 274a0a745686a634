"""An environment that tells its own solution."""

from typing import Any

import gymnasium
from gymnasium.utils import RecordConstructorArgs

from ...errors import UserError


class Revealed(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Put the environment's own solution of the next step into `info["solution"]`.

    For the oracle and for demonstrations; it goes outside every view.

    Raises:
        UserError: the environment does not know its solution.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        gymnasium.Wrapper.__init__(self, env)
        try:
            self._solution = env.get_wrapper_attr("solution")
        except AttributeError:
            raise UserError(f"{env} has no oracle: it lacks the method solution()") from None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode; `info` holds the first move of a solution."""
        observation, info = self.env.reset(seed=seed, options=options)
        return observation, info | {"solution": self._solution()}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step; `info` holds the next move of a solution, unless the episode is over."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if not (terminated or truncated):
            info = info | {"solution": self._solution()}
        return observation, reward, terminated, truncated, info

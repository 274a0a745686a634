"""Any environment as its dialogue, for policies that read all of it and write messages."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from .as_text import AsText
from .crossing import as_lines, room_for, write
from .moves import is_text


class AsDialogue(gymnasium.Wrapper[NDArray[np.uint8], str, Any, Any], RecordConstructorArgs):
    """Show any environment as the dialogue so far, and take messages.

    The observation is the dialogue as `AsChoices` shows it: uint8 (dialogue_bytes,), JSON Lines
    in UTF-8, a message a line with its role and content, padded with zeros; where room lacks
    the oldest messages after the system's are left out. The action is a message. An array
    environment is first shown as text.

    Args:
        env: The environment.
        dialogue_bytes: Room for the dialogue. By default 2,048 for each message that the agent
            may send and what is said to it, from 4,096 to 131,072, and 4,096 where messages are
            not counted.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], dialogue_bytes: int | None = None) -> None:
        RecordConstructorArgs.__init__(self, dialogue_bytes=dialogue_bytes)
        gymnasium.Wrapper.__init__(self, env if is_text(env) else AsText(env))
        self._dialogue_bytes = dialogue_bytes or room_for(self.env)
        self.observation_space = spaces.Box(0, 255, (self._dialogue_bytes,), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Start an episode and show its first messages."""
        _, info = self.env.reset(seed=seed, options=options)
        return self._observe(info), info

    def step(self, action: str) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Send a message."""
        _, reward, terminated, truncated, info = self.env.step(action)
        return self._observe(info), float(reward), terminated, truncated, info

    def get_state(self) -> dict[str, Any]:
        """Return a snapshot of the episode, where the environment can give one."""
        state: dict[str, Any] = self.env.get_wrapper_attr("get_state")()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a snapshot."""
        self.env.get_wrapper_attr("set_state")(state)

    def _observe(self, info: dict[str, Any]) -> NDArray[np.uint8]:
        dialogue = np.zeros(self._dialogue_bytes, np.uint8)
        write(dialogue, as_lines(info["messages"], self._dialogue_bytes))
        return dialogue

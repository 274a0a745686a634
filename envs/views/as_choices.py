"""Any environment as a choice among messages, for agents that act by number."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from .as_text import AsText
from .crossing import as_lines, room_for, write
from .moves import is_text

ChoicesObservation = dict[str, NDArray[Any]]


class AsChoices(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Show any environment as a choice among messages, for agents that act by number.

    The observation is a dictionary of arrays in which text crosses as UTF-8 bytes, padded
    with zeros, so that no tokenizer is taken for granted:

    - `dialogue`, uint8 (dialogue_bytes,): JSON Lines, a message a line with its role and
      content; where room lacks the oldest messages after the system's are left out;
    - `choices`, uint8 (K, choice_bytes): the admissible messages;
    - `mask`, int8 (K,): 1 where there is a choice.

    The action is the number of a choice. A padded one is sent as an empty message, which is a
    format failure; `action_masks()` tells which are padded, in the way of sb3-contrib. An array
    environment is first shown as text.

    Args:
        env: The environment.
        dialogue_bytes: Room for the dialogue; None for as much as `AsDialogue` has.
        choice_bytes: Room for one choice; a longer one is cut in the observation only.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        dialogue_bytes: int | None = 2048,
        choice_bytes: int = 256,
    ) -> None:
        RecordConstructorArgs.__init__(
            self, dialogue_bytes=dialogue_bytes, choice_bytes=choice_bytes
        )
        gymnasium.Wrapper.__init__(self, env if is_text(env) else AsText(env))
        self._dialogue_bytes = dialogue_bytes or room_for(self.env)
        self._choice_bytes = choice_bytes
        count = int(self.env.get_wrapper_attr("max_choices"))
        self._choices: tuple[str, ...] = ()
        self.action_space = spaces.Discrete(count)
        self.observation_space = spaces.Dict(
            {
                "dialogue": spaces.Box(0, 255, (self._dialogue_bytes,), np.uint8),
                "choices": spaces.Box(0, 255, (count, choice_bytes), np.uint8),
                "mask": spaces.MultiBinary(count),
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ChoicesObservation, dict[str, Any]]:
        """Start an episode and show its first choices."""
        _, info = self.env.reset(seed=seed, options=options)
        return self._observe(info), info

    def step(self, action: int) -> tuple[ChoicesObservation, float, bool, bool, dict[str, Any]]:
        """Send the chosen message.

        Raises:
            ValueError: the number is outside the action space.
        """
        if not 0 <= int(action) < len(self.action_masks()):
            raise ValueError(f"action {action} is not in {self.action_space}")
        message = self._choices[int(action)] if int(action) < len(self._choices) else ""
        _, reward, terminated, truncated, info = self.env.step(message)
        return self._observe(info), float(reward), terminated, truncated, info

    def action_masks(self) -> NDArray[np.int8]:
        """Return 1 for each number that stands for a choice, shape (K,)."""
        count = self.get_wrapper_attr("max_choices")
        return (np.arange(count) < len(self._choices)).astype(np.int8)

    def solution(self) -> int:
        """Return the number of the choice that leads on to a solution."""
        return self._choices.index(self.env.get_wrapper_attr("solution")())

    def get_state(self) -> dict[str, Any]:
        """Return a snapshot of the episode, where the environment can give one."""
        return {"env": self.env.get_wrapper_attr("get_state")(), "choices": self._choices}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a snapshot."""
        self.env.get_wrapper_attr("set_state")(state["env"])
        self._choices = state["choices"]

    def _observe(self, info: dict[str, Any]) -> ChoicesObservation:
        self._choices = tuple(info["choices"])
        mask_K = self.action_masks()
        choices_K_C = np.zeros((len(mask_K), self._choice_bytes), np.uint8)
        for row, choice in zip(choices_K_C, self._choices, strict=False):
            write(row, choice)
        dialogue = np.zeros(self._dialogue_bytes, np.uint8)
        write(dialogue, as_lines(info["messages"], self._dialogue_bytes))
        return {"dialogue": dialogue, "choices": choices_K_C, "mask": mask_K}

"""The moves of an environment of arrays, said in words."""

import re
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from ...errors import UserError
from ..parsing import Answer, parse
from ..speech import MAX_ACTION_LENGTH

_NUMBERS = 9
"""Choices that stand for a continuous action."""
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?)\.?", re.ASCII)


def is_text(env: gymnasium.Env[Any, Any]) -> bool:
    """Tell whether an environment is played in words."""
    return isinstance(env.action_space, spaces.Text)


def moves_of(env: gymnasium.Env[Any, Any]) -> "Words | Numbers":
    """Return how the actions of an array environment are said.

    Raises:
        UserError: they cannot be said.
    """
    world, space = env.unwrapped, env.action_space
    if hasattr(world, "describe"):
        if isinstance(space, spaces.Discrete) and hasattr(world, "action_words"):
            return Words(world.action_words)
        bounded = isinstance(space, spaces.Box) and space.shape == (1,) and space.is_bounded()
        if bounded and hasattr(world, "action_meaning"):
            assert isinstance(space, spaces.Box)
            return Numbers(space, world.action_meaning)
    raise UserError(
        f"{env} cannot be shown as text: it needs the attributes instructions and "
        "describe(observation), and Discrete actions with action_words or a bounded Box of one "
        "number with action_meaning"
    )


def answered(message: str) -> str:
    """Return the last answer of a message, or all of it where none is marked."""
    message = message[:MAX_ACTION_LENGTH]
    parsed = parse(message, {})
    return parsed.text if isinstance(parsed, Answer) else message


class Words:
    """The moves of a `Discrete` space: a word each."""

    def __init__(self, words: Sequence[str]) -> None:
        self.choices = tuple(words)
        self.form = f"one word: {' or '.join(words)}"

    def read(self, text: str) -> int | None:
        """Return the action that a text names, if it names one."""
        word = text.strip(" \t\r\n.").casefold()
        return self.choices.index(word) if word in self.choices else None

    def said(self, action: Any) -> str:
        """Name an action."""
        return self.choices[int(action)]

    choice = said


class Numbers:
    """The moves of a `Box` of one number: those within its bounds."""

    def __init__(self, space: spaces.Box, meaning: str) -> None:
        self._low, self._high = float(space.low[0]), float(space.high[0])
        self.choices = tuple(f"{v:g}" for v in np.linspace(self._low, self._high, _NUMBERS))
        self.form = f"one number from {self._low:g} to {self._high:g}: {meaning}"

    def read(self, text: str) -> NDArray[np.float32] | None:
        """Return the action that a text names, if it names one."""
        number = _NUMBER.fullmatch(text.strip())
        if number is None or not self._low <= float(number[1]) <= self._high:
            return None
        return np.array([float(number[1])], np.float32)

    def said(self, action: Any) -> str:
        """Name an action."""
        return f"{float(action[0]):g}"

    def choice(self, action: Any) -> str:
        """Return the choice that is nearest to an action."""
        return min(self.choices, key=lambda choice: abs(float(choice) - float(action[0])))

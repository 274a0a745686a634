"""Any environment as a dialogue."""

import copy
from typing import Any

import gymnasium
from gymnasium.utils import RecordConstructorArgs

from ..speech import MAX_ACTION_LENGTH, harmless
from ..text import FORMAT_REWARD, ParsedAction, text_spaces
from .moves import answered, is_text, moves_of

_LONGEST = 10_000
"""Steps after which a world without an end is left to itself."""


class AsText(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Show any environment as a dialogue, with the `info` that `TextEnv` describes.

    A text environment passes through unchanged. An array environment says itself: it has
    `instructions`, `describe(observation)`, and either `action_words` (a word for each of its
    `Discrete` actions) or `action_meaning` (what the number of its `Box` of one is). One word,
    or one number within the bounds, is a move; nine numbers evenly between them are its choices.
    A message that is no move costs 0.1 and leaves the world as it was. After the third of an
    episode the world goes on to its end by itself, under the first of its choices, and what that
    earns is in the reward: where every step costs, nothing is won by falling silent.

    Args:
        env: The environment.
        history: Exchanges that `info["messages"]` goes back; an array observation says
            everything about the state, so one is enough.

    Raises:
        UserError: the environment can neither read nor say itself.
    """

    max_format_failures = 3
    _told = ("_failures", "_return", "_seen", "_exchanges", "_over")
    """What this wrapper knows of an episode."""

    def __init__(self, env: gymnasium.Env[Any, Any], history: int = 1) -> None:
        RecordConstructorArgs.__init__(self, history=history)
        gymnasium.Wrapper.__init__(self, env)
        self._speaks = is_text(env)
        if self._speaks:
            return
        self._moves = moves_of(env)
        self._history = history
        self._over = True
        self.instructions = f"{env.unwrapped.instructions} Reply with {self._moves.form}."  # type: ignore[attr-defined]
        self.max_choices = len(self._moves.choices)
        self.observation_space, self.action_space = text_spaces()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start an episode and describe what is seen."""
        observation, info = self.env.reset(seed=seed, options=options)
        if self._speaks:
            return observation, info
        self._failures, self._return = 0, 0.0
        self._seen = self._describe(observation)
        self._exchanges: list[dict[str, Any]] = [{"role": "user", "content": self._seen}]
        return self._seen, self._info(info, None, None, over=False)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Make the move that the message names and describe what follows."""
        if self._speaks:
            observation, reward, terminated, truncated, info = self.env.step(action)
            return observation, float(reward), terminated, truncated, info
        if not isinstance(action, str):
            raise TypeError(f"the action is a message of type str, not {type(action).__name__}")
        if self._over:
            raise gymnasium.error.ResetNeeded("the episode is over: call reset()")
        self._exchanges.append(
            {"role": "assistant", "content": harmless(action[:MAX_ACTION_LENGTH])}
        )
        move = self._moves.read(answered(action))
        if move is None:
            return self._not_understood()
        observation, reward, terminated, truncated, info = self.env.step(move)
        self._return += float(reward)
        self._seen = self._describe(observation)
        self._exchanges.append({"role": "user", "content": self._seen})
        info = self._info(
            info, ("answer", self._moves.said(move)), None, over=terminated or truncated
        )
        return self._seen, float(reward), terminated, truncated, info

    def solution(self) -> str:
        """Return the next message of a dialogue that solves the task."""
        solution = self.env.get_wrapper_attr("solution")()
        return str(solution) if self._speaks else str(self._moves.choice(solution))

    def get_state(self) -> dict[str, Any]:
        """Return a snapshot of the episode, where the environment can give one.

        Raises:
            AttributeError: it has no `get_state`.
        """
        state = {"env": self.env.get_wrapper_attr("get_state")()}
        return (
            state
            if self._speaks
            else state | {"told": copy.deepcopy({name: vars(self)[name] for name in self._told})}
        )

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a snapshot."""
        self.env.get_wrapper_attr("set_state")(state["env"])
        vars(self).update(copy.deepcopy(state.get("told", {})))

    def _not_understood(self) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self._failures += 1
        over = self._failures >= self.max_format_failures
        reward, terminated, info = self._let_go() if over else (0.0, False, {})
        expected = f"Not understood. Reply with {self._moves.form}. {self._seen}"
        self._exchanges.append({"role": "user", "content": expected})
        told = self._info(info, None, info.get("failure") or "format", over=over)
        return expected, FORMAT_REWARD + reward, terminated, over and not terminated, told

    def _let_go(self) -> tuple[float, bool, dict[str, Any]]:
        """Play on with the first choice; return the rewards, whether the world ended, its info."""
        move, total = self._moves.read(self._moves.choices[0]), 0.0
        for _ in range(_LONGEST):
            observation, reward, terminated, truncated, info = self.env.step(move)
            total += float(reward)
            if terminated or truncated:
                break
        self._seen = self._describe(observation)
        return total, terminated, info

    def _describe(self, observation: Any) -> str:
        return str(self.env.unwrapped.describe(observation))  # type: ignore[attr-defined]

    def _info(
        self, info: dict[str, Any], parsed: ParsedAction | None, failure: str | None, over: bool
    ) -> dict[str, Any]:
        self._over = over
        del self._exchanges[: -(2 * self._history + 1)]
        threshold = self.spec.reward_threshold if self.spec else None
        ended = over and failure is None
        solved = ended and threshold is not None and self._return >= threshold
        return {
            **info,
            "messages": [
                {"role": "system", "content": self.instructions},
                *(dict(message) for message in self._exchanges),
            ],
            "kind": "move",
            "tools": [],
            "choices": () if over else self._moves.choices,
            "parsed_action": parsed,
            "success": solved,
            "failure": failure or info.get("failure"),
            "reward_valid": info.get("reward_valid", True),
        }

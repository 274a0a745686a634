"""The two views through which every environment is played by every kind of agent.

`AsText` lets an array environment speak, so that a language model can play it. `AsChoices`
shows a text environment as arrays, so that stable-baselines3 can. Both leave the world as it
is: the same state, the same seeds, the same rewards.
"""

import copy
import difflib
import importlib
import json
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from ..errors import UserError
from .parsing import Answer, parse
from .speech import MAX_ACTION_LENGTH, harmless
from .text import FORMAT_REWARD, ParsedAction, text_spaces

View = Literal["native", "array", "text"]
"""As the environment is; as arrays, for SB3; as a dialogue, for a language model."""

ChoicesObservation = dict[str, NDArray[Any]]


class AsText(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Show any environment as a dialogue, with the `info` that `TextEnv` describes.

    A text environment passes through unchanged. An array environment says itself: it has
    `instructions`, `action_words` (a word for each of its `Discrete` actions) and
    `describe(observation)`. One word is a move. A message that is none costs 0.1 and leaves
    the world as it was; the third in an episode ends it.

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
        world = env.unwrapped
        if not (isinstance(env.action_space, spaces.Discrete) and hasattr(world, "describe")):
            raise UserError(
                f"{env} cannot be shown as text: it needs Discrete actions, and the attributes "
                "instructions, action_words and describe(observation)"
            )
        self._history = history
        self._over = True
        self._words: tuple[str, ...] = world.action_words  # type: ignore[attr-defined]
        self.instructions = (
            f"{world.instructions} "  # type: ignore[attr-defined]
            f"Reply with one word: {' or '.join(self._words)}."
        )
        self.max_choices = len(self._words)
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
        move = self._move(action)
        if move is None:
            return self._not_understood()
        observation, reward, terminated, truncated, info = self.env.step(move)
        self._return += float(reward)
        self._seen = self._describe(observation)
        self._exchanges.append({"role": "user", "content": self._seen})
        info = self._info(info, ("answer", self._words[move]), None, over=terminated or truncated)
        return self._seen, float(reward), terminated, truncated, info

    def solution(self) -> str:
        """Return the next message of a dialogue that solves the task."""
        solution = self.env.get_wrapper_attr("solution")()
        return str(solution if self._speaks else self._words[solution])

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
        expected = f"Not understood. Reply with one word: {' or '.join(self._words)}. {self._seen}"
        self._exchanges.append({"role": "user", "content": expected})
        return expected, FORMAT_REWARD, over, False, self._info({}, None, "format", over=over)

    def _move(self, message: str) -> int | None:
        message = message[:MAX_ACTION_LENGTH]
        parsed = parse(message, {})
        word = (parsed.text if isinstance(parsed, Answer) else message).strip(" \t\r\n.").casefold()
        return self._words.index(word) if word in self._words else None

    def _describe(self, observation: Any) -> str:
        return str(self.env.unwrapped.describe(observation))  # type: ignore[attr-defined]

    def _info(
        self, info: dict[str, Any], parsed: ParsedAction | None, failure: str | None, over: bool
    ) -> dict[str, Any]:
        self._over = over
        del self._exchanges[: -(2 * self._history + 1)]
        threshold = self.spec.reward_threshold if self.spec else None
        solved = over and threshold is not None and self._return >= threshold
        return {
            **info,
            "messages": [
                {"role": "system", "content": self.instructions},
                *(dict(message) for message in self._exchanges),
            ],
            "kind": "move",
            "tools": [],
            "choices": () if over else tuple(self._words),
            "parsed_action": parsed,
            "success": solved,
            "failure": failure or info.get("failure"),
            "reward_valid": info.get("reward_valid", True),
        }


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
        dialogue_bytes: Room for the dialogue.
        choice_bytes: Room for one choice; a longer one is cut in the observation only.
    """

    def __init__(
        self, env: gymnasium.Env[Any, Any], dialogue_bytes: int = 2048, choice_bytes: int = 256
    ) -> None:
        RecordConstructorArgs.__init__(
            self, dialogue_bytes=dialogue_bytes, choice_bytes=choice_bytes
        )
        gymnasium.Wrapper.__init__(self, env if is_text(env) else AsText(env))
        self._dialogue_bytes, self._choice_bytes = dialogue_bytes, choice_bytes
        count = int(self.env.get_wrapper_attr("max_choices"))
        self._choices: tuple[str, ...] = ()
        self.action_space = spaces.Discrete(count)
        self.observation_space = spaces.Dict(
            {
                "dialogue": spaces.Box(0, 255, (dialogue_bytes,), np.uint8),
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
            _write(row, choice)
        dialogue = np.zeros(self._dialogue_bytes, np.uint8)
        _write(dialogue, _render(info["messages"], self._dialogue_bytes))
        return {"dialogue": dialogue, "choices": choices_K_C, "mask": mask_K}


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


def make(
    env_id: str, view: View = "native", *, split: str | None = None, **kwargs: Any
) -> gymnasium.Env[Any, Any]:
    """Make a registered environment in one of its views.

    Args:
        env_id: A Gymnasium id, `palaestra/Capitals-v0` or `module:id`.
        view: `native` as it is, `array` for SB3, `text` for a language model.
        split: Which tasks are drawn, where the environment has splits; None for its default.
        kwargs: For the environment.

    Raises:
        UserError: no such environment, no such split, or it cannot be shown so.
    """
    spec = find_spec(env_id)
    if split is not None:
        if not splits_of(spec):
            raise UserError(f"{spec.id} has no splits: leave out the split {split!r}")
        kwargs["split"] = split
    try:
        env: gymnasium.Env[Any, Any] = gymnasium.make(spec, **kwargs)
    except gymnasium.error.Error as error:
        raise UserError(f"{spec.id} cannot be made: {error}") from error
    if view == "text":
        return AsText(env)
    return AsChoices(env) if view == "array" and is_text(env) else env


def find_spec(env_id: str) -> EnvSpec:
    """Return the registered specification of an id.

    Raises:
        UserError: there is none; the message suggests the nearest.
    """
    module, _, name = env_id.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        return gymnasium.spec(name)
    except (gymnasium.error.Error, ImportError, TypeError, ValueError):
        known = [name for name in gymnasium.registry if name.startswith("palaestra/")]
        shorter = {name.removeprefix("palaestra/").lower(): name for name in known}
        wanted = env_id.removeprefix("palaestra/").lower()
        near = difflib.get_close_matches(wanted, shorter, n=1, cutoff=0.4)
        hint = f"did you mean {shorter[near[0]]!r}?" if near else f"{__package__} has {known};"
        raise UserError(
            f"unknown environment {env_id!r}; {hint} `palaestra list` shows them all"
        ) from None


def splits_of(spec: EnvSpec) -> tuple[str, ...]:
    """Return the splits of an environment, empty if it has none."""
    entry = spec.entry_point
    creator = load_env_creator(entry) if isinstance(entry, str) else entry
    return tuple(getattr(creator, "splits", ()))


def is_text(env: gymnasium.Env[Any, Any]) -> bool:
    """Tell whether an environment is played in words."""
    return isinstance(env.action_space, spaces.Text)


def _render(messages: list[dict[str, Any]], room: int) -> str:
    """Write a dialogue as JSON Lines; where room lacks, the question is what stays longest."""
    kept = [{"role": m["role"], "content": m["content"]} for m in messages]
    lines = [json.dumps(message, ensure_ascii=False) for message in kept]
    while len(lines) > 3 and _size(lines) > room:
        del kept[2], lines[2]
    # Even these may be too long: then the end of the rules goes, of the newest, of the question.
    for i in dict.fromkeys((0, len(kept) - 1, 1)):
        if (excess := _size(lines) - room) > 0:
            content = kept[i]["content"]
            kept[i]["content"] = content[: max(len(content) - excess, 0)]
            lines[i] = json.dumps(kept[i], ensure_ascii=False)
    while lines and _size(lines) > room:
        del lines[0]
    return "\n".join(lines)


def _size(lines: list[str]) -> int:
    return len("\n".join(lines).encode())


def _write(row: NDArray[np.uint8], text: str) -> None:
    raw = text.encode()[: len(row)]
    row[: len(raw)] = np.frombuffer(raw, np.uint8)

"""How checks play: at random or by the oracle, and what they compare of what they see."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from ..views import is_text
from .findings import shown_by

_MAX_DIALOGUE = 1_000
NONSENSE = 0.2
"""Share of nonsense among messages, where what follows it is looked at, too."""


@dataclass(frozen=True)
class Dialogue:
    """How the oracle played one episode."""

    seed: int
    question: str
    choices: tuple[tuple[str, ...], ...]
    """What could be said at each turn."""
    moves: tuple[str, ...]
    """What the oracle said at each turn."""
    replies: tuple[str, ...]
    """What the world said to that."""
    with_tools: bool
    """Whether it has tools, so that what was said first were calls."""
    success: bool
    failure: str | None


@dataclass(frozen=True)
class Step:
    """What an environment returned: from `reset`, then with no outcome, or from `step`."""

    seed: int
    observation: Any
    info: dict[str, Any]
    outcome: tuple[Any, Any, Any] | None = None
    """Reward, terminated, truncated."""

    @property
    def over(self) -> bool:
        """Whether the episode has ended."""
        return self.outcome is not None and bool(self.outcome[1] or self.outcome[2])


def play(env: gymnasium.Env[Any, Any], seed: int | None, moves: int) -> Iterator[bytes]:
    """Make random moves through as many episodes as they take; yield all that is seen."""
    move = mover(env, seed or 0, NONSENSE)
    with shown_by(seed or 0):
        observation, info = env.reset(seed=seed)
        yield packed((observation, info))
        for _ in range(moves):
            observation, *outcome, info = env.step(move(info))
            yield packed((observation, outcome, info))
            if outcome[1] or outcome[2]:
                observation, info = env.reset()
                yield packed((observation, info))


def mover(
    env: gymnasium.Env[Any, Any], seed: int, nonsense: float = 0.0
) -> Callable[[dict[str, Any]], Any]:
    """Return a function from `info` to a random move; the environment's spaces stay untouched.

    Args:
        env: The environment.
        seed: One seed always makes the same moves.
        nonsense: Share of messages that are neither a call nor an answer, in words only.
    """
    # Not the stream that the environment has of the same seed, from which the tasks come.
    rng = np.random.default_rng([seed, 1])
    if is_text(env):

        def choose(info: dict[str, Any]) -> str:
            choices = info.get("choices") or [""]
            choice = str(choices[rng.integers(len(choices))])
            return "nonsense" if nonsense and rng.random() < nonsense else choice

        return choose
    space: spaces.Space[Any] = copy.deepcopy(env.action_space)
    space.seed(int(rng.integers(2**31)))
    return lambda _: space.sample()


def packed(value: Any) -> bytes:
    """Return bytes that are equal where values are, in every process."""
    match value:
        case dict():
            pairs = sorted((repr(key).encode(), packed(part)) for key, part in value.items())
            return b"{" + b",".join(key + b":" + part for key, part in pairs) + b"}"
        case set() | frozenset():
            return b"{" + b",".join(sorted(packed(part) for part in value)) + b"}"
        case list() | tuple():
            return b"[" + b",".join(packed(part) for part in value) + b"]"
        case np.ndarray() if value.dtype != object:
            return repr((value.dtype.str, value.shape)).encode() + value.tobytes()
        case bool() | np.bool_():
            return repr(bool(value)).encode()
        case float() | np.floating():
            return float(value).hex().encode()
        case str():
            return value.encode("utf-8", "surrogatepass")
    said = repr(value)
    return (type(value).__qualname__ if " at 0x" in said else said).encode()


def difference(first: list[bytes], second: list[bytes]) -> str | None:
    """Return where two plays part, in words, or None where they are the same."""
    for number, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            at = next((i for i in range(min(len(one), len(other))) if one[i] != other[i]), 0)
            window = slice(max(0, at - 20), at + 40)
            return f"{_seen(one[window])} and then {_seen(other[window])} at message {number}"
    return None if len(first) == len(second) else "one play is longer than the other"


def solved(env: gymnasium.Env[Any, Any], seed: int) -> Dialogue:
    """Play one episode with the environment's own solution."""
    solution = env.get_wrapper_attr("solution")
    question, info = env.reset(seed=seed)
    choices: list[tuple[str, ...]] = []
    moves: list[str] = []
    replies: list[str] = []
    over, with_tools = False, bool(info.get("tools"))
    while not over:
        choices.append(tuple(info.get("choices", ())))
        moves.append(str(solution()))
        said, _, terminated, truncated, info = env.step(moves[-1])
        replies.append(str(said))
        over = terminated or truncated or len(moves) >= _MAX_DIALOGUE
    success, failure = bool(info.get("success")), info.get("failure")
    played = (tuple(choices), tuple(moves), tuple(replies))
    return Dialogue(seed, str(question), *played, with_tools, success, failure)


def episode(env: gymnasium.Env[Any, Any], seed: int, nonsense: float) -> Iterator[Step]:
    """Play one episode with random moves."""
    move = mover(env, seed, nonsense)
    step = Step(seed, *env.reset(seed=seed))
    yield step
    for _ in range(_MAX_DIALOGUE):
        if step.over:
            return
        observation, *outcome, info = env.step(move(step.info))
        step = Step(seed, observation, info, (outcome[0], outcome[1], outcome[2]))
        yield step


def _seen(raw: bytes) -> str:
    return repr(raw.decode("utf-8", "replace"))

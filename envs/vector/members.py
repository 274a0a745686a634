"""What is done to one member of a vector, in whichever thread or process it lives."""

import copy
import pickle
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
from gymnasium import spaces
from gymnasium.vector.utils import CloudpickleWrapper

STEP, RESET, APPLY = range(3)
Job = tuple[int, int, Any, int | None]
"""A member, what is done to it, with what, and a seed.

STEP takes an action, and the seed of the episode that an autoreset begins; RESET takes options
and a seed; APPLY takes a function of the environment.
"""

Info = dict[str, Any]
Outcome = tuple[Any, Any, bool, bool, Info, tuple[Any, Info] | None]
"""Observation, reward, terminated, truncated, info of one member; then, where the episode ended
and the member was reset at once, its final observation and info."""

Maker = Callable[[], gymnasium.Env[Any, Any]]

_FLUSH = 0.001
"""Seconds of work after which a worker says what it has, so that no slow member hides others."""


@dataclass(frozen=True)
class Facts:
    """What is the same for all members of a vector."""

    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    metadata: dict[str, Any]
    render_mode: str | None


class Raised:
    """An exception and its traceback, on the way to who asked, maybe in another process."""

    def __init__(self, error: BaseException, text: str) -> None:
        self.error, self.text = error, text

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            raw = pickle.dumps(self.error)
            pickle.loads(raw)  # some exceptions can be written and not read
        except Exception:
            raw = b""
        return _restored, (raw, repr(self.error), self.text)


class WorkerTraceback(Exception):
    """What a worker would have printed about an exception: its cause in the caller."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class Members:
    """The environments of one worker.

    Args:
        makers: Make the environments.
        first: Number of the first among all members of the vector.
        same_step: Whether an episode that ends is followed by the next in the same step.

    Raises:
        ValueError: the spaces of two environments differ.
    """

    def __init__(self, makers: Iterable[Maker], first: int, same_step: bool) -> None:
        self._first, self._same_step = first, same_step
        self._envs = [maker() for maker in makers]
        env = self._envs[0]
        self.facts = Facts(
            env.observation_space, env.action_space, dict(env.metadata), env.render_mode
        )
        check_alike(
            [
                self.facts,
                *(Facts(e.observation_space, e.action_space, {}, None) for e in self._envs),
            ]
        )

    def do(self, index: int, operation: int, argument: Any, seed: int | None) -> Any:
        """Do one job and return its outcome; for APPLY, what the function returns or `Raised`."""
        env = self._envs[index - self._first]
        if operation == STEP:
            observation, reward, terminated, truncated, info = env.step(argument)
            if not (self._same_step and (terminated or truncated)):
                return observation, reward, terminated, truncated, info, None
            final = (_kept(observation), info)
            observation, info = env.reset(seed=seed)
            return observation, reward, terminated, truncated, info, final
        if operation == RESET:
            options = None if argument is None else dict(argument)
            observation, info = env.reset(seed=seed, options=options)
            return observation, 0.0, False, False, info, None
        try:
            return argument(env)
        except Exception as error:  # a question that an environment cannot answer ends nothing
            return Raised(error, traceback.format_exc())

    def step(self, actions: Sequence[Any], seeds: Sequence[int | None]) -> list[Outcome]:
        """Do a STEP in every member: what `do` does for one, without a job for each."""
        outcomes: list[Outcome] = []
        same_step = self._same_step
        for env, action, seed in zip(self._envs, actions, seeds, strict=True):
            observation, reward, terminated, truncated, info = env.step(action)
            final = None
            if (terminated or truncated) and same_step:
                final = (_kept(observation), info)
                observation, info = env.reset(seed=seed)
            outcomes.append((observation, reward, terminated, truncated, info, final))
        return outcomes

    def work(self, jobs: Sequence[Job], tell: Callable[[list[tuple[int, Any]]], None]) -> None:
        """Do jobs in order and tell their outcomes, all at once unless they take long."""
        do, clock = self.do, time.perf_counter
        outcomes = []
        late = clock() + _FLUSH
        for job in jobs:
            outcomes.append((job[0], do(*job)))
            if clock() > late:
                tell(outcomes)
                outcomes = []
                late = clock() + _FLUSH
        if outcomes:
            tell(outcomes)

    def close(self) -> None:
        """Close the environments."""
        while self._envs:
            self._envs.pop(0).close()


def check_alike(facts: Sequence[Facts]) -> None:
    """Compare the spaces of environments.

    Raises:
        ValueError: two differ.
    """
    for other in facts[1:]:
        for name in ("observation_space", "action_space"):
            ours, theirs = getattr(facts[0], name), getattr(other, name)
            if ours != theirs:
                raise ValueError(f"the members of a vector differ in {name}: {ours} and {theirs}")


def _restored(raw: bytes, shown: str, text: str) -> Raised:
    try:
        error: Exception = pickle.loads(raw)
    except Exception:
        error = RuntimeError(shown)
    error.__cause__ = WorkerTraceback(text)
    return Raised(error, text)


def _kept(observation: Any) -> Any:
    """Return an observation that the reset to come cannot overwrite."""
    return observation if isinstance(observation, str) else copy.deepcopy(observation)


def call(env: gymnasium.Env[Any, Any], name: str, args: Any, kwargs: Any) -> Any:
    """Call a method of an environment or of a wrapper around it, or read an attribute."""
    found = env.get_wrapper_attr(name)
    return found(*args, **kwargs) if callable(found) else found


def attribute(env: gymnasium.Env[Any, Any], name: str) -> Any:
    """Return an attribute of an environment or of a wrapper around it; a method uncalled."""
    return env.get_wrapper_attr(name)


def has(env: gymnasium.Env[Any, Any], name: str) -> bool:
    """Tell whether an environment or a wrapper around it has an attribute."""
    return env.has_wrapper_attr(name)


def frozen(env: gymnasium.Env[Any, Any]) -> bytes:
    """Write an environment down, as it is in the middle of its episode."""
    return pickle.dumps(CloudpickleWrapper(env), protocol=5)  # type: ignore[arg-type]


def thawed(raw: bytes) -> gymnasium.Env[Any, Any]:
    """Make an environment of what was written down."""
    env: gymnasium.Env[Any, Any] = pickle.loads(raw).fn
    return env


def assign(env: gymnasium.Env[Any, Any], name: str, value: Any) -> None:
    """Set an attribute where the environment or a wrapper has it."""
    env.set_wrapper_attr(name, value)


def render(env: gymnasium.Env[Any, Any]) -> Any:
    """Render an environment."""
    return env.render()


def is_wrapped(env: gymnasium.Env[Any, Any], wrapper: str) -> bool:
    """Tell whether a wrapper of this module and name, or of a kind of it, is around."""
    while isinstance(env, gymnasium.Wrapper):
        if any(f"{c.__module__}.{c.__qualname__}" == wrapper for c in type(env).__mro__):
            return True
        env = env.env
    return False

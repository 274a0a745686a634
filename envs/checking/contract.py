"""Checks of what an environment returns: spaces, rewards, ends, and the `info` of words."""

import json
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils.env_checker import check_env

from ..text import FORMAT_REWARD, SUCCESS_REWARD
from ..views import View
from .findings import Finding, NotApplicable, shortened, shown_by
from .playing import NONSENSE, Step, mover
from .subject import Subject

FAILURES = (None, "format", "tool", "timeout", "infra")
_EPISODES = 30
_UNIMPORTANT = re.compile(
    "different from the unwrapped version"  # a view is a wrapper
    "|A Box observation space|an unconventional shape"  # bytes are no picture
)
_KEYS: dict[str, type | tuple[type, ...]] = {
    "messages": list,
    "kind": str,
    "tools": list,
    "choices": (list, tuple),
    "parsed_action": (tuple, type(None)),
    "success": (bool, np.bool_),
    "failure": (str, type(None)),
    "reward_valid": (bool, np.bool_),
}
_ROLES = ("system", "user", "assistant", "tool")


def gymnasium_checker(subject: Subject) -> Finding | None:
    """Gymnasium's own checker finds nothing, in any view."""
    views: tuple[View, ...] = ("native", "text", "array") if subject.speaks else subject.views
    for view in views:
        with closing(subject.make(view)) as env:
            try:
                # Rendering has a check of its own: here each mode would make an environment.
                check_env(env, skip_render_check=True)
            except (AssertionError, gymnasium.error.Error, TypeError, ValueError) as error:
                what = f"in its {view} view: {shortened(error, 300)}"
                return Finding(what, "Its documentation says what Gymnasium expects.")
    return None


def mattering(caught: list[warnings.WarningMessage]) -> tuple[str, ...]:
    """Return what the warnings of Gymnasium's checker say, each once, save what means nothing."""
    said = [re.sub(r"\x1b\[\d+m", "", str(warning.message)) for warning in caught]
    told = dict.fromkeys(shortened(line, 300) for line in said if line.startswith("WARN"))
    return tuple(line for line in told if not _UNIMPORTANT.search(line))


def rendering(subject: Subject) -> Finding | None:
    """Every render mode shows something."""
    with closing(subject.make()) as env:
        modes = [mode for mode in env.metadata.get("render_modes", ()) if mode != "human"]
    if not modes:
        raise NotApplicable("it has no render mode beside `human`")
    for mode in modes:
        with closing(subject.make(render_mode=mode)) as env:
            env.reset(seed=subject.seed)
            try:
                shown: Any = env.render()
            except gymnasium.error.DependencyNotInstalled as error:
                raise NotApplicable(f"render mode {mode}: {error}") from None
            if shown is None or len(shown) == 0:
                what = f"render mode {mode} shows nothing after a reset"
                return Finding(what, "Mend render(), or leave out the mode.", subject.seed)
    return None


def rewards(subject: Subject) -> Finding | None:
    """Rewards are finite; in words 1 says success, and -0.1 a format failure."""
    for step in _steps(subject):
        if step.outcome is None:
            continue
        reward = step.outcome[0]
        wrong = _wrong_reward(reward, step.info if subject.speaks else None)
        if wrong:
            advice = "Give 1 for success, 0 otherwise, -0.1 for a message that is not understood."
            if not subject.speaks:
                advice = "Return a finite float."
            return Finding(f"the reward is {reward!r}{wrong}", advice, step.seed)
    return None


def _wrong_reward(reward: Any, info: dict[str, Any] | None) -> str | None:
    """Tell what is wrong with a reward; `info` is that of a world of words, else None."""
    if isinstance(reward, bool) or not isinstance(reward, int | float | np.number):
        return f", of type {type(reward).__name__}"
    if not math.isfinite(reward):
        return ", which is not finite"
    if info is None:
        return None
    if not FORMAT_REWARD <= reward <= SUCCESS_REWARD:
        return f", outside of [{FORMAT_REWARD}, {SUCCESS_REWARD:g}]"
    if (reward == SUCCESS_REWARD) != bool(info.get("success")):
        return f", and success is {info.get('success')}"
    if (reward == FORMAT_REWARD) != (info.get("failure") == "format"):
        return f", and the failure is {info.get('failure')!r}"
    return None


def ends(subject: Subject) -> Finding | None:
    """`terminated` and `truncated` are bools, in words never both, and no step goes beyond."""
    for step in _steps(subject):
        if step.outcome is None:
            continue
        _, terminated, truncated = step.outcome
        if not (isinstance(terminated, bool | np.bool_) and isinstance(truncated, bool | np.bool_)):
            what = f"terminated and truncated are {terminated!r} and {truncated!r}"
            return Finding(what, "Return bools.", step.seed)
        if subject.speaks and terminated and truncated:
            return Finding(
                "terminated and truncated at once",
                "Terminate by the rules of the task, the turn limit too; truncate else.",
                step.seed,
            )
    return _beyond(subject) if subject.speaks else None


def _beyond(subject: Subject) -> Finding | None:
    """Step after the end of an episode."""
    advice = "Raise gymnasium.error.ResetNeeded in a step after the end."
    with closing(subject.make()) as env, shown_by(subject.seed):
        _, info = env.reset(seed=subject.seed)
        move, over = mover(env, subject.seed), False
        while not over:
            _, _, terminated, truncated, info = env.step(move(info))
            over = terminated or truncated
        try:
            env.step("nonsense")
        except gymnasium.error.ResetNeeded:
            return None
        except Exception as error:
            what = f"a step after the end raised {type(error).__name__}"
            return Finding(what, advice, subject.seed)
    return Finding("a step after the end was taken", advice, subject.seed)


def information(subject: Subject) -> Finding | None:
    """In words, `info` holds what agents and trainers rely on, and observations fit the space."""
    with closing(subject.make(subject.words)) as env:
        most = int(env.get_wrapper_attr("max_choices"))
    for step in _steps(subject, subject.words):
        wrong = wrong_info(step.info, step.over, most) or (
            wrong_words(step.observation, step.info, env) if subject.speaks else None
        )
        if wrong:
            advice = "The docstring of palaestra.envs.text says what `info` holds."
            return Finding(wrong, advice, step.seed)
    return None


def wrong_info(info: dict[str, Any], over: bool, most: int) -> str | None:
    """Tell what is wrong with the `info` of a world of words, if anything is."""
    for key, kind in _KEYS.items():
        if key not in info:
            return f"info lacks {key!r}"
        if not isinstance(info[key], kind):
            return f"info[{key!r}] is of type {type(info[key]).__name__}"
    if info["failure"] not in FAILURES:
        return f"the failure is {info['failure']!r}, none of {FAILURES}"
    if info["reward_valid"] != (info["failure"] != "infra"):
        return f"reward_valid is {info['reward_valid']} with the failure {info['failure']!r}"
    return _wrong_messages(info) or _wrong_choices(info["choices"], over, most)


def _wrong_messages(info: dict[str, Any]) -> str | None:
    for message in info["messages"]:
        said = isinstance(message, dict) and isinstance(message.get("content"), str)
        if not (said and message.get("role") in _ROLES):
            return f"no message in OpenAI's shape: {shortened(message)}"
    try:
        json.dumps([info["messages"], info["tools"]], ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        return f"messages or tools cannot be written as JSON: {error}"
    parsed = info["parsed_action"]
    if parsed is not None and not (len(parsed) == 2 and isinstance(parsed[0], str)):
        return f"parsed_action is {shortened(parsed)}, not (tool, arguments)"
    return None


def _wrong_choices(choices: Sequence[Any], over: bool, most: int) -> str | None:
    if over:
        return f"{len(choices)} choices after the end" if choices else None
    if not choices:
        return "no choices before the end"
    if not all(isinstance(choice, str) for choice in choices):
        return "a choice is no string"
    if len(set(choices)) < len(choices):
        return f"two choices are the same: {shortened(choices)}"
    if len(choices) > most:
        return f"{len(choices)} choices, and max_choices is {most}"
    return None


def wrong_words(observation: Any, info: dict[str, Any], env: gymnasium.Env[Any, Any]) -> str | None:
    """Tell what is wrong with what was said and could be said, if anything is."""
    if not env.observation_space.contains(observation):
        return f"an observation outside of the observation space: {shortened(observation)!r}"
    for choice in info["choices"]:
        if not env.action_space.contains(choice):
            return f"a choice outside of the action space: {shortened(choice)!r}"
    return None


def _steps(subject: Subject, view: View = "native") -> Iterator[Step]:
    """Play random episodes, among whose messages some are nonsense."""
    fewer = replace(subject, episodes=min(subject.episodes, _EPISODES))
    return fewer.steps(view, NONSENSE)

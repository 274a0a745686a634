"""Registered environments, found by their ids and made in one of their views."""

import difflib
import importlib
from typing import Any, Literal

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator

from ...errors import UserError
from .as_choices import AsChoices
from .as_dialogue import AsDialogue
from .as_text import AsText
from .moves import is_text

View = Literal["native", "array", "text", "dialogue", "choices"]
"""As the environment is; as arrays, for SB3; in words, for a language model; in words of which
the whole dialogue crosses as an array, for SB3 with a policy that is a language model, which writes
messages, or chooses among them."""


def make(
    env_id: str, view: View = "native", *, split: str | None = None, **kwargs: Any
) -> gymnasium.Env[Any, Any]:
    """Make a registered environment in one of its views.

    Args:
        env_id: A Gymnasium id, `palaestra/Capitals-v0` or `module:id`.
        view: How it is shown.
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
    if view == "dialogue":
        return AsDialogue(env)
    if view == "choices":
        return AsChoices(env, dialogue_bytes=None)
    return AsChoices(env) if view == "array" and is_text(env) else env


def find_spec(env_id: str) -> EnvSpec:
    """Return the registered specification of an id.

    Raises:
        UserError: its module cannot be imported, or there is no such environment; the message says
            why, or suggests the nearest.
    """
    module, _, name = env_id.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
    except Exception as error:  # a module of somebody's own can fail in any way there is
        raise UserError(
            f"cannot import {module} ({type(error).__name__}: {error}): mend that, or add the "
            "module's folder to PYTHONPATH"
        ) from error
    try:
        return gymnasium.spec(name)
    except (gymnasium.error.Error, ImportError, TypeError, ValueError):
        raise UserError(
            f"unknown environment {name!r}; {_near(name)}`palaestra list` shows them all"
        ) from None


def _near(name: str) -> str:
    """Suggest what somebody may have meant, among ours and those of the namespace."""
    places = ("palaestra/", f"{name.rpartition('/')[0]}/")
    known = {
        one.removeprefix("palaestra/").lower(): one
        for one in gymnasium.registry
        if one.startswith(places)
    }
    near = difflib.get_close_matches(name.removeprefix("palaestra/").lower(), known)
    return f"did you mean {' or '.join(repr(known[one]) for one in near)}? " if near else ""


def training_split(env_id: str) -> str | None:
    """Return the split that agents are trained on, None if the environment has no such."""
    return "train" if "train" in splits_of(find_spec(env_id)) else None


def splits_of(spec: EnvSpec) -> tuple[str, ...]:
    """Return the splits of an environment, empty if it has none."""
    entry = spec.entry_point
    creator = load_env_creator(entry) if isinstance(entry, str) else entry
    return tuple(getattr(creator, "splits", ()))

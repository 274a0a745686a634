"""The check that an episode can be taken down, and gone on with from there."""

import pickle
from contextlib import closing
from typing import Any

import gymnasium
import numpy as np

from .findings import Finding, NotApplicable, shown_by
from .playing import difference, mover, packed
from .subject import Subject

_SNAPSHOTS, _AFTERWARDS = 16, 8
"""Snapshots that are taken at most, one in four episodes; and moves that are made from each."""
_MUCH_NONSENSE = 0.5
"""Half of the messages around a snapshot end no episode, so that many are taken in one."""


def snapshots(subject: Subject) -> Finding | None:
    """From a snapshot an episode goes on to the byte: in its instance and in another one."""
    with closing(subject.make()) as env, closing(subject.make()) as other:
        if not (hasattr(env.unwrapped, "get_state") and hasattr(env.unwrapped, "set_state")):
            raise NotApplicable("it has no get_state() and set_state()")
        for seed in subject.seeds[::4][:_SNAPSHOTS]:
            with shown_by(seed):
                other.reset(seed=seed + 1)
                found = _round_trip(env, other, seed)
            if found:
                what, parts = found
                advice = "Let get_state() copy whatever changes, self.np_random included."
                return Finding(f"{what}, it says {parts}", advice, seed)
    return None


def _round_trip(
    env: gymnasium.Env[Any, Any], other: gymnasium.Env[Any, Any], seed: int
) -> tuple[str, str] | None:
    info = _somewhere(env, seed)
    state = env.get_wrapper_attr("get_state")()
    raw = pickle.dumps(state)
    first = _rest(env, info, seed)
    for where, target, known in (
        ("restored", env, state),
        ("restored from a pickled snapshot in another instance", other, pickle.loads(raw)),
        ("restored a second time from one snapshot", env, state),
    ):
        target.get_wrapper_attr("set_state")(known)
        parts = difference(first, _rest(target, info, seed))
        if parts:
            return where, parts
    return None


def _somewhere(env: gymnasium.Env[Any, Any], seed: int) -> dict[str, Any]:
    """Play from a reset to a random point of an episode; return the last `info`."""
    move, rng = mover(env, seed, _MUCH_NONSENSE), np.random.default_rng([seed, 2])
    _, info = env.reset(seed=seed)
    for _ in range(rng.integers(6)):
        _, _, terminated, truncated, info = env.step(move(info))
        if terminated or truncated:
            _, info = env.reset()
    return info


def _rest(env: gymnasium.Env[Any, Any], info: dict[str, Any], seed: int) -> list[bytes]:
    """Play on, into the episodes after this one."""
    move, seen = mover(env, seed + 1, _MUCH_NONSENSE), []
    for _ in range(_AFTERWARDS):
        observation, *outcome, info = env.step(move(info))
        seen.append(packed((observation, outcome, info)))
        if outcome[1] or outcome[2]:
            observation, info = env.reset()
            seen.append(packed((observation, info)))
    return seen

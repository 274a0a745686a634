"""Checks that seeds mean what they say: same seed, same task, same bytes, wherever it is played."""

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from itertools import zip_longest
from typing import Any

import gymnasium
import numpy as np

from ...errors import UserError
from ..views import find_spec, splits_of
from .findings import Finding, NotApplicable, shown_by
from .playing import difference, mover, packed, play
from .subject import Subject

_SEEDS = 2
"""Seeds whose plays are compared."""
_RESETS = 10
"""Tasks among which at least two must differ."""
_OPENING = 10
"""Moves after which a world that begins alike has to differ."""
_HASH_SEEDS = ("1", "2")
_PATIENCE = 600
"""Seconds after which a process that plays the same seeds counts as hanging."""


def same_seed(subject: Subject) -> Finding | None:
    """A seed gives the same bytes again, and in a second instance."""
    advice = "Draw only from self.np_random, keep nothing from one episode to the next."
    for view in subject.views:
        with closing(subject.make(view)) as env:
            for seed in subject.seeds[:_SEEDS]:
                for where in ("in a second instance", "when it is played again"):
                    parts = difference(
                        subject.alone(view, seed), list(play(env, seed, subject.moves))
                    )
                    if parts:
                        return Finding(f"{where} ({view}), it says {parts}", advice, seed)
    return None


def fresh_process(subject: Subject) -> Finding | None:
    """A seed gives the same bytes in other processes, whose strings hash otherwise."""
    splits = splits_of(find_spec(subject.env_id)) or (None,)
    subjects = [replace(subject, split=split) for split in splits]
    return differing_elsewhere(subjects)[0]


def differing_elsewhere(subjects: Sequence[Subject]) -> list[Finding | None]:
    """Play all subjects of one environment or several in fresh processes, and compare.

    Returns:
        What was found for each environment, in the order of its first subject.

    Raises:
        NotApplicable: another process does not know an environment.
    """
    here = [digests(subject) for subject in subjects]
    elsewhere = _digests_elsewhere(subjects)
    found: dict[str, Finding | None] = {}
    for number, subject in enumerate(subjects):
        found.setdefault(subject.env_id, None)
        for there in elsewhere:
            for view, one, other in zip(subject.views, here[number], there[number], strict=True):
                if one != other and not found[subject.env_id]:
                    found[subject.env_id] = Finding(
                        f"a fresh process sees something else (split {subject.split}, {view})",
                        "Sort what comes out of sets, and never use hash() or id().",
                        subject.seed,
                    )
    return list(found.values())


def digests(subject: Subject) -> list[str]:
    """Return a digest of what is seen, for each view."""
    return [
        hashlib.sha256(b"|".join(subject.alone(view, subject.seed))).hexdigest()
        for view in subject.views
    ]


def answer_with_digests() -> None:
    """Read subjects from the standard input and write their digests: the other process."""
    subjects = [Subject(**fields) for fields in json.load(sys.stdin)]
    try:
        print(json.dumps([digests(subject) for subject in subjects]))
    except UserError as error:
        raise SystemExit(str(error)) from None


def _digests_elsewhere(subjects: Sequence[Subject]) -> list[list[list[str]]]:
    code = f"import palaestra.envs; from {__name__} import *; answer_with_digests()"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code],
            env=environment | {"PYTHONHASHSEED": hash_seed},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for hash_seed in _HASH_SEEDS
    ]  # fmt: skip
    asked = json.dumps([asdict(subject) for subject in subjects])
    try:
        answers = [process.communicate(asked, timeout=_PATIENCE) for process in processes]
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"a fresh process was not done after {_PATIENCE} s") from None
    finally:
        for process in processes:
            process.kill()
    for process, (_, complaint) in zip(processes, answers, strict=True):
        last = complaint.strip().rpartition("\n")[2]
        if process.returncode == 1 and last.startswith(("unknown environment", "cannot import")):
            raise NotApplicable("a fresh process does not know it: give its id as module:id")
        if process.returncode:
            raise RuntimeError(f"a fresh process failed: {complaint[-300:]}")
    return [json.loads(said.splitlines()[-1]) for said, _ in answers]


def interference(subject: Subject) -> Finding | None:
    """Two instances in turns play as each does alone."""
    for view in subject.views:
        seeds = (subject.seed, subject.seed + 1)
        with closing(subject.make(view)) as one, closing(subject.make(view)) as other:
            turns = [
                play(env, s, subject.moves) for env, s in zip((one, other), seeds, strict=True)
            ]
            together = zip(*zip_longest(*turns, fillvalue=b""), strict=True)
            for seed, seen in zip(seeds, together, strict=True):
                parts = difference(subject.alone(view, seed), [raw for raw in seen if raw])
                if parts:
                    return Finding(
                        f"beside another instance ({view}), it says {parts}",
                        "Keep state in the instance: not in its class, nor in its module.",
                        seed,
                    )
    return None


def global_generators(subject: Subject) -> Finding | None:
    """The generators of `random` and NumPy are neither read nor changed."""
    seen = []
    for global_seed in (1, 2):
        with _global_seed(global_seed) as is_untouched:
            with closing(subject.make()) as env:
                seen.append(list(play(env, subject.seed, subject.moves)))
            if not is_untouched():
                return Finding(
                    "it changes the global generators of `random` or NumPy",
                    "Draw only from self.np_random.",
                    subject.seed,
                )
    parts = difference(*seen)
    if parts:
        what = f"other global seeds make it say {parts}"
        return Finding(what, "Draw only from self.np_random.", subject.seed)
    return None


@contextmanager
def _global_seed(seed: int) -> Iterator[Callable[[], bool]]:
    """Seed the global generators for a while; yield what tells whether they are as they were."""
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    begun = _global_states()
    try:
        yield lambda: _global_states() == begun
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002


def _global_states() -> bytes:
    return packed((random.getstate(), tuple(np.random.get_state())))  # noqa: NPY002


def going_on(subject: Subject) -> Finding | None:
    """Seeds give different tasks, and so does `reset()` after `reset(seed)`."""
    with closing(subject.make()) as env:
        by_seed = {_opening(env, subject.seed + i) for i in range(_RESETS)}
        first = _opening(env, subject.seed)
        later = {_opening(env, None) for _ in range(_RESETS)}
    if len(by_seed) == len(later) == 1 and not subject.speaks:
        raise NotApplicable("nothing in it is random")
    if len(by_seed) == 1:
        what = f"{_RESETS} seeds give one and the same task"
        return Finding(what, "Call super().reset(seed=seed), then draw.", subject.seed)
    if later == {first}:
        what = "reset() repeats the task of the reset(seed) before it"
        advice = "Draw from self.np_random, and seed it only where a seed is given."
        return Finding(what, advice, subject.seed)
    return None


def _opening(env: gymnasium.Env[Any, Any], seed: int | None) -> bytes:
    """Return how an episode begins and goes on under always the same moves."""
    with shown_by(seed or 0):
        observation, info = env.reset(seed=seed)
        seen, move = [packed((observation, info.get("choices")))], mover(env, 0)
        for _ in range(_OPENING):
            observation, _, terminated, truncated, info = env.step(move(info))
            seen.append(packed((observation, info.get("choices"))))
            if terminated or truncated:
                break
    return b"|".join(seen)


def splits_overlap(subject: Subject) -> Finding | None:
    """No two splits share a task."""
    splits = splits_of(find_spec(subject.env_id))
    if len(splits) < 2:
        raise NotApplicable("it has no splits")
    owners: dict[Any, tuple[str, int]] = {}
    for split in splits:
        for seed, task in _tasks(replace(subject, split=split)):
            owner = owners.setdefault(task, (split, seed))
            if owner[0] != split:
                return Finding(
                    f"{split} has a task of {owner[0]} (there with seed {owner[1]}): {task[0]!r}",
                    "Let a hash or residue of a task's identity say to which split it belongs.",
                    seed,
                )
    return None


def _tasks(subject: Subject) -> list[tuple[int, tuple[Any, ...]]]:
    """Return the tasks of some seeds: the question and its solution, else what could be said."""
    try:
        return [(d.seed, (d.question, d.moves, d.replies)) for d in subject.dialogues]
    except NotApplicable:
        with closing(subject.make()) as env:
            begun = [(seed, env.reset(seed=seed)) for seed in subject.seeds]
        return [
            (seed, (packed(seen), packed(sorted(info.get("choices", [])))))
            for seed, (seen, info) in begun
        ]

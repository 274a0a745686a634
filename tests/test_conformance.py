"""What holds for every registered environment, whichever it is."""

import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import gymnasium
import numpy as np
import palaestra.envs  # noqa: F401
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from palaestra.envs.checking import CHECKS, ONCE, run
from palaestra.envs.checking.hostile import FRAGMENTS
from palaestra.envs.checking.playing import packed
from palaestra.envs.checking.seeds import differing_elsewhere
from palaestra.envs.checking.subject import Subject
from palaestra.envs.questions.reasoning_names import SLOW
from palaestra.envs.views import AsChoices, find_spec, make, splits_of

IDS = sorted(name for name in gymnasium.registry if name.startswith("palaestra/"))
FAMILIES = ("palaestra/BabyAI-", "palaestra/Reasoning-")
"""Environments of one class with many ids: some stand for all where that is enough."""


def sampled(family: str, count: int = 4) -> list[str]:
    """Return ids of a family, spread over all of them, the same in every run."""
    members = [env_id for env_id in IDS if env_id.startswith(family)]
    return sorted({members[i * (len(members) - 1) // (count - 1)] for i in range(count) if members})


LOOKED_AT = [env_id for env_id in IDS if not env_id.startswith(FAMILIES)] + [
    env_id for family in FAMILIES for env_id in sampled(family)
]
OTHERS = [
    env_id
    for env_id in IDS
    if env_id not in LOOKED_AT
    and not env_id.endswith("-python-v0")
    and env_id not in {f"palaestra/Reasoning-{name}-v0" for name in SLOW}
]
"""The rest of the families, each level once: the Python tool changes nothing of the tasks. Those
whose tasks take long have tests of their own, and all of these in `tests/learning`."""
CLASSES: dict[Any, list[str]] = {}
for env_id in LOOKED_AT:
    CLASSES.setdefault(find_spec(env_id).entry_point, []).append(env_id)
STANDS_FOR_ITS_CLASS = {min(members, key=len) for members in CLASSES.values()}
"""What is looked at hard. Of the other levels of a class, which are the same code, `tests/learning`
looks hard at what their tasks decide: the oracle, choices, random moves, hostile messages."""
SPLITS = {env_id: splits_of(find_spec(env_id)) or (None,) for env_id in LOOKED_AT}
CASES = [(env_id, split) for env_id in LOOKED_AT for split in SPLITS[env_id]]
VECTORS = [env_id for env_id in LOOKED_AT if find_spec(env_id).vector_entry_point]
MOVES = 12
NOT_OF_ARRAYS = {"splits", "snapshots", "choices tell"}
"""Checks that need not apply to a world of arrays."""
NOT_WITHOUT_A_THRESHOLD = {"oracle", "random choices"}
"""Checks that need to know what success is, which Gymnasium does not say of Pendulum."""
BOUNDS_OF_ITS_OWN = re.compile("For Box action spaces, we recommend using a symmetric")
"""Said of Pendulum, whose torques go from -2 to 2 as in Gymnasium."""

each_id = pytest.mark.parametrize("env_id", LOOKED_AT)
each_case = pytest.mark.parametrize(("env_id", "split"), CASES)


def test_there_are_environments() -> None:
    assert {"palaestra/CartPole-v1", "palaestra/Calculator-v0", "palaestra/Capitals-v0"} <= set(IDS)
    assert len(LOOKED_AT) >= 3


# The checks that anybody may run: `palaestra check`


@cache
def subject(env_id: str, split: str | None) -> Subject:
    """Return what all checks of a case share: one split of a class is looked at hard."""
    if split == SPLITS[env_id][0] and env_id in STANDS_FOR_ITS_CLASS:
        return Subject(env_id, split, episodes=30, moves=MOVES, hostile=200, most_steps=400)
    return Subject(env_id, split, episodes=10, moves=MOVES // 2, most_steps=100)


@cache
def glanced_at(env_id: str) -> Subject:
    return Subject(env_id, splits_of(find_spec(env_id))[:1][0], episodes=2, moves=3, hostile=30)


# Those in other processes are started once for all, below.
@pytest.mark.parametrize("name", [name for name in CHECKS if name != "fresh process"])
@each_id
def test_every_check_passes(env_id: str, name: str) -> None:
    for split in SPLITS[env_id][:1] if name in ONCE else SPLITS[env_id]:
        result = run(name, subject(env_id, split))
        assert not result.finding
        assert not [w for w in result.warnings if not BOUNDS_OF_ITS_OWN.search(w)]
        if result.skipped:
            speaks = subject(env_id, split).speaks
            untold = set() if find_spec(env_id).reward_threshold else NOT_WITHOUT_A_THRESHOLD
            assert name in ({"choices tell"} if speaks else NOT_OF_ARRAYS | untold)


@pytest.mark.parametrize("name", ["making", "same seed", "oracle", "hostile messages"])
@pytest.mark.parametrize("env_id", OTHERS)
def test_the_others_of_a_family_pass_these(env_id: str, name: str) -> None:
    result = run(name, glanced_at(env_id))
    assert not result.finding
    assert not result.skipped


def test_a_seed_says_the_same_in_every_process() -> None:
    subjects = [subject(*case) for case in CASES] + [glanced_at(env_id) for env_id in OTHERS]
    found = [finding for finding in differing_elsewhere(subjects) if finding]
    assert not found


# Contracts


@pytest.mark.filterwarnings("ignore:Your observation .* has an unconventional shape")
@each_case
def test_stable_baselines_finds_no_fault(env_id: str, split: str | None) -> None:
    from stable_baselines3.common.env_checker import check_env as check_for_sb3

    check_for_sb3(make(env_id, "array", split=split))
    check_for_sb3(AsChoices(make(env_id, split=split)))


@pytest.mark.parametrize("env_id", IDS)
def test_the_docstring_says_everything_in_order(env_id: str) -> None:
    documentation = load_env_creator(find_spec(env_id).entry_point).__doc__
    assert re.findall(r"^\s*## (.+)$", documentation, re.MULTILINE) == [
        "Description",
        "Action Space",
        "Observation Space",
        "Rewards",
        "Episode End",
        "Reference Scores",
        "Version History",
    ]
    version = env_id.rpartition("-")[2]
    assert f"{version}:" in documentation


def test_every_environment_is_made_in_a_fresh_process() -> None:
    lines = [f"print(gymnasium.make('palaestra.envs:{env_id}').spec.id)" for env_id in IDS]
    answer = subprocess.run(
        [sys.executable, "-c", "\n".join(["import gymnasium", *lines])],
        env=os.environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert answer.stdout.split() == IDS


# Many at once


def random_move(space: Any, choices: list[str], rng: np.random.Generator) -> Any:
    if isinstance(space, spaces.Text):
        return choices[rng.integers(len(choices))]
    if isinstance(space, spaces.Box):
        return rng.uniform(space.low, space.high).astype(space.dtype)
    return int(rng.integers(space.n))


def play(
    env: gymnasium.Env[Any, Any], seed: int | None, rng: np.random.Generator, moves: int = MOVES
) -> Iterator[bytes]:
    """Play random moves through as many episodes as they take; yield all that was seen."""
    observation, info = env.reset(seed=seed)
    yield packed(observation)
    for _ in range(moves):
        move = random_move(env.action_space, info.get("choices", []), rng)
        observation, reward, terminated, truncated, info = env.step(move)
        yield packed((float(reward), terminated, truncated))
        if terminated or truncated:
            observation, info = env.reset()
        yield packed((observation, info.get("choices")))


@each_id
def test_in_a_vector_each_plays_as_it_would_alone(env_id: str) -> None:
    split = SPLITS[env_id][0]
    for view in subject(env_id, split).views:
        make_one = partial(make, env_id, view, split=split)
        vector = SyncVectorEnv([make_one] * 3, autoreset_mode=AutoresetMode.SAME_STEP)
        compare_with_alone(vector, make_one)


@pytest.mark.parametrize("env_id", VECTORS)
def test_in_a_vector_of_its_own_each_plays_as_it_would_alone(env_id: str) -> None:
    vector = gymnasium.make_vec(
        env_id, 8, "vector_entry_point", autoreset_mode=AutoresetMode.SAME_STEP
    )
    compare_with_alone(vector, partial(make, env_id))


def test_members_of_a_vector_may_live_in_other_processes() -> None:
    make_one = partial(make, "palaestra/Capitals-v0", split="test")
    vector = AsyncVectorEnv(
        [make_one] * 2,
        shared_memory=False,  # Gymnasium does not read `Text` back from shared memory
        autoreset_mode=AutoresetMode.SAME_STEP,
        context="spawn",
    )
    compare_with_alone(vector, make_one)


def compare_with_alone(vector: Any, make_one: Any) -> None:
    seen = list(play_vector(vector, seed=100))
    vector.close()
    alone = make_one()
    for i in range(vector.num_envs):
        played = list(play(alone, 100 + i, np.random.default_rng([100 + i, 1])))
        assert [row[i] for row in seen] == played
    alone.close()


def play_vector(vector: Any, seed: int) -> Iterator[list[bytes]]:
    """Do what `play` does in each environment of a vector, with seeds that count upwards."""
    members = range(vector.num_envs)
    space = vector.single_action_space
    rngs = [np.random.default_rng([seed + i, 1]) for i in members]
    observations, infos = vector.reset(seed=seed)
    yield [packed(one) for one in unbatched(observations, len(members))]
    for _ in range(MOVES):
        choices = infos.get("choices", [None] * len(members))
        moves = [random_move(space, choices[i], rngs[i]) for i in members]
        actions = tuple(moves) if isinstance(space, spaces.Text) else np.array(moves)
        observations, *outcomes, infos = vector.step(actions)
        yield [packed(tuple(outcome[i].item() for outcome in outcomes)) for i in members]
        choices = infos.get("choices", [None] * len(members))
        seen = unbatched(observations, len(members))
        yield [packed((seen[i], choices[i])) for i in members]


def unbatched(observations: Any, count: int) -> list[Any]:
    if isinstance(observations, dict):
        parts = {key: unbatched(value, count) for key, value in observations.items()}
        return [{key: part[i] for key, part in parts.items()} for i in range(count)]
    return [observations[i] for i in range(count)]


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@each_id
def test_members_of_a_vector_may_do_different_things(env_id: str, mode: AutoresetMode) -> None:
    """Two play at random; the last one talks nonsense every other time."""
    vector = SyncVectorEnv([partial(make, env_id, "text")] * 3, autoreset_mode=mode)
    rng = np.random.default_rng(0)
    _, infos = vector.reset(seed=0)
    failures: set[str | None] = set()
    for _ in range(20):
        moves = [random_move(vector.single_action_space, c or [""], rng) for c in infos["choices"]]
        if rng.random() < 0.5:
            moves[-1] = "nonsense"
        _, rewards, *_, infos = vector.step(tuple(moves))
        assert np.isfinite(rewards).all()
        failures |= set(infos["failure"])
    vector.close()
    assert {None, "format"} <= failures <= {None, "format", "tool"}


@each_case
def test_a_pickled_copy_goes_on_in_the_same_way(env_id: str, split: str | None) -> None:
    for view in subject(env_id, split).views:
        assert_a_copy_goes_on(make(env_id, view, split=split))


def assert_a_copy_goes_on(env: gymnasium.Env[Any, Any]) -> None:
    _, info = env.reset(seed=3)
    move = random_move(env.action_space, info.get("choices", []), np.random.default_rng(0))
    if any(env.step(move)[2:4]):
        env.reset()
    copy = pickle.loads(pickle.dumps(env))
    # The rest of the episode, and the next one.
    rest = []
    for one in (env, copy):
        move = one.get_wrapper_attr("solution")()
        first = [repr(move), packed(one.step(move))]
        rest.append(first + list(play(one, None, np.random.default_rng(5))))
        one.close()
    assert rest[0] == rest[1]


# Any message at all


@pytest.fixture(scope="module")
def listeners() -> Iterator[list[gymnasium.Env[str, str]]]:
    envs = [make(env_id, "text") for env_id in LOOKED_AT]
    for env in envs:
        env.reset(seed=0)
    yield envs
    for env in envs:
        env.close()


@settings(max_examples=100)
@given(
    st.text(st.characters())
    | st.lists(st.sampled_from(FRAGMENTS) | st.text(st.characters()), max_size=12).map("".join)
)
def test_any_message_at_all(listeners: list[gymnasium.Env[str, str]], message: str) -> None:
    for env in listeners:
        said, reward, terminated, truncated, info = env.step(message)
        assert np.isfinite(reward)
        assert info["failure"] in (None, "format", "tool", "timeout")
        assert info["reward_valid"] is True
        assert env.observation_space.contains(said)
        json.dumps(info["messages"], ensure_ascii=False).encode()
        if terminated or truncated:
            env.reset()

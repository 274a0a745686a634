"""What holds for every registered environment, whichever it is."""

import hashlib
import json
import math
import os
import pickle
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import palaestra.envs  # noqa: F401
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from palaestra.envs.views import AsChoices, find_spec, make, splits_of

IDS = sorted(name for name in gymnasium.registry if name.startswith("palaestra/"))
SPLITS = {env_id: splits_of(find_spec(env_id)) for env_id in IDS}
CASES = [(env_id, split) for env_id in IDS for split in SPLITS[env_id] or (None,)]
WITH_SPLITS = [(env_id, split) for env_id, split in CASES if split]
VECTORS = [env_id for env_id in IDS if find_spec(env_id).vector_entry_point]
VIEWS = ("native", "text", "array")
MOVES = 60

each_id = pytest.mark.parametrize("env_id", IDS)
each_case = pytest.mark.parametrize(("env_id", "split"), CASES)
each_view = pytest.mark.parametrize("view", VIEWS)


def test_there_are_environments() -> None:
    assert {"palaestra/CartPole-v1", "palaestra/Calculator-v0", "palaestra/Capitals-v0"} <= set(IDS)


# Contracts


@pytest.mark.filterwarnings("ignore:.*different from the unwrapped version")
@pytest.mark.filterwarnings("ignore:.*A Box observation space")
@each_view
@each_case
def test_gymnasium_finds_no_fault(env_id: str, split: str | None, view: Any) -> None:
    # Rendering is checked below: the checker makes one environment a mode anew.
    check_env(make(env_id, view, split=split), skip_render_check=True)


@each_id
def test_every_render_mode_renders(env_id: str) -> None:
    for mode in make(env_id).metadata["render_modes"]:
        if mode != "human":
            env = make(env_id, render_mode=mode)
            env.reset(seed=0)
            assert len(env.render()) > 0
            env.close()


@pytest.mark.filterwarnings("ignore:Your observation .* has an unconventional shape")
@each_case
def test_stable_baselines_finds_no_fault(env_id: str, split: str | None) -> None:
    from stable_baselines3.common.env_checker import check_env as check_for_sb3

    check_for_sb3(make(env_id, "array", split=split))
    check_for_sb3(AsChoices(make(env_id, split=split)))


@each_id
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


def in_fresh_process(code: str, **environment: str) -> str:
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return answer.stdout


def test_every_environment_is_made_in_a_fresh_process() -> None:
    lines = [f"print(gymnasium.make('palaestra.envs:{env_id}').spec.id)" for env_id in IDS]
    assert in_fresh_process("\n".join(["import gymnasium", *lines])).split() == IDS


# Seeds


def packed(value: Any) -> bytes:
    """Return the bytes of an observation."""
    if isinstance(value, dict):
        return b"".join(packed(value[key]) for key in sorted(value))
    return value.encode() if isinstance(value, str) else value.tobytes()


def random_move(space: Any, choices: list[str], rng: np.random.Generator) -> Any:
    if isinstance(space, spaces.Text):
        return choices[rng.integers(len(choices))]
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
        yield repr((float(reward), terminated, truncated)).encode()
        if terminated or truncated:
            observation, info = env.reset()
        yield packed(observation) + repr(info.get("choices")).encode()


def digest(env_id: str, split: str | None, view: Any, seed: int = 7) -> str:
    seen = play(make(env_id, view, split=split), seed, np.random.default_rng(seed))
    return hashlib.sha256(b"|".join(seen)).hexdigest()


@each_view
@each_case
def test_a_seed_says_everything(env_id: str, split: str | None, view: Any) -> None:
    first = digest(env_id, split, view)
    assert digest(env_id, split, view) == first
    assert digest(env_id, split, view, seed=8) != first


DIGEST_ALL = f"""
import importlib.util, json
spec = importlib.util.spec_from_file_location("conformance", {__file__!r})
tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tests)
print(json.dumps([tests.digest(*case, view) for case in tests.CASES for view in tests.VIEWS]))
"""


def test_a_seed_says_the_same_in_every_process() -> None:
    first, second = (
        json.loads(in_fresh_process(DIGEST_ALL, PYTHONHASHSEED=hash_seed)) for hash_seed in "12"
    )
    here = [digest(*case, view) for case in CASES for view in VIEWS]
    assert first == second == here


@each_case
def test_global_generators_are_neither_read_nor_disturbed(env_id: str, split: str | None) -> None:
    seen = []
    for global_seed in (1, 2):
        random.seed(global_seed)
        np.random.seed(global_seed)  # noqa: NPY002
        before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
        seen.append([digest(env_id, split, view) for view in VIEWS])
        assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002
    assert seen[0] == seen[1]


@each_view
@each_case
def test_in_a_vector_of_8_each_plays_as_it_would_alone(
    env_id: str, split: str | None, view: Any
) -> None:
    make_one = partial(make, env_id, view, split=split)
    vector = SyncVectorEnv([make_one] * 8, autoreset_mode=AutoresetMode.SAME_STEP)
    seen = list(play_vector(vector, seed=100))
    for i in range(8):
        alone = play(make_one(), 100 + i, np.random.default_rng(100 + i))
        assert [row[i] for row in seen] == list(alone)


@pytest.mark.parametrize("env_id", VECTORS)
def test_in_a_vector_of_its_own_each_plays_as_it_would_alone(env_id: str) -> None:
    vector = gymnasium.make_vec(
        env_id, 8, "vector_entry_point", autoreset_mode=AutoresetMode.SAME_STEP
    )
    seen = list(play_vector(vector, seed=100))
    for i in range(8):
        alone = play(make(env_id), 100 + i, np.random.default_rng(100 + i))
        assert [row[i] for row in seen] == list(alone)


def play_vector(vector: Any, seed: int) -> Iterator[list[bytes]]:
    """Do what `play` does in each environment of a vector, with seeds that count upwards."""
    members = range(vector.num_envs)
    space = vector.single_action_space
    rngs = [np.random.default_rng(seed + i) for i in members]
    observations, infos = vector.reset(seed=seed)
    yield [packed(one) for one in unbatched(observations, len(members))]
    for _ in range(MOVES):
        choices = infos.get("choices", [None] * len(members))
        moves = [random_move(space, choices[i], rngs[i]) for i in members]
        actions = tuple(moves) if isinstance(space, spaces.Text) else np.array(moves)
        observations, *outcomes, infos = vector.step(actions)
        yield [repr(tuple(outcome[i].item() for outcome in outcomes)).encode() for i in members]
        choices = infos.get("choices", [None] * len(members))
        seen = unbatched(observations, len(members))
        yield [packed(seen[i]) + repr(choices[i]).encode() for i in members]


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
    for step in range(20):
        moves = [random_move(vector.single_action_space, c or [""], rng) for c in infos["choices"]]
        if step % 2:
            moves[-1] = "nonsense"
        _, rewards, *_, infos = vector.step(tuple(moves))
        assert np.isfinite(rewards).all()
        failures |= set(infos["failure"])
    assert failures == {None, "format"}


def test_members_of_a_vector_may_live_in_other_processes() -> None:
    make_one = partial(make, "palaestra/Capitals-v0", split="test")
    vector = AsyncVectorEnv(
        [make_one] * 2,
        shared_memory=False,  # Gymnasium does not read `Text` back from shared memory
        autoreset_mode=AutoresetMode.SAME_STEP,
        context="spawn",
    )
    seen = list(play_vector(vector, seed=100))
    vector.close()
    for i in range(2):
        alone = play(make_one(), 100 + i, np.random.default_rng(100 + i))
        assert [row[i] for row in seen] == list(alone)


@each_view
@each_case
def test_a_pickled_copy_goes_on_in_the_same_way(env_id: str, split: str | None, view: Any) -> None:
    env = make(env_id, view, split=split)
    _, info = env.reset(seed=3)
    env.step(random_move(env.action_space, info.get("choices", []), np.random.default_rng(0)))
    copy = pickle.loads(pickle.dumps(env))
    # The rest of the episode, and the next one.
    rest = []
    for one in (env, copy):
        move = one.get_wrapper_attr("solution")()
        after = one.step(move)
        rest.append(
            [
                repr(move),
                packed(after[0]),
                repr(after[1:]),
                *play(one, None, np.random.default_rng(5)),
            ]
        )
    assert rest[0] == rest[1]


# Scores


def success_rate(env_id: str, split: str | None, episodes: int, solve: bool) -> float:
    env = make(env_id, "text", split=split)
    rng = np.random.default_rng(0)
    successes = 0
    for i in range(episodes):
        _, info = env.reset(seed=1000 if i == 0 else None)
        over = False
        while not over:
            if solve:
                move = env.get_wrapper_attr("solution")()
            else:
                move = random_move(env.action_space, info["choices"], rng)
            *_, terminated, truncated, info = env.step(move)
            over = terminated or truncated
        assert info["failure"] is None
        successes += info["success"]
    return successes / episodes


@each_case
def test_the_oracle_solves_every_task(env_id: str, split: str | None) -> None:
    assert success_rate(env_id, split, 100, solve=True) == 1.0


@pytest.mark.parametrize(("env_id", "split"), WITH_SPLITS)
def test_random_choices_solve_few_tasks(env_id: str, split: str) -> None:
    assert success_rate(env_id, split, 1000, solve=False) < 0.2


# Hostile messages


FRAGMENTS = [
    "", " ", "\0", "\x1b[2J", "\r\n", "\u202e", "\ufeff", "\ud800", "\udfff", "😀", "e\u0301" * 50,
    "<tool_call>", "</tool_call>", '{"name": "sql", "arguments": {"query": "', '{"name": ', "}}",
    '{"name": "calculator", "arguments": {"expression": "', '"', "\\", "\\u0000", "\\ud800",
    "<sql>", "</sql>", "<calculator>", "</calculator>", "<answer>", "</answer>", "\\boxed{", "}",
    "```sql\n", "```", "<think>", "</think>", "<|im_start|>tool", "<|im_end|>", "[INST]", "<s>",
    "'; DROP TABLE countries; --", "SELECT * FROM cities, cities, cities",
    "ATTACH '/tmp/x' AS x", "PRAGMA writable_schema=1", "WITH RECURSIVE t(n) AS (SELECT 1 UNION "
    "ALL SELECT n FROM t) SELECT * FROM t", "1/0", "9**9**9", "((((", "NaN", "1e999", "-" * 300,
    "left", "right", "Paris", "\u0663", "²",
]  # fmt: skip


def hostile_messages(count: int) -> Iterator[str]:
    """Return random messages, some glued from fragments, some of noise, some very long."""
    rng = random.Random(0)
    for _ in range(count):
        match rng.randrange(4):
            case 0:
                yield "".join(chr(rng.randrange(0x300)) for _ in range(rng.randrange(200)))
            case 1:
                yield rng.choice(FRAGMENTS) * rng.choice([1, 2, 50, 1000])
            case _:
                yield "".join(rng.choices(FRAGMENTS, k=rng.randrange(1, 12)))
    for fragment in ("x", "<a>", "[", "<tool_call>", '{"a":', "\ud800"):
        yield fragment * (100_000 // len(fragment))


def send(env: gymnasium.Env[str, str], message: str) -> None:
    """Send a message, check what comes back, and start anew if that ended the episode."""
    said, reward, terminated, truncated, info = env.step(message)
    assert math.isfinite(reward)
    assert -0.1 <= reward <= 1
    assert info["failure"] in (None, "format", "tool", "timeout")
    assert info["reward_valid"] is True
    assert env.observation_space.contains(said)
    json.dumps(info["messages"], ensure_ascii=False).encode()
    if terminated or truncated:
        assert info["choices"] == []
        env.reset()


@each_id
def test_a_thousand_hostile_messages(env_id: str) -> None:
    env = make(env_id, "text")
    env.reset(seed=0)
    for message in hostile_messages(1000):
        send(env, message)


@pytest.fixture(scope="module")
def listeners() -> list[gymnasium.Env[str, str]]:
    envs = [make(env_id, "text") for env_id in IDS]
    for env in envs:
        env.reset(seed=0)
    return envs


@settings(max_examples=300)
@given(
    st.text(st.characters())
    | st.lists(st.sampled_from(FRAGMENTS) | st.text(st.characters()), max_size=12).map("".join)
)
def test_any_message_at_all(listeners: list[gymnasium.Env[str, str]], message: str) -> None:
    for env in listeners:
        send(env, message)

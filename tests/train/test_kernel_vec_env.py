"""A kernel's vector says to SB3 what SB3's own vector of monitored environments says."""

import os
import pickle
import subprocess
import sys
from copy import deepcopy
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import palaestra.envs  # noqa: F401
import pytest
from gymnasium import spaces
from gymnasium.error import Error, ResetNeeded
from palaestra.errors import UserError
from palaestra.train.kernel_vec_env import KernelVecEnv
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from .vec_envs import dummies, kernels, vector

NAMES = (
    "Acrobot-v1", "CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"
)  # fmt: skip
each = pytest.mark.parametrize("name", NAMES)


def pair(name: str, count: int = 4) -> tuple[KernelVecEnv, DummyVecEnv]:
    """Return ours, and SB3's of Gymnasium's own environments."""
    return kernels(name, count), dummies(name, count)


def same(ours: Any, its: Any) -> bool:
    if isinstance(ours, dict):
        names = [k for k in its if k != "t"]  # Monitor's clock
        return ours.keys() == its.keys() and all(same(ours[k], its[k]) for k in names)
    if isinstance(ours, list | tuple):
        return len(ours) == len(its) and all(map(same, ours, its))
    if isinstance(ours, np.ndarray):
        return bool(ours.dtype == its.dtype and ours.tobytes() == its.tobytes())
    return type(ours) is type(its) and bool(ours == its)


def actions_of(space: Any, seen: Any, rng: np.random.Generator) -> Any:
    """Return random actions, most of which swing: they push where the last number says."""
    count = len(seen)
    swings = rng.random(count) < 0.9 * (np.arange(count) < 2)
    if isinstance(space, spaces.Discrete):
        wise = (seen[:, -1] >= 0) * (space.n - 1)
        return np.where(swings, wise, rng.integers(space.n, size=count))
    push = np.where(swings, np.where(seen[:, -1] >= 0, 0.9, -0.9), rng.uniform(-0.3, 0.3, count))
    return push[:, None].astype(np.float32)


@each
def test_steps_are_those_of_the_dummy(name: str) -> None:
    ours, dummy = pair(name)
    assert ours.observation_space == dummy.observation_space
    assert ours.action_space == dummy.action_space
    rng, ends, cut_off = np.random.default_rng(0), 0, 0
    for seed, steps in ((3, 700), (4, 1100), (None, 20)):  # each reset cuts episodes off
        if seed is not None:
            assert ours.seed(seed) == dummy.seed(seed)
        seen = ours.reset()
        assert same(seen, dummy.reset())
        for _ in range(steps):
            actions = actions_of(ours.action_space, seen, rng)
            mine, its = ours.step(actions), dummy.step(actions)
            assert same(mine, its)
            assert same(ours.reset_infos, dummy.reset_infos)
            seen = mine[0]
            ends += int(mine[2].sum())
            cut_off += sum(info["TimeLimit.truncated"] for info in mine[3])
    assert ends >= 4
    assert cut_off >= (0 if name == "CartPole-v1" else 1)


def test_options_are_those_of_the_dummy() -> None:
    ours, dummy = pair("MountainCar-v0", 3)
    several = [{"low": -0.5, "high": -0.5}, {}, {"low": -0.6, "high": -0.59}]
    for options in ({"low": -0.45, "high": -0.44}, several, None):
        for env in (ours, dummy):
            env.seed(1)
            env.set_options(options)  # type: ignore[arg-type]
        assert same(ours.reset(), dummy.reset())
    # Without a seed they go on drawing, each option in its own episode only.
    for env in (ours, dummy):
        env.set_options(several)
    for _ in range(2):
        assert same(ours.reset(), dummy.reset())


@pytest.mark.parametrize("seed", [None, 5])
def test_options_may_differ_from_the_first_reset_on(seed: int | None) -> None:
    ours, dummy = pair("CartPole-v1", 4)
    several = [{"low": -0.01, "high": 0.01}, {"low": 0.0, "high": 0.0}, {}, {"low": -0.02}]
    for env in (ours, dummy):
        env.seed(seed)
        env.set_options(several)
    seen = ours.reset()
    if seed is not None:
        assert same(seen, dummy.reset())
        for _ in range(60):
            actions = np.array([0, 1, 1, 0])
            assert same(ours.step(actions), dummy.step(actions))
        assert same(ours.reset(), dummy.reset())
    assert (seen[1] == 0).all()
    assert (np.abs(seen[0]) <= 0.01).all()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda env: env.seed(-7),
        lambda env: env.set_options([{}, {"low": 1, "high": 0}]),
        lambda env: env.set_options([{"low": -1, "high": 0}, {"low": "a lot"}]),
    ],
)
def test_a_reset_that_is_refused_changes_nothing(spoil: Any) -> None:
    ours = kernels(count=2)
    spoil(ours)
    with pytest.raises((Error, ValueError), match=r"Seed|ound|a lot"):
        ours.reset()
    with pytest.raises(ResetNeeded):
        ours.step(np.zeros(2, int))
    ours.seed(3)
    ours.set_options(None)
    seen = ours.reset()
    spoil(ours)
    with pytest.raises((Error, ValueError), match=r"Seed|ound|a lot"):
        ours.reset()
    np.testing.assert_array_equal(ours.vector.state_N_S.astype(np.float32), seen)


def test_whoever_writes_into_an_info_keeps_it() -> None:
    changes: list[Any] = [
        lambda info: info.update(seen=1), lambda info: info.clear(),
        lambda info: info.__setitem__("first", True), lambda info: info.setdefault("x", 2),
        lambda info: info.pop("TimeLimit.truncated"), lambda info: info.popitem(),
        lambda info: info.__delitem__("TimeLimit.truncated"), lambda info: info.__ior__({"y": 3}),
    ]  # fmt: skip
    ours, dummy = pair("CartPole-v1", 3)
    for env in (ours, dummy):
        env.seed(0)
        env.reset()
    kept = []
    for step in range(40):
        actions = np.array([0, 1, step % 2])
        mine, its = ours.step(actions)[3], dummy.step(actions)[3]
        assert same(mine, its)
        for infos in (mine, its):
            changes[step % len(changes)](infos[step % 3])
        assert same(mine, its)
        kept.append((mine[step % 3], its[step % 3]))
        again = pickle.loads(pickle.dumps(mine))
        assert same(again, mine)
        assert {type(info) for info in [*again, *deepcopy(mine)]} == {dict}
    assert all(same(*both) for both in kept)


def test_read_only_actions_are_taken() -> None:
    ours, other = kernels("Pendulum-v1", 3), kernels("Pendulum-v1", 3)
    for env in (ours, other):
        env.seed(0)
        env.reset()
    push = np.broadcast_to(np.float32(0.5), (3, 1))
    assert same(ours.step(push), other.step(push.copy()))


def test_members_that_are_not_there_are_errors() -> None:
    ours, dummy = pair("CartPole-v1", 3)
    for env in (ours, dummy):
        for ask in (
            partial(env.env_is_wrapped, Monitor), partial(env.get_attr, "gravity"),
            partial(env.set_attr, "mood", "calm"), partial(env.env_method, "close"),
        ):  # fmt: skip
            with pytest.raises(IndexError):
                ask(indices=5)
        assert env.env_is_wrapped(Monitor, indices=[0, -1]) == [True, True]


def test_members_are_asked_where_they_stand() -> None:
    ours, dummy = pair("Pendulum-v1", 3)
    for env in (ours, dummy):
        env.seed(0)
        env.reset()
        env.step(np.ones((3, 1), np.float32))
    for mine, its in zip(ours.get_attr("state"), dummy.get_attr("state"), strict=True):
        np.testing.assert_array_equal(mine, its)
    assert ours.get_attr("g", indices=[0, 2]) == [10.0, 10.0]
    told = ours.env_method("describe", np.array([1, 0, 0], np.float32), indices=1)
    assert told == ["Rod: 0.0 degrees counterclockwise of upright, turning "
                    "counterclockwise at 0 degrees/s."]  # fmt: skip
    assert [a.shape for a in ours.env_method("solution")] == [(1,)] * 3
    ours.set_attr("mood", "calm", indices=1)
    assert ours.get_attr("mood", indices=1) == ["calm"]
    assert ours.has_attr("solution")
    assert not ours.has_attr("mood")
    assert not ours.has_attr("nothing_of_the_kind")
    assert ours.env_is_wrapped(Monitor) == [True] * 3
    assert ours.env_is_wrapped(gymnasium.wrappers.TimeLimit, indices=0) == [False]
    for name, call in (
        ("g", partial(ours.set_attr, "g", 9.81)),
        ("step", partial(ours.env_method, "step", 0)),
        ("nothing", partial(ours.env_method, "nothing")),
    ):
        with pytest.raises(AttributeError, match=name):
            call()


@each
def test_a_pickled_copy_goes_on_in_the_same_way(name: str) -> None:
    ours, _ = pair(name, 3)
    ours.seed(7)
    seen, rng = ours.reset(), np.random.default_rng(0)
    again = None
    for step in range(260):
        if step == 30:
            again = pickle.loads(pickle.dumps(ours))
        actions = actions_of(ours.action_space, seen, rng)
        mine = ours.step(actions)
        assert again is None or same(mine, again.step(actions))
        seen = mine[0]


@each
def test_what_was_returned_stays(name: str) -> None:
    ours, _ = pair(name, 2)
    kept = [ours.reset()]
    copies = [kept[0].copy()]
    for _ in range(210):
        step = ours.step(actions_of(ours.action_space, kept[0], np.random.default_rng(0)))
        kept += [*step[:3], *(i["terminal_observation"] for i in step[3] if len(i) > 1)]
        copies += [array.copy() for array in kept[len(copies) :]]
    for array, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_mistakes_are_errors() -> None:
    ours, _ = pair("CartPole-v1", 2)
    with pytest.raises(ResetNeeded, match="call reset"):
        ours.step(np.zeros(2, int))
    ours.reset()
    for actions in (np.array([0, 2]), np.zeros(3, int), np.array([np.nan, 0])):
        with pytest.raises(ValueError, match=r"action"):
            ours.step(actions)
    with pytest.raises(UserError, match="SAME_STEP"):
        KernelVecEnv(vector("CartPole-v1", 2, "NextStep"))
    wrapped = gymnasium.wrappers.vector.RecordEpisodeStatistics(vector("CartPole-v1", 2))
    for other in (gymnasium.make_vec("CartPole-v1", 2), wrapped):
        with pytest.raises(UserError, match="unwrapped"):
            KernelVecEnv(other)  # type: ignore[arg-type]


@each
def test_sb3_finds_no_fault(name: str) -> None:
    check_env(gymnasium.make(f"palaestra/{name}"))


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_ppo_learns_the_same(name: str) -> None:
    weights = []
    for env in pair(name, 2):
        agent = PPO("MlpPolicy", env, n_steps=32, batch_size=32, n_epochs=1, seed=1)
        agent.learn(256)
        weights.append(agent.policy.state_dict())
    assert all(np.array_equal(weights[0][k], weights[1][k]) for k in weights[0])


def test_wrappers_and_evaluation_of_sb3_work() -> None:
    results = []
    for env in pair("CartPole-v1", 2):
        env.seed(3)
        agent = PPO("MlpPolicy", VecNormalize(env), n_steps=32, batch_size=32, seed=1)
        results.append(evaluate_policy(agent, agent.get_env(), 5, return_episode_rewards=True))
    assert results[0] == results[1]


def test_it_steps_where_nothing_is_compiled() -> None:
    """As somebody with a debugger wants it."""
    script = (
        "import gymnasium, numpy, palaestra.envs\n"
        "from palaestra.train.kernel_vec_env import KernelVecEnv\n"
        "made = gymnasium.make_vec('palaestra/CartPole-v1', 2, 'vector_entry_point',"
        " autoreset_mode='SameStep')\n"
        "envs = KernelVecEnv(made.unwrapped)\n"
        "envs.seed(0); envs.reset()\n"
        "for _ in range(12):\n"  # in which episodes end
        "    observations, rewards, dones, infos = envs.step(numpy.array([0, 1]))\n"
        "    ended = [(i['episode']['r'], i['episode']['l']) for i in infos if 'episode' in i]\n"
        "    print(observations.tolist(), rewards, dones, ended)"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", script], env=os.environ | {"NUMBA_DISABLE_JIT": off},
            capture_output=True, text=True, check=True,
        ).stdout
        for off in ("0", "1")
    ]  # fmt: skip
    assert ".0, 1" in said[0]
    assert said[0] == said[1]

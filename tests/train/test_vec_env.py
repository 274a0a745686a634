"""Through SB3's interface a vector says what SB3's own vector environment says."""

import os
import sys
import threading
from contextlib import closing
from functools import partial
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
import pytest
from palaestra.envs import views
from palaestra.envs.vector import Vector, make_vec
from palaestra.errors import UserError
from palaestra.train.vec_env import AsVecEnv
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

# A worker process cannot import this module, so that its functions are sent whole.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

MODES = ("sync", "threads", "processes")
WORLDS = ("palaestra/CartPole-v1", "palaestra/Calculator-v0")


def monitored(world: str) -> gymnasium.Env[Any, Any]:
    return Monitor(views.make(world, "array"))


def same(ours: Any, its: Any) -> bool:
    if isinstance(ours, dict):
        names = [k for k in its if k != "t"]  # Monitor's clock
        return ours.keys() == its.keys() and all(same(ours[k], its[k]) for k in names)
    if isinstance(ours, list | tuple):
        return len(ours) == len(its) and all(map(same, ours, its))
    if isinstance(ours, np.ndarray):
        return ours.dtype == its.dtype and np.array_equal(ours, its)
    return bool(ours == its)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("world", WORLDS)
def test_rollouts_are_those_of_the_dummy(world: str, mode: Any) -> None:
    make = partial(monitored, world)
    dummy = DummyVecEnv([make] * 3)
    with closing(AsVecEnv(Vector([make] * 3, mode, autoreset="SameStep", num_workers=2))) as ours:
        assert ours.observation_space == dummy.observation_space
        assert ours.action_space == dummy.action_space
        assert ours.seed(3) == dummy.seed(3)
        assert same(ours.reset(), dummy.reset())
        rng = np.random.default_rng(0)
        ends = 0
        for _ in range(60):
            actions = rng.integers(2, size=3)
            mine, its = ours.step(actions), dummy.step(actions)
            assert same(mine, its)
            assert same(ours.reset_infos, dummy.reset_infos)
            ends += int(its[2].sum())
        assert ends > 2


@pytest.mark.parametrize("mode", MODES)
def test_members_are_reached(mode: Any) -> None:
    make = partial(monitored, WORLDS[1])
    with closing(AsVecEnv(Vector([make] * 3, mode, autoreset="SameStep", num_workers=2))) as ours:
        ours.reset()
        masks = np.stack(ours.env_method("action_masks"))
        assert masks.shape == (3, 6)
        assert masks.any(axis=1).all()
        assert ours.get_attr("split", indices=[0, 2]) == ["train", "train"]
        ours.set_attr("mood", "calm", indices=1)
        assert ours.get_attr("mood", indices=1) == ["calm"]
        assert ours.get_attr("action_masks")[0]().shape == (6,), "a method is not called"
        assert ours.has_attr("action_masks")
        assert ours.has_attr("split")
        assert not ours.has_attr("nothing_of_the_kind")
        assert ours.env_is_wrapped(Monitor) == [True] * 3
        assert ours.env_is_wrapped(views.AsText) == [False] * 3
        assert list(ours.get_images()) == [None] * 3


class Opening(gymnasium.Env[Any, Any]):
    """Has a method that notes that it was called, and nothing that can be sent of it."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(0, 1, (1,))
        self.action_space = gymnasium.spaces.Discrete(2)
        self.render_mode = None
        self.calls = 0
        self.lock = threading.Lock()

    def open(self, times: int = 1) -> int:
        self.calls += times
        return self.calls


@pytest.mark.parametrize("mode", MODES)
def test_asking_for_a_method_does_not_call_it(mode: Any) -> None:
    with closing(AsVecEnv(Vector([Opening] * 2, mode, autoreset="SameStep"))) as ours:
        assert ours.has_attr("open")
        if mode != "processes":  # which cannot send the world that the method belongs to
            assert [method() for method in ours.get_attr("open", indices=0)] == [1]
            ours.env_method("open", times=-1, indices=0)
        assert ours.get_attr("calls") == [0, 0]
        assert ours.env_method("open", 2, indices=1) == [2]
        assert ours.get_attr("calls") == [0, 2]
        with pytest.raises(AttributeError):
            ours.get_attr("nothing_of_the_kind")


@pytest.mark.parametrize("mode", MODES)
def test_episodes_are_told_as_by_sb3s_monitor(mode: Any) -> None:
    dummy = DummyVecEnv([partial(monitored, WORLDS[1])] * 3)
    make = partial(views.make, WORLDS[1], "array")
    vector = Vector([make] * 3, mode, autoreset="SameStep", num_workers=2)
    with closing(AsVecEnv(vector, monitor=True)) as ours:
        rng = np.random.default_rng(0)
        for seed in (3, 4):  # the second reset cuts episodes off
            ours.seed(seed)
            dummy.seed(seed)
            ours.reset()
            dummy.reset()
            told = 0
            for _ in range(31):
                actions = rng.integers(3, size=3)
                mine, its = ours.step(actions), dummy.step(actions)
                assert same(mine, its)
                told += sum("episode" in info for info in mine[3])
            assert told > 2


def test_ppo_learns_the_same() -> None:
    make = partial(monitored, WORLDS[0])
    weights = []
    for vec_env in (DummyVecEnv([make] * 2), AsVecEnv(Vector([make] * 2, autoreset="SameStep"))):
        agent = PPO("MlpPolicy", vec_env, n_steps=32, batch_size=32, n_epochs=1, seed=1)
        agent.learn(128)
        vec_env.close()
        weights.append(agent.policy.state_dict())
    assert all(np.array_equal(weights[0][k], weights[1][k]) for k in weights[0])


def test_a_group_begins_with_one_task() -> None:
    vector = make_vec(WORLDS[1], 4, "sync", "array", group_size=2, autoreset="SameStep")
    with closing(AsVecEnv(vector)) as ours:
        ours.seed(5)
        first = ours.reset()
        assert isinstance(first, dict)
        assert np.array_equal(first["dialogue"][0], first["dialogue"][1])
        assert not np.array_equal(first["dialogue"][1], first["dialogue"][2])
        ours.seed(5)
        assert same(ours.reset(), first)


class Dying(gymnasium.Env[Any, Any]):
    """Ends its process at the action 1."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(0, 1, (1,))
        self.action_space = gymnasium.spaces.Discrete(2)
        self.render_mode = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if action == 1:
            os._exit(1)
        return np.ones(1, np.float32), 1.0, False, False, {}


def test_a_broken_machine_is_told() -> None:
    with closing(AsVecEnv(Vector([Dying] * 2, "processes", autoreset="SameStep"))) as ours:
        ours.reset()
        _, rewards, dones, infos = ours.step(np.array([0, 1]))
        assert dones[1]
        assert rewards[1] == 0
        assert infos[1]["failure"] == "infra"
        assert not infos[1]["reward_valid"]
        assert infos[1]["TimeLimit.truncated"]
        assert infos[1]["terminal_observation"] == 0


def test_another_autoreset_is_refused() -> None:
    with (
        closing(make_vec(WORLDS[0], 2, "sync")) as vector,
        pytest.raises(UserError, match="SAME_STEP"),
    ):
        AsVecEnv(vector)


@pytest.mark.parametrize("mode", MODES)
def test_some_members_step_as_they_would_among_all(mode: Any) -> None:
    worlds = [make_vec(WORLDS[1], 4, m, "text", autoreset="SameStep") for m in (mode, "sync")]
    with closing(AsVecEnv(worlds[0], True)) as ours, closing(AsVecEnv(worlds[1], True)) as whole:
        for each in (ours, whole):
            each.seed(3)
            each.reset()
        steps = [whole.step([f"<answer>{i + 10 * t}</answer>" for i in range(4)]) for t in range(3)]
        at = [0] * 4
        for some in ([2, 0], [2], [3, 1, 2], [0, 1], [3], [1, 0, 3]):
            said = [f"<answer>{i + 10 * at[i]}</answer>" for i in some]
            mine = ours.step_some(some, said)
            for k, i in enumerate(some):
                its = [part[i] for part in steps[at[i]]]
                assert same([part[k] for part in mine], its)
                at[i] += 1
        assert at == [3] * 4
        for wrong in ([4], [1, 1]):
            with pytest.raises(ValueError, match=r"no member 4|named twice"):
                ours.step_some(wrong, ["a"] * len(wrong))

"""Vectors play the episodes that their members would play alone, in every mode."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from contextlib import closing
from functools import partial
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
import psutil
import pytest
from gymnasium import spaces
from gymnasium.error import AlreadyPendingCallError, ClosedEnvironmentError, ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from palaestra.envs import views
from palaestra.envs.vector import Vector, make_vec
from palaestra.envs.vector.batch import batch_infos
from palaestra.envs.vector.mode import StepTime, choose, workers
from palaestra.envs.vector.seeds import episode_seed
from palaestra.errors import UserError

# A worker process cannot import this module, so that its classes are sent whole.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

MODES = ("sync", "threads", "processes")
AUTORESETS = tuple(AutoresetMode)


class Words(gymnasium.Env[str, str]):
    """Says its task and what it heard; the generator decides how long an episode lasts."""

    metadata: dict[str, Any] = {"render_modes": ["ansi"]}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = self.action_space = spaces.Text(200, min_length=0)
        self.mood = "calm"

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.task = int(self.np_random.integers(10**6))
        self.left = int(self.np_random.integers(1, 5))
        return f"task {self.task}", {"task": self.task, "options": options, "failure": None}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if action == "raise":
            raise LookupError("a bug")
        if action == "raise like a pipe":
            raise ChildProcessError("a bug of a tool")
        if action == "die":
            os._exit(7)
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if action.startswith("sleep"):
            time.sleep(float(action.split()[1]))
        self.left -= 1
        draw = int(self.np_random.integers(100))
        info: dict[str, Any] = {
            "dialogue": [{"role": "user", "content": action}],
            "facts": {f"of {self.task}": draw},
            "failure": "format" if draw % 3 == 0 else None,
            "success": draw % 2 == 0,
        }
        if draw % 5 == 0:
            info["rare"] = draw
        over, cut = self.left <= 0, draw == 42
        return f"{action} {draw}", draw / 10, over, cut and not over, info

    def render(self) -> str:  # type: ignore[override]
        return f"at {self.task}"

    def get_state(self) -> dict[str, Any]:
        return {"task": self.task, "left": self.left, "rng": self.np_random.bit_generator.state}

    def set_state(self, state: dict[str, Any]) -> None:
        self.task, self.left = state["task"], state["left"]
        self.np_random.bit_generator.state = state["rng"]


class Numbers(gymnasium.Env[Any, Any]):
    """Has a dictionary of arrays and of a text for its observation, which it writes in place."""

    def __init__(self) -> None:
        self.observation_space = spaces.Dict(
            {"place": spaces.Box(-9, 9, (2,), np.float32), "word": spaces.Text(9)}
        )
        self.action_space = spaces.Discrete(3)
        self.place = np.zeros(2, np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place[:] = self.np_random.normal(size=2)
        return {"place": self.place, "word": "begin"}, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.place += int(action) - 1
        over = bool(self.np_random.random() < 0.3)
        return {"place": self.place, "word": f"w{action}"}, 1, over, False, {"copy": self.place + 0}


WORLDS = ("palaestra/CartPole-v1", "palaestra/Calculator-v0", Words, Numbers)


def maker(world: Any) -> Any:
    return partial(gymnasium.make, world) if isinstance(world, str) else world


def actions_for(vector: Any, infos: dict[str, Any], rng: np.random.Generator) -> Any:
    n = vector.num_envs
    if isinstance(vector.single_action_space, spaces.Text):
        shown = infos.get("choices", [None] * n)
        return [str(rng.choice(c)) if c else f"say {rng.integers(99)}" for c in shown]
    return rng.integers(vector.single_action_space.n, size=n)


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, np.ndarray):
        same = a.dtype == b.dtype and a.shape == b.shape
        return same and (equal([*a], [*b]) if a.dtype == object else np.array_equal(a, b))
    return bool(a == b)


def played(vector: Any, steps: int = 40, seed: int = 5) -> list[Any]:
    """Return everything that a vector says while a fixed player plays it."""
    rng = np.random.default_rng(0)
    observations, infos = vector.reset(seed=seed)
    said = [(observations, infos)]
    for _ in range(steps):
        answer = vector.step(actions_for(vector, infos, rng))
        said.append(answer)
        infos = answer[4]
        over = answer[2] | answer[3]
        if vector.metadata["autoreset_mode"] is AutoresetMode.DISABLED and over.any():
            said.append(vector.reset(options={"reset_mask": over}))
            infos = {}
    return said


@pytest.mark.parametrize("autoreset", AUTORESETS)
@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_every_mode_plays_what_gymnasium_plays(world: Any, autoreset: AutoresetMode) -> None:
    make = maker(world)
    ours = {}
    for mode in MODES:
        with closing(Vector([make] * 5, mode, autoreset=autoreset, num_workers=2)) as v:
            ours[mode] = played(v)
    assert equal(ours["sync"], ours["threads"])
    assert equal(ours["sync"], ours["processes"])
    with closing(SyncVectorEnv([make] * 5, autoreset_mode=autoreset)) as gyms:
        for mine, its in zip(ours["sync"], played(gyms), strict=True):
            assert equal(mine[:-1], its[:-1])
            assert plain(mine[-1]).keys() == plain(its[-1]).keys()
            for key, value in plain(its[-1]).items():
                if world is not Numbers or key != "final_obs":  # it lets the reset overwrite it
                    assert equal(plain(mine[-1])[key], value), key


def plain(infos: dict[str, Any]) -> dict[str, Any]:
    """Leave out what Gymnasium merges: dictionaries in infos, and with them final infos."""
    return {
        k: v
        for k, v in infos.items()
        if k.removeprefix("_") not in ("facts", "final_info", "copy", "options")
    }


@pytest.mark.parametrize("mode", MODES)
def test_spaces_and_metadata_are_those_of_gymnasium(mode: Any) -> None:
    with (
        closing(Vector([Numbers] * 3, mode, autoreset="SameStep")) as ours,
        closing(SyncVectorEnv([Numbers] * 3, autoreset_mode="SameStep")) as its,
    ):
        for name in ("observation_space", "action_space", "num_envs", "metadata", "render_mode"):
            assert getattr(ours, name) == getattr(its, name), name
        assert ours.single_observation_space == its.single_observation_space
        assert ours.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
        observations, _ = ours.reset(seed=0)
        assert observations in ours.observation_space


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("view", ["native", "text", "array"])
def test_members_play_what_they_play_alone(mode: Any, view: Any) -> None:
    with (
        closing(
            make_vec("palaestra/Calculator-v0", 3, mode, view, split="test", autoreset="SameStep")
        ) as vector,
        views.make("palaestra/Calculator-v0", view, split="test") as alone,
    ):
        text = view != "array"
        observations, infos = vector.reset(seed=[3, 8, 1])
        observation, info = alone.reset(seed=8)
        for step in range(12):
            mine = observations[1] if text else {k: v[1] for k, v in observations.items()}
            assert equal(mine, observation)
            assert infos["messages"][1] == info["messages"]
            choices = [c[step % len(c)] for c in infos["choices"]]
            action = choices if text else np.full(3, step % len(infos["choices"][1]))
            observations, rewards, _, _, infos = vector.step(action)
            observation, reward, terminated, truncated, info = alone.step(action[1])
            assert rewards[1] == reward
            if terminated or truncated:
                assert equal(infos["final_obs"][1], observation)
                assert infos["final_info"]["messages"][1] == info["messages"]
                assert infos["_final_info"][1]
                observation, info = alone.reset()


def test_infos_change_no_value() -> None:
    with closing(Vector([Words] * 4)) as vector:
        vector.reset(seed=0)
        _, _, _, _, infos = vector.step(["a", "b", "c", "d"])
    assert infos["facts"].dtype == object
    assert all(len(facts) == 1 for facts in infos["facts"])
    assert infos["dialogue"][2] == [{"role": "user", "content": "c"}]
    assert infos["success"].dtype == bool
    assert infos["_success"].all()
    assert infos["failure"].dtype == object


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 2], int),
        ([1, 0.5], object),
        ([1, None], object),
        ([2**70, 1], object),
        ([True, False], bool),
        ([[1, 2], [3, 4]], object),
        ([{"a": 1}, {"b": 2}], object),
        ([np.zeros(2), np.ones(2)], float),
        ([np.zeros(2), np.ones(3)], object),
        (["a", "b"], object),
    ],
)
def test_a_column_of_infos_keeps_what_it_is_given(values: list[Any], dtype: type) -> None:
    infos = batch_infos([{"x": v} for v in values])
    assert infos["x"].dtype == dtype
    assert equal([*infos["x"]], values)
    gap = batch_infos([{}, {"x": values[0]}])
    assert [*gap["_x"]] == [False, True]
    assert equal(gap["x"][1], values[0])


@pytest.mark.parametrize("has", [(1, 1, 1, 1), (0, 1, 1, 0), (0, 0, 1, 0), (0, 0, 0, 0)])
def test_infos_are_batched_one_by_one_whatever_keys_they_have(has: tuple[int, ...]) -> None:
    rng = np.random.default_rng(sum(has))
    values = {
        "b": lambda: bool(rng.random() < 0.5),
        "n": lambda: [None, 3, 0.5, "x", True][rng.integers(5)],
        "s": lambda: "text",
        "l": lambda: [1, {"a": []}],
        "d": lambda: {"a": 1},
        "v": lambda: np.ones(2),
        "f": lambda: 0.5,
    }
    for _ in range(200):
        shared = [k for k in values if rng.random() < 0.6]
        own = rng.random() < 0.5
        infos = [
            {k: values[k]() for k in (rng.permutation(shared) if own else shared)} if h else {}
            for h in has
        ]
        if own and infos[2]:
            infos[2]["own"] = 3
        batch = batch_infos(infos)
        for key in {k for info in infos for k in info}:
            mask = [key in info for info in infos]
            assert [*batch[f"_{key}"]] == mask
            assert not batch[f"_{key}"].flags.writeable
            assert len(batch[key]) == len(infos)
            for i, info in enumerate(infos):
                if key in info:
                    assert equal(batch[key][i], info[key])
                else:
                    assert batch[key].dtype != object or batch[key][i] is None
        assert len(batch) == 2 * len({k for info in infos for k in info})


def test_text_observations_are_those_of_this_step() -> None:
    with closing(Vector([Words] * 2, "processes")) as vector:
        first, _ = vector.reset(seed=0)
        second = vector.step(["x", "y"])[0]
    assert first[0].startswith("task")
    assert second[0].startswith("x")
    assert second[1].startswith("y")


# Groups.


def tasks_by_episode(vector: Vector, steps: int, seed: Any) -> list[list[int]]:
    """Return for each member the tasks that it played, under actions of its own."""
    rng = np.random.default_rng(1)
    tasks: list[list[int]] = [[t] for t in vector.reset(seed=seed)[1]["task"]]
    for _ in range(steps):
        infos = vector.step([f"say {rng.integers(9)}" for _ in tasks])[4]
        for i, is_new in enumerate(infos.get("_task", ())):
            if is_new:
                tasks[i].append(infos["task"][i])
    return tasks


@pytest.mark.parametrize("autoreset", ["NextStep", "SameStep"])
@pytest.mark.parametrize("mode", MODES)
def test_groups_play_the_same_tasks_whatever_their_members_do(mode: Any, autoreset: str) -> None:
    with closing(Vector([Restless] * 6, mode, group_size=3, autoreset=autoreset)) as vector:
        tasks = tasks_by_episode(vector, 40, seed=9)
        again = tasks_by_episode(vector, 40, seed=9)
    assert tasks == again
    for group in (tasks[:3], tasks[3:]):
        common = min(map(len, group))
        assert common > 5
        assert group[0][:common] == group[1][:common] == group[2][:common]
        assert len(set(group[0][:common])) == common
    assert tasks[0][:3] != tasks[3][:3]
    assert len({len(t) for t in tasks}) > 1, "the members should have lived apart"


class Restless(Words):
    """Draws from its generator as often as the agent says."""

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        draws = int(action.split()[1])
        self.np_random.random(draws)
        observation, reward, over, cut, info = super().step(action)
        return observation, reward, over or draws == 0, cut, info


def test_groups_line_up_at_a_reset_of_all() -> None:
    with closing(Vector([Restless] * 4, group_size=2, autoreset="SameStep")) as vector:
        vector.reset(seed=0)
        for _ in range(5):
            vector.step(["say 0", "say 1", "say 1", "say 0"])
        tasks = vector.reset()[1]["task"]
        assert tasks[0] == tasks[1] != tasks[2] == tasks[3]


def test_groups_line_up_at_a_reset_by_mask() -> None:
    with closing(Vector([Words] * 4, group_size=2, autoreset="Disabled")) as vector:
        first = vector.reset(seed=0)[1]["task"]
        only = vector.reset(options={"reset_mask": np.array([True, False, False, False])})[1]
        both = vector.reset(options={"reset_mask": np.array([True, True, False, False])})[1]
    assert first[0] == first[1]
    assert only["task"][0] != first[0]
    assert both["task"][0] == both["task"][1]
    assert [*both["_task"]] == [True, True, False, False]


def test_a_list_of_seeds_gives_a_group_its_first_task() -> None:
    with closing(Vector([Words] * 4, group_size=2)) as vector:
        tasks = vector.reset(seed=[4, 4, 7, 7])[1]["task"]
        alone = Words()
        assert tasks[0] == tasks[1] == alone.reset(seed=4)[1]["task"]
        assert tasks[2] == alone.reset(seed=7)[1]["task"]
        with pytest.raises(UserError, match="one group have different seeds"):
            vector.reset(seed=[4, 5, 7, 7])


def test_groups_without_a_seed_share_tasks_too() -> None:
    with closing(Vector([Words] * 4, group_size=2)) as vector:
        tasks = vector.reset()[1]["task"]
        assert tasks[0] == tasks[1] != tasks[2] == tasks[3]
        assert vector.reset()[1]["task"][0] != tasks[0]


def test_groups_must_fit() -> None:
    with pytest.raises(UserError, match="groups of 3"):
        Vector([Words] * 4, group_size=3)


# Autoreset off, masks and misuse.


def test_an_episode_that_is_over_is_not_stepped_when_autoreset_is_off() -> None:
    with closing(Vector([Words] * 2, autoreset="Disabled")) as vector:
        vector.reset(seed=0)
        over = np.zeros(2, bool)
        while not over.any():
            over = np.logical_or(*vector.step(["a", "b"])[2:4])
        with pytest.raises(ResetNeeded, match="reset_mask"):
            vector.step(["a", "b"])


@pytest.mark.parametrize("mode", MODES)
def test_misuse_is_told_and_harms_nothing(mode: Any) -> None:
    with closing(Vector([Words] * 2, mode)) as vector:
        with pytest.raises(ResetNeeded):
            vector.step(["a", "b"])
        vector.reset(seed=0)
        with pytest.raises(TypeError, match="list of messages"):
            vector.step("ab")
        with pytest.raises(ValueError, match="3 actions were given for 2"):
            vector.step(["a", "b", "c"])
        with pytest.raises(ValueError, match="no member 2"):
            vector.send(["a"], [2])
        with pytest.raises(ValueError, match="reset_mask"):
            vector.reset(options={"reset_mask": np.zeros(2, bool)})
        with pytest.raises(TypeError, match="reset_mask"):
            vector.reset(options={"reset_mask": [True, False]})
        with pytest.raises(ValueError, match="3 seeds"):
            vector.reset(seed=[1, 2, 3])
        with pytest.raises(ValueError, match=r"use reset\(\) itself"):
            vector.call("reset")
        with pytest.raises(AttributeError):
            vector.get_attr("nothing_of_the_kind")
        assert vector.step(["a", "b"])[0][0].startswith("a")
    with pytest.raises(ClosedEnvironmentError):
        vector.step(["a", "b"])
    with pytest.raises(ClosedEnvironmentError):
        vector.reset()


def test_options_reach_every_member_and_stay_the_callers() -> None:
    options = {"reset_mask": np.array([True, True]), "level": 3}
    with closing(Vector([Words] * 2)) as vector:
        infos = vector.reset(seed=0, options=options)[1]
    assert infos["options"][0] == infos["options"][1] == {"level": 3}
    assert set(options) == {"reset_mask", "level"}


@pytest.mark.parametrize("mode", MODES)
def test_attributes_and_methods_of_members(mode: Any) -> None:
    with closing(Vector([Words] * 3, mode, num_workers=2)) as vector:
        vector.reset(seed=0)
        assert vector.get_attr("mood") == ("calm",) * 3
        vector.set_attr("mood", ["a", "b", "c"])
        assert vector.get_attr("mood") == ("a", "b", "c")
        vector.set_attr("mood", "same")
        assert vector.get_attr("mood") == ("same",) * 3
        with pytest.raises(ValueError, match="2 values"):
            vector.set_attr("mood", [1, 2])
        assert vector.render() == tuple(f"at {t}" for t in vector.get_attr("task"))
        assert vector.np_random_seed == (0, 1, 2)
        assert len(vector.np_random) == 3


@pytest.mark.parametrize("mode", MODES)
def test_any_function_is_applied(mode: Any) -> None:
    """A lambda, or a function of the program itself, which no process could import."""
    with closing(make_vec("palaestra/GuessNumber-v0", 3, mode)) as vector:
        vector.reset(seed=0)
        assert vector.apply(lambda env: env.unwrapped.max_turns) == (5, 5, 5)


@pytest.mark.parametrize("mode", MODES)
def test_a_state_is_taken_and_set(mode: Any) -> None:
    with closing(Vector([Words] * 2, mode, autoreset="Disabled")) as vector:
        vector.reset(seed=3)
        states = vector.call("get_state")
        first = [vector.step(["a", "b"])]
        while not (first[-1][2] | first[-1][3]).any():
            first.append(vector.step(["a", "b"]))
        for i, state in enumerate(states):
            vector.call_some([i], "set_state", state)
        second = [vector.step(["a", "b"]) for _ in first]
    assert equal(first, second)


@pytest.mark.parametrize("autoreset", AUTORESETS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("group_size", [1, 2])
def test_a_vector_that_was_pickled_goes_on_as_it_was(
    mode: Any, autoreset: AutoresetMode, group_size: int
) -> None:
    with closing(
        Vector([Words] * 4, mode, autoreset=autoreset, num_workers=2, group_size=group_size)
    ) as vector:
        vector.reset(seed=3)
        for _ in range(20):
            over = np.logical_or(*vector.step(["a", "b", "c", "d"])[2:4])
            if autoreset is AutoresetMode.DISABLED and over.any():
                vector.reset(options={"reset_mask": over})
        raw = cloudpickle.dumps(vector)
        with closing(cloudpickle.loads(raw)) as copied:
            assert copied.mode == mode
            assert copied.group_size == group_size
            assert copied.autoreset_mode is autoreset
            for _ in range(20):
                its, ours = (v.step(["a", "b", "c", "d"]) for v in (copied, vector))
                assert equal(its, ours)
                over = ours[2] | ours[3]
                if autoreset is AutoresetMode.DISABLED and over.any():
                    mask = {"reset_mask": over}
                    assert equal(copied.reset(options=mask), vector.reset(options=mask))
    assert_nothing_is_left()


def test_a_vector_with_a_step_in_flight_is_not_pickled() -> None:
    with closing(Vector([Words] * 2, "threads", num_workers=1)) as vector:
        vector.reset(seed=0)
        vector.send(["a"], [1])
        with pytest.raises(AlreadyPendingCallError):
            cloudpickle.dumps(vector)
        vector.recv()


# Out of order.


@pytest.mark.parametrize("mode", ["threads", "processes"])
def test_the_quick_do_not_wait_for_the_slow(mode: Any) -> None:
    naps = [0.4, 0.02, 0.2, 0.1]
    with closing(Vector([Words] * 4, mode, num_workers=4)) as vector:
        vector.reset(seed=0)
        began = time.monotonic()
        vector.send([f"sleep {nap}" for nap in naps])
        order: list[int] = []
        observations: dict[int, str] = {}
        while len(order) < 4:
            indices, said, rewards, _, _, infos = vector.recv()
            assert len(indices) == len(said) == len(rewards) == len(infos["success"])
            order += indices.tolist()
            observations.update(zip(indices.tolist(), said, strict=True))
        took = time.monotonic() - began
    assert order == [1, 3, 2, 0]
    assert all(observations[i].startswith(f"sleep {nap}") for i, nap in enumerate(naps))
    assert took < 0.6, "the sum is 0.72"


def test_members_of_one_worker_are_told_of_as_they_come() -> None:
    with closing(Vector([Words] * 3, "processes", num_workers=1)) as vector:
        vector.reset(seed=0)
        vector.send(["sleep 0.01", "sleep 0.4", "quick"])
        began = time.monotonic()
        assert vector.recv()[0].tolist() == [0]
        assert time.monotonic() - began < 0.3
        assert vector.recv(min_count=2)[0].tolist() == [1, 2]


@pytest.mark.parametrize("mode", MODES)
def test_members_go_on_while_others_are_busy(mode: Any) -> None:
    with closing(Vector([Words] * 3, mode, num_workers=3)) as vector:
        vector.reset(seed=0)
        vector.send(["sleep 0.3", "a"], indices=[0, 2])
        with pytest.raises(AlreadyPendingCallError):
            vector.step(["a", "b", "c"])
        with pytest.raises(AlreadyPendingCallError):
            vector.send(["x"], [0])
        got = vector.recv(1)[0].tolist()
        assert got == ([0] if mode == "sync" else [2])
        vector.send(["b"], got)
        rest = vector.recv(2)[0].tolist()
        assert sorted([*got, *rest]) == sorted([0, 2, *got])
        assert vector.step(["a", "b", "c"])[0][1].startswith("b")


@pytest.mark.parametrize("mode", ["threads", "processes"])
def test_a_wait_ends_with_its_time(mode: Any) -> None:
    with closing(Vector([Words] * 2, mode, num_workers=2)) as vector:
        vector.reset(seed=0)
        vector.send(["sleep 0.5", "a"])
        indices, said, *_ = vector.recv(min_count=2, timeout=0.15)
        assert indices.tolist() == [1]
        assert len(said) == 1
        assert vector.recv(timeout=0)[0].tolist() == []
        assert vector.recv()[0].tolist() == [0]


@pytest.mark.parametrize("mode", MODES)
def test_one_at_a_time_is_the_same_episodes(mode: Any) -> None:
    with (
        closing(Vector([Words] * 3, mode, autoreset="SameStep", num_workers=2)) as vector,
        closing(Vector([Words] * 3, autoreset="SameStep")) as reference,
    ):
        vector.reset(seed=4)
        reference.reset(seed=4)
        said: list[list[str]] = [[], [], []]
        vector.send(["a", "b", "c"])
        for _ in range(30):
            indices, observations, *_ = vector.recv()
            for i, observation in zip(indices, observations, strict=True):
                said[i].append(observation)
            vector.send([("a", "b", "c")[i] for i in indices], indices)
        expected = [reference.step(["a", "b", "c"])[0] for _ in range(40)]
        for i in range(3):
            assert said[i] == [e[i] for e in expected][: len(said[i])]


# Failures.


@pytest.mark.parametrize("mode", MODES)
def test_a_bug_is_raised_with_its_traceback_and_all_is_closed(mode: Any) -> None:
    vector = Vector([Words] * 4, mode, num_workers=2)
    vector.reset(seed=0)
    with pytest.raises(LookupError, match="a bug") as caught:
        vector.step(["a", "b", "raise", "c"])
    assert 'raise LookupError("a bug")' in "".join(traceback.format_exception(caught.value))
    assert vector.closed
    assert_nothing_is_left()


@pytest.mark.parametrize("mode", MODES)
def test_a_bug_of_a_tools_process_is_not_taken_for_a_death(mode: Any) -> None:
    vector = Vector([Words], mode)
    vector.reset(seed=0)
    with pytest.raises(ChildProcessError, match="a bug of a tool"):
        vector.step(["raise like a pipe"])


@pytest.mark.parametrize("mode", MODES)
def test_a_bug_of_a_constructor_is_raised(mode: Any) -> None:
    def broken() -> gymnasium.Env[Any, Any]:
        raise LookupError("no such world")

    with pytest.raises(LookupError, match="no such world"):
        Vector([Words, broken], mode, num_workers=2)
    assert_nothing_is_left()


@pytest.mark.parametrize("mode", MODES)
def test_members_must_be_alike(mode: Any) -> None:
    with pytest.raises(ValueError, match="differ in observation_space"):
        Vector([Words, Numbers], mode, num_workers=2)
    assert_nothing_is_left()


@pytest.mark.parametrize("how", ["die", "kill"])
def test_a_death_is_a_failure_of_the_machinery(how: str) -> None:
    with closing(Vector([Words] * 4, "processes", num_workers=2)) as vector:
        vector.reset(seed=0)
        seen = vector.step(["a", "b", "c", "d"])[0]
        observations, rewards, terminated, truncated, infos = vector.step(["a", how, "c", "d"])
        assert [*truncated[:2]] == [True, True]
        assert [*infos["failure"][:2]] == ["infra", "infra"]
        assert [*infos["reward_valid"][:2]] == [False, False]
        assert not rewards[:2].any()
        assert not terminated[:2].any()
        assert observations[:2] == seen[:2]
        assert observations[2].startswith("c")
        observations, rewards, _, truncated, infos = vector.step(["a", "b", "c", "d"])
        assert observations[0].startswith("task")
        assert infos["_task"][0]
        assert vector.step(["a", "b", "c", "d"])[0][0].startswith("a")
    assert_nothing_is_left()


def test_a_death_in_same_step_mode_keeps_the_final_info_and_resets() -> None:
    runs = []
    for _ in range(2):
        with closing(
            Vector([Words] * 2, "processes", autoreset="SameStep", num_workers=2)
        ) as vector:
            seen, _ = vector.reset(seed=0)
            observations, _, _, truncated, infos = vector.step(["die", "b"])
            assert truncated[0]
            assert infos["final_obs"][0] == seen[0]
            assert infos["final_info"]["failure"][0] == "infra"
            assert not infos["final_info"]["reward_valid"][0]
            assert observations[0].startswith("task")
            runs.append(observations[0])
            assert vector.step(["a", "b"])[0][0].startswith("a")
    assert runs[0] == runs[1], "the seed of the next episode follows from the first"


def test_groups_stay_together_after_a_death() -> None:
    with closing(
        Vector([Words] * 2, "processes", group_size=2, autoreset="SameStep", num_workers=2)
    ) as vector:
        vector.reset(seed=0)
        tasks: list[list[int]] = [[], []]
        for step in range(30):
            infos = vector.step(["die" if step in (0, 3, 9) else "a", "a"])[4]
            for i, is_new in enumerate(infos.get("_task", ())):
                if is_new:
                    tasks[i].append(infos["task"][i])
    common = min(map(len, tasks))
    assert common > 5
    assert tasks[0][:common] == tasks[1][:common]


def test_members_of_a_dead_process_that_were_idle_are_cut_off_too() -> None:
    with closing(Vector([Words] * 2, "processes", num_workers=1)) as vector:
        vector.reset(seed=0)
        vector.send(["die"], [0])
        assert vector.recv()[5]["failure"][0] == "infra"
        with pytest.raises(ChildProcessError, match="reset it first"):
            vector.call_some([1], "get_state")
        vector.send(["a"], [1])
        assert vector.recv()[5]["failure"][0] == "infra"
        vector.reset(seed=0)
        assert vector.step(["a", "b"])[0][1].startswith("b")


def ended(vector: Vector, index: int) -> None:
    """Play a member, and nobody else, to the end of its episode."""
    over = False
    while not over:
        vector.send(["a"], [index])
        _, _, _, terminated, truncated, _ = vector.recv()
        over = bool(terminated[0] or truncated[0])


@pytest.mark.parametrize("way", ["before", "during", "unnoticed", "sent"])
def test_the_seed_of_the_next_episode_survives_a_death_between_episodes(way: str) -> None:
    """Member 0's episode is over when the process dies, which `step` then resets."""
    tasks = set()
    for _ in range(2):
        others = set(psutil.Process().children())
        with closing(Vector([Words] * 2, "processes", num_workers=1)) as vector:
            vector.reset(seed=0)
            ended(vector, 0)
            match way:
                case "before":
                    vector.send(["kill"], [1])
                    vector.recv()
                    infos = vector.step(["a", "b"])[4]
                case "during":
                    infos = vector.step(["a", "kill"])[4]
                case "unnoticed":
                    [process] = set(psutil.Process().children()) - others
                    process.kill()
                    process.wait()
                    infos = vector.step(["a", "b"])[4]
                case "sent":
                    vector.send(["kill"], [1])
                    vector.recv()
                    vector.send(["a"], [0])
                    infos = vector.recv()[5]
            tasks.add((infos["task"][0], vector.step(["a", "b"])[0][0]))
    assert len(tasks) == 1
    # Whether the death was noticed before the reset or after it makes no difference.
    assert tasks.pop()[0] == Words().reset(seed=episode_seed(0, 0, 1))[1]["task"]


def test_a_process_that_always_dies_is_given_up() -> None:
    vector = Vector([Words] * 2, "processes", autoreset="SameStep", num_workers=1)
    vector.reset(seed=0)
    for _ in range(2):
        assert vector.step(["a", "die"])[4]["final_info"]["failure"][1] == "infra"
    with pytest.raises(UserError, match=r"members 0 to 1 died 3 times.*with code 7"):
        vector.step(["a", "die"])
    assert vector.closed
    assert_nothing_is_left()


def test_deaths_with_steps_between_them_are_endured() -> None:
    with closing(Vector([Words], "processes", autoreset="SameStep")) as vector:
        vector.reset(seed=0)
        for _ in range(4):
            assert vector.step(["kill"])[3][0]
            vector.step(["a"])


def test_a_process_that_dies_between_steps_is_replaced() -> None:
    with closing(Vector([Words] * 2, "processes", num_workers=2)) as vector:
        vector.reset(seed=0)
        # Not just any child of this process: a tool of another test may have one that waits.
        victim = processes()[0]
        victim.kill()
        victim.wait()
        infos = vector.step(["a", "b"])[4]
        assert list(infos["failure"]).count("infra") == 1
        vector.step(["a", "b"])
        assert None not in vector.step(["a", "b"])[0]


# Ends.


def assert_nothing_is_left(seconds: float = 3.0) -> None:
    """Wait a little for threads and processes of vectors to be gone."""
    until = time.monotonic() + seconds
    while threads_and_processes() and time.monotonic() < until:
        time.sleep(0.02)
    assert not threads_and_processes()


def threads_and_processes() -> list[Any]:
    threads = [t for t in threading.enumerate() if t.name.startswith("vector-")]
    return [*threads, *processes()]


def processes() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if "live(" in line(p)]


def line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.mark.parametrize("in_flight", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_close_leaves_nothing(mode: Any, in_flight: bool) -> None:
    vector = Vector([Words] * 4, mode, num_workers=2)
    vector.reset(seed=0)
    if in_flight:
        vector.send(
            ["sleep 0.3"] * 2 + ["sleep 60"] * 2 if mode == "processes" else ["sleep 0.2"] * 4
        )
    began = time.monotonic()
    vector.close()
    assert time.monotonic() - began < 2.5
    assert not threads_and_processes()
    vector.close()


@pytest.mark.parametrize("mode", MODES)
def test_forgetting_to_close_leaves_nothing(mode: Any) -> None:
    vector = Vector([Words] * 2, mode, num_workers=2)
    vector.reset(seed=0)
    vector.step(["a", "b"])
    del vector
    assert_nothing_is_left()


SCRIPT = """
import os, sys, time, gymnasium
from gymnasium import spaces
from palaestra.envs.vector import Vector

class Slow(gymnasium.Env):
    observation_space = action_space = spaces.Text(9)
    def reset(self, seed=None, options=None):
        return "begin", {}
    def step(self, action):
        time.sleep(float(action))
        return "x", 0.0, False, False, {}

vector = Vector([Slow] * 2, sys.argv[1], num_workers=2)
vector.reset(seed=0)
vector.step(["0", "0"])
vector.send(["60", "60"])
print("ready", flush=True)
"""


@pytest.mark.parametrize("mode", ["threads", "processes"])
@pytest.mark.parametrize("end", ["", "os._exit(1)", "time.sleep(60)"])
def test_the_death_of_the_caller_leaves_nothing(mode: str, end: str) -> None:
    """The script has no guard of its main module, and its environment is defined there."""
    caller = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT) + end, mode], stdout=subprocess.PIPE
    )
    assert caller.stdout is not None
    with caller.stdout:
        assert caller.stdout.readline() == b"ready\n"
        workers = psutil.Process(caller.pid).children(recursive=True) if end else []
        if "sleep" in end:
            caller.kill()
        caller.wait(10)
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert not alive
    # Who was gone before it could be asked for its children left workers that end by themselves.
    until = time.monotonic() + 5
    while left := [p for p in psutil.process_iter() if f", {caller.pid})" in line(p)]:
        assert time.monotonic() < until, left
        time.sleep(0.05)


# The choice of a mode.


def test_cheap_worlds_are_played_in_the_callers_thread() -> None:
    with closing(make_vec("palaestra/Calculator-v0", 8)) as vector:
        assert vector.mode == "sync"


class Waiting(Words):
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        time.sleep(0.002)
        return super().step("a")


class Computing(Words):
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        until = time.thread_time() + 0.003
        while time.thread_time() < until:
            pass
        return super().step("a")


@pytest.fixture
def registered() -> Any:
    ids = {"Waiting-v0": Waiting, "Computing-v0": Computing}
    for name, entry_point in ids.items():
        gymnasium.register(name, entry_point=entry_point)
    yield
    for name in ids:
        del gymnasium.registry[name]


@pytest.mark.usefixtures("registered")
def test_worlds_that_wait_get_a_thread_a_member() -> None:
    with closing(make_vec("Waiting-v0", 6)) as vector:
        assert vector.mode == "threads"
        assert vector.spec is not None
        assert vector.spec.id == "Waiting-v0"
        vector.reset(seed=0)
        assert len(threads_and_processes()) == 6
    with closing(make_vec("Waiting-v0", 6, "threads")):
        assert len(threads_and_processes()) == 6


@pytest.mark.usefixtures("registered")
def test_worlds_that_compute_get_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palaestra.envs.vector.mode.available_cpus", lambda: 2)
    with closing(make_vec("Computing-v0", 3)) as vector:
        assert vector.mode == "processes"
        vector.reset(seed=0)
        assert len(threads_and_processes()) == 2
        assert vector.step(["a"] * 3)[0][0].startswith("a")


def test_the_rule() -> None:
    cheap, waits = StepTime(1e-5, 1e-5, 0), StepTime(0.1, 0.001, 0.099)
    computes = StepTime(0.1, 0.01, 0)
    assert choose(cheap, 64, 8) == ("sync", 1)
    assert choose(waits, 64, 8) == ("threads", 64)
    assert choose(waits, 1, 8) == ("sync", 1)
    assert choose(computes, 64, 8) == ("processes", 8)
    assert choose(computes, 3, 8) == ("processes", 3)
    assert choose(computes, 64, 1) == ("sync", 1)


def test_what_does_not_exist_is_told() -> None:
    with pytest.raises(UserError, match="unknown mode 'fork'"):
        make_vec("palaestra/Calculator-v0", 2, "fork")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="unknown environment"):
        make_vec("palaestra/Nothing-v0", 2)


@pytest.mark.parametrize(
    ("mode", "microseconds", "waiting", "expected"),
    [
        ("threads", 1000, 900, 64),
        ("threads", 3, 0, 1),
        ("threads", 100, 0, 4),
        ("processes", 1, 0, 1),
        ("processes", 4, 0, 2),
        ("processes", 1000, 900, 4),
    ],
)
def test_nobody_gets_less_work_than_handing_it_over_costs(
    mode: Any, microseconds: int, waiting: int, expected: int
) -> None:
    time = StepTime(microseconds / 1e6, (microseconds - waiting) / 1e6, waiting / 1e6)
    assert workers(mode, time, 64, cpus=4) == expected

"""What every kernel environment does: Gymnasium's steps in every mode, alone and in a vector."""

import pickle
import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import palaestra.envs  # noqa: F401
import pytest
from gymnasium import spaces
from gymnasium.error import Error, ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numba import njit
from numpy.typing import NDArray
from palaestra.envs.acrobot import Acrobot
from palaestra.envs.cartpole import CartPole, CartPoleVector
from palaestra.envs.kernel_vector import KernelVector
from palaestra.envs.mountain_car import MountainCar
from palaestra.envs.views import find_spec

NEXT_STEP, SAME_STEP, DISABLED = AutoresetMode
NAMES = (
    "Acrobot-v1", "CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"
)  # fmt: skip
each = pytest.mark.parametrize("name", NAMES)


def ours(name: str, count: int = 4, mode: Any = NEXT_STEP, **kwargs: Any) -> KernelVector:
    env = gymnasium.make_vec(
        f"palaestra/{name}", count, "vector_entry_point", autoreset_mode=mode, **kwargs
    ).unwrapped
    assert isinstance(env, KernelVector)
    return env


def theirs(name: str, count: int = 4, mode: Any = NEXT_STEP, **kwargs: Any) -> SyncVectorEnv:
    return SyncVectorEnv([lambda: gymnasium.make(name, **kwargs)] * count, autoreset_mode=mode)


def moves(
    space: Any, seen: NDArray[np.float32], rng: np.random.Generator, wise: float = 0.6
) -> NDArray[Any]:
    """Return random actions, some of which swing: they push where the last number says."""
    count, forward = len(seen), seen[:, -1] >= 0
    swings = rng.random(count) < wise
    if isinstance(space, spaces.Discrete):
        return np.where(swings, forward * (space.n - 1), rng.integers(space.n, size=count))
    push = np.where(swings, np.where(forward, 1, -1), rng.choice([-1, 0.3, 1], size=count))
    # Some are far beyond the bounds.
    return (push * rng.choice([0.25, 1, 1.9, 4], size=count))[:, None].astype(np.float32)


def assert_same(mine: tuple[Any, ...], reference: tuple[Any, ...]) -> None:
    for one, other in zip(mine, reference, strict=True):
        assert np.asarray(one).dtype == np.asarray(other).dtype
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


@pytest.mark.parametrize("mode", [NEXT_STEP, SAME_STEP, DISABLED], ids=lambda mode: mode.name)
@pytest.mark.parametrize("seed", [0, 991])
@each
def test_a_vector_steps_as_gymnasium_does(name: str, seed: int, mode: AutoresetMode) -> None:
    mine, reference = ours(name, 4, mode), theirs(name, 4, mode)
    seen = mine.reset(seed=seed)[0]
    assert_same((seen,), reference.reset(seed=seed)[:1])
    rng, ended = np.random.default_rng(seed), 0
    for step in range(1_100):
        actions = moves(mine.single_action_space, seen, rng, (0.2, 0.95)[step // 550])
        *outcome, infos = mine.step(actions)
        *expected, its_infos = reference.step(actions)
        assert_same(tuple(outcome), tuple(expected))
        seen, over = outcome[0], outcome[2] | outcome[3]
        ended += over.sum()
        assert infos.keys() == its_infos.keys()
        if "final_obs" in infos:
            np.testing.assert_array_equal(infos["_final_obs"], its_infos["_final_obs"])
            for n in np.flatnonzero(over):
                assert_same((infos["final_obs"][n],), (its_infos["final_obs"][n],))
        if mode is DISABLED and over.any():
            options = {"reset_mask": over}
            seen = mine.reset(options=options)[0]
            assert_same((seen,), reference.reset(options={"reset_mask": over.copy()})[:1])
    assert ended >= 4


@pytest.mark.parametrize("seed", [1, 2**31])
@each
def test_alone_it_steps_as_gymnasium_does(name: str, seed: int) -> None:
    mine, reference = gymnasium.make(f"palaestra/{name}"), gymnasium.make(name)
    rng, ended = np.random.default_rng(seed), 0
    seen, _ = mine.reset(seed=seed)
    assert_same((seen,), reference.reset(seed=seed)[:1])
    for _ in range(1_100):
        action = moves(mine.action_space, seen[None], rng)[0]
        outcome, expected = mine.step(action), reference.step(action)
        assert_same(outcome[:4], expected[:4])
        assert isinstance(outcome[1], float)
        seen, _, terminated, truncated, info = outcome
        assert info == expected[4]
        if terminated or truncated:
            ended += 1
            seen, _ = mine.reset()
            assert_same((seen,), reference.reset()[:1])
    assert ended >= 1


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("CartPole-v1", {"sutton_barto_reward": True}),
        ("MountainCar-v0", {"goal_velocity": 0.03}),
        ("MountainCarContinuous-v0", {"goal_velocity": 0.03}),
        ("Pendulum-v1", {"g": 9.81}),
    ],
)
def test_arguments_are_gymnasiums(name: str, kwargs: dict[str, Any]) -> None:
    mine, reference = ours(name, 4, **kwargs), theirs(name, 4, **kwargs)
    seen, rng = mine.reset(seed=5)[0], np.random.default_rng(5)
    reference.reset(seed=5)
    for _ in range(300):
        actions = moves(mine.single_action_space, seen, rng, 0.9)
        outcome = mine.step(actions)
        assert_same(outcome[:4], reference.step(actions)[:4])
        seen = outcome[0]


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, {"low": -0.5, "high": -0.45}) for name in NAMES if name != "Pendulum-v1"]
    + [("Acrobot-v1", {"low": -3, "high": 3}), ("Pendulum-v1", {"x_init": 0.1, "y_init": 0.2})],
)
@pytest.mark.parametrize("mode", [NEXT_STEP, SAME_STEP])
def test_options_hold_for_the_episodes_that_start_now(
    name: str, options: dict[str, Any], mode: AutoresetMode
) -> None:
    mine, reference = ours(name, 3, mode), theirs(name, 3, mode)
    seen = mine.reset(seed=2, options=options)[0]
    assert_same((seen,), reference.reset(seed=2, options=options)[:1])
    rng = np.random.default_rng(2)
    for _ in range(520):
        actions = moves(mine.single_action_space, seen, rng)
        outcome = mine.step(actions)
        assert_same(outcome[:4], reference.step(actions)[:4])
        seen = outcome[0]


@pytest.mark.parametrize("value", [np.nan, np.inf, "a lot"], ids=str)
@each
def test_options_are_finite_numbers(name: str, value: Any) -> None:
    options = {"x_init": value} if name == "Pendulum-v1" else {"low": value, "high": value}
    with pytest.raises(ValueError, match=r"finite|could not be converted"):
        ours(name).reset(seed=0, options=options)


HOSTILE: dict[bool, list[Any]] = {
    True: [-1, 3, 0.5, np.nan, None, "left", [0], [[0, 1]], True, 1 << 40],
    False: [np.nan, np.inf, -np.inf, "left", None, [0.0, 0.0], [[0.0]], 0.0, [True], [1j]],
}
"""Whether the actions are whole numbers, and what none of them is."""


@each
def test_what_is_no_action_is_refused(name: str) -> None:
    alone, vector = gymnasium.make(f"palaestra/{name}").unwrapped, ours(name, 2)
    good = alone.reset(seed=0) and alone.action_space.sample()
    vector.reset(seed=0)
    state_N_S = vector.state_N_S.copy()
    for action in HOSTILE[isinstance(alone.action_space, spaces.Discrete)]:
        with pytest.raises(ValueError, match="is not in"):
            alone.step(action)
        bad = np.stack([np.asarray(action)] * 2)
        with pytest.raises(ValueError, match=r"actions have shape|is not in|is not finite"):
            vector.step(bad)
    for shape in ((), (1,), (3,), (2, 2), (0,)):
        with pytest.raises(ValueError, match="actions have shape"):
            vector.step(np.zeros(shape, np.asarray(good).dtype))
    np.testing.assert_array_equal(vector.state_N_S, state_N_S)


@each
def test_stepping_needs_a_reset(name: str) -> None:
    alone, vector = gymnasium.make(f"palaestra/{name}").unwrapped, ours(name, 2)
    with pytest.raises(ResetNeeded, match="call reset"):
        alone.step(alone.action_space.sample())
    with pytest.raises(ResetNeeded, match="call reset"):
        vector.step(vector.action_space.sample())


@pytest.mark.parametrize("cut", [lambda a: a[::2], lambda a: np.asfortranarray(a)[::-1]])
@each
def test_actions_may_lie_anywhere_in_memory(name: str, cut: Any) -> None:
    pair = ours(name, 4), ours(name, 4)
    length = len(cut(np.zeros(8)))
    if length == 8:
        pair = ours(name, 8), ours(name, 8)
    rng = np.random.default_rng(0)
    actions = moves(pair[0].single_action_space, np.zeros((8, 1), np.float32), rng, 0)
    for env in pair:
        env.reset(seed=0)
    assert_same(pair[0].step(cut(actions))[:4], pair[1].step(cut(actions).copy())[:4])


@each
def test_what_is_given_may_be_read_only(name: str, tmp_path: Path) -> None:
    alone, vector, other = gymnasium.make(f"palaestra/{name}").unwrapped, ours(name), ours(name)
    actions = moves(vector.single_action_space, np.zeros((4, 1)), np.random.default_rng(0), 0)
    np.save(tmp_path / "actions.npy", actions)
    kept = np.load(tmp_path / "actions.npy", mmap_mode="r")
    everyone = np.broadcast_to(np.array(True), 4)
    for env in (vector, other):
        env.reset(seed=0)
    assert_same(vector.step(kept)[:4], other.step(actions)[:4])
    mask = np.array([True, False, True, False])
    frozen = mask.copy()
    frozen.flags.writeable = False
    for given, same in ((frozen, mask), (everyone, everyone.copy())):
        seen = vector.reset(seed=3, options={"reset_mask": given})[0]
        assert_same((seen,), other.reset(seed=3, options={"reset_mask": same})[:1])
    alone.reset(seed=0)
    alone.step(kept[0])


@each
def test_what_was_returned_stays(name: str) -> None:
    env = ours(name, 3, SAME_STEP, max_episode_steps=2)
    env.reset(seed=0)
    env.action_space.seed(0)
    kept = []
    for _ in range(4):
        outcome = env.step(env.action_space.sample())
        kept.append((outcome, pickle.dumps(outcome)))
    for outcome, was in kept:
        assert pickle.dumps(outcome) == was
    assert "final_obs" in kept[1][0][4]


@each
def test_a_pickled_vector_goes_on_in_the_same_way(name: str) -> None:
    env = ours(name, 3, SAME_STEP, max_episode_steps=5)
    env.reset(seed=0)
    again = pickle.loads(pickle.dumps(env))
    rng = np.random.default_rng(0)
    for _ in range(20):
        actions = moves(env.single_action_space, env.state_N_S, rng)
        assert_same(env.step(actions)[:4], again.step(actions)[:4])


@each
def test_a_compiled_function_takes_the_kernel_as_an_argument(name: str) -> None:
    """As does a rollout that is compiled as a whole."""

    @njit
    def twice(step, world, own):  # type: ignore[no-untyped-def]
        step(*world, 100, True, own)
        return step(*world, 100, True, own)

    env, other = ours(name, 3, SAME_STEP), ours(name, 3, SAME_STEP)
    for one in (env, other):
        one.reset(seed=0)
    size = env.single_observation_space.shape[0]
    seen, rewards = np.empty((3, size), np.float32), np.empty(3)
    flags, actions = np.empty((2, 3), bool), np.zeros((3, 1), np.float32)
    world = (env.state_N_S, env.steps_N, env.over_N, env.rng_N_4, actions)
    twice(env.kernel.step, (*world, seen, seen.copy(), rewards, flags[0], flags[1]), env.settings)
    whole = actions[:, 0].astype(int) if actions.shape == (3, 1) and env._choices else actions
    other.step(whole)
    assert_same((seen, rewards), other.step(whole)[:2])


@each
def test_pixels_are_gymnasiums(name: str) -> None:
    frames = []
    for env_id in (f"palaestra/{name}", name):
        env = gymnasium.make(env_id, render_mode="rgb_array")
        env.action_space.seed(0)
        env.reset(seed=3)
        frames.append([env.render()])
        for _ in range(4):
            env.step(env.action_space.sample())
            frames[-1].append(env.render())
        env.close()
    np.testing.assert_array_equal(frames[0], frames[1])
    assert (frames[0][0] != frames[0][-1]).any()


@pytest.mark.parametrize(
    ("name", "size"),
    [("Acrobot-v1", "SCREEN_DIM"), ("CartPole-v1", "screen_width"),
     ("MountainCar-v0", "screen_width"), ("MountainCarContinuous-v0", "screen_height"),
     ("Pendulum-v1", "screen_dim")],
)  # fmt: skip
def test_the_screen_may_have_another_size(name: str, size: str) -> None:
    frames = []
    for env_id in (f"palaestra/{name}", name):
        env = gymnasium.make(env_id, render_mode="rgb_array")
        setattr(env.unwrapped, size, 300)
        env.reset(seed=3)
        frames.append(np.asarray(env.render()))
        env.close()
    assert 300 in frames[0].shape
    np.testing.assert_array_equal(frames[0], frames[1])


@each
def test_limits_are_gymnasiums(name: str) -> None:
    mine, its = find_spec(f"palaestra/{name}"), gymnasium.spec(name)
    assert mine.max_episode_steps == its.max_episode_steps == ours(name).max_episode_steps
    assert mine.reward_threshold == its.reward_threshold
    for space in ("observation_space", "action_space"):
        assert getattr(gymnasium.make(mine), space) == getattr(gymnasium.make(its), space)


def returns(env: KernelVector, seeds: int) -> NDArray[np.float64]:
    """Return what the oracle gets in one episode a seed."""
    alone, got = env.make_alone(), np.zeros(seeds)
    for seed in range(seeds):
        alone.reset(seed=seed)
        for _ in range(env.max_episode_steps):
            _, reward, terminated, *_ = alone.step(alone.solution())  # type: ignore[attr-defined]
            got[seed] += reward
            if terminated:
                break
    return got


@pytest.mark.parametrize(
    ("name", "least", "mean"),
    [
        ("Acrobot-v1", -75, -66),
        ("CartPole-v1", 500, 500),
        ("MountainCar-v0", -110, -100),
        ("MountainCarContinuous-v0", 97, 98),
        ("Pendulum-v1", -400, -200),
    ],
)
def test_the_oracle_solves_it(name: str, least: float, mean: float) -> None:
    got = returns(ours(name), 20)
    assert got.min() >= least
    assert got.mean() >= mean


@pytest.mark.parametrize(
    ("name", "constant"),
    [("CartPole-v1", "gravity"), ("CartPole-v1", "kinematics_integrator"), ("Pendulum-v1", "m"),
     ("Acrobot-v1", "LINK_MASS_1"), ("Acrobot-v1", "torque_noise_max"),
     ("MountainCar-v0", "force")],
)  # fmt: skip
def test_a_constant_that_is_compiled_cannot_be_set(name: str, constant: str) -> None:
    env = gymnasium.make(f"palaestra/{name}").unwrapped
    value = getattr(env, constant)
    setattr(env, constant, value)
    with pytest.raises(AttributeError, match=f"{constant} = .* is compiled"):
        setattr(env, constant, value + (1 if isinstance(value, int | float) else "?"))
    env.reset(seed=0)
    env.step(env.action_space.sample())
    assert getattr(env, constant) == value


def constants(env: Any) -> dict[str, Any]:
    """Return the numbers, words and lists of an environment that anybody may set."""
    read_only = {"np_random_seed"}
    names = [name for name in dir(env) if name[0] != "_" and name not in read_only]
    found = {name: getattr(env, name) for name in names}
    return {k: v for k, v in found.items() if isinstance(v, int | float | str | list)}


def another(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [another(v) for v in value]
    return value + "?" if isinstance(value, str) else 1.5 * value + 0.25


@each
def test_every_attribute_does_what_it_does_in_gymnasium_or_is_refused(name: str) -> None:
    refused = set()
    for constant, value in constants(gymnasium.make(name).unwrapped).items():
        pair: list[Any] = [gymnasium.make(id_).unwrapped for id_ in (f"palaestra/{name}", name)]
        if constant in pair[0].compiled:
            with pytest.raises(AttributeError, match=f"{constant} = .* is compiled"):
                setattr(pair[0], constant, another(value))
            refused.add(constant)
            continue
        for env in pair:
            setattr(env, constant, another(value))
        rng, seen = np.random.default_rng(0), pair[1].reset(seed=0)[0]
        pair[0].reset(seed=0)
        for _ in range(60):
            action = moves(pair[1].action_space, seen[None], rng)[0]
            outcome, expected = pair[0].step(action), pair[1].step(action)
            assert_same(outcome[:4], expected[:4])
            seen = outcome[0]
    assert refused == set(pair[0].compiled)


def test_what_somebody_adds_is_their_own() -> None:
    class Counts(CartPole):
        def __init__(self) -> None:
            super().__init__()
            self.count, self.task = 0, "a"

        def step(self, action: Any) -> Any:
            self.count += 1
            self.task += "b"
            return super().step(action)

    env = Counts()
    env.reset(seed=0)
    for _ in range(3):
        env.step(1)
    assert (env.count, env.task) == (3, "abbb")


@pytest.mark.parametrize("torques", [[-5.0, 0.0, 5.0], np.array([-1.0, 0.0, 1.0]), None], ids=str)
def test_torques_are_compiled(torques: Any) -> None:
    env: Any = Acrobot()
    with pytest.raises(AttributeError, match=r"AVAIL_TORQUE = .* is compiled"):
        env.AVAIL_TORQUE = torques
    with pytest.raises(TypeError):
        env.AVAIL_TORQUE[0] = -5.0


def test_a_subclass_has_the_constants_of_its_kernel() -> None:
    with pytest.raises(AttributeError, match=r"LINK_MASS_2 = 1.0 is compiled into Heavy"):
        type("Heavy", (Acrobot,), {"LINK_MASS_2": 3.0})
    for value in (0.005, property(lambda self: 0.005)):
        with pytest.raises(AttributeError, match=r"gravity = 0.0025 is compiled into Steep"):
            type("Steep", (MountainCar,), {"gravity": value})
    same: Any = type("Same", (Acrobot,), {"LINK_MASS_2": 1, "dt": 0.1})
    assert same().settings()[3] == 0.1

    class Early(CartPole):
        def __init__(self) -> None:
            self.length = 3.0
            super().__init__()

    with pytest.raises(AttributeError, match=r"length = 0.5 is compiled into Early"):
        Early()


@each
def test_a_vector_refuses_the_constants_of_its_members(name: str) -> None:
    vector: Any = ours(name)
    alone = vector.make_alone()
    for constant in alone.compiled:
        with pytest.raises(AttributeError, match=f"{constant} = .* is compiled"):
            setattr(vector, constant, another(getattr(alone, constant)))
    for constant in alone.adjustable:
        with pytest.raises(AttributeError, match=f"{constant}.*constructor"):
            setattr(vector, constant, getattr(alone, constant))
    assert not hasattr(vector, "alone")
    vector.mood = "calm"


@each
@pytest.mark.parametrize("lengths", [-1, 1, None], ids=str)
def test_a_state_of_another_length_is_refused(name: str, lengths: int | None) -> None:
    env: Any = gymnasium.make(f"palaestra/{name}").unwrapped
    env.reset(seed=0)
    usual = len(env.state)
    env.state = 0.5 if lengths is None else np.zeros(usual + lengths)
    with pytest.raises((ValueError, TypeError)):  # TypeError: of a number where one iterates
        env.step(env.action_space.sample())
    env.reset(seed=0)
    env.step(env.action_space.sample())


@pytest.mark.parametrize(
    ("name", "constant"),
    [
        ("Pendulum-v1", "g"),
        ("MountainCar-v0", "goal_velocity"),
        ("MountainCarContinuous-v0", "goal_velocity"),
    ],
)
@pytest.mark.parametrize("value", [None, np.nan, np.inf, "10"], ids=str)
def test_a_constant_that_may_be_set_is_a_finite_number(
    name: str, constant: str, value: Any
) -> None:
    for make in (gymnasium.make, ours):
        full = name if make is ours else f"palaestra/{name}"
        with pytest.raises(ValueError, match=f"{constant}=.*finite number"):
            make(full, **{constant: value})
    env: Any = gymnasium.make(f"palaestra/{name}").unwrapped
    with pytest.raises(ValueError, match="finite number"):
        setattr(env, constant, value)
    setattr(env, constant, np.float32(0.5))


def test_which_equations_hold_is_said_in_a_word() -> None:
    env: Any = gymnasium.make("palaestra/Acrobot-v1").unwrapped
    with pytest.raises(ValueError, match="'book'"):
        env.book_or_nips = 3


def test_no_reward_of_sutton_and_barto_is_none() -> None:
    envs = ours("CartPole-v1", sutton_barto_reward=None)
    envs.reset(seed=0)
    assert (envs.step(np.zeros(4, int))[1] == 1).all()


@each
def test_seeds_may_come_in_an_array_and_are_whole_numbers(name: str) -> None:
    vector = ours(name)
    listed = vector.reset(seed=[5, 6, 7, 8])[0]
    np.testing.assert_array_equal(vector.reset(seed=np.array([5, 6, 7, 8]))[0], listed)  # type: ignore[arg-type]
    again = vector.reset(seed=np.array(5))[0]  # type: ignore[arg-type]
    np.testing.assert_array_equal(again, listed)


@pytest.mark.parametrize(
    ("seed", "message"),
    [
        (-5, "Seed must be greater or equal to zero, actual value: -5"),
        ([1, 2, 3, -1], "Seed must be greater or equal to zero, actual value: -1"),
        (1.5, "Seed must be a whole number, actual value: 1.5"),
        ("abc", "Seed must be a whole number, actual value: 'abc'"),
        ([1, 2.0, 3, 4], "Seed must be a whole number, actual value: 2.0"),
        ([1, 2], "2 seeds were given for 4 environments"),
    ],
    ids=str,
)
def test_a_seed_that_is_refused_changes_nothing(seed: Any, message: str) -> None:
    vector = ours("CartPole-v1")
    for begun in (False, True):
        kept = vector.rng_N_4.copy(), vector.state_N_S.copy()
        with pytest.raises((Error, ValueError), match=f"^{re.escape(message)}"):
            vector.reset(seed=seed)
        assert_same((vector.rng_N_4, vector.state_N_S), kept)
        if not begun:
            with pytest.raises(ResetNeeded):
                vector.step(np.zeros(4, int))
            seen = vector.reset()[0]
            assert len(np.unique(seen)) == seen.size


@pytest.mark.parametrize("steps", [2.5, 5.0, np.inf, np.nan, "5", 0, -1, 2**70], ids=str)
def test_limits_are_whole_numbers(steps: Any) -> None:
    with pytest.raises(ValueError, match=r"max_episode_steps=.* whole number"):
        ours("CartPole-v1", max_episode_steps=steps)
    with pytest.raises(ValueError, match=r"num_envs=.* whole number"):
        CartPoleVector(steps)
    assert ours("CartPole-v1", max_episode_steps=np.int32(7)).max_episode_steps == 7


@pytest.mark.parametrize("options", [{"x_init": -1}, {"y_init": -0.5}, {"x_init": 1e308}], ids=str)
def test_bounds_of_a_pendulum_are_not_below_zero(options: dict[str, Any]) -> None:
    for env in (gymnasium.make("palaestra/Pendulum-v1"), ours("Pendulum-v1")):
        with pytest.raises((ValueError, OverflowError)):
            env.reset(seed=0, options=options)


@each
def test_the_first_reset_is_for_all(name: str) -> None:
    with pytest.raises(ResetNeeded, match="for all"):
        ours(name).reset(seed=0, options={"reset_mask": np.array([True, False, True, True])})

"""What is Acrobot's own: other equations, another step, and its words."""

import math
from typing import Any

import gymnasium
import numpy as np
import palaestra.envs  # noqa: F401
import pytest
from gymnasium.envs.classic_control.acrobot import wrap
from numba import njit
from palaestra.envs.acrobot import Acrobot, AcrobotVector, _wrapped


@pytest.mark.parametrize(("name", "value"), [("book_or_nips", "nips"), ("dt", 0.05)])
def test_gymnasiums_attributes_may_be_set(name: str, value: Any) -> None:
    mine, its, usual = Acrobot(), gymnasium.make("Acrobot-v1").unwrapped, Acrobot()
    for env in (mine, its, usual):
        env.reset(seed=1)
    for env in (mine, its):
        setattr(env, name, value)
    rng, differs = np.random.default_rng(1), False
    for _ in range(300):
        action = int(rng.integers(3))
        seen, *outcome, _ = mine.step(action)
        expected, *its_outcome, _ = its.step(action)
        assert (seen.tobytes(), outcome) == (expected.tobytes(), its_outcome)
        differs |= bool((usual.step(action)[0] != seen).any())
    assert differs


@njit
def turned_back(angle: float) -> float:
    """Do what Gymnasium does, in less time."""
    while angle > math.pi:
        angle -= 2 * math.pi
    while angle < -math.pi:
        angle += 2 * math.pi
    return angle


def test_angles_are_wrapped_as_gymnasium_does_one_turn_after_another() -> None:
    rng = np.random.default_rng(0)
    sizes = [*10 ** rng.uniform(-1, 7, 1_000), *rng.uniform(0, 1e6, 1_000), 1e9, 0.0]
    for power in 2.0 ** np.arange(28):  # where the rounding changes
        sizes += [power, np.nextafter(power, 0), np.nextafter(power, np.inf)]
    for size in sizes:
        for angle in (float(size), -float(size)):
            assert _wrapped(angle) == turned_back(angle)
    for angle in (1e5, -54_321.0):
        assert turned_back(angle) == wrap(np.float64(angle), -math.pi, math.pi)


@pytest.mark.parametrize("angle", [1e12, 2.0**55, 2.0**56, -1e17, 1e300])
def test_angles_whose_rounding_loses_a_turn_come_to_an_end(angle: float) -> None:
    assert abs(_wrapped(angle)) <= math.pi
    assert not np.isfinite(_wrapped(math.inf))


@pytest.mark.parametrize("bound", [100, 1e5, 1e6])
def test_first_views_from_far_away_are_gymnasiums(bound: float) -> None:
    mine, its, options = Acrobot(), gymnasium.make("Acrobot-v1"), {"low": -bound, "high": bound}
    for seed in range(50):
        seen = mine.reset(seed=seed, options=options)[0]
        assert seen.tobytes() == its.reset(seed=seed, options=options)[0].tobytes()
        of_vector = AcrobotVector(1).reset(seed=seed, options=options)[0][0]
        np.testing.assert_array_max_ulp(of_vector, seen, 1)


@pytest.mark.parametrize("angles", [(100, -200), (-3e4, 5e4), (1e6, -1e6), (0.5, 987_654.3)])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_steps_far_away_are_gymnasiums(angles: tuple[float, float], kind: Any) -> None:
    mine, its = Acrobot(), gymnasium.make("Acrobot-v1").unwrapped
    for env in (mine, its):
        env.reset(seed=0)
        env.state = np.array([*angles, 0.3, -0.7], kind)
    for action in (0, 2, 2, 1):
        seen, *outcome, _ = mine.step(action)
        expected, *its_outcome, _ = its.step(action)
        assert (seen.tobytes(), outcome) == (expected.tobytes(), its_outcome)


@pytest.mark.parametrize(("dt", "bound"), [(5.0, 0.1), (1e6, 0.1), (1e300, 3), (0.2, 1e300)])
def test_no_step_lasts_for_ever(dt: float, bound: float) -> None:
    mine = Acrobot()
    mine.dt = dt
    mine.reset(seed=0, options={"low": -bound, "high": bound})
    vector = AcrobotVector(3)
    vector.reset(seed=0, options={"low": -bound, "high": bound})
    for step in range(50):
        mine.step(step % 3)
        vector.step(np.full(3, step % 3))


def test_it_says_an_observation_in_words() -> None:
    seen = np.array([0, 1, 0, -1, np.radians(30), np.radians(-60)], np.float32)
    assert Acrobot().describe(seen) == (
        "First link: 90 degrees counterclockwise of hanging down, turning counterclockwise at 30 "
        "degrees/s. Second link: 90 degrees clockwise of the first, turning clockwise at 60 "
        "degrees/s. The free end is at -1.00 m, and must rise above 1 m."
    )

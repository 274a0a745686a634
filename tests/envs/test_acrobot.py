"""What is Acrobot's own: other equations, another step, and its words."""

from typing import Any

import gymnasium
import numpy as np
import palaestra.envs  # noqa: F401
import pytest
from palaestra.envs.acrobot import Acrobot


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


def test_it_says_an_observation_in_words() -> None:
    seen = np.array([0, 1, 0, -1, np.radians(30), np.radians(-60)], np.float32)
    assert Acrobot().describe(seen) == (
        "First link: 90 degrees counterclockwise of hanging down, turning counterclockwise at 30 "
        "degrees/s. Second link: 90 degrees clockwise of the first, turning clockwise at 60 "
        "degrees/s. The free end is at -1.00 m, and must rise above 1 m."
    )

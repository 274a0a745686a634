"""The kernel's uniform draws against NumPy's, bit for bit."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numba import njit
from palaestra.envs.pcg64 import states_from_generators, states_from_seeds, uniform

BOUNDS = st.floats(-1e9, 1e9, allow_nan=False)


@njit
def draw(states_N_4, n, low, high, count):
    values = np.empty(count)
    for i in range(count):
        values[i] = uniform(states_N_4, n, low, high)
    return values


@given(st.integers(0, 2**128 - 1), BOUNDS, BOUNDS)
@example(seed=0, one=0.0, other=-0.0)
def test_draws_are_those_of_numpy(seed: int, one: float, other: float) -> None:
    # NumPy refuses bounds whose difference has the sign of a negative number, as 0.0 and -0.0 have.
    low, high = sorted((one, other), key=lambda bound: (bound, math.copysign(1.0, bound)))
    expected = np.random.default_rng(seed).uniform(low, high, 50)
    assert draw(states_from_seeds([seed]), 0, low, high, 50).tobytes() == expected.tobytes()


def test_states_of_seeds_are_those_of_numpy() -> None:
    seeds = [*range(1000), *(2**k + d for k in range(10, 128) for d in (-1, 0, 1))]
    expected = states_from_generators([np.random.default_rng(seed) for seed in seeds])
    few = [seed for seed in seeds if seed < 2**64]
    assert np.array_equal(states_from_seeds(few), expected[[seed < 2**64 for seed in seeds]])
    assert np.array_equal(states_from_seeds(seeds), expected)


def test_a_negative_seed_is_none() -> None:
    with pytest.raises(ValueError, match="non-negative"):
        states_from_seeds([3, -1])


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**64 - 1])
def test_a_long_run_of_draws_is_that_of_numpy(seed: int) -> None:
    expected = np.random.default_rng(seed).uniform(-0.05, 0.05, 50_000)
    assert draw(states_from_seeds([seed]), 0, -0.05, 0.05, 50_000).tobytes() == expected.tobytes()


def test_a_state_is_taken_over_in_the_middle_of_a_stream() -> None:
    generator = np.random.default_rng(3)
    generator.random(17)
    states = states_from_generators([generator])
    assert draw(states, 0, 0.0, 1.0, 100).tobytes() == generator.random(100).tobytes()


def test_streams_do_not_disturb_each_other() -> None:
    states = states_from_seeds([5, 6])
    draw(states, 1, 0.0, 1.0, 10)
    expected = np.random.default_rng(5).random(10)
    assert draw(states, 0, 0.0, 1.0, 10).tobytes() == expected.tobytes()


def test_no_seeds_give_no_states() -> None:
    assert states_from_seeds([]).shape == (0, 4)

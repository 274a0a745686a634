"""Advantages: SB3's, to the last bit."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from palaestra.train.advantages import estimate_advantages
from stable_baselines3.common.buffers import RolloutBuffer

SHAPES = st.one_of(
    st.tuples(st.integers(1, 40), st.integers(1, 40)), st.sampled_from([(1, 1), (3, 257), (300, 1)])
)


def theirs(
    rewards: Any, values: Any, starts: Any, last: Any, dones: Any, gamma: float, decay: float
) -> tuple[Any, Any]:
    steps, envs = rewards.shape
    space: Any = spaces.Discrete(2)
    buffer = RolloutBuffer(steps, space, space, "cpu", decay, gamma, envs)
    buffer.rewards, buffer.values, buffer.episode_starts = rewards, values, starts
    buffer.compute_returns_and_advantage(torch.from_numpy(last), dones)
    return buffer.advantages, buffer.returns


def ours(
    rewards: Any, values: Any, starts: Any, last: Any, dones: Any, gamma: float, decay: float
) -> tuple[Any, Any, bool]:
    advantages, returns = np.full_like(rewards, 7.0), np.full_like(rewards, 7.0)
    given_N = dones.astype(np.float32)
    finite = estimate_advantages(
        rewards, values, starts, last, given_N, gamma, decay, advantages, returns
    )
    return advantages, returns, finite


def numbers(seed: int, shape: tuple[int, int], ends: float = 0.1) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    rewards, values = (rng.normal(size=(2, *shape)) * 10.0 ** rng.integers(-9, 9)).astype("f4")
    starts = (rng.random(shape) < ends).astype("f4")
    last, dones = rng.normal(size=shape[1]).astype("f4"), rng.random(shape[1]) < ends
    return rewards, values, starts, last, dones


def same_bits(a: Any, b: Any) -> bool:
    return a.dtype == b.dtype == np.float32 and np.array_equal(a.view("u4"), b.view("u4"))


@settings(max_examples=150)
@given(SHAPES, st.integers(0, 2**32), st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_it_is_that_of_stable_baselines(
    shape: tuple[int, int], seed: int, gamma: float, decay: float, ends: float
) -> None:
    given_numbers = numbers(seed, shape, ends)
    expected = theirs(*given_numbers, gamma, decay)
    advantages, returns, finite = ours(*given_numbers, gamma, decay)
    assert finite
    assert same_bits(advantages, expected[0])
    assert same_bits(returns, expected[1])


@pytest.mark.parametrize("envs", [1, 8, 32, 33])
def test_zeros_keep_their_sign(envs: int) -> None:
    zeros, starts = np.full((5, envs), -0.0, "f4"), np.zeros((5, envs), "f4")
    given_numbers = zeros, -zeros, starts, zeros[0].copy(), np.zeros(envs, bool)
    expected, found = theirs(*given_numbers, 0.99, 0.95), ours(*given_numbers, 0.99, 0.95)
    assert same_bits(found[0], expected[0])
    assert same_bits(found[1], expected[1])


@settings(max_examples=60)
@given(
    SHAPES,
    st.data(),
    st.sampled_from([np.nan, np.inf, -np.inf]),
    st.sampled_from(["rewards", "values", "last"]),
)
def test_what_is_not_finite_does_not_go_unseen(
    shape: tuple[int, int], data: st.DataObject, number: float, where: str
) -> None:
    rewards, values, starts, last, dones = numbers(0, shape)
    t, n = data.draw(st.integers(0, shape[0] - 1)), data.draw(st.integers(0, shape[1] - 1))
    if where == "last":
        last[n] = number
    else:
        {"rewards": rewards, "values": values}[where][t, n] = number
    advantages, _, finite = ours(rewards, values, starts, last, dones, 0.99, 0.95)
    assert not finite
    assert not np.isfinite(advantages[-1 if where == "last" else t, n])

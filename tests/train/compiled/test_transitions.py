"""The order in which a rollout is learned from.

It is drawn from NumPy's global generator, as by stable-baselines3, so the tests seed that.
"""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from palaestra.train.buffers import RolloutBuffer
from palaestra.train.compiled.transitions import order_of
from stable_baselines3.common import buffers

STEPS, ENVS = 6, 3
STARTS = np.array(
    [[0, 1, 0], [0, 0, 1], [1, 0, 1], [0, 0, 1], [0, 0, 1], [1, 0, 1]], np.float32
)  # fmt: skip
"""Of 3, 1 and 6 episodes, of which the first of the first and of the last began earlier."""


def filled(kind: type[buffers.RolloutBuffer]) -> buffers.RolloutBuffer:
    buffer = kind(STEPS, spaces.Box(0, 1, (2,)), spaces.Discrete(2), "cpu", n_envs=ENVS)
    for starts in STARTS:
        buffer.add(
            np.zeros((ENVS, 2), np.float32), np.zeros((ENVS, 1)), np.zeros(ENVS), starts,
            torch.zeros(ENVS), torch.zeros(ENVS),
        )  # fmt: skip
    return buffer


def numbered(kept_M: np.ndarray) -> np.ndarray:
    """Return the number of each transition's episode, environment by environment."""
    lengths = [2, 3, 1, 6, 1, 1, 1, 1, 1, 1]
    return np.repeat(np.arange(len(lengths)), lengths)[kept_M]


@pytest.mark.parametrize("read", [False, True], ids=["as collected", "read before"])
@pytest.mark.parametrize(
    ("kind", "spoilt"),
    [(buffers.RolloutBuffer, ()), (RolloutBuffer, ()), (RolloutBuffer, (1, 11, 17))],
    ids=["stable-baselines3", "ours", "ours, spoilt"],
)
def test_episodes_stay_whole_and_come_in_any_order(
    kind: type[buffers.RolloutBuffer], spoilt: tuple[int, ...], read: bool
) -> None:
    rollout = filled(kind)
    kept_M = np.setdiff1d(np.arange(STEPS * ENVS), spoilt)
    if isinstance(rollout, RolloutBuffer):
        rollout.valid_T_N.T.flat[list(spoilt)] = False
    rollout.compute_returns_and_advantage(torch.zeros(ENVS), np.zeros(ENVS, bool))
    if read:
        next(iter(rollout.get(4)))
    episodes_M, count = numbered(kept_M), len(kept_M)
    first, last = set(), set()
    for seed in range(300):
        np.random.seed(seed)  # noqa: NPY002
        plain_M = order_of(rollout, count)
        after = np.random.random()  # noqa: NPY002
        np.random.seed(seed)  # noqa: NPY002
        order_M = order_of(rollout, count, whole_episodes=True)
        assert np.random.random() == after  # noqa: NPY002
        assert sorted(order_M) == sorted(plain_M) == list(range(count))
        found_M = episodes_M[order_M]
        turns = np.flatnonzero(np.diff(found_M)) + 1
        assert len(turns) + 1 == len(set(episodes_M))
        assert all((np.diff(part) == 1).all() for part in np.split(order_M, turns))
        first.add(found_M[0])
        last.add(found_M[-1])
    assert first == last == set(episodes_M)

"""Generalised advantage estimation, compiled.

The kernels know arrays only, so that any trainer may use them: a step is a move in a classic
environment, a message, or a token.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

_FEW = 32
"""Most environments for which a call for each row takes longer than one plain loop."""
_USUAL = 8
"""Environments of most recipes."""
_LARGEST = np.float32(np.finfo(np.float32).max)
_ONE, _ZERO = np.float32(1.0), np.float32(0.0)

Floats = NDArray[np.float32]


@njit(cache=True, nogil=True, error_model="numpy")
def estimate_advantages(
    rewards_T_N: Floats,
    values_T_N: Floats,
    starts_T_N: Floats,
    last_values_N: Floats,
    dones_N: Floats,
    gamma: float,
    gae_lambda: float,
    advantages_T_N: Floats,
    returns_T_N: Floats,
) -> bool:
    """Fill in GAE(lambda) and its returns, advantage plus value; everything is float32.

    Bit-exact with stable-baselines3's `compute_returns_and_advantage`: the same operations in
    the same order, no fused multiply-add, no reordering. Arrays are C-contiguous.

    Args:
        rewards_T_N: Rewards of step t in environment n.
        values_T_N: Values of the states before these steps.
        starts_T_N: 1 where step t is the first of an episode, else 0.
        last_values_N: Values of the states after the last step.
        dones_N: 1 where the last step ended an episode, else 0.
        gamma: Discount.
        gae_lambda: Lambda; 1 gives Monte-Carlo returns, 0 one-step differences.
        advantages_T_N: Written.
        returns_T_N: Written.

    Returns:
        Whether all advantages are finite. What is not finite in rewards or values makes the
        advantage of the same step so.

    Source: Schulman et al., "High-Dimensional Continuous Control Using Generalized Advantage
    Estimation" (2016), equation 16.
    """
    steps, envs = rewards_T_N.shape
    discount, decay = np.float32(gamma), np.float32(gamma * gae_lambda)
    if envs <= _FEW:
        return _few(
            rewards_T_N, values_T_N, starts_T_N, last_values_N, dones_N,
            discount, decay, advantages_T_N, returns_T_N,
        )  # fmt: skip
    following_N = np.zeros(envs, np.float32)
    ends_N, next_values_N = dones_N, last_values_N
    bad = np.int32(0)
    for t in range(steps - 1, -1, -1):
        _differ(rewards_T_N[t], values_T_N[t], next_values_N, ends_N, discount, advantages_T_N[t])
        bad |= _accumulate(
            values_T_N[t], ends_N, following_N, decay, advantages_T_N[t], returns_T_N[t]
        )
        following_N, ends_N, next_values_N = advantages_T_N[t], starts_T_N[t], values_T_N[t]
    return bool(bad == 0)


@njit(cache=True, nogil=True, error_model="numpy")
def _few(
    rewards_T_N: Floats,
    values_T_N: Floats,
    starts_T_N: Floats,
    last_values_N: Floats,
    dones_N: Floats,
    discount: np.float32,
    decay: np.float32,
    advantages_T_N: Floats,
    returns_T_N: Floats,
) -> bool:
    """Do all steps at once but for the recursion, as rows so short are not worth a call each."""
    steps, envs = rewards_T_N.shape
    last = (steps - 1) * envs
    values, ends = values_T_N.reshape(-1), starts_T_N.reshape(-1)[envs:]
    rewards, advantages = rewards_T_N.reshape(-1), advantages_T_N.reshape(-1)
    _differ(rewards[:last], values[:last], values[envs:], ends, discount, advantages[:last])
    _differ(rewards[last:], values[last:], last_values_N, dones_N, discount, advantages[last:])
    for n in range(envs):  # nothing follows, but to add it may change the sign of a zero
        advantages[last + n] += decay * (_ONE - dones_N[n]) * _ZERO
    if envs == _USUAL:  # LLVM takes so many at once where it knows how far apart they are
        _recur(ends, decay, _USUAL, advantages)
    else:
        _recur(ends, decay, envs, advantages)
    return _sum_up(values, advantages, returns_T_N.reshape(-1))


@njit(error_model="numpy", inline="always")
def _recur(ends: Floats, decay: np.float32, envs: int, advantages: Floats) -> None:
    """Add what follows to the deltas."""
    for i in range(ends.shape[0] - 1, -1, -1):
        advantages[i] += decay * (_ONE - ends[i]) * advantages[i + envs]


# Short functions, as LLVM vectorises no loop that reads and writes so many arrays.


@njit(cache=True, nogil=True, error_model="numpy")
def _differ(
    rewards_N: Floats,
    values_N: Floats,
    next_values_N: Floats,
    ends_N: Floats,
    discount: np.float32,
    deltas_N: Floats,
) -> None:
    for n in range(deltas_N.shape[0]):
        deltas_N[n] = rewards_N[n] + discount * next_values_N[n] * (_ONE - ends_N[n]) - values_N[n]


@njit(cache=True, nogil=True, error_model="numpy")
def _accumulate(
    values_N: Floats,
    ends_N: Floats,
    following_N: Floats,
    decay: np.float32,
    advantages_N: Floats,
    returns_N: Floats,
) -> np.int32:
    """Add what follows to the deltas; return whether anything became infinite or not a number."""
    bad = np.int32(0)
    for n in range(advantages_N.shape[0]):
        advantage = advantages_N[n] + decay * (_ONE - ends_N[n]) * following_N[n]
        advantages_N[n] = advantage
        returns_N[n] = advantage + values_N[n]
        bad |= np.int32(not abs(advantage) <= _LARGEST)
    return np.int32(bad)


@njit(cache=True, nogil=True, error_model="numpy")
def _sum_up(values: Floats, advantages: Floats, returns: Floats) -> bool:
    """Add values to advantages; return whether all of these are finite."""
    bad = np.int32(0)
    for i in range(advantages.shape[0]):
        returns[i] = advantages[i] + values[i]
        bad |= np.int32(not abs(advantages[i]) <= _LARGEST)
    return bool(bad == 0)

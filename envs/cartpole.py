"""CartPole: one compiled kernel behind `gymnasium.make` and `gymnasium.make_vec`."""

import math
from typing import Any, ClassVar

import numpy as np
from gymnasium import logger
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from numba import njit
from numpy.typing import NDArray

from .kernel import BLOCK, RESET, STEP, Kernel, one_by_one, reset_all, step_all
from .kernel_env import KernelEnv, reset_bounds
from .kernel_vector import KernelVector
from .pcg64 import uniform
from .sines import LIMIT, are_those_of_c, small_sine_and_cosine

# The constants of Gymnasium's CartPoleEnv, in its units: SI, and radians.
_GRAVITY, _CART_MASS, _POLE_MASS, _HALF_LENGTH, _FORCE, _TAU = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
_TOTAL_MASS = _POLE_MASS + _CART_MASS
_POLE_MOMENT = _POLE_MASS * _HALF_LENGTH
_X_LIMIT = 2.4
_THETA_LIMIT = 12 * 2 * math.pi / 360
_LOW, _HIGH, _SUTTON_BARTO, _OURS = range(4)
"""Places in the settings; the last one says whether `sines` are those of the C library."""
_MANY = 16
"""So many and more are stepped in loops that vectorise."""


@njit
def _restart(state_N_S, n, rng_N_4, settings):  # type: ignore[no-untyped-def]
    for j in range(4):
        state_N_S[n, j] = uniform(rng_N_4, n, settings[_LOW], settings[_HIGH])


@njit(error_model="numpy")
def _advance(state_N_S, n, actions_N_A, settings):  # type: ignore[no-untyped-def]
    x, x_dot, theta, theta_dot = state_N_S[n, 0], state_N_S[n, 1], state_N_S[n, 2], state_N_S[n, 3]
    state_N_S[n, 0], state_N_S[n, 1], state_N_S[n, 2], state_N_S[n, 3] = _integrated(
        x, x_dot, theta, theta_dot, actions_N_A[n, 0], math.cos(theta), math.sin(theta)
    )
    fallen = _has_fallen(state_N_S[n, 0], state_N_S[n, 2])
    return _reward(fallen, settings), fallen


@njit(error_model="numpy", inline="always")
def _advance_rows(  # type: ignore[no-untyped-def]
    advance, state_N_S, first, past, over_N, actions_N_A, rewards_N, terminated_N, settings
):
    # Settings in old pickles end before they say whose the sines are.
    if past - first >= _MANY and len(settings) > _OURS and settings[_OURS] != 0.0:
        _advance_many(
            state_N_S[first:past], actions_N_A[first:past], rewards_N[first:past],
            terminated_N[first:past], settings,
        )  # fmt: skip
    else:
        one_by_one(
            advance, state_N_S, first, past, over_N, actions_N_A, rewards_N, terminated_N, settings
        )


@njit(error_model="numpy")
def _advance_many(state_B_S, actions_B_A, rewards_B, terminated_B, settings):  # type: ignore[no-untyped-def]
    """Advance at most `BLOCK` environments in loops that vectorise; those that are over, too.

    For that, LLVM must see that no index is below 0, how far it is from one row to the next, and
    that what is written is no part of the table of sines: so arrays are flat, and the work, which
    nothing else leads to, holds the angles, their sines and their cosines, `BLOCK` of each.
    """
    state, actions, count = state_B_S.ravel(), actions_B_A.ravel(), min(len(rewards_B), BLOCK)
    work_3B = np.empty(3 * BLOCK)
    for n in range(count):
        work_3B[n] = state[4 * n + 2]
    for n in range(count):
        sine, cosine = small_sine_and_cosine(work_3B[n])
        work_3B[n + BLOCK], work_3B[n + 2 * BLOCK] = sine, cosine
    for n in range(count):
        theta = work_3B[n]
        if not abs(theta) < LIMIT:
            work_3B[n + BLOCK], work_3B[n + 2 * BLOCK] = math.sin(theta), math.cos(theta)
    for n in range(count):
        i, sine, cosine = 4 * n, work_3B[n + BLOCK], work_3B[n + 2 * BLOCK]
        state[i], state[i + 1], state[i + 2], state[i + 3] = _integrated(
            state[i], state[i + 1], state[i + 2], state[i + 3], actions[n], cosine, sine
        )
    for n in range(count):
        terminated_B[n] = _has_fallen(state[4 * n], state[4 * n + 2])
    for n in range(count):
        rewards_B[n] = _reward(terminated_B[n], settings)


@njit(error_model="numpy", inline="always")
def _integrated(x, x_dot, theta, theta_dot, action, cosine, sine):  # type: ignore[no-untyped-def]
    """Integrate one step of 0.02 s (Euler), in the order of Gymnasium's operations."""
    force = _FORCE if action == 1.0 else -_FORCE
    temporary = (force + _POLE_MOMENT * (theta_dot * theta_dot) * sine) / _TOTAL_MASS
    theta_acceleration = (_GRAVITY * sine - cosine * temporary) / (
        _HALF_LENGTH * (4.0 / 3.0 - _POLE_MASS * (cosine * cosine) / _TOTAL_MASS)
    )
    x_acceleration = temporary - _POLE_MOMENT * theta_acceleration * cosine / _TOTAL_MASS
    return (
        x + _TAU * x_dot,
        x_dot + _TAU * x_acceleration,
        theta + _TAU * theta_dot,
        theta_dot + _TAU * theta_acceleration,
    )


@njit(inline="always")
def _has_fallen(x, theta):  # type: ignore[no-untyped-def]
    return (x < -_X_LIMIT) | (x > _X_LIMIT) | (theta < -_THETA_LIMIT) | (theta > _THETA_LIMIT)


@njit(inline="always")
def _reward(fallen, settings):  # type: ignore[no-untyped-def]
    if settings[_SUTTON_BARTO] == 0.0:
        return 1.0
    return -1.0 if fallen else 0.0


@njit
def _observe(state_N_S, n, observations_N_D):  # type: ignore[no-untyped-def]
    for j in range(4):
        observations_N_D[n, j] = state_N_S[n, j]


# fmt: off
@njit(STEP, cache=True, nogil=True, error_model="numpy")
def _step(  # type: ignore[no-untyped-def]
    state, steps, over, rng, actions, seen, final, rewards, terminated, truncated, most, same, own
):
    return step_all(
        _restart, _advance_rows, _advance, _observe, state, steps, over, rng, actions,
        seen, final, rewards, terminated, truncated, most, same, own,
    )
# fmt: on


@njit(RESET, cache=True, nogil=True, error_model="numpy")
def _reset(state, steps, over, rng, mask, seen, own):  # type: ignore[no-untyped-def]
    reset_all(_restart, _observe, state, steps, over, rng, mask, seen, own)


class CartPole(KernelEnv, CartPoleEnv):
    """Balance a pole on a cart by pushing the cart left or right.

    ## Description
    A pole stands on a cart that moves on a track without friction; gravity tips it over and
    pushes on the cart hold it up. The same dynamics, draws and flags as Gymnasium's
    `CartPole-v1`, bit for bit, computed by a Numba kernel; rendering is Gymnasium's own.
    Source: Barto, Sutton and Anderson, "Neuronlike Adaptive Elements That Can Solve Difficult
    Learning Control Problems" (1983).

    ## Action Space
    `Discrete(2)`: 0 pushes the cart to the left, 1 to the right, with 10 N for 0.02 s.

    ## Observation Space
    `Box(4,)`, float32: cart position (m), cart velocity (m/s), pole angle (rad), pole angular
    velocity (rad/s).

    ## Rewards
    1 for every step, the last one included; with `sutton_barto_reward=True` 0, and -1 when
    the pole falls.

    ## Episode End
    Terminated when the pole leans more than 12 degrees or the cart leaves +-2.4 m; truncated
    after 500 steps.

    ## Reference Scores
    Random about 22, the oracle (a linear controller) 500 of 500. PPO 500 (100,000 steps, one
    training seed, 200 episodes). SmolLM2-135M-Instruct through `AsText`, 4 shots, greedy 28 (8
    episodes).

    ## Version History
    v1: as Gymnasium's v1.
    """

    instructions = (
        "Balance a pole on a cart. Each turn you see the cart and the pole, and push the cart "
        "to the left or to the right. The pole falls to the side it leans to, so push that way."
    )
    """What a player who reads is told first (`AsText`)."""
    action_words = ("left", "right")
    """The name of each action."""

    kernel = Kernel(_step, _reset, state_size=4)
    compiled: ClassVar[dict[str, Any]] = {
        "gravity": _GRAVITY,
        "masscart": _CART_MASS,
        "masspole": _POLE_MASS,
        "total_mass": _TOTAL_MASS,
        "length": _HALF_LENGTH,
        "polemass_length": _POLE_MOMENT,
        "force_mag": _FORCE,
        "tau": _TAU,
        "kinematics_integrator": "euler",
        "theta_threshold_radians": _THETA_LIMIT,
        "x_threshold": _X_LIMIT,
    }

    def step(
        self, action: int | NDArray[np.integer[Any]]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Push the cart for 0.02 s.

        Raises:
            ValueError: the action is neither 0 nor 1.
            ResetNeeded: `reset` was never called.
        """
        observation, reward, fallen, truncated, info = super().step(action)
        if fallen:
            reward = self._fallen(reward)
        return observation, reward, fallen, truncated, info

    def settings(self, options: dict[str, Any] | None = None) -> NDArray[np.float64]:
        """Return the bounds of the first state, and what else the kernel asks for."""
        low, high = reset_bounds(options, -0.05, 0.05)
        return np.array([low, high, bool(self._sutton_barto_reward), are_those_of_c()])

    def _fallen(self, reward: float) -> float:
        """Return the reward of a fall; who goes on after it is warned, and paid no more."""
        beyond: int | None = self.steps_beyond_terminated
        if beyond == 0:
            logger.warn("step() was called on an episode that is over: call reset() first")
        self.steps_beyond_terminated = 0 if beyond is None else beyond + 1  # type: ignore[assignment]
        return reward if beyond is None or self._sutton_barto_reward else 0.0

    def describe(self, observation: NDArray[np.float32]) -> str:
        """Say an observation in words and rounded numbers."""
        x, x_dot, theta, theta_dot = (float(v) for v in observation)
        leans, falls = _side(theta), _side(theta_dot)
        return (
            f"Pole: {abs(math.degrees(theta)):.1f} degrees {leans}, turning {falls} at "
            f"{abs(math.degrees(theta_dot)):.0f} degrees/s. Cart: {abs(x):.2f} m {_side(x)}, "
            f"moving {_side(x_dot)} at {abs(x_dot):.2f} m/s."
        )

    def solution(self) -> int:
        """Return the action of a linear controller that holds the pole for 500 steps."""
        assert self.state is not None, "call reset() before solution()"
        x, x_dot, theta, theta_dot = self.state
        return int(0.1 * x + 0.3 * x_dot + 3.0 * theta + theta_dot > 0)


class CartPoleVector(KernelVector):
    """N CartPoles, stepped together; Gymnasium's `sutton_barto_reward` among the arguments."""

    alone_class = CartPole
    usual_steps = 500


def _side(value: float) -> str:
    return "right" if value >= 0 else "left"

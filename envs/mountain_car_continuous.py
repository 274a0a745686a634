"""MountainCar with a continuous push: one compiled kernel, alone and as a vector."""

import math
from typing import Any, ClassVar

import numpy as np
from gymnasium.envs.classic_control.continuous_mountain_car import Continuous_MountainCarEnv
from numba import njit
from numpy.typing import NDArray

from .kernel import RESET, STEP, Kernel, one_by_one, reset_all, step_all
from .kernel_env import KernelEnv, reset_bounds
from .kernel_vector import KernelVector
from .mountain_car import say
from .pcg64 import uniform

# Of Gymnasium's Continuous_MountainCarEnv, in its units.
_POWER, _GRAVITY, _MAX_SPEED = 0.0015, 0.0025, 0.07
_LEFT_END, _RIGHT_END, _GOAL = -1.2, 0.6, 0.45
_FRESH = 2
"""Place in the state: 1 after a reset. Gymnasium then computes the first step in float64, and
all others in float32."""
_f4 = np.float32
_WIDE = (0.0, _MAX_SPEED, _LEFT_END, _RIGHT_END, _GOAL)
_NARROW = (_f4(0.0), _f4(_MAX_SPEED), _f4(_LEFT_END), _f4(_RIGHT_END), _f4(_GOAL))


@njit
def _restart(state_N_S, n, rng_N_4, settings):  # type: ignore[no-untyped-def]
    state_N_S[n, 0] = uniform(rng_N_4, n, settings[0], settings[1])
    state_N_S[n, 1], state_N_S[n, _FRESH] = 0.0, 1.0


@njit(error_model="numpy")
def _advance(state_N_S, n, actions_N_A, settings):  # type: ignore[no-untyped-def]
    """Push the car for one step, in Gymnasium's operations and their precisions."""
    push, goal_speed = actions_N_A[n, 0], settings[2]
    if state_N_S[n, _FRESH] != 0.0:
        position, velocity = state_N_S[n, 0], state_N_S[n, 1]
        velocity = velocity + _acceleration(push, math.cos(3.0 * position))
        position, velocity, there = _rolled(position, velocity, goal_speed, _WIDE)
        state_N_S[n, 0], state_N_S[n, 1] = _f4(position), _f4(velocity)
        state_N_S[n, _FRESH] = 0.0
    else:
        x, v = _f4(state_N_S[n, 0]), _f4(state_N_S[n, 1])
        v = v + _f4(_acceleration(push, math.cos(np.float64(_f4(3.0) * x))))
        x, v, there = _rolled(x, v, _f4(goal_speed), _NARROW)
        state_N_S[n, 0], state_N_S[n, 1] = x, v
    cost = np.float64(push) * np.float64(push) * 0.1
    return (100.0 if there else 0.0) - cost, there


@njit
def _acceleration(push, slope):  # type: ignore[no-untyped-def]
    """Return engine and gravity together: a push that is not clipped is computed in float32."""
    if push < -1.0:
        return -1.0 * _POWER - _GRAVITY * slope
    if push > 1.0:
        return 1.0 * _POWER - _GRAVITY * slope
    return np.float64(_f4(push * _f4(_POWER)) - _f4(_GRAVITY * slope))


@njit
def _rolled(position, velocity, goal_speed, limits):  # type: ignore[no-untyped-def]
    """Move the car, stop it at the ends, and tell whether it is at the goal."""
    zero, max_speed, left_end, right_end, goal = limits
    velocity = min(max(velocity, -max_speed), max_speed)
    position = min(max(position + velocity, left_end), right_end)
    if position == left_end and velocity < 0:
        velocity = zero
    return position, velocity, position >= goal and velocity >= goal_speed


@njit
def _observe(state_N_S, n, observations_N_D):  # type: ignore[no-untyped-def]
    observations_N_D[n, 0], observations_N_D[n, 1] = state_N_S[n, 0], state_N_S[n, 1]


# fmt: off
@njit(STEP, cache=True, nogil=True, error_model="numpy")
def _step(  # type: ignore[no-untyped-def]
    state, steps, over, rng, actions, seen, final, rewards, terminated, truncated, most, same, own
):
    return step_all(
        _restart, one_by_one, _advance, _observe, state, steps, over, rng, actions,
        seen, final, rewards, terminated, truncated, most, same, own,
    )
# fmt: on


@njit(RESET, cache=True, nogil=True, error_model="numpy")
def _reset(state, steps, over, rng, mask, seen, own):  # type: ignore[no-untyped-def]
    reset_all(_restart, _observe, state, steps, over, rng, mask, seen, own)


class MountainCarContinuous(KernelEnv, Continuous_MountainCarEnv):
    """Drive a weak car out of a valley with little fuel.

    ## Description
    As in MountainCar, but the push is a number, and pushing costs. The same dynamics, draws and
    flags as Gymnasium's `MountainCarContinuous-v0`, bit for bit, float32 rounding included,
    computed by a Numba kernel; rendering is Gymnasium's own. Source: Moore, "Efficient
    Memory-based Learning for Robot Control" (1990).

    ## Action Space
    `Box(-1, 1, (1,))`, float32: the push, positive to the right. One beyond the bounds pushes as
    the bound does, and costs what it says.

    ## Observation Space
    `Box(2,)`, float32: position (-1.2 to 0.6, the bottom of the valley at -0.52) and velocity
    (-0.07 to 0.07 a step).

    ## Rewards
    -0.1 times the square of the push for every step, and 100 for the goal.

    ## Episode End
    Terminated when the car is at 0.45 or beyond, at the speed `goal_velocity` (0) or more;
    truncated after 999 steps.

    ## Reference Scores
    Random -33, the oracle (a quarter of the power, where the car moves) 98 (200 episodes each).

    ## Version History
    v0: as Gymnasium's v0.
    """

    instructions = (
        "Drive a car out of a valley. Each turn you see where it is and how fast it moves, and "
        "push it. The goal is on the right hill, at 0.45. The engine is weak: swing back and "
        "forth to gather speed. A push costs a tenth of its square, the goal pays 100."
    )
    """What a player who reads is told first (`AsText`)."""
    action_meaning = "the push, positive to the right"
    """What the number of an action is."""
    kernel = Kernel(_step, _reset, state_size=3)
    compiled: ClassVar[dict[str, Any]] = {
        "power": _POWER,
        "min_action": -1.0,
        "max_action": 1.0,
        "max_speed": _MAX_SPEED,
        "min_position": _LEFT_END,
        "max_position": _RIGHT_END,
        "goal_position": _GOAL,
    }
    adjustable = frozenset({"goal_velocity"})

    def settings(self, options: dict[str, Any] | None = None) -> NDArray[np.float64]:
        """Return the bounds of the first position, and the speed that the goal asks for."""
        return np.array([*reset_bounds(options, -0.6, -0.4), self.goal_velocity], np.float64)

    def state_row(self) -> NDArray[np.float64]:
        """Return the state as the kernel keeps it, shape (3,)."""
        state = np.asarray(self.state)
        return np.array([*state, state.dtype != np.float32], np.float64)

    def take_row(self, row_S: NDArray[np.float64]) -> None:
        """Go on from a state as the kernel keeps it."""
        self.state = row_S[:2].astype(np.float64 if row_S[_FRESH] else np.float32)

    def describe(self, observation: NDArray[np.float32]) -> str:
        """Say an observation in words and rounded numbers."""
        return say(observation)

    def solution(self) -> NDArray[np.float32]:
        """Return a push where the car moves, so weak that it costs little."""
        assert self.state is not None, "call reset() before solution()"
        return np.array([0.25 if self.state[1] >= 0 else -0.25], np.float32)


class MountainCarContinuousVector(KernelVector):
    """N MountainCars with a continuous push; `goal_velocity` among the arguments."""

    alone_class = MountainCarContinuous
    usual_steps = 999

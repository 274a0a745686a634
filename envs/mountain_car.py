"""MountainCar: one compiled kernel behind `gymnasium.make` and `gymnasium.make_vec`."""

import math
from typing import Any, ClassVar

import numpy as np
from gymnasium.envs.classic_control.mountain_car import MountainCarEnv
from numba import njit, types
from numpy.typing import NDArray

from .kernel import RESET, STEP, Kernel, one_by_one, reset_all, step_all
from .kernel_env import KernelEnv, reset_bounds
from .kernel_vector import KernelVector
from .lookahead import first_of_shortest_plan
from .pcg64 import uniform

# Of Gymnasium's MountainCarEnv, in its units.
_FORCE, _GRAVITY, _MAX_SPEED = 0.001, 0.0025, 0.07
_LEFT_END, _RIGHT_END, _GOAL = -1.2, 0.6, 0.5
# Of the oracle's plans: how long one way, how long the other, and then with the velocity.
_FIRST_HOLDS = (1, 2, 4, 8, 12, 16, 20)
_SECOND_HOLDS = (0, 1, 2, 4, 8, 16, 24, 30, 34, 38, 42)


@njit
def _restart(state_N_S, n, rng_N_4, settings):  # type: ignore[no-untyped-def]
    state_N_S[n, 0] = uniform(rng_N_4, n, settings[0], settings[1])
    state_N_S[n, 1] = 0.0


@njit(error_model="numpy")
def _advance(state_N_S, n, actions_N_A, settings):  # type: ignore[no-untyped-def]
    """Push the car for one step, in the order of Gymnasium's operations."""
    push = (np.float64(actions_N_A[n, 0]) - 1.0) * _FORCE
    position, velocity = state_N_S[n, 0], state_N_S[n, 1]
    velocity = velocity + (push + math.cos(3 * position) * -_GRAVITY)
    velocity = min(max(velocity, -_MAX_SPEED), _MAX_SPEED)
    position = min(max(position + velocity, _LEFT_END), _RIGHT_END)
    if position == _LEFT_END and velocity < 0.0:
        velocity = 0.0
    state_N_S[n, 0], state_N_S[n, 1] = position, velocity
    return -1.0, position >= _GOAL and velocity >= settings[2]


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


@njit
def _habit(state_1_S):  # type: ignore[no-untyped-def]
    """Push where the car moves."""
    return 2 if state_1_S[0, 1] >= 0.0 else 0


@njit(types.int64(types.float64[::1], types.float64[::1]), cache=True, error_model="numpy")
def _planned(state_S, settings):  # type: ignore[no-untyped-def]
    return first_of_shortest_plan(
        _advance, _habit, state_S, settings, 3, _FIRST_HOLDS, _SECOND_HOLDS, 200
    )


class MountainCar(KernelEnv, MountainCarEnv):
    """Drive a weak car out of a valley, by swinging back and forth.

    ## Description
    A car stands in a valley between two hills. Its engine is too weak to climb the right one
    from a standstill, so that it must first climb the left one to gather speed. The same
    dynamics, draws and flags as Gymnasium's `MountainCar-v0`, bit for bit, computed by a Numba
    kernel; rendering is Gymnasium's own. Source: Moore, "Efficient Memory-based Learning for
    Robot Control" (1990).

    ## Action Space
    `Discrete(3)`: 0 pushes the car to the left, 1 does not, 2 pushes it to the right.

    ## Observation Space
    `Box(2,)`, float32: position (-1.2 to 0.6, the bottom of the valley at -0.52) and velocity
    (-0.07 to 0.07 a step).

    ## Rewards
    -1 for every step, the last one included.

    ## Episode End
    Terminated when the car is at 0.5 or beyond, at the speed `goal_velocity` (0) or more;
    truncated after 200 steps.

    ## Reference Scores
    Random -200, the oracle (a search over 231 plans with the kernel itself) -97 (200 episodes
    each).

    ## Version History
    v0: as Gymnasium's v0.
    """

    instructions = (
        "Drive a car out of a valley. Each turn you see where it is and how fast it moves, and "
        "push it to the left or to the right, or let it roll. The goal is on the right hill, at "
        "0.50. The engine is weak: swing back and forth to gather speed."
    )
    """What a player who reads is told first (`AsText`)."""
    action_words = ("left", "roll", "right")
    """The name of each action."""
    kernel = Kernel(_step, _reset, state_size=2)
    compiled: ClassVar[dict[str, Any]] = {
        "force": _FORCE,
        "gravity": _GRAVITY,
        "max_speed": _MAX_SPEED,
        "min_position": _LEFT_END,
        "max_position": _RIGHT_END,
        "goal_position": _GOAL,
    }
    adjustable = frozenset({"goal_velocity"})

    def settings(self, options: dict[str, Any] | None = None) -> NDArray[np.float64]:
        """Return the bounds of the first position, and the speed that the goal asks for."""
        return np.array([*reset_bounds(options, -0.6, -0.4), self.goal_velocity], np.float64)

    def describe(self, observation: NDArray[np.float32]) -> str:
        """Say an observation in words and rounded numbers."""
        return say(observation)

    def solution(self) -> int:
        """Return the first action of the shortest of 231 plans."""
        assert self.state is not None, "call reset() before solution()"
        return int(_planned(self.checked_row(), self.settings()))


class MountainCarVector(KernelVector):
    """N MountainCars, stepped together; Gymnasium's `goal_velocity` among the arguments."""

    alone_class = MountainCar
    usual_steps = 200


def say(observation: NDArray[np.float32]) -> str:
    """Say where a car is in the valley, and how it moves."""
    position, velocity = (float(v) for v in observation)
    return (
        f"Car: at {position:.2f} (bottom of the valley -0.52), moving "
        f"{'right' if velocity >= 0 else 'left'} at {abs(velocity):.4f} a turn."
    )

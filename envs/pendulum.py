"""Pendulum: one compiled kernel behind `gymnasium.make` and `gymnasium.make_vec`."""

import math
from typing import Any, ClassVar

import numpy as np
from gymnasium.envs.classic_control.pendulum import DEFAULT_X, DEFAULT_Y, PendulumEnv
from gymnasium.envs.classic_control.utils import verify_number_and_cast
from numba import njit
from numpy.typing import NDArray

from .kernel import RESET, STEP, Kernel, one_by_one, reset_all, step_all
from .kernel_env import KernelEnv
from .kernel_vector import KernelVector
from .pcg64 import uniform

# Of Gymnasium's PendulumEnv, SI: a rod of 1 m and 1 kg.
_MAX_SPEED, _MAX_TORQUE, _DT = 8.0, 2.0, 0.05
_ANGLE, _SPEED, _GRAVITY, _TWO = range(4)
"""Places in the settings. NumPy squares a scalar by pow(), which rounds one square in a thousand
otherwise than a product; a 2 that is read at run time keeps the compiler from making one."""
_f4 = np.float32


@njit
def _restart(state_N_S, n, rng_N_4, settings):  # type: ignore[no-untyped-def]
    for j in range(2):
        state_N_S[n, j] = uniform(rng_N_4, n, -settings[j], settings[j])


@njit(error_model="numpy")
def _advance(state_N_S, n, actions_N_A, settings):  # type: ignore[no-untyped-def]
    """Turn the rod for 0.05 s (Euler), in Gymnasium's operations and their precisions."""
    theta, speed, two = state_N_S[n, 0], state_N_S[n, 1], settings[_TWO]
    torque = min(max(actions_N_A[n, 0], _f4(-_MAX_TORQUE)), _f4(_MAX_TORQUE))
    angle = (theta + math.pi) % (2 * math.pi) - math.pi
    effort = np.float64(_f4(0.001) * torque ** _f4(two))
    cost = angle**two + 0.1 * speed**two + effort
    pull = 3 * settings[_GRAVITY] / 2.0 * math.sin(theta) + np.float64(_f4(3.0) * torque)
    speed = min(max(speed + pull * _DT, -_MAX_SPEED), _MAX_SPEED)
    state_N_S[n, 0], state_N_S[n, 1] = theta + speed * _DT, speed
    return -cost, False


@njit
def _observe(state_N_S, n, observations_N_D):  # type: ignore[no-untyped-def]
    observations_N_D[n, 0] = math.cos(state_N_S[n, 0])
    observations_N_D[n, 1] = math.sin(state_N_S[n, 0])
    observations_N_D[n, 2] = state_N_S[n, 1]


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


class Pendulum(KernelEnv, PendulumEnv):
    """Swing a rod up and hold it there with a weak motor.

    ## Description
    A rod turns about one of its ends, where a motor too weak to lift it from the side acts; it
    is to stand upright and still. The same dynamics, draws and rewards as Gymnasium's
    `Pendulum-v1`, bit for bit, float32 rounding included, computed by a Numba kernel; rendering
    is Gymnasium's own.

    ## Action Space
    `Box(-2, 2, (1,))`, float32: the torque (N m) for 0.05 s, positive is counterclockwise. One
    beyond the bounds acts as the bound does.

    ## Observation Space
    `Box(3,)`, float32: cosine and sine of the angle (0 is upright, positive is
    counterclockwise), and the angular velocity (-8 to 8 rad/s).

    ## Rewards
    -(angle^2 + 0.1 velocity^2 + 0.001 torque^2) for every step, before it is taken; the angle
    between -pi and pi. At worst -16.27, at best 0.

    ## Episode End
    Never terminated; truncated after 200 steps.

    ## Reference Scores
    Random -1256, the oracle (energy control, then proportional-derivative) -152 (200 episodes
    each).

    ## Version History
    v1: as Gymnasium's v1.
    """

    instructions = (
        "Swing a rod up and hold it upright and still. Each turn you see the rod, and turn it by "
        "a motor for 0.05 s. The motor is weak: swing back and forth to gather speed."
    )
    """What a player who reads is told first (`AsText`)."""
    action_meaning = "the torque in N m, positive counterclockwise"
    """What the number of an action is."""
    kernel = Kernel(_step, _reset, state_size=2)
    compiled: ClassVar[dict[str, Any]] = {
        "max_speed": _MAX_SPEED,
        "max_torque": _MAX_TORQUE,
        "dt": _DT,
        "m": 1.0,
        "l": 1.0,
    }
    adjustable = frozenset({"g"})

    def settings(self, options: dict[str, Any] | None = None) -> NDArray[np.float64]:
        """Return the bounds of the first angle and speed, and gravity.

        Raises:
            ValueError: a bound is no finite number, or below 0.
        """
        given = {"x_init": DEFAULT_X, "y_init": DEFAULT_Y} | (options or {})
        bounds = [verify_number_and_cast(given[name]) for name in ("x_init", "y_init")]
        if not all(bound >= 0 and math.isfinite(2 * bound) for bound in bounds):
            raise ValueError(f"x_init and y_init are {bounds}: give finite numbers, not below 0")
        return np.array([*bounds, self.g, 2.0])

    def _note(self, action_A: NDArray[np.float32]) -> None:
        self.last_u = np.clip(action_A[0], -_MAX_TORQUE, _MAX_TORQUE)

    def describe(self, observation: NDArray[np.float32]) -> str:
        """Say an observation in words and rounded numbers."""
        cosine, sine, speed = (float(v) for v in observation)
        angle = math.degrees(math.atan2(sine, cosine))
        return (
            f"Rod: {abs(angle):.1f} degrees {_way(angle)} of upright, turning {_way(speed)} at "
            f"{abs(math.degrees(speed)):.0f} degrees/s."
        )

    def solution(self) -> NDArray[np.float32]:
        """Return a torque that swings the rod up, and then holds it there.

        Far from upright energy is pumped in or out; near it a proportional-derivative
        controller holds the rod. Source: Astrom and Furuta, "Swinging up a pendulum by energy
        control" (2000).
        """
        assert self.state is not None, "call reset() before solution()"
        theta, speed = (float(v) for v in self.state)
        angle = (theta + math.pi) % (2 * math.pi) - math.pi
        if abs(angle) < 0.5:
            torque = -10.0 * angle - 2.0 * speed
        else:  # of a rod whose moment of inertia is 1/3; 0 stands upright
            energy = speed**2 / 6 + self.g / 2 * (math.cos(theta) - 1)
            torque = math.copysign(_MAX_TORQUE, speed if energy < 0 else -speed)
        return np.array([min(max(torque, -_MAX_TORQUE), _MAX_TORQUE)], np.float32)


class PendulumVector(KernelVector):
    """N Pendulums, stepped together; Gymnasium's `g` among the arguments."""

    alone_class = Pendulum
    usual_steps = 200


def _way(value: float) -> str:
    return "counterclockwise" if value >= 0 else "clockwise"

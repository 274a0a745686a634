"""Acrobot: one compiled kernel behind `gymnasium.make` and `gymnasium.make_vec`."""

import math
from typing import Any, ClassVar

import numpy as np
from gymnasium.envs.classic_control.acrobot import AcrobotEnv
from numba import njit, types
from numpy.typing import NDArray

from .float32 import cosine, sine
from .kernel import RESET, STEP, Kernel, one_by_one, reset_all, step_all
from .kernel_env import KernelEnv, reset_bounds
from .kernel_vector import KernelVector
from .lookahead import first_of_shortest_plan
from .pcg64 import uniform

# Of Gymnasium's AcrobotEnv, SI: two links of 1 m and 1 kg, their moments of inertia 1.
_GRAVITY, _CENTRE = 9.8, 0.5
_MAX_SPEED_1, _MAX_SPEED_2 = 4 * math.pi, 9 * math.pi
_LOW, _HIGH, _NIPS, _DT, _TWO = range(5)
"""Places in the settings. NumPy squares a scalar by pow(), which rounds one square in a thousand
otherwise than a product; a 2 that is read at run time keeps the compiler from making one."""
_MANY_TURNS = 128.0
"""Above this no turn is rounded by a half of the last digit, which goes now up and now down."""
_MOST_OF_FLOAT32 = 70_000.0
"""Up to here `float32` knows cosines; beyond, float64's is at most one last digit another."""
_FRESH = 4
"""Place in the state: 1 after a reset, when Gymnasium's state is float32, and so is its cosine."""


@njit
def _restart(state_N_S, n, rng_N_4, settings):  # type: ignore[no-untyped-def]
    for j in range(4):
        state_N_S[n, j] = np.float32(uniform(rng_N_4, n, settings[_LOW], settings[_HIGH]))
    state_N_S[n, _FRESH] = 1.0


@njit(error_model="numpy")
def _advance(state_N_S, n, actions_N_A, settings):  # type: ignore[no-untyped-def]
    """Integrate 0.2 s (Runge-Kutta of order 4), in the order of Gymnasium's operations."""
    torque, dt = np.float64(actions_N_A[n, 0]) - 1.0, settings[_DT]
    half = dt / 2.0
    a, b, u, v = state_N_S[n, 0], state_N_S[n, 1], state_N_S[n, 2], state_N_S[n, 3]
    p1, q1 = _accelerations(a, b, u, v, torque, settings)
    u2, v2 = u + half * p1, v + half * q1
    p2, q2 = _accelerations(a + half * u, b + half * v, u2, v2, torque, settings)
    u3, v3 = u + half * p2, v + half * q2
    p3, q3 = _accelerations(a + half * u2, b + half * v2, u3, v3, torque, settings)
    u4, v4 = u + dt * p3, v + dt * q3
    p4, q4 = _accelerations(a + dt * u3, b + dt * v3, u4, v4, torque, settings)
    sixth = dt / 6.0
    a = _wrapped(a + sixth * (u + 2 * u2 + 2 * u3 + u4))
    b = _wrapped(b + sixth * (v + 2 * v2 + 2 * v3 + v4))
    u = u + sixth * (p1 + 2 * p2 + 2 * p3 + p4)
    v = v + sixth * (q1 + 2 * q2 + 2 * q3 + q4)
    state_N_S[n, 0], state_N_S[n, 1] = a, b
    state_N_S[n, 2] = min(max(u, -_MAX_SPEED_1), _MAX_SPEED_1)
    state_N_S[n, 3] = min(max(v, -_MAX_SPEED_2), _MAX_SPEED_2)
    state_N_S[n, _FRESH] = 0.0
    high = -math.cos(a) - math.cos(b + a) > 1.0
    return (0.0 if high else -1.0), high


@njit(error_model="numpy")
def _accelerations(theta1, theta2, dtheta1, dtheta2, torque, settings):  # type: ignore[no-untyped-def]
    """Return those of both angles."""
    two, nips = settings[_TWO], settings[_NIPS] != 0.0
    cosine2, sine2 = math.cos(theta2), math.sin(theta2)
    d1 = 0.25 + (1.25 + 2 * _CENTRE * cosine2) + 1.0 + 1.0
    d2 = (0.25 + _CENTRE * cosine2) + 1.0
    phi2 = _CENTRE * _GRAVITY * math.cos(theta1 + theta2 - math.pi / 2.0)
    phi1 = (
        -_CENTRE * dtheta2**two * sine2
        - 2 * _CENTRE * dtheta2 * dtheta1 * sine2
        + 1.5 * _GRAVITY * math.cos(theta1 - math.pi / 2)
        + phi2
    )
    pull = torque + d2 / d1 * phi1
    if not nips:  # the equations of the book, which those of the paper lack a term of
        pull = pull - _CENTRE * dtheta1**two * sine2
    ddtheta2 = (pull - phi2) / (1.25 - d2**two / d1)
    return -(d2 * ddtheta2 + phi1) / d1, ddtheta2


@njit
def _wrapped(angle):  # type: ignore[no-untyped-def]
    """Return an angle between -pi and pi, turned back by one turn after another as in Gymnasium."""
    if abs(angle) <= math.pi:
        return angle
    angle = math.copysign(_turned_back(abs(angle)), angle)
    while angle > math.pi:
        angle = angle - 2 * math.pi
    while angle < -math.pi:
        angle = angle + 2 * math.pi
    return angle


@njit(error_model="numpy")
def _turned_back(angle):  # type: ignore[no-untyped-def]
    """Take so many turns off a large angle that few are left, to the same last digit.

    Between two powers of 2 each turn takes off the same, rounding included, and so many may be
    taken at once. Above 7e16, where a turn is lost in the rounding, Gymnasium never ends; there
    the remainder is returned, which for an infinite angle is no number.
    """
    while angle > _MANY_TURNS:
        taken = angle - (angle - 2 * math.pi)
        if not taken > 0.0:
            return angle % (2 * math.pi)
        power = 2.0 ** math.floor(math.log2(angle))
        # One less, lest the last of them leads below the power of 2.
        angle -= taken * max(math.floor((angle - power) / taken) - 1.0, 1.0)
    return angle


@njit
def _observe(state_N_S, n, observations_N_D):  # type: ignore[no-untyped-def]
    for j in range(2):
        if state_N_S[n, _FRESH] != 0.0 and abs(state_N_S[n, j]) < _MOST_OF_FLOAT32:
            angle = np.float32(state_N_S[n, j])
            observations_N_D[n, 2 * j], observations_N_D[n, 2 * j + 1] = cosine(angle), sine(angle)
        else:
            observations_N_D[n, 2 * j] = math.cos(state_N_S[n, j])
            observations_N_D[n, 2 * j + 1] = math.sin(state_N_S[n, j])
        observations_N_D[n, 4 + j] = state_N_S[n, 2 + j]


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
    """Turn the second joint where it turns."""
    return 2 if state_1_S[0, 3] >= 0.0 else 0


@njit(types.int64(types.float64[::1], types.float64[::1]), cache=True, error_model="numpy")
def _planned(state_S, settings):  # type: ignore[no-untyped-def]
    return first_of_shortest_plan(_advance, _habit, state_S, settings, 3, (1, 2), (0,), 500)


class Acrobot(KernelEnv, AcrobotEnv):
    """Swing two hanging links up by a motor in the joint between them.

    ## Description
    The first link hangs from a fixed joint, the second from the end of the first; a motor turns
    the joint between them. The free end is to be swung one link's length above the fixed joint.
    The same dynamics, draws and flags as Gymnasium's `Acrobot-v1`, bit for bit, computed by a
    Numba kernel; rendering is Gymnasium's own, and so are the attributes `dt` and
    `book_or_nips`. Source: Sutton, "Generalization in Reinforcement Learning: Successful
    Examples Using Sparse Coarse Coding" (1996); Sutton and Barto's book for the equations.

    ## Action Space
    `Discrete(3)`: a torque of -1, 0 or 1 N m for 0.2 s; positive is counterclockwise.

    ## Observation Space
    `Box(6,)`, float32: cosine and sine of the first link's angle (0 hangs down), cosine and sine
    of the second's (0 is in line with the first), and their angular velocities (rad/s).

    ## Rewards
    -1 for every step, 0 for the one in which the end is high enough.

    ## Episode End
    Terminated when the free end is more than 1 m above the fixed joint; truncated after 500
    steps.

    ## Reference Scores
    Random -497, the oracle (a search over six plans with the kernel itself) -64 (200 episodes
    each).

    ## Version History
    v1: as Gymnasium's v1.
    """

    instructions = (
        "Swing two hanging links up. A motor turns the joint between them, clockwise or "
        "counterclockwise. The free end must rise one link's length above the fixed joint, in as "
        "few turns as possible. The motor is weak: swing back and forth to gather speed."
    )
    """What a player who reads is told first (`AsText`)."""
    action_words = ("clockwise", "none", "counterclockwise")
    """The name of each action."""
    kernel = Kernel(_step, _reset, state_size=5)
    AVAIL_TORQUE = (-1.0, 0.0, 1.0)  # type: ignore[assignment] # no list, which one could change
    compiled: ClassVar[dict[str, Any]] = {
        "AVAIL_TORQUE": AVAIL_TORQUE,
        "LINK_COM_POS_1": _CENTRE,
        "LINK_COM_POS_2": _CENTRE,
        "LINK_LENGTH_1": 1.0,
        "LINK_MASS_1": 1.0,
        "LINK_MASS_2": 1.0,
        "LINK_MOI": 1.0,
        "MAX_VEL_1": _MAX_SPEED_1,
        "MAX_VEL_2": _MAX_SPEED_2,
        "torque_noise_max": 0.0,
    }
    adjustable = frozenset({"book_or_nips", "dt"})

    def settings(self, options: dict[str, Any] | None = None) -> NDArray[np.float64]:
        """Return the bounds of the first state, whose equations hold, and the step's length."""
        low, high = reset_bounds(options, -0.1, 0.1)
        return np.array([low, high, self.book_or_nips == "nips", self.dt, 2.0])

    def state_row(self) -> NDArray[np.float64]:
        """Return the state as the kernel keeps it, shape (5,)."""
        state = np.asarray(self.state)
        return np.array([*state, state.dtype == np.float32], np.float64)

    def take_row(self, row_S: NDArray[np.float64]) -> None:
        """Go on from a state as the kernel keeps it."""
        self.state = row_S[:4].astype(np.float32 if row_S[_FRESH] else np.float64)

    def describe(self, observation: NDArray[np.float32]) -> str:
        """Say an observation in words and rounded numbers."""
        cosine1, sine1, cosine2, sine2, speed1, speed2 = (float(v) for v in observation)
        height = -cosine1 - (cosine1 * cosine2 - sine1 * sine2)
        return (
            f"First link: {_angle(sine1, cosine1)} of hanging down, turning {_turn(speed1)}. "
            f"Second link: {_angle(sine2, cosine2)} of the first, turning {_turn(speed2)}. "
            f"The free end is at {height:.2f} m, and must rise above 1 m."
        )

    def solution(self) -> int:
        """Return the first action of the shortest of six plans."""
        assert self.state is not None, "call reset() before solution()"
        return int(_planned(self.checked_row(), self.settings()))


class AcrobotVector(KernelVector):
    """N Acrobots, stepped together."""

    alone_class = Acrobot
    usual_steps = 500


def _angle(sine_: float, cosine_: float) -> str:
    angle = math.degrees(math.atan2(sine_, cosine_))
    return f"{abs(angle):.0f} degrees {'counterclockwise' if angle >= 0 else 'clockwise'}"


def _turn(speed: float) -> str:
    way = "counterclockwise" if speed >= 0 else "clockwise"
    return f"{way} at {abs(math.degrees(speed)):.0f} degrees/s"

"""CartPole: one compiled kernel behind `gymnasium.make` and `gymnasium.make_vec`."""

import math
from typing import Any, SupportsFloat

import numpy as np
from gymnasium import logger, spaces
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.envs.classic_control.utils import maybe_parse_reset_bounds
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numba import njit
from numpy.typing import NDArray

from .pcg64 import states_from_generators, states_from_seeds, uniform

# The constants of Gymnasium's CartPoleEnv, in its units: SI, and radians.
_GRAVITY, _CART_MASS, _POLE_MASS, _HALF_LENGTH, _FORCE, _TAU = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
_TOTAL_MASS = _POLE_MASS + _CART_MASS
_POLE_MOMENT = _POLE_MASS * _HALF_LENGTH
_X_LIMIT = 2.4
_THETA_LIMIT = 12 * 2 * math.pi / 360


class CartPole(CartPoleEnv):
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

    def step(
        self, action: int | NDArray[np.integer[Any]]
    ) -> tuple[NDArray[np.float32], SupportsFloat, bool, bool, dict[str, Any]]:
        """Push the cart for 0.02 s.

        Raises:
            ValueError: the action is neither 0 nor 1.
            ResetNeeded: `reset` was never called.
        """
        if not self.action_space.contains(action):
            raise ValueError(f"action {action!r} is not in {self.action_space}: give 0 or 1")
        if self.state is None:
            raise ResetNeeded("call reset() before step()")
        self.state = np.array(_advance(*(float(v) for v in self.state), action == 1))  # type: ignore[call-arg]
        terminated = bool(_has_fallen(self.state[0], self.state[2]))
        reward = self._reward(terminated)
        if self.render_mode == "human":
            self.render()  # type: ignore[no-untyped-call]
        return self.state.astype(np.float32), reward, terminated, False, {}

    def _reward(self, terminated: bool) -> float:
        if not terminated:
            return 0.0 if self._sutton_barto_reward else 1.0
        beyond: int | None = self.steps_beyond_terminated
        if beyond == 0:
            logger.warn("step() was called on an episode that is over: call reset() first")
        self.steps_beyond_terminated = 0 if beyond is None else beyond + 1  # type: ignore[assignment]
        if self._sutton_barto_reward:
            return -1.0
        return 1.0 if beyond is None else 0.0

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


class CartPoleVector(VectorEnv[NDArray[np.float32], NDArray[np.integer[Any]], NDArray[Any]]):
    """Step N CartPoles in one kernel call, each with the stream that it would have alone.

    Environment i of `reset(seed=s)` plays what a single `CartPole` plays after
    `reset(seed=s + i)`, later episodes included: the kernel re-implements NumPy's PCG64.

    Args:
        num_envs: Number of environments, N.
        max_episode_steps: Steps after which an episode is truncated.
        autoreset_mode: As in Gymnasium. NEXT_STEP spends one step with reward 0 on the reset;
            SAME_STEP resets at once and keeps the last observation in `info["final_obs"]`;
            DISABLED leaves it to `reset(options={"reset_mask": ...})`.
        sutton_barto_reward: As in `CartPole`.
        render_mode: None only; to watch, make a single environment.

    Raises:
        ValueError: a count below 1, or a render mode.
    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int = 500,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        sutton_barto_reward: bool = False,
        render_mode: str | None = None,
    ) -> None:
        if num_envs < 1 or max_episode_steps < 1:
            raise ValueError(
                f"num_envs={num_envs} and max_episode_steps={max_episode_steps} must be at least 1"
            )
        if render_mode is not None:
            raise ValueError("CartPoleVector does not render: make a single CartPole to watch")
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self._sutton_barto_reward = sutton_barto_reward
        single = CartPole()
        self.single_observation_space = single.observation_space
        self.single_action_space = spaces.Discrete(2)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._rng_N_4: NDArray[np.uint64] | None = None
        self._state_N_4 = np.zeros((num_envs, 4))
        self._steps_N = np.zeros(num_envs, np.int32)
        self._over_N = np.ones(num_envs, np.bool_)
        self._low, self._high = -0.05, 0.05

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start new episodes, in all environments or in those of `options["reset_mask"]`.

        Args:
            seed: Environment i gets `seed + i`, or entry i of a list; None goes on drawing.
            options: `low` and `high` bound the initial state, as in Gymnasium's CartPole.

        Raises:
            ValueError: the mask or the list of seeds does not fit the environments.
        """
        options = dict(options or {})
        mask_N = self._mask(options.pop("reset_mask", np.ones(self.num_envs, np.bool_)))
        self._seed(seed, mask_N)
        self._low, self._high = maybe_parse_reset_bounds(options, -0.05, 0.05)
        _restart(self._state_N_4, self._steps_N, self._rng_N_4, mask_N, self._low, self._high)
        self._over_N[mask_N] = False
        return self._state_N_4.astype(np.float32), {}

    def step(
        self, actions: NDArray[np.integer[Any]]
    ) -> tuple[
        NDArray[np.float32], NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
    ]:
        """Push every cart for 0.02 s.

        Args:
            actions: Integers 0 or 1, shape (N,).

        Returns:
            Observations (N, 4) float32, rewards (N,) float64, terminations (N,),
            truncations (N,), and infos; with SAME_STEP `final_obs` and `final_info` hold what
            the reset would have hidden.

        Raises:
            ValueError: the actions have another shape, type or range.
            ResetNeeded: `reset` was never called, or an episode is over under DISABLED.
        """
        actions_N = self._checked(actions)
        observations_N_4 = np.empty((self.num_envs, 4), np.float32)
        final_N_4 = np.empty((self.num_envs, 4), np.float32)
        rewards_N = np.empty(self.num_envs)
        terminated_N = np.empty(self.num_envs, np.bool_)
        truncated_N = np.empty(self.num_envs, np.bool_)
        ended = _step(
            self._state_N_4,
            self._steps_N,
            self._over_N,
            self._rng_N_4,
            actions_N,
            observations_N_4,
            final_N_4,
            rewards_N,
            terminated_N,
            truncated_N,
            self.max_episode_steps,
            self.autoreset_mode is AutoresetMode.SAME_STEP,
            self._sutton_barto_reward,
            self._low,
            self._high,
        )
        infos: dict[str, Any] = {}
        if ended and self.autoreset_mode is AutoresetMode.SAME_STEP:
            infos = self._final(final_N_4, terminated_N | truncated_N)
        return observations_N_4, rewards_N, terminated_N, truncated_N, infos

    def _checked(self, actions: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
        actions_N = np.asarray(actions)
        if actions_N.shape != (self.num_envs,) or actions_N.dtype.kind not in "iu":
            raise ValueError(
                f"actions have shape {actions_N.shape} and type {actions_N.dtype}: "
                f"give {self.num_envs} integers"
            )
        if actions_N.min() < 0 or actions_N.max() > 1:
            raise ValueError("an action is neither 0 (left) nor 1 (right)")
        if self._rng_N_4 is None:
            raise ResetNeeded("call reset() before step()")
        if self.autoreset_mode is AutoresetMode.DISABLED and self._over_N.any():
            raise ResetNeeded("an episode is over: call reset(options={'reset_mask': mask}) first")
        return actions_N

    def _mask(self, mask: Any) -> NDArray[np.bool_]:
        mask_N = np.asarray(mask)
        if mask_N.shape != (self.num_envs,) or mask_N.dtype != np.bool_:
            raise ValueError(
                f"reset_mask has shape {mask_N.shape} and type {mask_N.dtype}: "
                f"give {self.num_envs} booleans"
            )
        return mask_N

    def _seed(self, seed: int | list[int | None] | None, mask_N: NDArray[np.bool_]) -> None:
        if isinstance(seed, int | np.integer):
            seed = [int(seed) + i for i in range(self.num_envs)]
        if self._rng_N_4 is None:
            fresh = [np.random.Generator(np.random.PCG64()) for _ in range(self.num_envs)]
            self._rng_N_4 = states_from_generators(fresh)
        if seed is None:
            return
        if len(seed) != self.num_envs:
            raise ValueError(f"{len(seed)} seeds were given for {self.num_envs} environments")
        given = {i: s for i, s in enumerate(seed) if s is not None and mask_N[i]}
        self._rng_N_4[list(given)] = states_from_seeds(list(given.values()))

    def _final(self, final_N_4: NDArray[np.float32], ended_N: NDArray[np.bool_]) -> dict[str, Any]:
        observations = np.full(self.num_envs, None, dtype=object)
        for i in np.flatnonzero(ended_N):
            observations[i] = final_N_4[i]
        return {
            "final_obs": observations,
            "_final_obs": ended_N.copy(),
            "final_info": {},
            "_final_info": ended_N.copy(),
        }


def _side(value: float) -> str:
    return "right" if value >= 0 else "left"


@njit(cache=True, inline="always")
def _advance(x, x_dot, theta, theta_dot, push_right):  # type: ignore[no-untyped-def]
    """Integrate one step of 0.02 s (Euler), in the order of Gymnasium's operations."""
    force = _FORCE if push_right else -_FORCE
    cosine, sine = math.cos(theta), math.sin(theta)
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


@njit(cache=True, inline="always")
def _has_fallen(x, theta):  # type: ignore[no-untyped-def]
    return x < -_X_LIMIT or x > _X_LIMIT or theta < -_THETA_LIMIT or theta > _THETA_LIMIT


@njit(cache=True)
def _restart(state_N_4, steps_N, rng_N_4, mask_N, low, high):  # type: ignore[no-untyped-def]
    for n in range(len(steps_N)):
        if mask_N[n]:
            for j in range(4):
                state_N_4[n, j] = uniform(rng_N_4, n, low, high)
            steps_N[n] = 0


@njit(cache=True, nogil=True)
def _step(  # type: ignore[no-untyped-def]
    state_N_4,
    steps_N,
    over_N,
    rng_N_4,
    actions_N,
    observations_N_4,
    final_N_4,
    rewards_N,
    terminated_N,
    truncated_N,
    max_steps,
    same_step,
    sutton_barto,
    low,
    high,
):
    """Step all environments; an episode that is over is reset, now or at its next step."""
    ended = 0
    for n in range(len(steps_N)):
        rewards_N[n] = 0.0
        terminated_N[n] = truncated_N[n] = False
        if over_N[n]:
            over_N[n] = False
            steps_N[n] = 0
            for j in range(4):
                state_N_4[n, j] = uniform(rng_N_4, n, low, high)
        else:
            x, x_dot, theta, theta_dot = _advance(
                state_N_4[n, 0],
                state_N_4[n, 1],
                state_N_4[n, 2],
                state_N_4[n, 3],
                actions_N[n] == 1,
            )
            state_N_4[n, 0], state_N_4[n, 1] = x, x_dot
            state_N_4[n, 2], state_N_4[n, 3] = theta, theta_dot
            steps_N[n] += 1
            terminated_N[n] = _has_fallen(x, theta)
            truncated_N[n] = steps_N[n] >= max_steps
            if sutton_barto:
                rewards_N[n] = -1.0 if terminated_N[n] else 0.0
            else:
                rewards_N[n] = 1.0
            if terminated_N[n] or truncated_N[n]:
                ended += 1
                if same_step:
                    for j in range(4):
                        final_N_4[n, j] = state_N_4[n, j]
                        state_N_4[n, j] = uniform(rng_N_4, n, low, high)
                    steps_N[n] = 0
                else:
                    over_N[n] = True
        for j in range(4):
            observations_N_4[n, j] = state_N_4[n, j]
    return ended

"""The compiled part of an environment that steps many copies of itself in one call.

An environment's file compiles three small functions (`_restart`, `_advance`, `_observe`; and where
it pays `_advance_rows`, in the place of `one_by_one`) into one `step` and one `reset`, its
`Kernel`. `KernelEnv` plays it alone, `KernelVector` as a vector, and
`palaestra.train.kernel_vec_env` shows the vector to stable-baselines3; so all of them step by the
same machine code.

`step` and `reset` are written out in every environment's file and not made here by one function
of the three: Numba cannot find again in its cache what closes over compiled functions, and every
process would compile anew.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from numba import njit, types

from . import fresh  # noqa: F401
from .direct import direct

BLOCK = 256
"""Environments that `step_all` steps at a time, so that what it notes of them stays in a cache."""
_MATRIX, _FLAGS = types.float32[:, ::1], types.boolean[::1]
STEP = types.int64(
    types.float64[:, ::1],  # state_N_S
    types.int32[::1],  # steps_N, since the last reset
    _FLAGS,  # over_N, to be reset instead of stepped
    types.uint64[:, ::1],  # rng_N_4
    _MATRIX,  # actions_N_A
    _MATRIX,  # observations_N_D, written
    _MATRIX,  # final_N_D, written where an episode ends and same_step holds
    types.float64[::1],  # rewards_N, written
    _FLAGS,  # terminated_N, written
    _FLAGS,  # truncated_N, written
    types.int64,  # max_steps
    types.boolean,  # same_step
    types.float64[::1],  # settings
)
"""Signature of every `step`; it returns the number of episodes that ended."""
RESET = types.void(
    types.float64[:, ::1],  # state_N_S
    types.int32[::1],  # steps_N
    _FLAGS,  # over_N
    types.uint64[:, ::1],  # rng_N_4
    _FLAGS,  # mask_N, those that are reset
    _MATRIX,  # observations_N_D, written for all
    types.float64[::1],  # settings
)
"""Signature of every `reset`."""


@dataclass(frozen=True)
class Kernel:
    """The compiled part of an environment."""

    step: Callable[..., int]
    """Compiled with the signature `STEP`."""
    reset: Callable[..., None]
    """Compiled with the signature `RESET`."""
    state_size: int
    """Numbers that say all about the state of one environment, S."""

    @cached_property
    def step_direct(self) -> Callable[..., int]:
        """`step`, which does not look at the types of its arguments."""
        return direct(self.step, STEP)


@njit(error_model="numpy", inline="always")
def step_all(  # type: ignore[no-untyped-def]
    restart,
    advance_rows,
    advance,
    observe,
    state_N_S,
    steps_N,
    over_N,
    rng_N_4,
    actions_N_A,
    observations_N_D,
    final_N_D,
    rewards_N,
    terminated_N,
    truncated_N,
    max_steps,
    same_step,
    settings,
):
    """Step all environments; an episode that is over is reset, now or at its next step.

    `restart(state_N_S, n, rng_N_4, settings)` draws the first state of episode n;
    `advance(state_N_S, n, actions_N_A, settings)` steps environment n and returns its reward and
    whether it has terminated; `advance_rows`, which is `one_by_one` or takes what that takes, does
    so with some of them, at most `BLOCK`; `observe(state_N_S, n, observations_N_D)` writes what is
    seen of one. The rest is as in `STEP`.
    """
    ended = 0
    for first in range(0, len(steps_N), BLOCK):
        past = min(first + BLOCK, len(steps_N))
        advance_rows(
            advance, state_N_S, first, past, over_N, actions_N_A, rewards_N, terminated_N, settings
        )
        for n in range(first, past):
            steps_N[n] += 1
            truncated_N[n] = steps_N[n] >= max_steps
        for n in range(first, past):
            if over_N[n]:
                rewards_N[n] = 0.0
                over_N[n] = terminated_N[n] = truncated_N[n] = False
                steps_N[n] = 0
                restart(state_N_S, n, rng_N_4, settings)
            elif terminated_N[n] or truncated_N[n]:
                ended += 1
                if same_step:
                    observe(state_N_S, n, final_N_D)
                    steps_N[n] = 0
                    restart(state_N_S, n, rng_N_4, settings)
                else:
                    over_N[n] = True
        for n in range(first, past):
            observe(state_N_S, n, observations_N_D)
    return ended


@njit(error_model="numpy", inline="always")
def one_by_one(  # type: ignore[no-untyped-def]
    advance, state_N_S, first, past, over_N, actions_N_A, rewards_N, terminated_N, settings
):
    """Advance the environments from `first` to `past`, but for those that are over."""
    for n in range(first, past):
        if not over_N[n]:
            rewards_N[n], terminated_N[n] = advance(state_N_S, n, actions_N_A, settings)


@njit(error_model="numpy", inline="always")
def reset_all(  # type: ignore[no-untyped-def]
    restart, observe, state_N_S, steps_N, over_N, rng_N_4, mask_N, observations_N_D, settings
):
    """Reset the environments of a mask, and observe all."""
    for n in range(len(steps_N)):
        if mask_N[n]:
            over_N[n] = False
            steps_N[n] = 0
            restart(state_N_S, n, rng_N_4, settings)
        observe(state_N_S, n, observations_N_D)

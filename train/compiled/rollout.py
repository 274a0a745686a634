"""A policy that acts, and a whole rollout in one compiled call."""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import njit, typeof, types
from numpy.typing import NDArray

from ...envs.kernel import STEP
from .distributions import mask, sample
from .network import Floats, Network, aligned, fast, forward, memory, turn

Doubles = NDArray[np.float64]
Flags = NDArray[np.bool_]


@fast
def act(
    network: Network,
    parameters: Floats,
    turned: Floats,
    observations_N_D: Floats,
    masks_N_K: Floats,
    draws_N_A: Floats,
    work: Floats,
    actions_N_A: Floats,
    values_N: Floats,
    log_probs_N: Floats,
) -> None:
    """Draw actions, and write their log-probabilities and the values of the observations.

    Args:
        network: What acts.
        parameters: Its parameters.
        turned: What `turn_all` returns of them.
        observations_N_D: What it sees.
        masks_N_K: 0 where a choice is not admissible; empty if all are.
        draws_N_A: Random numbers; see `distributions.sample`.
        work: Of the size that `work_size` says.
        actions_N_A: Written, whole numbers for choices.
        values_N: Written.
        log_probs_N: Written.
    """
    evaluate(network, parameters, turned, observations_N_D, work, values_N)
    outputs_N_K = forward(observations_N_D, parameters, turned, network.actor_L_5, work)
    if masks_N_K.size > 0:
        mask(outputs_N_K, masks_N_K, np.arange(len(outputs_N_K)))
    sample(network, parameters, outputs_N_K, draws_N_A, actions_N_A, log_probs_N)


@fast
def evaluate(
    network: Network,
    parameters: Floats,
    turned: Floats,
    observations_N_D: Floats,
    work: Floats,
    values_N: Floats,
) -> None:
    """Write the values of observations; the arguments are as in `act`."""
    outputs_N_1 = forward(observations_N_D, parameters, turned, network.critic_L_5, work)
    for n in range(len(values_N)):  # to assign a slice instead takes seconds to compile
        values_N[n] = outputs_N_1[n, 0]


@fast
def turn_all(network: Network, parameters: Floats) -> Floats:
    """Return the weights as `forward` takes them."""
    turned = aligned(len(parameters))
    turn(parameters, network.actor_L_5, turned)
    turn(parameters, network.critic_L_5, turned)
    return turned


@fast
def work_size(network: Network, rows: int) -> int:
    """Return how many numbers `work` holds for so many rows."""
    return max(memory(network.actor_L_5, rows), memory(network.critic_L_5, rows))


class World(NamedTuple):
    """The state of N environments of one kernel (`palaestra.envs.kernel`), which is changed."""

    state_N_S: Doubles
    steps_N: NDArray[np.int32]
    over_N: Flags
    rng_N_4: NDArray[np.uint64]
    settings: Doubles
    max_steps: int
    returns_N: Doubles
    """Returns of the episodes so far."""
    lengths_N: NDArray[np.int32]
    """Their steps."""
    low_A: Floats
    """Bounds into which actions are clipped; infinite for choices."""
    high_A: Floats


class Record(NamedTuple):
    """T steps of N environments, as a rollout buffer holds them; written."""

    observations_T_N_D: NDArray[np.float32]
    actions_T_N_A: NDArray[np.float32]
    rewards_T_N: Floats
    starts_T_N: Floats
    values_T_N: Floats
    log_probs_T_N: Floats
    ended_E_2: Doubles
    """Return and length of the episodes that ended; number e is in row e modulo E."""


class Now(NamedTuple):
    """What the environments show at the moment; changed."""

    observations_N_D: Floats
    starts_N: Flags
    """Whether an episode begins there."""
    values_N: Floats
    """Values of the observations, written after the last step."""


_type: Any = typeof
_none_1, _none_2, _none_3 = (np.empty((0,) * n, np.float32) for n in (1, 2, 3))
_doubles_2, _table = np.empty((0, 0)), np.empty((0, 5), np.int64)
_flags, _whole = np.empty(0, np.bool_), np.empty(0, np.int32)
# A step that is an argument of a compiled function needs explicit types for all arguments.
_SIGNATURE = types.int64(
    types.FunctionType(STEP),
    _type(Network(_table, _table, np.empty(0, np.int64), 0)),
    _type(_none_1),
    _type(_none_3),
    _type(
        World(_doubles_2, _whole, _flags, np.empty((0, 4), np.uint64), np.empty(0), 0,
              np.empty(0), _whole, _none_1, _none_1)
    ),
    _type(Record(_none_3, _none_3, _none_2, _none_2, _none_2, _none_2, _doubles_2)),
    _type(Now(_none_2, _flags, _none_1)),
    types.float64,
)  # fmt: skip


class Step(types.WrapperAddressProtocol):
    """The `step` of a kernel as `collect` takes it: by its address.

    Numba would look for that in each call, which takes as long as a short rollout.
    """

    def __init__(self, step: Any) -> None:
        self._step = step  # whose code is to stay
        compiled = step.get_compile_result(STEP)
        name = compiled.fndesc.llvm_cfunc_wrapper_name
        self._address: int = compiled.library.get_pointer_to_function(name)

    def __wrapper_address__(self) -> int:
        return self._address

    def signature(self) -> Any:
        """Return what it takes and returns."""
        return STEP


@cache
def by_address(step: Any) -> Any:
    """Return the `Step` of a kernel's function; where nothing is compiled, the function itself."""
    return Step(step) if hasattr(step, "get_compile_result") else step


@cache
def collector() -> Any:
    """Return `collect`, compiled: not before it is needed, as nothing takes longer to compile."""
    return njit(_SIGNATURE, cache=True, nogil=True, error_model="numpy")(collect)


def collect(  # type: ignore[no-untyped-def]
    step, network, parameters, draws_T_N_A, world, record, now, gamma
):
    """Play T steps, as stable-baselines3's `collect_rollouts` does.

    Where an episode is cut off, the value of its last observation is added to the reward.

    Args:
        step: The environments' kernel, `by_address`.
        network: Who plays.
        parameters: The network's.
        draws_T_N_A: Random numbers; see `distributions.sample`.
        world: The environments.
        record: What is written.
        now: Where it begins; then where it ended.
        gamma: Discount.

    Returns:
        The number of episodes that ended.
    """
    horizon, count, size = draws_T_N_A.shape
    work = aligned(work_size(network, count))
    turned = turn_all(network, parameters)
    played_N_A, final_N_D = np.empty((count, size), np.float32), np.empty_like(now.observations_N_D)
    rewards_N, last_1 = np.empty(count), np.empty(1, np.float32)
    terminated_N, truncated_N = np.empty(count, np.bool_), np.empty(count, np.bool_)
    ended, no_masks = 0, np.empty((0, 0), np.float32)
    for t in range(horizon):
        for n in range(count):  # and here
            record.starts_T_N[t, n] = now.starts_N[n]
            for d in range(now.observations_N_D.shape[1]):
                record.observations_T_N_D[t, n, d] = now.observations_N_D[n, d]
        actions_N_A = record.actions_T_N_A[t]
        act(
            network, parameters, turned, now.observations_N_D, no_masks, draws_T_N_A[t], work,
            actions_N_A, record.values_T_N[t], record.log_probs_T_N[t],
        )  # fmt: skip
        for n in range(count):
            for a in range(size):
                played_N_A[n, a] = min(max(actions_N_A[n, a], world.low_A[a]), world.high_A[a])
        step(
            world.state_N_S, world.steps_N, world.over_N, world.rng_N_4, played_N_A,
            now.observations_N_D, final_N_D, rewards_N, terminated_N, truncated_N,
            world.max_steps, True, world.settings,
        )  # fmt: skip
        for n in range(count):
            record.rewards_T_N[t, n] = rewards_N[n]
            world.returns_N[n] += rewards_N[n]
            world.lengths_N[n] += 1
            now.starts_N[n] = terminated_N[n] or truncated_N[n]
            if not now.starts_N[n]:
                continue
            row = ended % record.ended_E_2.shape[0]
            record.ended_E_2[row, 0] = world.returns_N[n]
            record.ended_E_2[row, 1] = world.lengths_N[n]
            world.returns_N[n], world.lengths_N[n] = 0.0, 0
            ended += 1
            if not terminated_N[n]:
                evaluate(network, parameters, turned, final_N_D[n : n + 1], work, last_1)
                record.rewards_T_N[t, n] += np.float32(gamma) * last_1[0]
    evaluate(network, parameters, turned, now.observations_N_D, work, now.values_N)
    return ended

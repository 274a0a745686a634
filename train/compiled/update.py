"""PPO's update in one compiled call: loss, gradient, clipping, Adam."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .adam import Adam, factor_for, norm_of, step
from .distributions import Rows, slope, weigh
from .elementary import exp
from .network import (
    INPUTS,
    Floats,
    Network,
    aligned,
    as_rows,
    backward,
    fast,
    forward,
    memory,
    turn,
)
from .products import even

_CHUNK = 240
"""Most rows at a time, so that what a layer says of them is in the cache when the next one reads
it, and that OpenBLAS multiplies small layers without packing them first."""
_ZERO, _ONE, _TWO = np.float32(0.0), np.float32(1.0), np.float32(2.0)
POLICY, VALUE, ENTROPY, KL, CLIPPED, LOSS = range(6)
"""Columns of the statistics of minibatches."""
DONE, STOPPED, NOT_FINITE = range(3)
"""How epochs ended: with its last minibatch, at too much divergence, or at a gradient that is
infinite or not a number, before which the parameters stand."""


class Transitions(NamedTuple):
    """M transitions to learn from."""

    observations_M_D: Any
    """As the network takes them; for kernels float32."""
    actions_M_A: Floats
    masks_M_K: Floats
    """0 where a choice is not admissible; shape (0, 0) if all are."""
    old_values_M: Floats
    old_log_probs_M: Floats
    advantages_M: Floats
    returns_M: Floats


class Settings(NamedTuple):
    """PPO's hyper-parameters, with stable-baselines3's names, and Adam's."""

    batch_size: int
    clip_range: float
    clip_range_vf: float
    """Infinite for none."""
    normalize_advantage: bool
    ent_coef: float
    vf_coef: float
    max_grad_norm: float
    target_kl: float
    """Infinite for none."""
    learning_rate: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float


class Work(NamedTuple):
    """Memory of `differentiate`, for one chunk of rows."""

    turned: Floats
    """Weights as `network.turn` writes them."""
    inputs: Floats
    tower: Floats
    """For `network.forward`."""
    log_probs: Floats
    scratch: Floats
    ones: Floats
    gradient: Floats


@fast
def run_epochs(  # type: ignore[no-untyped-def]
    network: Network,
    parameters: Floats,
    adam: Adam,
    steps: int,
    transitions: Transitions,
    orders_E_M: NDArray[np.uint32],
    settings: Settings,
    statistics_E_B_6: NDArray[np.float64],
    work: Work,
):
    """Go through all transitions once in each epoch, in minibatches.

    Args:
        network: What is trained.
        parameters: Its parameters; changed.
        adam: Changed.
        steps: Steps that Adam has taken.
        transitions: What is learned from.
        orders_E_M: Their order in each epoch; the last minibatch may be short.
        settings: Hyper-parameters.
        statistics_E_B_6: Written for each minibatch that was looked at.
        work: Memory, from `allocate`.

    Returns:
        Adam's steps, the minibatches of the last epoch that were looked at, and how it ended.

    Source: Schulman et al., "Proximal Policy Optimization Algorithms" (2017).
    """
    epochs, batches, _ = statistics_E_B_6.shape
    for e, b in np.ndindex(epochs, batches):
        rows_B = orders_E_M[e, b * settings.batch_size : (b + 1) * settings.batch_size]
        statistics_6 = statistics_E_B_6[e, b]
        differentiate(
            network, parameters, adam.gradient, transitions, rows_B, settings, statistics_6, work
        )
        if statistics_6[KL] > 1.5 * settings.target_kl:
            return steps, b + 1, STOPPED
        norm = norm_of(adam.gradient)
        if not (norm < np.inf and abs(statistics_6[LOSS]) < np.inf):
            return steps, b + 1, NOT_FINITE
        steps += 1
        factor = factor_for(norm, settings.max_grad_norm)
        step(
            parameters, adam, factor, steps, settings.learning_rate, settings.beta1,
            settings.beta2, settings.eps, settings.weight_decay,
        )  # fmt: skip
    return steps, batches, DONE


@fast
def allocate(network: Network, batch_size: int, parameters: int) -> Work:
    """Return memory for an update of so many parameters."""
    rows = min(_CHUNK, batch_size)
    actor_L_5, critic_L_5 = network.actor_L_5, network.critic_L_5
    widest = max(actor_L_5[:, INPUTS].max(), critic_L_5[:, INPUTS].max())
    work = Work(
        aligned(parameters),
        aligned(rows * actor_L_5[0, INPUTS]),
        aligned(max(memory(actor_L_5, rows), memory(critic_L_5, rows))),
        aligned(rows),
        aligned(rows * widest),
        aligned(rows),
        aligned(parameters),
    )
    work.ones[:] = _ONE
    work.gradient[:] = _ZERO  # also where there is no parameter
    return work


@fast
def differentiate(
    network: Network,
    parameters: Floats,
    gradient: Floats,
    transitions: Transitions,
    rows_B: Rows,
    settings: Settings,
    statistics_6: NDArray[np.float64],
    work: Work,
) -> None:
    """Write the gradient of the loss of one minibatch, and its statistics."""
    size = len(rows_B)
    mean, scale = _moments(transitions.advantages_M, rows_B, settings.normalize_advantage)
    of_log_std_A = np.zeros(transitions.actions_M_A.shape[1] if network.log_std >= 0 else 0)
    statistics_6[:] = 0.0
    for layers_L_5 in (network.actor_L_5, network.critic_L_5):
        turn(parameters, layers_L_5, work.turned)
    tall = even(size, _CHUNK)
    for first in range(0, size, tall):
        rows_C = rows_B[first : first + tall]
        count, width = len(rows_C), transitions.observations_M_D.shape[1]
        inputs_C_D = as_rows(work.inputs, count, width)
        for c in range(count):
            seen_D = transitions.observations_M_D[rows_C[c]]
            for d in range(width):
                inputs_C_D[c, d] = seen_D[d]
        target = gradient if first == 0 else work.gradient
        ones_1_C = as_rows(work.ones, 1, count)
        # One tower after the other, which use the same memory while it is in the cache.
        outputs_C_K = forward(inputs_C_D, parameters, work.turned, network.actor_L_5, work.tower)
        _add_policy_losses(
            network, parameters, outputs_C_K, transitions, rows_C, mean, scale, np.float32(size),
            settings, statistics_6, of_log_std_A, work.log_probs[:count],
        )  # fmt: skip
        backward(
            inputs_C_D, parameters, network.actor_L_5, work.tower, work.scratch, ones_1_C, target
        )
        values_C_1 = forward(inputs_C_D, parameters, work.turned, network.critic_L_5, work.tower)
        _add_value_losses(values_C_1, transitions, rows_C, np.float32(size), settings, statistics_6)
        backward(
            inputs_C_D, parameters, network.critic_L_5, work.tower, work.scratch, ones_1_C, target
        )
        if first > 0:
            for i in range(len(gradient)):
                gradient[i] += target[i]
    for a in range(len(of_log_std_A)):
        gradient[network.log_std + a] = np.float32(of_log_std_A[a])
    _finish(statistics_6, size, settings)


@fast
def differentiate_outputs(
    network: Network,
    parameters: Floats,
    outputs_B_K: Floats,
    values_B_1: Floats,
    transitions: Transitions,
    rows_B: Rows,
    settings: Settings,
    statistics_6: NDArray[np.float64],
    of_log_std_A: NDArray[np.float64],
) -> None:
    """Replace what a network says of a minibatch by the gradient of the loss.

    Args:
        network: Says which kind of actions there are; its layers are not read.
        parameters: Those of a Gaussian's standard deviations, at `network.log_std`.
        outputs_B_K: Logits or means.
        values_B_1: Values.
        transitions: What is learned from; observations are not read.
        rows_B: Which of them the minibatch has.
        settings: Hyper-parameters.
        statistics_6: Written.
        of_log_std_A: The gradient of the standard deviations' logarithms; written.
    """
    size = len(rows_B)
    mean, scale = _moments(transitions.advantages_M, rows_B, settings.normalize_advantage)
    statistics_6[:] = 0.0
    of_log_std_A[:] = 0.0
    _add_policy_losses(
        network, parameters, outputs_B_K, transitions, rows_B, mean, scale, np.float32(size),
        settings, statistics_6, of_log_std_A, np.empty(size, np.float32),
    )  # fmt: skip
    _add_value_losses(values_B_1, transitions, rows_B, np.float32(size), settings, statistics_6)
    _finish(statistics_6, size, settings)


@fast
def _add_policy_losses(
    network: Network,
    parameters: Floats,
    outputs_C_K: Floats,
    transitions: Transitions,
    rows_C: Rows,
    mean: np.float32,
    scale: np.float32,
    size: np.float32,
    settings: Settings,
    statistics_6: NDArray[np.float64],
    of_log_std_A: NDArray[np.float64],
    log_probs_C: Floats,
) -> None:
    """Add what transitions contribute, and replace logits or means by their gradients.

    `log_probs_C` is memory.
    """
    chances_C_K = np.empty_like(outputs_C_K)
    statistics_6[ENTROPY] -= weigh(
        network, parameters, outputs_C_K, transitions.masks_M_K, transitions.actions_M_A, rows_C,
        log_probs_C, chances_C_K,
    )  # fmt: skip
    _clip(
        log_probs_C, transitions.old_log_probs_M, transitions.advantages_M, rows_C, mean, scale,
        size, np.float32(settings.clip_range), statistics_6,
    )  # fmt: skip
    of_entropy = -np.float32(settings.ent_coef) / size
    slope(
        network, parameters, outputs_C_K, transitions.actions_M_A, rows_C, log_probs_C, of_entropy,
        of_log_std_A, chances_C_K,
    )  # fmt: skip


@fast
def _clip(
    log_probs_C: Floats,
    old_log_probs_M: Floats,
    advantages_M: Floats,
    rows_C: Rows,
    mean: np.float32,
    scale: np.float32,
    size: np.float32,
    clip: np.float32,
    statistics_6: NDArray[np.float64],
) -> None:
    """Replace log-probabilities by derivatives of the clipped loss with respect to them."""
    ratios_C = np.empty_like(log_probs_C)
    for c in range(len(rows_C)):
        log_probs_C[c] -= old_log_probs_M[rows_C[c]]
    for c in range(len(rows_C)):
        ratios_C[c] = exp(log_probs_C[c])  # in a loop of its own, which vectorises
    loss, kl, clipped = 0.0, 0.0, 0
    for c in range(len(rows_C)):
        advantage = (advantages_M[rows_C[c]] - mean) * scale
        log_ratio, ratio = log_probs_C[c], ratios_C[c]
        gain = advantage * ratio
        kept = advantage * min(max(ratio, _ONE - clip), _ONE + clip)
        loss -= min(gain, kept)
        kl += (ratio - _ONE) - log_ratio
        clipped += abs(ratio - _ONE) > clip
        held = gain > kept  # then the loss does not depend on the ratio
        log_probs_C[c] = _ZERO if held else -gain / size
    statistics_6[POLICY] += loss
    statistics_6[KL] += kl
    statistics_6[CLIPPED] += clipped


@fast
def _add_value_losses(
    values_C_1: Floats,
    transitions: Transitions,
    rows_C: Rows,
    size: np.float32,
    settings: Settings,
    statistics_6: NDArray[np.float64],
) -> None:
    """Add squared errors, and replace values by the derivatives."""
    clip = np.float32(settings.clip_range_vf)
    factor = np.float32(settings.vf_coef) * _TWO / size
    squares = 0.0
    for c in range(len(rows_C)):
        value, old_value = values_C_1[c, 0], transitions.old_values_M[rows_C[c]]
        change = value - old_value
        if clip < np.inf:
            value = old_value + min(max(change, -clip), clip)
        error = value - transitions.returns_M[rows_C[c]]
        squares += error * error
        values_C_1[c, 0] = factor * error if abs(change) <= clip else _ZERO
    statistics_6[VALUE] += squares


@fast
def _finish(statistics_6: NDArray[np.float64], size: int, settings: Settings) -> None:
    """Turn sums into means, and add up the loss."""
    statistics_6 /= size
    statistics_6[LOSS] = (
        statistics_6[POLICY]
        + settings.ent_coef * statistics_6[ENTROPY]
        + settings.vf_coef * statistics_6[VALUE]
    )


@fast
def _moments(advantages_M: Floats, rows_B: Rows, normalize: bool):  # type: ignore[no-untyped-def]
    """Return what is subtracted from an advantage, and what the rest is multiplied by."""
    size = len(rows_B)
    if not normalize or size < 2:
        return _ZERO, _ONE
    total, squares = 0.0, 0.0
    for m in rows_B:
        total += advantages_M[m]
    mean = total / size
    for m in rows_B:
        squares += (advantages_M[m] - mean) ** 2
    return np.float32(mean), np.float32(1.0 / (math.sqrt(squares / (size - 1)) + 1e-8))

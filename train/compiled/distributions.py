"""Distributions of actions: drawing from them, and the gradients of what PPO wants of them.

There are two kinds: one categorical distribution for each part of a discrete action (a
`Discrete` has one part), given by logits that lie side by side; and a Gaussian for each number
of a continuous one, given by its mean and by a standard deviation that is a parameter.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .elementary import exp
from .network import Floats, Network, fast

Rows = NDArray[np.integer[Any]]
"""Which rows of arrays are meant. Unsigned numbers take less time: nothing asks for their signs."""
NEVER = np.float32(-1e8)
"""Logit of an action that is masked, as in sb3-contrib."""
_HALF_LOG_2_PI = np.float32(0.5 * math.log(2 * math.pi))
_ZERO, _HALF, _ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)


@fast
def sample(
    network: Network,
    parameters: Floats,
    outputs_N_K: Floats,
    draws_N_A: Floats,
    actions_N_A: Floats,
    log_probs_N: Floats,
) -> None:
    """Draw an action for each row.

    Args:
        network: Says which kind of actions there are.
        parameters: All parameters.
        outputs_N_K: Logits or means; used up.
        draws_N_A: Random numbers, one for each part of an action: uniform in [0, 1) for
            choices, standard normal for a Gaussian.
        actions_N_A: Written, whole numbers for choices.
        log_probs_N: Their log-probabilities; written.
    """
    log_probs_N[:] = _ZERO
    chances_N_K = np.empty_like(outputs_N_K)
    if network.log_std < 0:
        _normalise(outputs_N_K, network.choices_A, chances_N_K)
    first = 0
    for a in range(actions_N_A.shape[1]):
        if network.log_std >= 0:
            log_std = parameters[network.log_std + a]
            scale = math.exp(log_std)
            for n in range(outputs_N_K.shape[0]):
                noise = draws_N_A[n, a]
                actions_N_A[n, a] = outputs_N_K[n, a] + scale * noise
                log_probs_N[n] -= _HALF * noise * noise + log_std + _HALF_LOG_2_PI
            continue
        past = first + network.choices_A[a]
        for n in range(outputs_N_K.shape[0]):
            choice = _choose(chances_N_K, n, first, past, draws_N_A[n, a])
            actions_N_A[n, a] = choice
            log_probs_N[n] += outputs_N_K[n, first + choice]
        first = past


@fast
def weigh(
    network: Network,
    parameters: Floats,
    outputs_C_K: Floats,
    masks_M_K: Floats,
    actions_M_A: Floats,
    rows_C: Rows,
    log_probs_C: Floats,
    chances_C_K: Floats,
) -> float:
    """Write the log-probabilities of actions, and return the sum of the entropies.

    Args:
        network: Says which kind of actions there are.
        parameters: All parameters.
        outputs_C_K: Means, or logits; these are replaced by log-probabilities.
        masks_M_K: 0 where a choice is not admissible; empty if all are.
        actions_M_A: Actions.
        rows_C: Which of the M rows belong to the outputs.
        log_probs_C: Written.
        chances_C_K: The probabilities of all choices; written where there are any.
    """
    log_probs_C[:] = _ZERO
    mask(outputs_C_K, masks_M_K, rows_C)
    first, entropies = 0, 0.0
    if network.log_std < 0:
        entropies += _normalise(outputs_C_K, network.choices_A, chances_C_K)
    for a in range(actions_M_A.shape[1]):
        if network.log_std >= 0:
            log_std = parameters[network.log_std + a]
            precision = math.exp(-log_std)
            for c in range(len(rows_C)):
                noise = (actions_M_A[rows_C[c], a] - outputs_C_K[c, a]) * precision
                log_probs_C[c] -= _HALF * noise * noise + log_std + _HALF_LOG_2_PI
            entropies += len(rows_C) * (_HALF + _HALF_LOG_2_PI + log_std)
            continue
        past = first + network.choices_A[a]
        for c in range(len(rows_C)):
            log_probs_C[c] += outputs_C_K[c, first + int(actions_M_A[rows_C[c], a])]
        first = past
    return entropies


@fast
def slope(
    network: Network,
    parameters: Floats,
    outputs_C_K: Floats,
    actions_M_A: Floats,
    rows_C: Rows,
    of_log_probs_C: Floats,
    of_entropy: np.float32,
    of_log_std_A: NDArray[np.float64],
    chances_C_K: Floats,
) -> None:
    """Replace outputs by the gradient of a loss with respect to them.

    Args:
        network: Says which kind of actions there are.
        parameters: All parameters.
        outputs_C_K: As `weigh` left them.
        actions_M_A: The actions.
        rows_C: Which of the M rows belong to the outputs.
        of_log_probs_C: Derivatives of the loss with respect to their log-probabilities.
        of_entropy: Derivative with respect to an entropy.
        of_log_std_A: What concerns the standard deviations of a Gaussian is added to this. The
            terms cancel out, so a sum of many needs more digits than they have.
        chances_C_K: As `weigh` wrote them.
    """
    first = 0
    for a in range(actions_M_A.shape[1]):
        if network.log_std >= 0:
            precision = math.exp(-parameters[network.log_std + a])
            for c in range(len(rows_C)):
                noise = (actions_M_A[rows_C[c], a] - outputs_C_K[c, a]) * precision
                outputs_C_K[c, a] = of_log_probs_C[c] * noise * precision
                of_log_std_A[a] += of_log_probs_C[c] * (noise * noise - _ONE) + of_entropy
            continue
        past = first + network.choices_A[a]
        for c in range(len(rows_C)):
            choice = first + int(actions_M_A[rows_C[c], a])
            _slope_logits(
                outputs_C_K, chances_C_K, c, first, past, choice, of_log_probs_C[c], of_entropy
            )
        first = past


# Functions of one part of a discrete action, which has the columns from `first` to `past`. They
# take whole arrays and indices, as each view of an array that is made costs more than a choice.


@fast
def _slope_logits(
    log_probs_C_K: Floats,
    chances_C_K: Floats,
    c: int,
    first: int,
    past: int,
    choice: int,
    of_log_prob: np.float32,
    of_entropy: np.float32,
) -> None:
    entropy = _ZERO
    if of_entropy != _ZERO:
        entropy = _entropy(log_probs_C_K, chances_C_K, c, first, past)
    for k in range(first, past):
        log_prob, chance = log_probs_C_K[c, k], chances_C_K[c, k]
        chosen = _ONE if k == choice else _ZERO
        if chance == _ZERO:
            log_probs_C_K[c, k] = of_log_prob * chosen
            continue
        log_probs_C_K[c, k] = of_log_prob * (chosen - chance) - of_entropy * chance * (
            log_prob + entropy
        )


@fast
def _entropy(log_probs_C_K: Floats, chances_C_K: Floats, c: int, first: int, past: int) -> Any:
    """Return the entropy; what is impossible adds nothing to it, be its logarithm infinite."""
    entropy = _ZERO
    for k in range(first, past):
        if chances_C_K[c, k] > _ZERO:
            entropy -= chances_C_K[c, k] * log_probs_C_K[c, k]
    return entropy


@fast
def mask(logits_C_K: Floats, masks_M_K: Floats, rows_C: Rows) -> None:
    """Make choices impossible that are not admissible; the arguments are as in `weigh`."""
    for k in range(masks_M_K.shape[1]):
        for c in range(len(rows_C)):
            if masks_M_K[rows_C[c], k] == _ZERO:
                logits_C_K[c, k] = NEVER


@fast
def _choose(chances_N_K: Floats, n: int, first: int, past: int, uniform: float) -> int:
    """Return the choice in whose stretch of [0, 1) a number lies."""
    most, best = 0.0, 0
    for k in range(first, past):
        chance = chances_N_K[n, k]
        uniform -= chance
        if uniform < _ZERO:
            return k - first
        if chance > most:
            most, best = chance, k - first
    return best  # rounding left a gap at the end, where something impossible may stand


@fast
def _normalise(logits_N_K: Floats, choices_A: NDArray[np.int64], chances_N_K: Floats) -> float:
    """Turn logits into log-probabilities, write the probabilities, and return all entropies' sum.

    Those of all parts are computed in one loop, which vectorises.
    """
    first = 0
    for choices in choices_A:
        _lower(logits_N_K, first, first + choices)
        first += choices
    logits, chances = logits_N_K.ravel(), chances_N_K.ravel()
    for i in range(len(logits)):
        chances[i] = exp(logits[i])
    first, entropies = 0, 0.0
    for choices in choices_A:
        entropies += _divide(logits_N_K, chances_N_K, first, first + choices)
        first += choices
    return entropies


@fast
def _lower(logits_N_K: Floats, first: int, past: int) -> None:
    """Subtract the highest of each row, so that no exponential is infinite."""
    for n in range(logits_N_K.shape[0]):
        most = logits_N_K[n, first]
        for k in range(first + 1, past):
            most = max(most, logits_N_K[n, k])
        for k in range(first, past):
            logits_N_K[n, k] -= most


@fast
def _divide(logits_N_K: Floats, weights_N_K: Floats, first: int, past: int) -> float:
    """Turn weights, and the logits that they are exponentials of, into probabilities.

    Returns the sum of the entropies.
    """
    entropies = 0.0
    for n in range(logits_N_K.shape[0]):
        total, weighed = _ZERO, _ZERO
        for k in range(first, past):
            weight = weights_N_K[n, k]
            total += weight
            if weight > _ZERO:  # what is impossible adds nothing, be its logit infinite
                weighed += weight * logits_N_K[n, k]
        shift, share = math.log(total), _ONE / total
        for k in range(first, past):
            logits_N_K[n, k] -= shift
            weights_N_K[n, k] *= share
        entropies += float(shift - weighed * share)
    return entropies

"""Distributions of actions: drawing from them, and the gradients of what PPO wants of them.

There are two kinds: one categorical distribution for each part of a discrete action (a
`Discrete` has one part), given by logits that lie side by side; and a Gaussian for each number
of a continuous one, given by its mean and by a standard deviation that is a parameter.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .network import Floats, Network, fast

_NEVER = np.float32(-1e8)
"""Logit of an action that is masked, as in sb3-contrib."""
_HALF_LOG_2_PI = np.float32(0.5 * math.log(2 * math.pi))
_ZERO, _HALF, _ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)


@fast
def sample(
    network: Network,
    parameters: Floats,
    outputs_N_K: Floats,
    masks_N_K: Floats,
    draws_N_A: Floats,
    actions_N_A: Floats,
    log_probs_N: Floats,
) -> None:
    """Draw an action for each row.

    Args:
        network: Says which kind of actions there are.
        parameters: All parameters.
        outputs_N_K: Logits or means; used up.
        masks_N_K: 0 where a choice is not admissible; empty if all are.
        draws_N_A: Random numbers, one for each part of an action: uniform in [0, 1) for
            choices, standard normal for a Gaussian.
        actions_N_A: Written, whole numbers for choices.
        log_probs_N: Their log-probabilities; written.
    """
    for n in range(outputs_N_K.shape[0]):
        log_probs_N[n] = _ZERO
        if network.log_std >= 0:
            for a in range(outputs_N_K.shape[1]):
                log_std, noise = parameters[network.log_std + a], draws_N_A[n, a]
                actions_N_A[n, a] = outputs_N_K[n, a] + math.exp(log_std) * noise
                log_probs_N[n] -= _HALF * noise * noise + log_std + _HALF_LOG_2_PI
        else:
            _mask(outputs_N_K[n], masks_N_K, n)
            first = 0
            for a in range(len(network.choices_A)):
                logits_C = outputs_N_K[n, first : first + network.choices_A[a]]
                _normalise(logits_C)
                choice = _choose(logits_C, draws_N_A[n, a])
                actions_N_A[n, a] = choice
                log_probs_N[n] += logits_C[choice]
                first += network.choices_A[a]


@fast
def log_prob_and_entropy(  # type: ignore[no-untyped-def]
    network: Network,
    parameters: Floats,
    outputs_K: Floats,
    masks_M_K: Floats,
    m: int,
    action_A: Floats,
):
    """Return the log-probability of an action and the entropy of its distribution.

    Logits are replaced by log-probabilities. The other arguments are as in `sample`; the mask is
    row m.
    """
    log_prob, entropy = _ZERO, _ZERO
    if network.log_std >= 0:
        for a in range(outputs_K.shape[0]):
            log_std = parameters[network.log_std + a]
            noise = (action_A[a] - outputs_K[a]) * math.exp(-log_std)
            log_prob -= _HALF * noise * noise + log_std + _HALF_LOG_2_PI
            entropy += _HALF + _HALF_LOG_2_PI + log_std
        return log_prob, entropy
    _mask(outputs_K, masks_M_K, m)
    first = 0
    for a in range(len(network.choices_A)):
        logits_C = outputs_K[first : first + network.choices_A[a]]
        _normalise(logits_C)
        log_prob += logits_C[int(action_A[a])]
        entropy += _entropy(logits_C)
        first += network.choices_A[a]
    return log_prob, entropy


@fast
def slopes(
    network: Network,
    parameters: Floats,
    outputs_K: Floats,
    action_A: Floats,
    of_log_prob: np.float32,
    of_entropy: np.float32,
    of_log_std_A: NDArray[np.float64],
) -> None:
    """Replace outputs by the gradient of a loss with respect to them.

    Args:
        network: Says which kind of actions there are.
        parameters: All parameters.
        outputs_K: Means, or logits as `log_prob_and_entropy` left them.
        action_A: The action.
        of_log_prob: Derivative of the loss with respect to its log-probability.
        of_entropy: Derivative with respect to the entropy.
        of_log_std_A: What concerns the standard deviations of a Gaussian is added to this. The
            terms cancel out, so a sum of many needs more digits than they have.
    """
    if network.log_std >= 0:
        for a in range(outputs_K.shape[0]):
            precision = math.exp(-parameters[network.log_std + a])
            noise = (action_A[a] - outputs_K[a]) * precision
            outputs_K[a] = of_log_prob * noise * precision
            of_log_std_A[a] += of_log_prob * (noise * noise - _ONE) + of_entropy
        return
    first = 0
    for a in range(len(network.choices_A)):
        logits_C = outputs_K[first : first + network.choices_A[a]]
        entropy = _entropy(logits_C) if of_entropy != _ZERO else _ZERO
        choice = int(action_A[a])
        for c in range(logits_C.shape[0]):
            chance = math.exp(logits_C[c])
            chosen = _ONE if c == choice else _ZERO
            if chance == _ZERO:
                logits_C[c] = of_log_prob * chosen
                continue
            logits_C[c] = of_log_prob * (chosen - chance) - of_entropy * chance * (
                logits_C[c] + entropy
            )
        first += network.choices_A[a]


@fast
def _entropy(log_probs_C: Floats) -> Any:
    """Return the entropy; what is impossible adds nothing to it, be its logarithm infinite."""
    entropy = _ZERO
    for c in range(log_probs_C.shape[0]):
        chance = math.exp(log_probs_C[c])
        if chance > _ZERO:
            entropy -= chance * log_probs_C[c]
    return entropy


@fast
def _mask(logits_K: Floats, masks_M_K: Floats, m: int) -> None:
    for k in range(masks_M_K.shape[1]):
        if masks_M_K[m, k] == _ZERO:
            logits_K[k] = _NEVER


@fast
def _normalise(logits_C: Floats) -> None:
    """Turn logits into log-probabilities."""
    most, total = logits_C[0], _ZERO
    for c in range(1, logits_C.shape[0]):
        most = max(most, logits_C[c])
    for c in range(logits_C.shape[0]):
        total += math.exp(logits_C[c] - most)
    shift = most + math.log(total)
    for c in range(logits_C.shape[0]):
        logits_C[c] -= shift


@fast
def _choose(log_probs_C: Floats, uniform: float) -> int:
    """Return the choice in whose stretch of [0, 1) a number lies."""
    most, best = 0.0, 0
    for c in range(log_probs_C.shape[0]):
        chance = math.exp(log_probs_C[c])
        uniform -= chance
        if uniform < _ZERO:
            return c
        if chance > most:
            most, best = chance, c
    return best  # rounding left a gap at the end, where a choice that is masked may stand

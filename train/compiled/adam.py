"""Adam's steps, and the norm of gradients."""

import math
from typing import NamedTuple

import numpy as np

from .network import Floats, fast


class Adam(NamedTuple):
    """Adam's memory, each number beside the parameter that it belongs to."""

    gradient: Floats
    means: Floats
    """Running means of gradients, `exp_avg` in torch."""
    squares: Floats
    """Running means of their squares, `exp_avg_sq`."""


@fast
def norm_of(gradient: Floats) -> float:
    """Return the Euclidean norm."""
    total = np.float32(0.0)
    for i in range(len(gradient)):
        total += gradient[i] * gradient[i]
    return math.sqrt(total)


@fast
def step(
    parameters: Floats,
    adam: Adam,
    factor: np.float32,
    steps: float,
    learning_rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> None:
    """Take one of Adam's steps.

    Args:
        parameters: Changed.
        adam: Changed; the gradient is first multiplied by the factor, and stays in its place.
        factor: Shortens the gradient.
        steps: How many steps have been taken with this one.
        learning_rate: The hyper-parameters, with torch's names.
        beta1: See `learning_rate`.
        beta2: See `learning_rate`.
        eps: See `learning_rate`.
        weight_decay: See `learning_rate`.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization" (2015), as torch computes
    it.
    """
    gradient, means, squares = adam
    rest1, rest2 = np.float32(1.0 - beta1), np.float32(1.0 - beta2)
    kept2, floor, decay = np.float32(beta2), np.float32(eps), np.float32(weight_decay)
    stride = np.float32(learning_rate / (1.0 - beta1**steps))
    correction = np.float32(1.0 / math.sqrt(1.0 - beta2**steps))
    for i in range(len(parameters)):
        gradient[i] *= factor
        slope = gradient[i] + decay * parameters[i]
        means[i] += rest1 * (slope - means[i])
        squares[i] = kept2 * squares[i] + rest2 * slope * slope
        parameters[i] -= stride * means[i] / (math.sqrt(squares[i]) * correction + floor)

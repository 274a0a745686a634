"""Adam's steps, and the norm of gradients."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.numpy_support import carray
from numpy.typing import NDArray

from .network import Floats, fast

VALUES, GRADIENT, MEANS, SQUARES, STEPS, SIZE = range(6)
"""Columns of a table of parameters: where their numbers lie in memory, how many steps have been
taken with them (one number), and how many numbers they have."""


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
    return math.sqrt(_squares_of(gradient))


@fast
def factor_for(norm: float, most: float) -> np.float32:
    """Return what a gradient of a norm is multiplied by if it may have another one at most."""
    return np.float32(min(most / (norm + 1e-6), 1.0))


@fast
def _squares_of(gradient: Floats) -> float:
    total = np.float32(0.0)
    for i in range(len(gradient)):
        total += gradient[i] * gradient[i]
    return float(total)


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


@fast
def take_steps(table_P_6: NDArray[np.int64], rates_P_5: NDArray[np.float64], most: float) -> float:
    """Shorten the gradient of some parameters, and take one of Adam's steps with each.

    Args:
        table_P_6: The parameters, of float32. Addresses are believed.
        rates_P_5: The hyper-parameters of each, in the order that `step` takes them in.
        most: The largest norm that the gradient as a whole may have.

    Returns:
        The norm that it had. If it is not finite, nothing has been changed.
    """
    squares = 0.0
    for row in table_P_6:
        squares += _squares_of(_numbers(row[GRADIENT], row[SIZE]))
    norm = math.sqrt(squares)
    if not norm < np.inf:
        return norm
    factor = factor_for(norm, most)
    for p in range(len(table_P_6)):
        row, rates_5 = table_P_6[p], rates_P_5[p]
        size, steps_1 = row[SIZE], _numbers(row[STEPS], 1)
        steps_1[0] += np.float32(1)
        adam = Adam(
            _numbers(row[GRADIENT], size), _numbers(row[MEANS], size), _numbers(row[SQUARES], size)
        )
        step(
            _numbers(row[VALUES], size), adam, factor, float(steps_1[0]),
            rates_5[0], rates_5[1], rates_5[2], rates_5[3], rates_5[4],
        )  # fmt: skip
    return norm


@fast
def _numbers(address: int, count: int) -> Floats:
    numbers: Floats = carray(_pointer(address), (count,), np.float32)  # type: ignore[call-arg]
    return numbers


@intrinsic
def _pointer(typing, address):  # type: ignore[no-untyped-def]
    """Return an address as a pointer."""

    def write(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
        return builder.inttoptr(values[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), write

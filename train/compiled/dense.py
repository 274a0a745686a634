"""A dense layer of many inputs, by which a minibatch is multiplied at the speed of the core.

Idea: weights are many times as large as a minibatch, and a BLAS copies them before it multiplies by
them. Forward, they are read once, from where they lie, and what is told is turned instead; backward
they are copied where they would be read a few numbers at a time, in panels that stay in a cache.
"""

from numba import njit

from .products import WIDTH, copy, multiply_all

_BLOCK = 448
"""Inputs that are summed up at a time: what is told of them stays in the core's first cache, and
sums of sums keep more digits."""
_PANEL = 320
"""Inputs of a panel."""


def room_for(inputs: int, outputs: int) -> int:
    """Return how many numbers of memory `forward` and `backward` need for themselves."""
    return max((inputs + outputs) * WIDTH, outputs * _PANEL)


@njit(cache=True, nogil=True)
def forward(told_B_I, weights, bias_O, said_B_O, room):  # type: ignore[no-untyped-def]
    """Write what a layer says.

    Args:
        told_B_I: What it is told, `WIDTH` rows or a multiple of that.
        weights: Of shape (O, I), flat.
        bias_O: Is added.
        said_B_O: Takes what it says.
        room: Memory, as `room_for` says.
    """
    (rows, inputs), outputs = told_B_I.shape, len(bias_O)
    told, said = room[: inputs * WIDTH], room[inputs * WIDTH :]
    for first in range(0, rows, WIDTH):
        for i in range(inputs):
            for b in range(WIDTH):
                told[i * WIDTH + b] = told_B_I[first + b, i]
        for i in range(0, inputs, _BLOCK):
            multiply_all(
                (outputs, min(_BLOCK, inputs - i), WIDTH), i > 0, said, (0, WIDTH),
                weights, (i, inputs, 1), told, (i * WIDTH, WIDTH),
            )  # fmt: skip
        for b in range(WIDTH):
            for o in range(outputs):
                said_B_O[first + b, o] = said[o * WIDTH + b] + bias_O[o]


@njit(cache=True, nogil=True)
def backward(slopes_B_O, weights, begin, end, passed_B_I, room):  # type: ignore[no-untyped-def]
    """Write the gradient with respect to some inputs.

    Args:
        slopes_B_O: That with respect to what the layer says.
        weights: As for `forward`.
        begin: The first of these inputs.
        end: That behind the last one; there are `WIDTH` of them or a multiple of that.
        passed_B_I: Takes the gradient.
        room: As for `forward`.
    """
    (rows, outputs), inputs = slopes_B_O.shape, passed_B_I.shape[1]
    slopes, passed = slopes_B_O.ravel(), passed_B_I.ravel()
    for first in range(begin, end, _PANEL):
        wide = min(_PANEL, end - first)
        for o in range(outputs):
            copy(weights[o * inputs + first :], room[o * wide :][:wide])
        multiply_all(
            (rows, outputs, wide), False, passed, (first, inputs),
            slopes, (0, outputs, 1), room, (0, wide),
        )  # fmt: skip

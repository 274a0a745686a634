"""The actor of `ChoicePolicy`, from features of texts to a score for each choice, and back.

Its first layer reads a choice c beside a task t and a reply r, by weights in five parts, of which
the last two multiply products of numbers of c with those of t and of r. So all choices of a row
meet the same matrix, W_c + W_t t + W_r r, a mixture that is made once for them.

Features lie side by side for each row: the task's, the reply's, those of the K choices, E numbers
each, and what else there may be. N are all choices of B rows. Both E and the width are multiples
of `WIDTH`.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from .elementary import tanh
from .mixtures import (
    MIXED_HEIGHT,
    PARTED_HEIGHT,
    PARTED_WIDTH,
    add_mixed_product,
    add_parted_products,
)
from .network import Floats
from .products import HEIGHT, ONCE, WIDTH, copy, even, multiply, multiply_all

_BLOCK = 48
"""Terms of a product that are summed at a time: their weights stay in the core's first cache."""
_ROWS = 16
"""Rows whose part of the gradient is summed at a time: their features stay there, too."""
_LINE = 16
"""Numbers in a line of a cache."""


class Actor(NamedTuple):
    """The parameters of its layers, or a gradient with respect to them."""

    first_W_5E: Floats
    """What multiplies t, r, c, and the products of c with t and with r."""
    bias_W: Floats
    second_W_W: Floats
    second_bias_W: Floats
    score_1_W: Floats
    score_bias_1: Floats


@njit(cache=True, nogil=True)
def forward(features_M_F, rows_B, scale, actor, hidden_2_N_W, scores_B_K):  # type: ignore[no-untyped-def]
    """Write the scores of choices.

    Args:
        features_M_F: Of all rows of a rollout.
        rows_B: Which of them.
        scale: Multiplies each feature.
        actor: The parameters.
        hidden_2_N_W: Takes what the tanh above each of the two layers returns.
        scores_B_K: Takes the scores.
    """
    below, above = hidden_2_N_W[0].ravel(), hidden_2_N_W[1].ravel()
    _read(features_M_F, rows_B, scale, actor, below, scores_B_K.shape[1])
    width, terms = len(actor.bias_W), scores_B_K.size
    weights = _turned(actor.second_W_W, np.float32(1))
    _pass(below, width, weights, width, actor.second_bias_W, above)
    _bend(above)
    scores = scores_B_K.ravel()
    for n in range(terms):
        scores[n] = _dot(above[n * width :][:width], actor.score_1_W[0]) + actor.score_bias_1[0]


@njit(cache=True, nogil=True)
def backward(features_M_F, rows_B, scale, actor, hidden_2_N_W, slopes_B_K, gradient):  # type: ignore[no-untyped-def]
    """Add the gradient of a loss with respect to the parameters.

    Args:
        features_M_F: As for `forward`.
        rows_B: As for `forward`.
        scale: As for `forward`.
        actor: As for `forward`.
        hidden_2_N_W: As `forward` left it.
        slopes_B_K: The gradient with respect to the scores.
        gradient: That of the parameters, which is added to.
    """
    below, above = hidden_2_N_W[0].ravel(), hidden_2_N_W[1].ravel()
    width, terms, one = len(actor.bias_W), slopes_B_K.size, np.float32(1)
    slopes, passed = np.empty(terms * width, np.float32), np.empty(terms * width, np.float32)
    score_W, of_score_W, said = actor.score_1_W[0], gradient.score_1_W[0], slopes_B_K.ravel()
    total, totals_W = 0.0, np.zeros(width)  # with twice the digits, as terms cancel each other
    for n in range(terms):
        said_W, slopes_W, slope = above[n * width :][:width], slopes[n * width :][:width], said[n]
        total += slope
        for w in range(width):
            of_score_W[w] += slope * said_W[w]
            slopes_W[w] = slope * score_W[w] * (one - said_W[w] * said_W[w])
            totals_W[w] += slopes_W[w]
    gradient.score_bias_1[0] += total
    _add(totals_W, gradient.second_bias_W)
    weights, of_weights = actor.second_W_W.ravel(), gradient.second_W_W.ravel()
    _owe(slopes, width, below, width, of_weights, width)
    multiply_all(
        (terms, width, width), False, passed, (0, width),
        slopes, (0, width, 1), weights, (0, width),
    )  # fmt: skip
    for i in range(len(passed)):
        passed[i] *= one - below[i] * below[i]
    _weigh(features_M_F, rows_B, scale, passed, slopes_B_K.shape[1], gradient)


@njit(cache=True, nogil=True)
def _read(features_M_F, rows_B, scale, actor, hidden, choices):  # type: ignore[no-untyped-def]
    """Write what the tanh above the first layer returns."""
    rows, width, size = len(rows_B), len(actor.bias_W), features_M_F.shape[1]
    numbers, features = actor.first_W_5E.shape[1], features_M_F.ravel()
    each, weights = numbers // 5, _turned(actor.first_W_5E, scale)
    said = np.empty(rows * width, np.float32)
    dialogues = _dialogues(features_M_F, rows_B, each)
    _pass(dialogues, 2 * each, weights, numbers, actor.bias_W, said)
    for n in range(rows * choices):
        copy(said[n // choices * width :][:width], hidden[n * width :][:width])
    tall, apart = even(choices, MIXED_HEIGHT), each * WIDTH
    for e in range(0, each, _BLOCK):
        block = min(_BLOCK, each - e)
        for p in range(width // WIDTH):
            parts = (p * numbers + 2 * each + e) * WIDTH
            for b in range(rows):
                begin = rows_B[b] * size + e
                for k in range(0, choices, tall):
                    add_mixed_product(
                        min(tall, choices - k),
                        hidden, ((b * choices + k) * width + p * WIDTH, width),
                        features, (begin + (2 + k) * each, each), block, (begin, begin + each),
                        weights, (parts, parts + apart, parts + 2 * apart),
                    )  # fmt: skip
    _bend(hidden)


@njit(cache=True, nogil=True)
def _weigh(features_M_F, rows_B, scale, slopes, choices, gradient):  # type: ignore[no-untyped-def]
    """Add the gradient with respect to the parameters of the first layer."""
    of_weights, rows = gradient.first_W_5E.ravel(), len(rows_B)
    width, numbers = gradient.first_W_5E.shape
    each, terms = numbers // 5, rows * choices
    # Tile by tile, what multiplies the features.
    tiles, tall = (width + PARTED_HEIGHT - 1) // PARTED_HEIGHT, PARTED_HEIGHT
    scaled = np.empty(tiles * terms * tall, np.float32)
    said, totals_W = np.zeros(rows * width, np.float32), np.zeros(width)
    for n in range(terms):
        slopes_W, said_W = slopes[n * width :][:width], said[n // choices * width :][:width]
        for w in range(width):
            totals_W[w] += slopes_W[w]
            slopes_W[w] *= scale
            said_W[w] += slopes_W[w]
        for tile in range(tiles):
            own = slopes_W[tile * tall :][:tall]
            copy(own, scaled[(tile * terms + n) * tall :][: len(own)])
    _add(totals_W, gradient.bias_W)
    dialogues, wide = _dialogues(features_M_F, rows_B, each), 2 * each
    _owe(said, width, dialogues, wide, of_weights, numbers)
    once = (2 + choices) * PARTED_WIDTH
    seen = np.empty(_ROWS * once, np.float32)
    for start in range(0, rows, _ROWS):
        count = min(_ROWS, rows - start)
        for e in range(0, each, PARTED_WIDTH):
            for b in range(count):
                features_F = features_M_F[rows_B[start + b]]
                for k in range(2 + choices):
                    to = seen[b * once + k * PARTED_WIDTH :][:PARTED_WIDTH]
                    copy(features_F[k * each + e :][:PARTED_WIDTH], to)
            for tile in range(tiles):
                w = tile * tall
                add_parted_products(
                    min(tall, width - w),
                    of_weights, (w * numbers + wide + e, numbers, each),
                    scaled, (tile * terms + start * choices) * tall, count, choices,
                    seen, 0,
                )  # fmt: skip


@njit(cache=True, nogil=True)
def _pass(below, inputs, weights, numbers, bias_W, above):  # type: ignore[no-untyped-def]
    """Write what a layer says of rows.

    Args:
        below: What it is told, flat.
        inputs: How many numbers of that are in a row.
        weights: Of the layer, turned; the first ones of a unit multiply the inputs.
        numbers: How many a unit has.
        bias_W: Is added.
        above: Takes what it says, flat.
    """
    width = len(bias_W)
    rows, loops = len(above) // width, (ONCE, ONCE, (inputs, 1))
    for n in range(rows):
        copy(bias_W, above[n * width :][:width])
    tall = even(rows, HEIGHT)
    for w in range(0, width, WIDTH):
        for n in range(0, rows, tall):
            multiply(
                min(tall, rows - n), True, above, (n * width + w, width),
                below, (n * inputs, inputs), loops, weights, (w * numbers, WIDTH),
            )  # fmt: skip


@njit(cache=True, nogil=True)
def _owe(slopes, width, below, inputs, of_weights, numbers):  # type: ignore[no-untyped-def]
    """Add the gradient with respect to the weights of a layer.

    Args:
        slopes: The gradient with respect to what it says of rows, flat.
        width: How many numbers of that are in a row.
        below: As for `_pass`.
        inputs: As for `_pass`.
        of_weights: The gradient, flat and not turned.
        numbers: As for `_pass`.
    """
    multiply_all(
        (width, len(slopes) // width, inputs), True, of_weights, (0, numbers),
        slopes, (0, 1, width), below, (0, inputs),
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _dialogues(features_M_F, rows_B, each):  # type: ignore[no-untyped-def]
    """Return tasks and replies of rows, flat."""
    wide = 2 * each
    found = np.empty(len(rows_B) * wide, np.float32)
    for b in range(len(rows_B)):
        copy(features_M_F[rows_B[b]], found[b * wide :][:wide])
    return found


@njit(cache=True, nogil=True)
def _turned(weights_W_I, scale):  # type: ignore[no-untyped-def]
    """Return weights times a number, flat, `WIDTH` of the layer's units side by side.

    A unit has a multiple of `_LINE` weights.
    """
    width, numbers = weights_W_I.shape
    turned = np.empty(width * numbers, np.float32)
    for p in range(0, width, WIDTH):
        for e in range(0, numbers, _LINE):
            to = turned[p * numbers + e * WIDTH :][: _LINE * WIDTH]
            for c in range(WIDTH):
                from_E = weights_W_I[p + c, e : e + _LINE]
                for i in range(_LINE):
                    to[i * WIDTH + c] = from_E[i] * scale
    return turned


@njit(cache=True, nogil=True, error_model="numpy")  # else it asks of each number if it divides by 0
def _bend(numbers):  # type: ignore[no-untyped-def]
    for i in range(len(numbers)):
        numbers[i] = tanh(numbers[i])


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _dot(left, right):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for i in range(len(left)):
        total += left[i] * right[i]
    return total


@njit(inline="always")
def _add(these, to):  # type: ignore[no-untyped-def]
    for i in range(len(to)):
        to[i] += these[i]

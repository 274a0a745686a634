"""Convolutions of images without padding, forward and backward, each followed by a relu.

What a filter sees of one row of an image is one run of numbers, which is multiplied where it lies,
or, if fewer multiplications are enough (`winograd`), summed up first.

Layers are in a table, `windows` says how. Weights come as they lie in torch, (filters, channels,
rows, columns), one layer after the other, and are turned to be multiplied by.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

from . import winograd
from .network import Floats, aligned
from .products import HEIGHT, LANES, ONCE, WIDTH, copy, even, multiply
from .windows import (
    ACROSS,
    CHANNELS,
    COLUMNS,
    DOWN,
    FILTERS,
    IN_HEIGHT,
    IN_WIDTH,
    MADE,
    OUT_HEIGHT,
    OUT_WIDTH,
    ROWS,
    SIDES,
    TURNED,
    WEIGHTS,
    Table,
)

_FORWARD, _BACKWARD, _BACK = range(3)
"""How weights are turned: from torch's order to (rows, columns, channels, filters), which goes
forward; to (filters, rows, columns, channels), which goes backward; from the former to torch's."""
_CHUNK = 2**17
"""So many numbers of a layer are seen to at a time: few enough to stay in a cache, and enough for
weights to be read seldom."""


class Room(NamedTuple):
    """Memory that nobody else uses while a kernel does."""

    images: int
    """So many go through all layers together."""
    seen: Floats
    """What the first layer sees; backward, what a layer sees."""
    slopes: Floats
    """The gradient with respect to what a layer makes; forward, what it makes."""
    passed: Floats
    """That with respect to what it sees, which the next layer on the way back makes; forward, what
    the next layer makes."""
    turned: Floats
    """Weights as they are multiplied by."""
    of_turned: Floats
    """The gradient with respect to these."""
    more: Floats
    """What turns weights, and what a layer does, uses that while it does."""


@njit(cache=True, nogil=True)
def forward(images_M_D, rows_B, scale, weights, biases, table_L_14, work, outputs_B_F, room):  # type: ignore[no-untyped-def]
    """Write what the last relu returns.

    Args:
        images_M_D: Images, as `lay_out` lays them, uint8 or float32.
        rows_B: Which of them.
        scale: Multiplies each number of an image.
        weights: Of all layers.
        biases: Of all layers.
        table_L_14: The layers.
        work: Takes what each relu returns, shape (B, height, width, filters), one layer after
            the other.
        outputs_B_F: Takes what the last one returns, in the order filters x height x width.
        room: As `room_for` returns it.
    """
    rows, chunk, turned = len(rows_B), room.images, room.turned
    _turn_all(weights, table_L_14, _FORWARD, turned, room.more)
    for start in range(0, rows, chunk):
        n = min(chunk, rows - start)
        _read(images_M_D, rows_B[start : start + n], scale, room.seen)
        below, first, bias, begin = room.seen, 0, 0, 0
        made, more = room.slopes, room.passed  # in a cache: tiles are written here and there
        for layer in table_L_14:
            area, filters = layer[OUT_HEIGHT] * layer[OUT_WIDTH], layer[FILTERS]
            above = made[: n * layer[MADE]]
            weights_X, bias_O = turned[first:], biases[bias : bias + filters]
            if layer[SIDES] > 0:
                winograd.convolve(below, first == 0, n, weights_X, bias_O, layer, above, room.more)
            else:
                _convolve(below, n, weights_X, bias_O, layer, above)
            copy(above, work[begin + start * layer[MADE] :][: len(above)])
            first, bias = first + layer[TURNED], bias + filters
            begin += rows * layer[MADE]
            below, made, more = made, more, made
        for b in range(n):
            for p in range(area):
                for f in range(filters):
                    outputs_B_F[start + b, f * area + p] = below[(b * area + p) * filters + f]


@njit(cache=True, nogil=True)
def backward(images_M_D, rows_B, scale, weights, table_L_14, work, slopes_B_F, of_both, room):  # type: ignore[no-untyped-def]
    """Write the gradient of a loss with respect to the weights and the biases.

    Args:
        images_M_D: As for `forward`.
        rows_B: As for `forward`.
        scale: As for `forward`.
        weights: Of all layers.
        table_L_14: The layers.
        work: As `forward` left it.
        slopes_B_F: The gradient with respect to `outputs_B_F`.
        of_both: Takes that of the weights and that of the biases.
        room: As for `forward`.
    """
    rows, chunk, of_biases = len(rows_B), room.images, of_both[1]
    turned, of_turned, slopes, passed = room.turned, room.of_turned, room.slopes, room.passed
    below = room.seen
    _turn_all(weights, table_L_14, _BACKWARD, turned, room.more)
    of_turned[:], of_biases[:] = 0, 0
    for start in range(0, rows, chunk):
        n = min(chunk, rows - start)
        last = table_L_14[-1]
        area, filters = last[OUT_HEIGHT] * last[OUT_WIDTH], last[FILTERS]
        for b in range(n):
            for p in range(area):
                for f in range(filters):
                    slopes[(b * area + p) * filters + f] = slopes_B_F[start + b, f * area + p]
        begin, first, bias = len(work), len(of_turned), len(of_biases)
        for k in range(len(table_L_14) - 1, -1, -1):
            layer = table_L_14[k]
            begin -= rows * layer[MADE]
            first, bias = first - layer[TURNED], bias - layer[FILTERS]
            above = work[begin + start * layer[MADE] :][: n * layer[MADE]]
            _through(above, slopes, of_biases[bias : bias + layer[FILTERS]])
            if k > 0:
                under = table_L_14[k - 1, MADE]
                # Into a cache: tiles are read here and there.
                copy(work[begin - (rows - start) * under :], below[: n * under])
            else:
                under = 0  # nobody asks for the gradient of an image
                _read(images_M_D, rows_B[start : start + n], scale, below)
            into = passed[: n * under]
            into[:] = 0
            weights_X, of_weights_X = turned[first:], of_turned[first:]
            if layer[SIDES] > 0:
                winograd.go_back(
                    below, k == 0, slopes, n, weights_X, layer, of_weights_X, into, room.more
                )
            else:
                _weigh(below, slopes, n, layer, of_weights_X)
                _pass(slopes, n, weights_X, layer, into)
            slopes, passed = passed, slopes
    _turn_all_back(of_turned, table_L_14, of_both[0], room.more)


@njit(cache=True, nogil=True)
def lay_out(images_M_C_H_W, table_L_14):  # type: ignore[no-untyped-def]
    """Return images as the first layer sees them, flat."""
    first = table_L_14[0]
    return winograd.lay_out(images_M_C_H_W, first[DOWN] if first[SIDES] > 0 else 1)


def row_of(
    channels: int,
    filters: int,
    window: tuple[int, ...],
    steps: tuple[int, ...],
    seen: Sequence[int],
    *,
    in_sums: bool,
) -> list[int]:
    """Return the row of a layer in a table.

    Args:
        channels: Of the input.
        filters: How many.
        window: Rows and columns of a filter.
        steps: Down and across.
        seen: Rows and columns of the input.
        in_sums: Whether the input may be summed if that saves multiplications. Errors are then in
            proportion to the largest number of a tile.
    """
    down, across = ((seen[i] - window[i]) // steps[i] + 1 for i in range(2))
    weights = channels * filters * math.prod(window)
    sides = winograd.sides_of(channels, window, steps, (down, across)) if in_sums else 0
    turned = winograd.numbers_of(weights // sides**2) if sides else weights
    made = down, across, down * across * filters
    return [channels, filters, *window, *steps, *seen, *made, weights, sides, turned]


def room_for(size: int, table_L_14: Table) -> Room:
    """Return memory that both ways need for themselves.

    Args:
        size: Numbers of an image.
        table_L_14: The layers.
    """
    most, turned = max(size, int(table_L_14[:, MADE].max())), int(table_L_14[:, TURNED].sum())
    images = max(1, _CHUNK // most)
    more = [int(table_L_14[:, WEIGHTS].max()) + LANES]
    for layer in table_L_14[table_L_14[:, SIDES] > 0].tolist():
        depth = layer[WEIGHTS] // (layer[SIDES] ** 2 * layer[FILTERS])
        made = layer[OUT_HEIGHT], layer[OUT_WIDTH]
        more.append(winograd.room_for(depth, layer[FILTERS], made, layer[SIDES]))
    counts = images * most + LANES, images * most, images * most, turned, turned, max(more)
    return Room(images, *map(aligned, counts))


@njit(cache=True, nogil=True)
def _turn_all(weights, table_L_14, way, turned, room):  # type: ignore[no-untyped-def]
    """Write weights as they are multiplied by."""
    first = begin = 0
    for layer in table_L_14:
        plain, own = weights[first:], turned[begin:]
        if first == 0 and way == _BACKWARD:
            pass  # nobody asks for the gradient of an image
        elif layer[SIDES] > 0:
            _turn(plain, layer, way, room)
            winograd.spread_weights(room, layer, way == _FORWARD, own)
        else:
            _turn(plain, layer, way, own)
        first, begin = first + layer[WEIGHTS], begin + layer[TURNED]


@njit(cache=True, nogil=True)
def _turn_all_back(turned, table_L_14, weights, room):  # type: ignore[no-untyped-def]
    """Write as they lie in torch what is turned forward."""
    first = begin = 0
    for layer in table_L_14:
        own = turned[begin:]
        if layer[SIDES] > 0:
            winograd.gather_weights(own, layer, room)
            own = room
        _turn(own, layer, _BACK, weights[first:])
        first, begin = first + layer[WEIGHTS], begin + layer[TURNED]


@njit(cache=True, nogil=True)
def _turn(weights, layer, way, turned):  # type: ignore[no-untyped-def]
    """Write the weights of a layer in another order."""
    filters, channels, window = layer[FILTERS], layer[CHANNELS], layer[ROWS] * layer[COLUMNS]
    for f in range(filters):
        for c in range(channels):
            for w in range(window):
                plain, ahead = (f * channels + c) * window + w, (w * channels + c) * filters + f
                if way == _FORWARD:
                    turned[ahead] = weights[plain]
                elif way == _BACKWARD:
                    turned[(f * window + w) * channels + c] = weights[plain]
                else:
                    turned[plain] = weights[ahead]


@njit(cache=True, nogil=True)
def _read(images_M_D, rows_B, scale, seen):  # type: ignore[no-untyped-def]
    size = images_M_D.shape[1]
    for b in range(len(rows_B)):
        image_D, seen_D = images_M_D[rows_B[b]], seen[b * size : (b + 1) * size]
        for d in range(size):
            seen_D[d] = np.float32(image_D[d]) * scale


@njit(inline="always")
def _ways(n, layer):  # type: ignore[no-untyped-def]
    """Return three ways through the pixels that a layer makes of n images.

    Each is how many steps there are, and how long one is in the pixels of the output and in the
    numbers of the input. Along the last one go the rows of a tile: from left to right, or, where
    that is too short, from image to image.
    """
    height, width, channels = layer[OUT_HEIGHT], layer[OUT_WIDTH], layer[CHANNELS]
    in_row = layer[IN_WIDTH] * channels
    images = (n, height * width, layer[IN_HEIGHT] * in_row)
    down = (height, width, layer[DOWN] * in_row)
    across = (width, np.int64(1), layer[ACROSS] * channels)
    if 2 * width <= HEIGHT and width < n:
        return down, across, images
    return images, down, across


@njit
def _tiles(n, layer):  # type: ignore[no-untyped-def]
    """Go over the pixels that a layer makes of n images, a tile at a time.

    Each time, say how many rows the tile has, its first pixel, where the first filter's corner lies
    in the input, and the steps of both from row to row.
    """
    outer, inner, (count, out_step, in_step) = _ways(n, layer)
    tall = even(count, HEIGHT)
    for i in range(outer[0]):
        for j in range(inner[0]):
            for t in range(0, count, tall):
                pixel = i * outer[1] + j * inner[1] + t * out_step
                corner = i * outer[2] + j * inner[2] + t * in_step
                yield min(tall, count - t), pixel, corner, out_step, in_step


@njit(cache=True, nogil=True)
def _convolve(below, n, weights, bias_O, layer, above):  # type: ignore[no-untyped-def]
    """Write what a layer makes, and a relu of that."""
    channels, filters = layer[CHANNELS], layer[FILTERS]
    loops = (
        ONCE,
        (layer[ROWS], layer[IN_WIDTH] * channels),
        (layer[COLUMNS] * channels, 1),
    )
    for p in range(0, len(above), filters):
        for f in range(filters):
            above[p + f] = bias_O[f]
    for rows, pixel, corner, out_step, in_step in _tiles(n, layer):
        for f in range(0, filters, WIDTH):
            multiply(
                rows, True, above, (pixel * filters + f, out_step * filters),
                below, (corner, in_step), loops, weights, (f, filters),
            )  # fmt: skip
    for p in range(len(above)):
        if above[p] < np.float32(0):  # which a NaN is not: it stays one
            above[p] = np.float32(0)


@njit(cache=True, nogil=True)
def _through(above, slopes, of_bias_O):  # type: ignore[no-untyped-def]
    """Make gradients with respect to what a relu returned those of what it was given."""
    for p in range(len(above)):
        slopes[p] = slopes[p] if above[p] > np.float32(0) else np.float32(0)
    filters, one = len(of_bias_O), np.ones(1, np.float32)
    loops = (ONCE, ONCE, (len(above) // filters, 0))
    for f in range(0, filters, WIDTH):  # the sum over all pixels
        multiply(1, True, of_bias_O, (f, 0), one, (0, 0), loops, slopes, (f, filters))


@njit(cache=True, nogil=True)
def _weigh(below, slopes, n, layer, of_weights):  # type: ignore[no-untyped-def]
    """Add the gradient with respect to the weights."""
    channels, filters = layer[CHANNELS], layer[FILTERS]
    in_row, run = layer[IN_WIDTH] * channels, layer[COLUMNS] * channels
    loops = (
        (n, layer[IN_HEIGHT] * in_row),
        (layer[OUT_HEIGHT], layer[DOWN] * in_row),
        (layer[OUT_WIDTH], layer[ACROSS] * channels),
    )
    tall = even(run, HEIGHT)
    for row in range(layer[ROWS]):
        for t in range(0, run, tall):
            for f in range(0, filters, WIDTH):
                multiply(
                    min(tall, run - t), True, of_weights, ((row * run + t) * filters + f, filters),
                    below, (row * in_row + t, 1), loops, slopes, (f, filters),
                )  # fmt: skip


@njit(cache=True, nogil=True)
def _pass(slopes, n, weights, layer, passed):  # type: ignore[no-untyped-def]
    """Add the gradient with respect to the input, unless nobody asks for it."""
    if len(passed) == 0:
        return
    channels, filters = layer[CHANNELS], layer[FILTERS]
    in_row, run = layer[IN_WIDTH] * channels, layer[COLUMNS] * channels
    loops = (ONCE, ONCE, (filters, 1))
    for rows, pixel, corner, out_step, in_step in _tiles(n, layer):
        for row in range(layer[ROWS]):
            for c in range(0, run, WIDTH):
                multiply(
                    rows, True, passed, (corner + row * in_row + c, in_step),
                    slopes, (pixel * filters, out_step * filters), loops,
                    weights, (row * run + c, layer[ROWS] * run),
                )  # fmt: skip

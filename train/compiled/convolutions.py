"""Convolutions of images without padding, forward and backward, each followed by a relu.

Images lie in memory row by row and the channels of a pixel side by side, so that what a filter
sees of one row is one run of numbers, which is multiplied where it lies.

A table, `table_L_8`, has a row for each convolution. Weights come as they lie in torch, (filters,
channels, rows, columns), one layer after the other, and are turned to be multiplied by.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .products import HEIGHT, ONCE, WIDTH, add_product, even

CHANNELS, FILTERS, ROWS, COLUMNS, DOWN, ACROSS, IN_HEIGHT, IN_WIDTH = range(8)
"""Columns of a table: of the input, of the output, size of the filter, its steps, and the size
of the input. The number of filters is a multiple of `WIDTH`."""
_FORWARD, _BACKWARD, _BACK = range(3)
"""How weights are turned: from torch's order to (rows, columns, channels, filters), which goes
forward; to (filters, rows, columns, channels), which goes backward; from the former to torch's."""
_CHUNK = 2**16
"""Numbers of a layer that the core's second cache holds beside its weights."""

Table = NDArray[np.int64]


@njit(cache=True, nogil=True)
def forward(images_M_D, rows_B, scale, weights, biases, table_L_8, work, outputs_B_F):  # type: ignore[no-untyped-def]
    """Write what the last relu returns.

    Args:
        images_M_D: Images (height x width x channels), flat, uint8 or float32.
        rows_B: Which of them.
        scale: Multiplies each number of an image.
        weights: Of all layers.
        biases: Of all layers.
        table_L_8: The layers.
        work: Takes what each relu returns, shape (B, height, width, filters), one layer after
            the other, as much as `memory` says for each.
        outputs_B_F: Takes what the last one returns, in the order filters x height x width.
    """
    size, rows, turned = images_M_D.shape[1], len(rows_B), np.empty_like(weights)
    _turn(weights, table_L_8, turned, _FORWARD)
    chunk = max(1, _CHUNK // _most(size, table_L_8))
    seen = np.empty(min(chunk, rows) * size, np.float32)
    for start in range(0, rows, chunk):
        n = min(chunk, rows - start)
        _read(images_M_D, rows_B[start : start + n], scale, seen)
        below, first, bias, begin = seen, 0, 0, 0
        for layer in table_L_8:
            area, filters = _area(layer), layer[FILTERS]
            above = work[begin + start * area * filters :][: n * area * filters]
            _convolve(below, n, turned[first:], biases[bias : bias + filters], layer, above)
            first, bias = first + _weights(layer), bias + filters
            begin += rows * area * filters
            below = above
        for b in range(n):
            for p in range(area):
                for f in range(filters):
                    outputs_B_F[start + b, f * area + p] = below[(b * area + p) * filters + f]


@njit(cache=True, nogil=True)
def backward(images_M_D, rows_B, scale, weights, table_L_8, work, slopes_B_F, of_both):  # type: ignore[no-untyped-def]
    """Write the gradient of a loss with respect to the weights and the biases.

    Args:
        images_M_D: As for `forward`.
        rows_B: As for `forward`.
        scale: As for `forward`.
        weights: Of all layers.
        table_L_8: The layers.
        work: As `forward` left it.
        slopes_B_F: The gradient with respect to `outputs_B_F`.
        of_both: Takes that of the weights and that of the biases.
    """
    size, rows, turned = images_M_D.shape[1], len(rows_B), np.empty_like(weights)
    _turn(weights, table_L_8, turned, _BACKWARD)
    of_weights, of_biases = np.zeros_like(weights), of_both[1]
    of_biases[:] = 0
    most = _most(size, table_L_8)
    chunk = max(1, _CHUNK // most)  # so many images go through all layers together
    room = min(chunk, rows) * most
    seen, slopes = np.empty(room, np.float32), np.empty(room, np.float32)
    passed = np.empty(room, np.float32)
    for start in range(0, rows, chunk):
        n = min(chunk, rows - start)
        last = table_L_8[-1]
        area, filters = _area(last), last[FILTERS]
        for b in range(n):
            for p in range(area):
                for f in range(filters):
                    slopes[(b * area + p) * filters + f] = slopes_B_F[start + b, f * area + p]
        begin, first, bias = len(work), len(of_weights), len(of_biases)
        for k in range(len(table_L_8) - 1, -1, -1):
            layer = table_L_8[k]
            area, filters = _area(layer), layer[FILTERS]
            begin -= rows * area * filters
            first, bias = first - _weights(layer), bias - filters
            above = work[begin + start * area * filters :][: n * area * filters]
            _through(above, slopes, of_biases[bias : bias + filters])
            if k == 0:
                _read(images_M_D, rows_B[start : start + n], scale, seen)
                _weigh(seen, slopes, n, layer, of_weights[first:])
                continue
            under = layer[IN_HEIGHT] * layer[IN_WIDTH] * layer[CHANNELS]
            below = work[begin - (rows - start) * under :]
            _weigh(below, slopes, n, layer, of_weights[first:])
            passed[: n * under] = 0
            _pass(slopes, n, turned[first:], layer, passed)
            slopes, passed = passed, slopes
    _turn(of_weights, table_L_8, of_both[0], _BACK)


@njit(cache=True, nogil=True)
def lay_out(images_M_C_P, laid_M_D):  # type: ignore[no-untyped-def]
    """Write images (channels x pixels) with the channels of a pixel side by side."""
    count, channels, pixels = images_M_C_P.shape
    for m in range(count):
        for c in range(channels):
            for p in range(pixels):
                laid_M_D[m, p * channels + c] = images_M_C_P[m, c, p]


@njit(cache=True, nogil=True)
def memory(table_L_8: Table) -> int:
    """Return how many numbers `work` holds for an image."""
    total = 0
    for layer in table_L_8:
        total += _area(layer) * layer[FILTERS]
    return int(total)


@njit(cache=True, nogil=True)
def features(table_L_8: Table) -> int:
    """Return how many numbers come out for an image."""
    return int(_area(table_L_8[-1]) * table_L_8[-1, FILTERS])


@njit(inline="always")
def _area(layer):  # type: ignore[no-untyped-def]
    """Return the number of pixels that a layer makes."""
    return _up(layer) * _along(layer)


@njit(inline="always")
def _up(layer):  # type: ignore[no-untyped-def]
    return (layer[IN_HEIGHT] - layer[ROWS]) // layer[DOWN] + 1


@njit(inline="always")
def _along(layer):  # type: ignore[no-untyped-def]
    return (layer[IN_WIDTH] - layer[COLUMNS]) // layer[ACROSS] + 1


@njit(inline="always")
def _weights(layer):  # type: ignore[no-untyped-def]
    return layer[ROWS] * layer[COLUMNS] * layer[CHANNELS] * layer[FILTERS]


@njit(cache=True, nogil=True)
def _most(size, table_L_8):  # type: ignore[no-untyped-def]
    """Return how many numbers the largest of an image and what the layers make of it has."""
    most = size
    for layer in table_L_8:
        most = max(most, _area(layer) * layer[FILTERS])
    return most


@njit(cache=True, nogil=True)
def _turn(weights, table_L_8, turned, way):  # type: ignore[no-untyped-def]
    """Write weights in another order."""
    first = 0
    for layer in table_L_8:
        filters, channels = layer[FILTERS], layer[CHANNELS]
        window = layer[ROWS] * layer[COLUMNS]
        for f in range(filters):
            for c in range(channels):
                for w in range(window):
                    plain = first + (f * channels + c) * window + w
                    ahead = first + (w * channels + c) * filters + f
                    if way == _FORWARD:
                        turned[ahead] = weights[plain]
                    elif way == _BACKWARD:
                        turned[first + (f * window + w) * channels + c] = weights[plain]
                    else:
                        turned[plain] = weights[ahead]
        first += _weights(layer)


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
    height, width, channels = _up(layer), _along(layer), layer[CHANNELS]
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
    """Write what the relu above a layer returns."""
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
            add_product(
                rows, above, (pixel * filters + f, out_step * filters),
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
        add_product(1, of_bias_O, (f, 0), one, (0, 0), loops, slopes, (f, filters))


@njit(cache=True, nogil=True)
def _weigh(below, slopes, n, layer, of_weights):  # type: ignore[no-untyped-def]
    """Add the gradient with respect to the weights."""
    channels, filters = layer[CHANNELS], layer[FILTERS]
    in_row, run = layer[IN_WIDTH] * channels, layer[COLUMNS] * channels
    loops = (
        (n, layer[IN_HEIGHT] * in_row),
        (_up(layer), layer[DOWN] * in_row),
        (_along(layer), layer[ACROSS] * channels),
    )
    tall = even(run, HEIGHT)
    for row in range(layer[ROWS]):
        for t in range(0, run, tall):
            for f in range(0, filters, WIDTH):
                add_product(
                    min(tall, run - t), of_weights, ((row * run + t) * filters + f, filters),
                    below, (row * in_row + t, 1), loops, slopes, (f, filters),
                )  # fmt: skip


@njit(cache=True, nogil=True)
def _pass(slopes, n, weights, layer, passed):  # type: ignore[no-untyped-def]
    """Add the gradient with respect to the input."""
    channels, filters = layer[CHANNELS], layer[FILTERS]
    in_row, run = layer[IN_WIDTH] * channels, layer[COLUMNS] * channels
    loops = (ONCE, ONCE, (filters, 1))
    for rows, pixel, corner, out_step, in_step in _tiles(n, layer):
        for row in range(layer[ROWS]):
            for c in range(0, run, WIDTH):
                add_product(
                    rows, passed, (corner + row * in_row + c, in_step),
                    slopes, (pixel * filters, out_step * filters), loops,
                    weights, (row * run + c, layer[ROWS] * run),
                )  # fmt: skip

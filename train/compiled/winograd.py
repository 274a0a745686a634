"""Convolutions with fewer multiplications, by the minimal algorithms of Winograd.

Idea: 3 x 3 weights with steps of 1 make 2 x 2 numbers of 4 x 4 with 36 multiplications, but 16 are
enough: 4 x 4 sums of what is seen, times 4 x 4 sums of the weights, have the numbers as sums. 2 x 2
weights make 3 x 3 numbers of 4 x 4 with as many. A filter that is two or three times as large as
its steps is one of these, which sees as one cell the pixels that a step passes over. For all
channels and filters the 16 multiplications are products of matrices, and so are they on the way
back, on which each sum is gone through from its other end (Lavin and Gray, 2016, arXiv:1509.09308;
the points are 0, 1, -1 and infinity).

Planes have, for each of the 16, as many rows of numbers as there are tiles of 4 x 4 cells, those of
one column of all images after those of another. Behind each is room for one vector more, as the
last one of a row need not be a whole one.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from .products import LANES, multiply_all
from .sums import Kind, Matrix, are_zero, summing
from .windows import (
    CHANNELS,
    DOWN,
    FILTERS,
    IN_HEIGHT,
    IN_WIDTH,
    OUT_HEIGHT,
    OUT_WIDTH,
    ROWS,
    SIDES,
)

_SIDE = 4
_PLANES = _SIDE**2
_GAIN = 0.75
"""At most so many of the multiplications may be left, or the sums take what is gained."""
_LEAST = 16
"""Fewest numbers of a cell, for the same reason."""
_TILES = 64
"""So many are seen to at a time, whose planes the core's second cache holds if filters are few."""

_OF_SEEN: Matrix = (1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)
_OF_MADE: dict[int, Matrix] = {
    2: ((1, 1, 1, 0), (0, 1, -1, -1)),
    3: ((1, 1, 1, 0), (0, 1, -1, 0), (0, 1, 1, -1)),
}
"""By how many cells a tile makes, down and across."""
_OF_WEIGHTS: dict[int, Matrix] = {
    2: ((1, 0), (0.5, 0.5), (0.5, -0.5), (0, 1)),
    3: ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1)),
}
"""By how many cells a filter has, down and across."""


_SEEN, _MADE, _WEIGHTS = 1, 0, 2
"""Which sums are taken: of what is seen, and, if the side of a tile is added, of the others."""


class _Cells(NamedTuple):
    """How images of cells lie in memory. A cell has some runs of numbers, each in its own row."""

    sums: int
    side: int
    """Cells of a tile, down and across."""
    step: int
    """Cells from one tile to the next."""
    height: int
    width: int
    runs: int
    run: int
    row: int
    """Numbers of a row of an image."""
    size: int
    """Numbers of an image."""
    down: int
    """Rows of tiles of an image."""
    across: int
    """Tiles of such a row."""


class _Part(NamedTuple):
    """Rows of tiles that are seen to at a time: the first rows of all images come first."""

    images: int
    first: int
    """The first row."""
    rows: int
    """How many."""
    tiles: int
    lines: int
    """Of the lines of planes, so many: the last line is for what would lie below an image."""
    short: int
    """So many tiles have no last column of planes, as that is for what would lie beside it."""


def sides_of(
    channels: int, window: tuple[int, ...], steps: tuple[int, ...], made: tuple[int, int]
) -> int:
    """Return how many cells a filter has down and across; 0 if nothing is gained.

    Args:
        channels: Of an image.
        window: Rows and columns of the filter.
        steps: Down and across.
        made: Rows and columns that it makes.
    """
    step, sides = steps[0], window[0] // steps[0]
    if window != (sides * step,) * 2 or steps != (step,) * 2 or sides not in _OF_WEIGHTS:
        return 0
    tiles = math.prod(-(-length // (_SIDE + 1 - sides)) for length in made)
    is_less = _PLANES * tiles <= _GAIN * math.prod(made) * sides**2
    return sides if is_less and step * step * channels >= _LEAST else 0


def numbers_of(each: int) -> int:
    """Return how many numbers planes have together, by those of each."""
    return _PLANES * (each + LANES)


def room_for(depth: int, filters: int, made: tuple[int, int], sides: int) -> int:
    """Return how many numbers of memory `convolve` and `go_back` need for themselves.

    Args:
        depth: Numbers of a cell.
        filters: How many.
        made: Rows and columns that they make.
        sides: How many cells a filter has down and across.
    """
    across = -(-made[1] // (_SIDE + 1 - sides))
    return 2 * numbers_of(max(_TILES, across) * max(depth, filters))


@njit(cache=True, nogil=True)
def lay_out(images_M_C_H_W, step):  # type: ignore[no-untyped-def]
    """Return images cell by cell, flat, the numbers of each as rows x columns x channels.

    Args:
        images_M_C_H_W: The images. What is too little for a cell is left out.
        step: Rows and columns of a cell.
    """
    count, channels, height, width = images_M_C_H_W.shape
    down, across = height // step, width // step
    line, cell = step * channels, step * step * channels
    laid_M_D = np.empty((count, down * across * cell), images_M_C_H_W.dtype)
    places_W = np.array([w // step * cell + w % step * channels for w in range(across * step)])
    for m in range(count):
        for h in range(down * step):
            first = h // step * across * cell + h % step * line
            for c in range(channels):
                for w, place in enumerate(places_W):
                    laid_M_D[m, first + place + c] = images_M_C_H_W[m, c, h, w]
    return laid_M_D


@njit(cache=True, nogil=True)
def spread_weights(weights, layer, is_forward, planes):  # type: ignore[no-untyped-def]
    """Write planes of weights.

    Args:
        weights: In the order (rows, columns, channels, filters) forward, else (filters, rows,
            columns, channels).
        layer: A row of a table.
        is_forward: Which of these.
        planes: Takes them, of channels x filters forward, else of filters x channels.
    """
    count = 1 if is_forward else layer[FILTERS]
    _spread(weights, _of_weights(layer, is_forward), _whole(count), planes)


@njit(cache=True, nogil=True)
def gather_weights(planes, layer, of_weights):  # type: ignore[no-untyped-def]
    """Write the gradient with respect to weights, which lie as they do forward."""
    _gather(planes, _of_weights(layer, True), _whole(1), of_weights, of_weights)


@njit(cache=True, nogil=True)
def convolve(below, are_cells, n, planes, bias_O, layer, above, room):  # type: ignore[no-untyped-def]
    """Write what a layer makes of n images, and a relu of that.

    Args:
        below: The images, and room for a vector behind them.
        are_cells: Whether they lie as `lay_out` lays them.
        n: How many images.
        planes: Of the weights, forward.
        bias_O: One for each filter.
        layer: A row of a table.
        above: Takes what is made.
        room: Memory, as `room_for` says.
    """
    seen, made = _of_layer(layer, are_cells)
    depth, filters = seen.runs * seen.run, made.run
    of_seen, of_made = _halves(room)
    for part in _parts(n, made):
        _spread(below, seen, part, of_seen)
        for p in range(_PLANES):
            multiply_all(
                (_tiles_of(part, p), depth, filters), False,
                of_made, (_start(p, part.tiles, filters), filters),
                of_seen, (_start(p, part.tiles, depth), depth, 1),
                planes, (_start(p, depth, filters), filters),
            )  # fmt: skip
        _gather(of_made, made, part, bias_O, above)
    _clear(below, seen, made, n, bias_O, above)


@njit(cache=True, nogil=True)
def go_back(below, are_cells, slopes, n, planes, layer, of_weights, passed, room):  # type: ignore[no-untyped-def]
    """Add the gradients with respect to the weights and to what was seen.

    Args:
        below: As for `convolve`.
        are_cells: As for `convolve`.
        slopes: The gradient with respect to what was made.
        n: How many images.
        planes: Of the weights, backward.
        layer: A row of a table.
        of_weights: The planes that the former is added to.
        passed: What the latter is added to; empty if nobody asks for it.
        room: As for `convolve`.
    """
    seen, made = _of_layer(layer, are_cells)
    depth, filters = seen.runs * seen.run, made.run
    of_seen, of_made = _halves(room)
    for part in _parts(n, made):
        _spread(below, seen, part, of_seen)
        _spread(slopes, made, part, of_made)
        for p in range(_PLANES):
            tiles, of_plane = _tiles_of(part, p), _start(p, depth, filters)
            at_seen, at_made = _start(p, part.tiles, depth), _start(p, part.tiles, filters)
            multiply_all(
                (depth, tiles, filters), True, of_weights, (of_plane, filters),
                of_seen, (at_seen, 1, depth), of_made, (at_made, filters),
            )  # fmt: skip
            if len(passed) > 0:
                multiply_all(
                    (tiles, filters, depth), False, of_seen, (at_seen, depth),
                    of_made, (at_made, filters, 1), planes, (of_plane, depth),
                )  # fmt: skip
                of_seen[at_seen + tiles * depth :][: (part.tiles - tiles) * depth] = 0
        if len(passed) > 0:
            _gather(of_seen, seen, part, passed, passed)


@njit(cache=True, nogil=True)
def _clear(below, seen, made, n, bias_O, above):  # type: ignore[no-untyped-def]
    """Write the relu of the bias alone where filters see nothing but zeros.

    What lies beside them has been summed with them, and leaves something of the size of its last
    digit; where there is no bias, a relu would pass the half of it, and its slope as a whole.
    """
    sides = seen.height - made.height + 1
    is_dark = np.empty(seen.height * seen.width, np.bool_)
    for b in range(n):
        for row in range(seen.height):
            for column in range(seen.width):
                start = b * seen.size + row * seen.runs * seen.row + column * seen.run
                is_dark[row * seen.width + column] = _are_zero(below, start, seen)
        for row in range(made.height):
            for column in range(made.width):
                if not is_dark[row * seen.width + column]:
                    continue
                is_night = True
                for r in range(row, row + sides):
                    for c in range(column, column + sides):
                        is_night = is_night and is_dark[r * seen.width + c]
                if is_night:
                    pixel = b * made.size + row * made.row + column * made.run
                    for f in range(made.run):  # a weight that is no number is not hidden
                        alone = bias_O[f] + np.float32(0) * above[pixel + f]
                        above[pixel + f] = np.float32(0) if alone < np.float32(0) else alone


@njit
def _are_zero(cells, start, of):  # type: ignore[no-untyped-def]
    """Tell whether the numbers of a cell are 0."""
    vectors = of.run // LANES
    for first in range(start, start + of.runs * of.row, of.row):
        if vectors > 0 and not are_zero(vectors, cells, first):  # type: ignore[call-arg]
            return False
        for i in range(first + vectors * LANES, first + of.run):
            if cells[i] != 0:
                return False
    return True


@njit
def _halves(room):  # type: ignore[no-untyped-def]
    return room[: len(room) // 2], room[len(room) // 2 :]


@njit
def _of_layer(layer, are_cells):  # type: ignore[no-untyped-def]
    """Return the cells that a layer sees, and those that it makes."""
    step, sides, filters = layer[DOWN], layer[SIDES], layer[FILTERS]
    high, wide = layer[OUT_HEIGHT], layer[OUT_WIDTH]
    side = _SIDE + 1 - sides
    down, across = -(-high // side), -(-wide // side)
    runs, run = step, step * layer[CHANNELS]
    row, rows = layer[IN_WIDTH] * layer[CHANNELS], layer[IN_HEIGHT]
    if are_cells:
        row, rows = row // run * run * step, rows // step
        runs, run = 1, run * step
    seen = _Cells(
        _SEEN, _SIDE, side, high + sides - 1, wide + sides - 1,
        runs, run, row, rows * row, down, across,
    )  # fmt: skip
    made = _Cells(
        _MADE + side, side, side, high, wide,
        1, filters, wide * filters, high * wide * filters, down, across,
    )  # fmt: skip
    return seen, made


@njit
def _of_weights(layer, is_forward):  # type: ignore[no-untyped-def]
    """Return the cells of the weights: one image forward, else an image for each filter."""
    step, sides = layer[DOWN], layer[SIDES]
    run = step * layer[CHANNELS] * (layer[FILTERS] if is_forward else 1)
    row = sides * run
    return _Cells(
        _WEIGHTS + sides, sides, sides, sides, sides,
        step, run, row, layer[ROWS] * row, 1, 1,
    )  # fmt: skip


@njit
def _parts(n, made):  # type: ignore[no-untyped-def]
    """Go over the tiles of images, at most `_TILES` at a time if a row has not more."""
    rows, most = n * made.down, max(1, _TILES // made.across)
    short = made.width % made.side > 0
    edge = n * (made.down - 1) if made.height % made.side > 0 else rows
    for begin, end, lines in ((0, edge, _SIDE), (edge, rows, _SIDE - 1)):
        for row in range(begin, end, most):
            count = min(most, end - row)
            yield _Part(n, row, count, count * made.across, lines, count if short else 0)


@njit
def _whole(images):  # type: ignore[no-untyped-def]
    """Return the part that is all there is of images of one tile."""
    return _Part(images, 0, images, images, _SIDE, 0)


@njit
def _tiles_of(part, p):  # type: ignore[no-untyped-def]
    """Return how many tiles a plane has, which come first in it."""
    if p // _SIDE >= part.lines:
        return 0
    return part.tiles - part.short if p % _SIDE == _SIDE - 1 else part.tiles


@njit
def _start(p, rows, columns):  # type: ignore[no-untyped-def]
    """Return where a plane lies."""
    return p * (rows * columns + LANES)


# From cells to planes and back


@njit(cache=True, nogil=True)
def _spread(cells, of, part, planes):  # type: ignore[no-untyped-def]
    """Write planes of some rows of tiles.

    Args:
        cells: Images of them. Beyond their edges are zeros.
        of: How they lie.
        part: Which rows of tiles.
        planes: Takes them; a tile is a row.
    """
    vectors = -(-of.run // LANES)  # what the last one has too many, the next run writes over
    beyond = np.zeros(vectors * LANES, np.float32)
    for tile in range(part.tiles):
        for run in range(of.runs):
            square, into = _places(of, part, tile, run)
            _spread_sums(of.sums, vectors, cells, square, planes, into, beyond, beyond)


@njit(cache=True, nogil=True)
def _gather(planes, of, part, bias, cells):  # type: ignore[no-untyped-def]
    """Do the reverse, where runs are whole vectors: add to what is seen, and write the rest.

    Args:
        planes: As for `_spread`.
        of: As for `_spread`.
        part: As for `_spread`.
        bias: Is added to what is made, a number for each filter; not read for other cells.
        cells: Take the sums.
    """
    vectors = of.run // LANES
    beyond = np.zeros(of.run, np.float32)
    for tile in range(part.tiles):
        for run in range(of.runs):
            square, begin = _places(of, part, tile, run)
            _gather_sums(of.sums, vectors, planes, begin, cells, square, beyond, bias)


@njit
def _places(of, part, tile, run):  # type: ignore[no-untyped-def]
    """Return where a run of a tile lies in cells, and where in planes, as `summing` takes them.

    At the edge of an image, a tile has less rows or columns of cells than elsewhere.
    """
    row, j = part.first + tile % part.rows, tile // part.rows * of.step
    image, i = row % part.images, row // part.images * of.step
    begin = image * of.size + (i * of.runs + run) * of.row + j * of.run
    rows, columns = min(of.side, of.height - i), min(of.side, of.width - j)
    depth = of.runs * of.run
    plane = _start(1, part.tiles, depth)
    square = begin, of.runs * of.row, of.run, rows, columns
    return square, (tile * depth + run * of.run, _SIDE * plane, plane)


def _turned(matrix: Matrix) -> Matrix:
    return list(zip(*matrix, strict=True))


_spread_sums = summing(
    Kind(_OF_SEEN),
    *(Kind(_turned(_OF_MADE[side])) for side in (2, 3)),
    *(Kind(_OF_WEIGHTS[side]) for side in (2, 3)),
)
_gather_sums = summing(
    Kind(_turned(_OF_SEEN), adds=True),
    *(Kind(_OF_MADE[side], ends_layer=True) for side in (2, 3)),
    *(Kind(_turned(_OF_WEIGHTS[side])) for side in (2, 3)),
)

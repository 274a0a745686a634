"""Kernels of convolutions, which look at no bounds, keep to their memory."""

import numpy as np
import pytest
from palaestra.train.compiled.convolutions import Room, backward, forward, lay_out, room_for, row_of
from palaestra.train.compiled.products import IS_FAST
from palaestra.train.compiled.windows import MADE, OUT_HEIGHT, OUT_WIDTH, WEIGHTS

pytestmark = pytest.mark.skipif(not IS_FAST, reason="left to torch on such a core")
GUARD = 64
NATURE = [(32, 8, 4), (64, 4, 2), (64, 3, 1)]
"""Filters, their side, and the steps of each layer."""


class Guarded:
    """Arrays that begin as NaNs, with NaNs before and behind them."""

    def __init__(self) -> None:
        self._whole: list[np.ndarray] = []

    def array(self, *shape: int) -> np.ndarray:
        size = int(np.prod(shape))
        self._whole.append(np.full(size + 2 * GUARD, np.nan, np.float32))
        return self._whole[-1][GUARD : GUARD + size].reshape(shape)

    def are_whole(self) -> bool:
        return all(np.isnan(end).all() for a in self._whole for end in (a[:GUARD], a[-GUARD:]))


@pytest.mark.parametrize("in_sums", [True, False])
@pytest.mark.parametrize(
    ("layers", "channels", "height", "width"),
    [
        (NATURE, 4, 84, 84),
        (NATURE, 3, 37, 38),  # what is too little for a step is left out
        ([(32, 2, 1), (32, 3, 1)], 17, 8, 300),  # more tiles in a row than are seen to at a time
        ([(32, 6, 2), (64, 2, 1)], 5, 30, 20),  # runs that are no whole vectors
        ([(32, 9, 3)], 2, 40, 40),
    ],
)
def test_what_lies_beside_stays(
    layers: list[tuple[int, int, int]], channels: int, height: int, width: int, in_sums: bool
) -> None:
    table, below, size = [], channels, [height, width]
    for filters, side, step in layers:
        table.append(row_of(below, filters, (side,) * 2, (step,) * 2, size, in_sums=in_sums))
        below, size = filters, [table[-1][OUT_HEIGHT], table[-1][OUT_WIDTH]]
    rows, kept, rng = np.array(table), Guarded(), np.random.default_rng(0)
    images = rng.integers(0, 256, (5, channels, height, width), np.uint8)
    laid, chosen = lay_out(images, rows), np.array([4, 1, 1, 0, 3])
    count, scale = len(chosen), np.float32(1 / 255)

    most, *parts = room_for(laid.shape[1], rows)
    room = Room(min(2, most), *(kept.array(len(part)) for part in parts))  # in some chunks
    weights, biases = kept.array(rows[:, WEIGHTS].sum()), kept.array(sum(f for f, *_ in layers))
    work = kept.array(count * rows[:, MADE].sum())
    outputs, slopes = (kept.array(count, rows[-1, MADE]) for _ in range(2))
    of_both = kept.array(len(weights)), kept.array(len(biases))
    for given in (weights, biases, slopes):
        given[...] = rng.standard_normal(given.shape)
    forward(laid, chosen, scale, weights, biases, rows, work, outputs, room)
    backward(laid, chosen, scale, weights, rows, work, slopes, of_both, room)
    assert kept.are_whole()
    assert all(np.isfinite(found).all() for found in (outputs, *of_both))

"""Convolutions with fewer multiplications make what others make."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from palaestra.train.compiled import winograd
from palaestra.train.compiled.convolutions import row_of
from palaestra.train.compiled.products import IS_FAST, LANES, WIDTH
from palaestra.train.compiled.windows import SIDES, TURNED, WEIGHTS
from torch.nn import functional as F

NATURE = [
    ((4, 32, (8, 8), (4, 4), (84, 84)), 2),
    ((32, 64, (4, 4), (2, 2), (20, 20)), 2),
    ((64, 64, (3, 3), (1, 1), (9, 9)), 3),
]


def empty(*shape: int) -> np.ndarray:
    return np.full(shape, np.nan, np.float32)


@pytest.mark.parametrize(("layer", "sides"), NATURE)
def test_layers_of_natures_network_are_of_these(layer: tuple, sides: int) -> None:
    row = row_of(*layer, in_sums=True)
    assert row[SIDES] == sides
    assert row[TURNED] >= 16 * row[WEIGHTS] // sides**2
    assert row_of(*layer, in_sums=False)[SIDES] == 0


@pytest.mark.parametrize(
    ("channels", "window", "steps", "made"),
    [
        (64, (3, 3), (1, 1), (1, 1)),  # 16 multiplications for 9
        (64, (3, 3), (2, 2), (9, 9)),
        (64, (4, 4), (1, 1), (9, 9)),
        (64, (2, 2), (3, 3), (9, 9)),
        (64, (2, 3), (1, 1), (9, 9)),
        (64, (4, 4), (2, 1), (9, 9)),
        (3, (3, 3), (1, 1), (9, 9)),  # too few numbers to sum
    ],
)
def test_layers_that_gain_nothing_are_not(
    channels: int, window: tuple[int, int], steps: tuple[int, int], made: tuple[int, int]
) -> None:
    assert winograd.sides_of(channels, window, steps, made) == 0


@pytest.mark.parametrize("sides", [2, 3])
def test_sums_are_those_of_a_convolution(sides: int) -> None:
    of_seen, of_weights = np.array(winograd._OF_SEEN), np.array(winograd._OF_WEIGHTS[sides])
    of_made = np.array(winograd._OF_MADE[5 - sides])
    for weights in np.eye(sides):
        for seen in np.eye(4):  # a bilinear map is known by these
            found = of_made @ ((of_weights @ weights) * (of_seen @ seen))
            np.testing.assert_array_equal(found, np.correlate(seen, weights))


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(3, 14), st.integers(3, 14)),
    step=st.integers(1, 3),
    dtype=st.sampled_from([np.uint8, np.float32]),
)
def test_cells_hold_the_pixels_that_a_step_passes_over(
    shape: tuple[int, int, int, int], step: int, dtype: type
) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    count, channels, height, width = shape
    down, across = height // step, width // step
    whole = images[:, :, : down * step, : across * step]
    cells = whole.reshape(count, channels, down, step, across, step).transpose(0, 2, 4, 3, 5, 1)
    laid = winograd.lay_out(images, step)
    assert laid.dtype == dtype
    np.testing.assert_array_equal(laid, cells.reshape(count, -1))


@st.composite
def layers(draw: st.DrawFn) -> tuple[list[int], tuple[int, int]]:
    """Draw a layer, and how many rows and columns of an image it passes over at the end."""
    sides, step = draw(st.sampled_from([2, 3])), draw(st.integers(1, 4))
    few = st.integers(-(-winograd._LEAST // step**2), 20)
    channels = draw(few | st.sampled_from([32, 64]))
    filters = draw(st.sampled_from([32, 64]))
    made = draw(st.tuples(st.integers(2, 9), st.integers(2, 9)))
    over = draw(st.tuples(*[st.integers(0, step - 1)] * 2))
    seen = [(length - 1 + sides) * step + more for length, more in zip(made, over, strict=True)]
    row = row_of(channels, filters, (sides * step,) * 2, (step, step), seen, in_sums=True)
    return row, made


@pytest.mark.skipif(not IS_FAST, reason="left to torch on such a core")
@given(drawn=layers(), count=st.integers(1, 9), are_cells=st.booleans(), seed=st.integers(0, 99))
def test_a_layer_is_what_it_is_in_torch(
    drawn: tuple[list[int], tuple[int, int]], count: int, are_cells: bool, seed: int
) -> None:
    row, made = drawn
    channels, filters, side, _, step, _, *size = row[:8]
    sides = row[SIDES]
    assume(sides > 0)
    layer, rng = np.array(row, np.int64), np.random.default_rng(seed)

    def numbers(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    images, weights = numbers(count, channels, *size), numbers(filters, channels, side, side)
    bias, slopes = numbers(filters), numbers(count, *made, filters)
    laid = winograd.lay_out(images, step if are_cells else 1)
    below = np.append(laid, empty(LANES))
    depth = step**2 * channels
    room = empty(winograd.room_for(depth, filters, made, sides))
    ahead, back = empty(row[TURNED]), empty(row[TURNED])
    winograd.spread_weights(weights.transpose(2, 3, 1, 0).ravel(), layer, True, ahead)
    above = empty(slopes.size)
    winograd.convolve(below, are_cells, count, ahead, bias, layer, above, room)

    seen = torch.tensor(images, dtype=torch.float64, requires_grad=True)
    exact = torch.tensor(weights, dtype=torch.float64, requires_grad=True)
    expected = F.conv2d(seen, exact, torch.tensor(bias, dtype=torch.float64), step)
    close(above.reshape(slopes.shape).transpose(0, 3, 1, 2), expected.relu())

    # Nobody asks what the first layer passes; what others see are filters.
    is_first = are_cells or channels % WIDTH > 0
    if not is_first:
        lying = weights.transpose(0, 2, 3, 1).ravel()
        winograd.spread_weights(lying, layer, False, back)
    of_planes, of_weights = np.zeros_like(ahead), empty(row[WEIGHTS])
    passed = np.zeros(0 if is_first else laid.size, np.float32)
    winograd.go_back(below, are_cells, slopes.ravel(), count, back, layer, of_planes, passed, room)
    winograd.gather_weights(of_planes, layer, of_weights)
    gradient = torch.tensor(slopes.transpose(0, 3, 1, 2), dtype=torch.float64)
    of_seen, of_exact = torch.autograd.grad(expected, (seen, exact), gradient)
    close(of_weights.reshape(side, side, channels, filters).transpose(3, 2, 0, 1), of_exact)
    if not is_first:
        close(passed.reshape(count, *size, channels).transpose(0, 3, 1, 2), of_seen)


def close(found: np.ndarray, expected: torch.Tensor) -> None:
    exact = expected.numpy(force=True)
    assert np.linalg.norm(found - exact) <= 2e-6 * np.linalg.norm(exact)

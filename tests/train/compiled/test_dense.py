"""A dense layer says, and passes back, what it does in torch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from palaestra.train.compiled import dense
from palaestra.train.compiled.products import IS_FAST, LANES, WIDTH

pytestmark = pytest.mark.skipif(not IS_FAST, reason="left to torch on such a core")
GUARD = np.float32(7)


def guarded(*shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Return memory to write to, within memory that nobody is to write to."""
    count = int(np.prod(shape))
    whole = np.full(count + 2 * LANES, GUARD, np.float32)
    inner = whole[LANES : LANES + count]
    inner[:] = np.nan
    return whole, inner.reshape(shape)


def is_untouched(whole: np.ndarray) -> bool:
    return bool((whole[:LANES] == GUARD).all() and (whole[-LANES:] == GUARD).all())


@given(
    tiles=st.integers(1, 3),
    inputs=st.integers(1, 1000),
    outputs=st.integers(1, 60),
    seed=st.integers(0, 99),
)
def test_a_layer_says_what_it_does_in_torch(
    tiles: int, inputs: int, outputs: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    told = rng.standard_normal((tiles * WIDTH, inputs), np.float32)
    weights, bias = rng.standard_normal((outputs, inputs), np.float32), rng.random(outputs)
    (outside, said), (beside, room) = (
        guarded(len(told), outputs),
        guarded(dense.room_for(inputs, outputs)),
    )
    dense.forward(told, weights.ravel(), bias.astype(np.float32), said, room)
    exact = told.astype(np.float64) @ weights.T + bias
    assert np.linalg.norm(said - exact) <= 1e-6 * np.linalg.norm(exact)
    assert is_untouched(outside)
    assert is_untouched(beside)


@given(
    rows=st.integers(1, 40),
    inputs=st.integers(1, 30),
    outputs=st.integers(1, 60),
    part=st.tuples(st.integers(0, 29), st.integers(1, 30)),
    seed=st.integers(0, 99),
)
def test_some_inputs_are_passed_what_they_are_in_torch(
    rows: int, inputs: int, outputs: int, part: tuple[int, int], seed: int
) -> None:
    first = min(part[0], inputs - 1)
    begin, end = first * WIDTH, min(first + part[1], inputs) * WIDTH
    rng = np.random.default_rng(seed)
    slopes = rng.standard_normal((rows, outputs), np.float32)
    weights = rng.standard_normal((outputs, inputs * WIDTH), np.float32)
    (outside, passed), (beside, room) = (
        guarded(rows, inputs * WIDTH),
        guarded(dense.room_for(inputs * WIDTH, outputs)),
    )
    dense.backward(slopes, weights.ravel(), begin, end, passed, room)
    exact = slopes.astype(np.float64) @ weights
    error = passed[:, begin:end] - exact[:, begin:end]
    assert np.linalg.norm(error) <= 1e-6 * np.linalg.norm(exact[:, begin:end])
    assert np.isnan(passed[:, :begin]).all()
    assert np.isnan(passed[:, end:]).all()
    assert is_untouched(outside)
    assert is_untouched(beside)

"""Products with mixtures of matrices, and what their parts owe of the gradient."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from palaestra.train.compiled.mixtures import (
    MIXED_HEIGHT,
    PARTED_HEIGHT,
    PARTED_WIDTH,
    add_mixed_product,
    add_parted_products,
)
from palaestra.train.compiled.products import WIDTH

STEPS = st.integers(0, 40)
SEEDS = st.integers(0, 2**32 - 1)
PLACES = st.lists(STEPS, min_size=5, max_size=5)


def numbers(rng: np.random.Generator, size: int) -> np.ndarray:
    return rng.standard_normal(size).astype(np.float32)


@given(
    rows=st.integers(1, MIXED_HEIGHT), terms=st.integers(1, 20), steps=PLACES, starts=PLACES,
    seed=SEEDS,
)  # fmt: skip
def test_a_mixture_is_multiplied_by_as_if_it_had_been_made(
    rows: int, terms: int, steps: list[int], starts: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    apart, row_step = WIDTH + steps[0], steps[1]
    left = numbers(rng, 40 + max((rows - 1) * row_step, 0) + terms)
    product = numbers(rng, starts[0] + rows * apart)
    parts = numbers(rng, 40 + terms * WIDTH)
    x, y = (left[at : at + terms, None].astype(np.float64) for at in starts[1:3])
    a, b, c = (parts[at:][: terms * WIDTH].reshape(terms, WIDTH) for at in steps[2:])
    factors = np.stack([left[starts[3] + r * row_step :][:terms] for r in range(rows)])
    expected = product.astype(np.float64)
    expected[starts[0] :].reshape(rows, apart)[:, :WIDTH] += factors @ (a + x * b + y * c)
    add_mixed_product(
        rows, product, (starts[0], apart), left, (starts[3], row_step), terms,
        (starts[1], starts[2]), parts, tuple(steps[2:]),
    )  # fmt: skip
    np.testing.assert_allclose(product, expected, rtol=1e-5, atol=1e-4)


@given(
    rows=st.integers(1, PARTED_HEIGHT), times=st.integers(1, 5), terms=st.integers(1, 7),
    starts=PLACES, seed=SEEDS,
)  # fmt: skip
def test_each_part_gets_what_its_factors_leave(
    rows: int, times: int, terms: int, starts: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    step = PARTED_WIDTH + starts[3]
    apart = rows * step + starts[4]
    left = numbers(rng, starts[0] + times * terms * PARTED_HEIGHT)
    right = numbers(rng, starts[1] + times * (2 + terms) * PARTED_WIDTH)
    products = numbers(rng, starts[2] + 3 * apart)
    slopes = left[starts[0] :].reshape(times, terms, PARTED_HEIGHT)[:, :, :rows].astype(np.float64)
    x, y, *seen = right[starts[1] :].reshape(times, 2 + terms, PARTED_WIDTH).transpose(1, 0, 2)
    found = np.einsum("tnr,ntc->trc", slopes, np.stack(seen))
    expected = products.astype(np.float64)
    for i, part in enumerate((found, x[:, None] * found, y[:, None] * found)):
        own = expected[starts[2] + i * apart :][: rows * step].reshape(rows, step)
        own[:, :PARTED_WIDTH] += part.sum(0)
    add_parted_products(
        rows, products, (starts[2], step, apart), left, starts[0], times, terms, right, starts[1]
    )
    np.testing.assert_allclose(products, expected, rtol=1e-5, atol=1e-4)

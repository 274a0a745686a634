"""Products of matrices that lie in memory in any regular way."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided
from palaestra.train.compiled.products import HEIGHT, WIDTH, multiply, multiply_all

STEPS = st.integers(0, 40)


@given(
    rows=st.integers(1, HEIGHT),
    adds=st.booleans(),
    loops=st.lists(st.tuples(st.integers(1, 5), STEPS), min_size=3, max_size=3),
    starts=st.tuples(STEPS, STEPS, STEPS),
    row_step=STEPS,
    gap=STEPS,
    seed=st.integers(0, 2**32 - 1),
)
def test_a_tile_is_or_takes_the_product_of_what_the_steps_lead_to(
    rows: int,
    adds: bool,
    loops: list[tuple[int, int]],
    starts: tuple[int, int, int],
    row_step: int,
    gap: int,
    seed: int,
) -> None:
    counts, steps = zip(*loops, strict=True)
    terms, apart = int(np.prod(counts)), WIDTH + gap
    rng = np.random.default_rng(seed)

    def numbers(size: int) -> np.ndarray:
        return rng.standard_normal(size).astype(np.float32)

    reach = sum((count - 1) * step for count, step in loops)
    left = numbers(starts[1] + (rows - 1) * row_step + reach + 1)
    product, right = numbers(starts[0] + rows * apart), numbers(starts[2] + terms * apart)
    seen = as_strided(
        left[starts[1] :], (rows, *counts), tuple(4 * step for step in (row_step, *steps))
    ).reshape(rows, terms)
    factors = right[starts[2] :].reshape(terms, apart)[:, :WIDTH]
    tile = product[starts[0] :].reshape(rows, apart)[:, :WIDTH]
    if not adds:
        tile[:] = np.nan
    expected = product.astype(np.float64)
    own = expected[starts[0] :].reshape(rows, apart)[:, :WIDTH]
    own[:] = (own if adds else 0) + seen @ factors.astype(np.float64)
    multiply(
        rows, adds, product, (starts[0], apart), left, (starts[1], row_step), tuple(loops),
        right, (starts[2], apart),
    )  # fmt: skip
    np.testing.assert_allclose(product, expected, rtol=1e-5, atol=1e-4)


def test_rows_that_lie_upon_each_other_are_added_one_after_the_other() -> None:
    once, product = (1, 0), np.zeros(WIDTH + 1, np.float32)
    ones = np.ones(WIDTH, np.float32)
    multiply(2, True, product, (0, 1), ones, (0, 0), (once, once, once), ones, (0, 0))
    assert product.tolist() == [1.0, *[2.0] * (WIDTH - 1), 1.0]


@given(
    rows=st.integers(0, 3 * HEIGHT),
    terms=st.integers(0, 9),
    wide=st.integers(1, 3),
    adds=st.booleans(),
    is_turned=st.booleans(),
    gaps=st.tuples(STEPS, STEPS, STEPS),
)
def test_whole_matrices_are_multiplied_and_what_lies_between_rows_stays(
    rows: int, terms: int, wide: int, adds: bool, is_turned: bool, gaps: tuple[int, int, int]
) -> None:
    rng, columns = np.random.default_rng(0), wide * WIDTH
    shape = (terms, rows) if is_turned else (rows, terms)
    sizes = [(rows, columns), shape, (terms, columns)]
    steps = [size[1] + gap for size, gap in zip(sizes, gaps, strict=True)]
    product, left, right = (
        rng.standard_normal((size[0], step), np.float32)
        for size, step in zip(sizes, steps, strict=True)
    )
    seen, factors = left[:, : shape[1]], right[:, :columns]
    expected = product.copy()
    if terms > 0:
        expected[:, :columns] *= adds
        expected[:, :columns] += (seen.T if is_turned else seen) @ factors
    of_left = (0, 1, steps[1]) if is_turned else (0, steps[1], 1)
    multiply_all(
        (rows, terms, columns), adds, product.ravel(), (0, steps[0]),
        left.ravel(), of_left, right.ravel(), (0, steps[2]),
    )  # fmt: skip
    np.testing.assert_allclose(product, expected, rtol=1e-5, atol=1e-4)

"""Slopes that go back through an activation."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numba import njit
from palaestra.train.compiled.products import WIDTH
from palaestra.train.compiled.slopes import LINEAR, MOST_TERMS, RELU, TANH, pass_back

DERIVATIVES = {LINEAR: np.ones_like, TANH: lambda y: 1 - y * y, RELU: lambda y: y > 0}


@njit
def passed_back(activation, rows, terms, values, of_values, slopes, of_slopes, weights, sums):  # type: ignore[no-untyped-def]
    pass_back(activation, rows, terms, values, of_values, slopes, of_slopes, weights, sums)


@given(
    activation=st.sampled_from(sorted(DERIVATIVES)),
    rows=st.integers(1, 9),
    terms=st.integers(0, MOST_TERMS),
    before=st.integers(0, 40),
    behind=st.integers(0, 40),
)
def test_columns_become_slopes_and_their_sums_and_nothing_else_changes(
    activation: int, rows: int, terms: int, before: int, behind: int
) -> None:
    rng, inputs = np.random.default_rng([rows, terms, before]), before + WIDTH + behind
    columns = slice(before, before + WIDTH)

    def numbers(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    values, sums = np.tanh(numbers(rows, inputs)), numbers(inputs)
    values[0, columns][:2] = 0.0, -0.0
    slopes, weights = numbers(rows, terms or inputs), numbers(terms, inputs)
    given = slopes.astype(np.float64) @ weights if terms else slopes
    expected, totals = values.astype(np.float64), sums.astype(np.float64)
    expected[:, columns] = (given * DERIVATIVES[activation](expected))[:, columns]
    totals[columns] = expected[:, columns].sum(axis=0)
    passed_back(
        activation, rows, terms, values.ravel(), (before, inputs), slopes.ravel(),
        (0 if terms else before, terms or inputs), weights.ravel(), sums,
    )  # fmt: skip
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sums, totals, rtol=1e-5, atol=1e-5)


@given(rows=st.integers(1, 3), terms=st.integers(0, MOST_TERMS))
def test_what_is_not_a_number_stays_so_but_where_relu_let_nothing_pass(
    rows: int, terms: int
) -> None:
    values, weights = np.ones((rows, WIDTH), np.float32), np.ones((terms, WIDTH), np.float32)
    slopes, sums = np.full((rows, terms or WIDTH), np.nan, np.float32), np.empty(WIDTH, np.float32)
    values[:, 0] = 0.0
    passed_back(
        RELU, rows, terms, values.ravel(), (0, WIDTH), slopes.ravel(), (0, terms or WIDTH),
        weights.ravel(), sums,
    )  # fmt: skip
    assert (values[:, 0] == 0).all()
    assert sums[0] == 0
    assert np.isnan(values[:, 1:]).all()
    assert np.isnan(sums[1:]).all()

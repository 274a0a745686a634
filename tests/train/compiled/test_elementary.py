"""Functions that vectorise, beside those of the C library."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from palaestra.train.compiled import elementary
from palaestra.train.compiled.network import fast

EDGES = np.array([0.0, -0.0, -1e-30, np.inf, -np.inf, -1e8, -104.5, np.nan], np.float32)


@fast
def _exp_all(given_N: NDArray[np.float32], found_N: NDArray[np.float32]) -> None:
    for n in range(len(given_N)):
        found_N[n] = elementary.exp(given_N[n])


@fast
def _tanh_all(given_N: NDArray[np.float32], found_N: NDArray[np.float32]) -> None:
    for n in range(len(given_N)):
        found_N[n] = elementary.tanh(given_N[n])


@pytest.mark.parametrize(
    ("ours", "exact", "low", "high"),
    [(_exp_all, np.exp, -87, 88.3), (_tanh_all, np.tanh, -12, 12)],
)
def test_functions_are_right_to_the_last_digits(
    ours: Callable[..., None], exact: Any, low: float, high: float
) -> None:
    given_N = np.linspace(low, high, 1_000_003, dtype=np.float32)
    found_N = np.empty_like(given_N)
    ours(given_N, found_N)
    np.testing.assert_allclose(found_N, exact(given_N.astype(np.float64)), rtol=4e-7)


@pytest.mark.parametrize(("ours", "exact"), [(_exp_all, np.exp), (_tanh_all, np.tanh)])
def test_what_is_infinite_or_no_number_is_told_as_it_is(
    ours: Callable[..., None], exact: Any
) -> None:
    found_N = np.empty_like(EDGES)
    ours(EDGES, found_N)
    np.testing.assert_allclose(found_N, exact(EDGES), rtol=4e-7)


def test_what_underflows_is_as_small_as_it_can_be() -> None:
    given_N = np.linspace(-103.9, -87, 10_001, dtype=np.float32)
    found_N = np.empty_like(given_N)
    _exp_all(given_N, found_N)
    np.testing.assert_allclose(found_N, np.exp(given_N.astype(np.float64)), atol=3e-45, rtol=2e-6)

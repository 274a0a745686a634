"""Sine and cosine of float32 numbers against NumPy's."""

import numpy as np
import pytest
from numba import njit
from palaestra.envs.float32 import cosine, sine


@njit
def waves(x_N, sines_N, cosines_N):  # type: ignore[no-untyped-def]
    for n in range(len(x_N)):
        sines_N[n], cosines_N[n] = sine(x_N[n]), cosine(x_N[n])


@pytest.mark.parametrize("size", [1e-30, 0.1, 4, 1000, 60_000])
def test_waves_are_those_of_numpy(size: float) -> None:
    x_N = np.random.default_rng(0).uniform(-size, size, 100_000).astype(np.float32)
    x_N[:2] = 0.0, size
    mine_2_N = np.empty((2, len(x_N)), np.float32)
    waves(x_N, mine_2_N[0], mine_2_N[1])
    np.testing.assert_array_max_ulp(mine_2_N, np.stack([np.sin(x_N), np.cos(x_N)]), 2)
    if size < 1000:
        assert (mine_2_N == np.stack([np.sin(x_N), np.cos(x_N)])).all()

"""Elementary functions that vectorise: polynomials where the C library computes one number."""

import numpy as np
from numba import njit

from ...envs import fresh  # noqa: F401


@njit(inline="always")
def tanh(x: np.float32) -> np.float32:
    """Return tanh as Eigen approximates it: a quotient of polynomials, so that it vectorises."""
    f4 = np.float32
    x = min(max(x, f4(-8.01773357391357422)), f4(8.01773357391357422))
    square = x * x
    above = square * f4(1.394553628e-8) + f4(2.102733560e-5)
    above = square * above + f4(3.520756727e-3)
    above = square * above + f4(1.340216100e-1)
    above = square * above + f4(1.0)
    below = square * f4(8.015776984e-7) + f4(3.326951409e-4)
    below = square * below + f4(2.597254514e-2)
    below = square * below + f4(4.673548340e-1)
    below = square * below + f4(1.0)
    return x * above / below


@njit(inline="always")
def exp(x: np.float32) -> np.float32:
    """Return e to the power of x as Cephes computes it: 2 to a whole power times a polynomial.

    0 below -104, and infinite from 88.4 on.
    """
    f4, i4 = np.float32, np.int32
    x = min(max(x, f4(-104.0)), f4(88.8))
    power: np.float32 = np.floor(x * f4(1.44269504088896341) + f4(0.5))
    rest = x - power * f4(0.693359375) - power * f4(-2.12194440e-4)
    total = rest * f4(1.9875691500e-4) + f4(1.3981999507e-3)
    total = rest * total + f4(8.3334519073e-3)
    total = rest * total + f4(4.1665795894e-2)
    total = rest * total + f4(1.6666665459e-1)
    total = rest * total + f4(5.0000001201e-1)
    total = rest * rest * total + rest + f4(1.0)
    # In two halves, as the bits of a float do not say 2 to the power of -150 or of 128.
    half = i4(power) >> i4(1)
    low = i4((half + i4(127)) << i4(23)).view(f4)
    high = i4((i4(power) - half + i4(127)) << i4(23)).view(f4)
    return total * low * high

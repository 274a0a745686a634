"""Sines and cosines of small angles, bit for bit the C library's, in loops that vectorise.

Idea: an environment that asks the C library for one angle after the other spends half of its time
there. Here are the operations of glibc, in its order and with its roundings, but many angles are
computed side by side: an angle is the nearest k/128 and a rest, the sine and the cosine of which
are polynomials, and those of k/128 are in a table, each as a sum of two numbers. Another C library
rounds otherwise, so `are_those_of_c` looks before anything relies on this.

Source: glibc's `s_sin.c`, from the IBM Accurate Mathematical Library.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from . import fresh  # noqa: F401
from .direct import is_compiled

LIMIT = 0.855
"""Angles from here on, in radians, glibc takes apart in other ways."""
_STEPS, _ENTRIES = 128, 110
_DIGITS = 1 << 160
_ROUNDING = float(3 << 44)
"""Of a number that this is added to nothing is left behind 1/128."""
_TAYLOR = 0.126
"""Below, a sine is a polynomial alone."""
_ITSELF = 2.0**-26
"""Below, a sine is the angle."""
# glibc's coefficients: of the sine of a small angle, and of the sine and the cosine of a rest.
_S1, _S2, _S3, _S4, _S5 = map(
    float.fromhex,
    (
        "-0x1.5555555555555p-3", "0x1.1111111110ecep-7", "-0x1.a01a019db08b8p-13",
        "0x1.71de27b9a7ed9p-19", "-0x1.addffc2fcdf59p-26",
    ),
)  # fmt: skip
_SN3, _SN5 = -1.66666666666664880952546298448555e-01, 8.33333214285722277379541354343671e-03
_CS2, _CS4, _CS6 = (
    0.5,
    -4.16666666666664434524222570944589e-02,
    1.38888874007937613028114285595617e-03,
)


def _sine_and_cosine(k: int) -> tuple[float, float, float, float]:
    """Return the sine and the cosine of k/128, each as the nearest number and what is left."""
    sums, term, n = [0, 0], _DIGITS, 0
    while term:  # of Taylor's series, in whole numbers
        sums[n % 2] += -term if n % 4 > 1 else term
        n += 1
        term = term * k // (_STEPS * n)
    cosine, sine = (Fraction(total, _DIGITS) for total in sums)
    near_sine, near_cosine = float(sine), float(cosine)
    rests = float(sine - Fraction(near_sine)), float(cosine - Fraction(near_cosine))
    return near_sine, rests[0], near_cosine, rests[1]


_SINE, _SINE_REST, _COSINE, _COSINE_REST = np.array(
    [_sine_and_cosine(k) for k in range(_ENTRIES)]
).T.copy()


@intrinsic
def _fma(typing, a, b, c):  # type: ignore[no-untyped-def]
    """Return a * b + c, rounded once."""

    def write(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
        return builder.fma(*values)

    return types.float64(types.float64, types.float64, types.float64), write


@njit(error_model="numpy", inline="always")
def small_sine_and_cosine(angle):  # type: ignore[no-untyped-def]
    """Return the sine and the cosine of an angle below `LIMIT`, and anything of another one."""
    size = abs(angle)
    size = size if size < LIMIT else 0.0  # what is not a number has no place in the table
    nearest = (size + _ROUNDING) - _ROUNDING
    k = np.int32(nearest * _STEPS)
    rest = size - nearest
    square = rest * rest
    cube = rest * square
    slope: Any = _fma(square, _SN5, _SN3)  # type: ignore[call-arg]
    versine = square * _fma(square, _fma(square, _CS6, _CS4), _CS2)
    sine, sine_rest, cosine, cosine_rest = _SINE[k], _SINE_REST[k], _COSINE[k], _COSINE_REST[k]
    # The sine of the rest is rounded once where a cosine is computed, and twice where a sine is.
    once, twice = _fma(cube, slope, rest), rest + cube * slope
    lower = _fma(-sine, once, _fma(-cosine, versine, _fma(-once, sine_rest, cosine_rest)))
    higher = _fma(cosine, twice, _fma(-sine, versine, _fma(twice, cosine_rest, sine_rest)))
    whole = angle * angle
    series = _fma(_fma(_fma(_fma(_S5, whole, _S4), whole, _S3), whole, _S2), whole, _S1)
    found = math.copysign(sine + higher, angle)
    found = angle + series * angle * whole if size < _TAYLOR else found
    return angle if size < _ITSELF else found, cosine + lower


@cache
def are_those_of_c() -> bool:
    """Tell whether the C library finds the same.

    One that rounds a single operation otherwise finds another sine once in some thousand angles.
    """
    return is_compiled(_differ) and not _differ(np.linspace(-LIMIT, LIMIT, 200_000)[1:-1])


@njit("boolean(float64[::1])", cache=True, error_model="numpy")
def _differ(angles):  # type: ignore[no-untyped-def]
    for angle in angles:
        sine, cosine = small_sine_and_cosine(angle)
        if sine != math.sin(angle) or cosine != math.cos(angle):
            return True
    return False

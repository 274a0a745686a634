"""NumPy's sine and cosine of float32 numbers for Numba kernels, bit for bit.

NumPy computes them in float32 by polynomials of its own, which the C library rounds otherwise in
one case of two hundred. What follows is NumPy's code for processors with fused multiply-add; on
one without, NumPy calls the C library and the last bit may differ.

Source: NumPy's `loops_trigonometric.dispatch.cpp`.
"""

import numpy as np
from numba import njit

from . import fresh  # noqa: F401

_f4 = np.float32
_hex = float.fromhex
_TWO_OVER_PI, _ROUNDING = _f4(_hex("0x1.45f306p-1")), _f4(_hex("0x1.8p+23"))
_TURN_1, _TURN_2, _TURN_3 = (  # minus pi / 2, in three parts
    _f4(_hex(part)) for part in ("-0x1.921fb0p+00", "-0x1.5110b4p-22", "-0x1.846988p-48")
)
_COS_8, _COS_6, _COS_4, _COS_2 = (
    _f4(_hex(factor))
    for factor in ("0x1.98e616p-16", "-0x1.6c06dcp-10", "0x1.55553cp-05", "-0x1p-01")
)
_SIN_9, _SIN_7, _SIN_5, _SIN_3 = (
    _f4(_hex(factor))
    for factor in ("0x1.7d3bbcp-19", "-0x1.a06bbap-13", "0x1.11119ap-07", "-0x1.555556p-03")
)
_ONE = _f4(1.0)


@njit
def sine(x):  # type: ignore[no-untyped-def]
    """Return `numpy.sin` of a float32 number below 70,000 in size."""
    return _wave(x, 0)


@njit
def cosine(x):  # type: ignore[no-untyped-def]
    """Return `numpy.cos` of a float32 number below 70,000 in size."""
    return _wave(x, 1)


@njit
def _wave(x, ahead):  # type: ignore[no-untyped-def]
    """Return the sine of a number, so many quarters of a turn ahead."""
    quarters = _f4(_f4(_f4(x * _TWO_OVER_PI) + _ROUNDING) - _ROUNDING)
    part = _fused(quarters, _TURN_1, x)
    part = _fused(quarters, _TURN_3, _fused(quarters, _TURN_2, part))
    square = _f4(part * part)
    which = np.int64(quarters) + ahead
    if which & 1:
        value = _fused(_fused(_COS_8, square, _COS_6), square, _COS_4)
        value = _fused(_fused(value, square, _COS_2), square, _ONE)
    else:
        value = _fused(_fused(_SIN_9, square, _SIN_7), square, _SIN_5)
        value = _f4(_fused(value, square, _SIN_3) * square)
        value = _fused(value, part, part)
    return -value if which & 2 else value


@njit
def _fused(a, b, c):  # type: ignore[no-untyped-def]
    """Multiply and add with one rounding: in float64 the product is exact."""
    return _f4(np.float64(a) * np.float64(b) + np.float64(c))

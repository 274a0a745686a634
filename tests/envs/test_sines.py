"""Sines and cosines of small angles, beside the C library's."""

import math
import platform

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llvmlite.binding import get_host_cpu_features
from numba import njit
from numpy.typing import NDArray
from palaestra.envs.sines import LIMIT, are_those_of_c, small_sine_and_cosine

EDGES = [
    0.0,
    -0.0,
    5e-324,
    -1e-300,
    2.0**-26,
    -(2.0**-27),
    0.126,
    -0.126,
    1 / 128,
    1.5 / 128,
    0.8549,
]
is_glibc = pytest.mark.skipif(not are_those_of_c(), reason="another C library")


@njit
def found(angles):  # type: ignore[no-untyped-def]
    sines, cosines = np.empty_like(angles), np.empty_like(angles)
    for n in range(len(angles)):
        sines[n], cosines[n] = small_sine_and_cosine(angles[n])
    return sines, cosines


def assert_those_of_c(angles: NDArray[np.float64]) -> None:
    sines, cosines = found(angles)
    assert sines.tobytes() == np.array([math.sin(angle) for angle in angles]).tobytes()
    assert cosines.tobytes() == np.array([math.cos(angle) for angle in angles]).tobytes()


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not get_host_cpu_features().get("fma"),
    reason="the C library rounds otherwise",
)
def test_where_the_core_multiplies_and_adds_at_once_glibc_finds_the_same() -> None:
    assert are_those_of_c()


@is_glibc
@given(st.lists(st.floats(-LIMIT, LIMIT, exclude_min=True, exclude_max=True)))
def test_each_bit_is_that_of_the_c_library(angles: list[float]) -> None:
    assert_those_of_c(np.array(angles + EDGES))


@is_glibc
@pytest.mark.parametrize("size", [0.01, 0.25, LIMIT])
def test_and_so_it_is_for_half_a_million_angles(size: float) -> None:
    assert_those_of_c(np.random.default_rng(0).uniform(-size, size, 500_000))


@given(st.lists(st.floats().filter(lambda angle: not abs(angle) < LIMIT), min_size=1))
def test_any_other_angle_is_looked_up_where_0_is(angles: list[float]) -> None:
    _, cosines = found(np.array(angles))
    assert (cosines == 1).all()

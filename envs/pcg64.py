"""NumPy's PCG64 generator for Numba kernels, draw for draw.

A kernel that resets environments by itself must draw what `Generator.uniform` would have
drawn, or a seed would mean one thing alone and another thing in a vector.

Source: M. O'Neill, "PCG: A Family of Simple Fast Space-Efficient Statistically Good
Algorithms for Random Number Generation" (2014), the XSL-RR 128/64 member, and "Developing a
seed_seq Alternative" (2015); NumPy's `pcg64.h` and `SeedSequence`.
"""

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from . import fresh  # noqa: F401

_MULTIPLIER_HIGH = np.uint64(2549297995355413924)
_MULTIPLIER_LOW = np.uint64(4865540595714422341)
_LOW_HALF = np.uint64(0xFFFFFFFF)
_11, _32, _58, _63, _64 = (np.uint64(n) for n in (11, 32, 58, 63, 64))
_ONE, _ZERO = np.uint64(1), np.uint64(0)
# Of SeedSequence, in 32 bits: what its hash begins with and is multiplied by, when it takes seeds
# in and when it gives words out, and the factors by which two words are mixed.
_TAKE, _TAKE_FACTOR, _GIVE, _GIVE_FACTOR, _MIX_FIRST, _MIX_SECOND = (
    np.uint32(n) for n in (0x43B0D7E5, 0x931E8875, 0x8B51F9DD, 0x58F38DED, 0xCA01F9DD, 0x4973F715)
)
_16 = np.uint32(16)


def states_from_seeds(seeds: Sequence[int]) -> NDArray[np.uint64]:
    """Return one generator state a seed, as `numpy.random.default_rng(seed)` starts.

    Returns:
        Array of shape (N, 4): state high, state low, increment high, increment low.

    Raises:
        ValueError: a seed is negative.
    """
    if any(not 0 <= seed < 2**64 for seed in seeds):
        return states_from_generators([np.random.Generator(np.random.PCG64(s)) for s in seeds])
    states_N_4 = np.empty((len(seeds), 4), np.uint64)
    _seed_all(np.array(seeds, np.uint64), states_N_4)
    return states_N_4


def states_from_generators(generators: Sequence[np.random.Generator]) -> NDArray[np.uint64]:
    """Return the present states of PCG64 generators, shape (N, 4)."""
    words = np.empty((len(generators), 4), np.uint64)
    for row, generator in zip(words, generators, strict=True):
        state = generator.bit_generator.state["state"]
        for column, word in enumerate((state["state"], state["inc"])):
            row[2 * column] = word >> 64
            row[2 * column + 1] = word & ((1 << 64) - 1)
    return words


@njit(cache=True, inline="always")
def uniform(states_N_4, n, low, high):  # type: ignore[no-untyped-def]
    """Draw from [low, high) with generator n, as `Generator.uniform(low, high)` does."""
    unit = np.float64(_next(states_N_4, n) >> _11) * (1.0 / 9007199254740992.0)
    return low + (high - low) * unit


@njit(cache=True)
def _seed_all(seeds_N, states_N_4):  # type: ignore[no-untyped-def]
    """Write the state with which `PCG64(seed)` begins, for each of N seeds."""
    pool_4, words_8 = np.empty(4, np.uint32), np.empty(8, np.uint32)
    for n in range(len(seeds_N)):
        factor = _TAKE
        for i in range(4):
            # The seed's two words, and zeros.
            word = np.uint32(seeds_N[n] >> (_32 * np.uint64(i))) if i < 2 else np.uint32(0)
            pool_4[i], factor = _hashed(word, factor, _TAKE_FACTOR)
        for source in range(4):
            for target in range(4):
                if source != target:
                    word, factor = _hashed(pool_4[source], factor, _TAKE_FACTOR)
                    mixed = np.uint32(_MIX_FIRST * pool_4[target] - _MIX_SECOND * word)
                    pool_4[target] = mixed ^ (mixed >> _16)
        factor = _GIVE
        for i in range(8):
            words_8[i], factor = _hashed(pool_4[i % 4], factor, _GIVE_FACTOR)
        start_high, start_low = _joined(words_8, 0), _joined(words_8, 1)
        stream_high, stream_low = _joined(words_8, 2), _joined(words_8, 3)
        states_N_4[n, 2] = (stream_high << _ONE) | (stream_low >> _63)
        states_N_4[n, 3] = (stream_low << _ONE) | _ONE
        # A step from 0 leads to the increment.
        states_N_4[n, 1] = states_N_4[n, 3] + start_low
        carry = _ONE if states_N_4[n, 1] < start_low else _ZERO
        states_N_4[n, 0] = states_N_4[n, 2] + start_high + carry
        _next(states_N_4, n)


@njit(cache=True, inline="always")
def _hashed(word, factor, next_factor):  # type: ignore[no-untyped-def]
    """Return the hash of a word, and what the next one begins with."""
    word = np.uint32(word ^ factor)
    factor = np.uint32(factor * next_factor)
    word = np.uint32(word * factor)
    return np.uint32(word ^ (word >> _16)), factor


@njit(cache=True, inline="always")
def _joined(words_8, place):  # type: ignore[no-untyped-def]
    return np.uint64(words_8[2 * place]) | (np.uint64(words_8[2 * place + 1]) << _32)


@njit(cache=True, inline="always")
def _next(states_N_4, n):  # type: ignore[no-untyped-def]
    """Advance generator n by one 128-bit multiply-add and return 64 bits of it."""
    high, low = states_N_4[n, 0], states_N_4[n, 1]
    product = low * _MULTIPLIER_LOW
    new_low = product + states_N_4[n, 3]
    carry = _ONE if new_low < product else _ZERO
    new_high = (
        _multiply_high(low, _MULTIPLIER_LOW)
        + low * _MULTIPLIER_HIGH
        + high * _MULTIPLIER_LOW
        + states_N_4[n, 2]
        + carry
    )
    states_N_4[n, 0] = new_high
    states_N_4[n, 1] = new_low
    mixed = new_high ^ new_low
    turn = new_high >> _58
    return (mixed >> turn) | (mixed << ((_64 - turn) & _63))


@njit(cache=True, inline="always")
def _multiply_high(a, b):  # type: ignore[no-untyped-def]
    """Return the upper 64 bits of a 64 x 64 bit product."""
    a_low, a_high, b_low, b_high = a & _LOW_HALF, a >> _32, b & _LOW_HALF, b >> _32
    low_high, high_low = a_low * b_high, a_high * b_low
    middle = ((a_low * b_low) >> _32) + (low_high & _LOW_HALF) + (high_low & _LOW_HALF)
    return a_high * b_high + (low_high >> _32) + (high_low >> _32) + (middle >> _32)

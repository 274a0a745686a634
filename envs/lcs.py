"""Longest common subsequence of two sequences of numbers, compiled."""

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True)
def lcs_length(first_M: NDArray[np.int64], second_N: NDArray[np.int64]) -> int:
    """Return the length of the longest common subsequence, in M * N steps and N numbers.

    Source: Wagner and Fischer, "The String-to-String Correction Problem" (1974), one row kept.
    """
    row_N = np.zeros(len(second_N) + 1, dtype=np.int64)
    for item in first_M:
        diagonal = 0
        for j in range(len(second_N)):
            above = row_N[j + 1]
            row_N[j + 1] = diagonal + 1 if item == second_N[j] else max(above, row_N[j])
            diagonal = above
    return int(row_N[-1])

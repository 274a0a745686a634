"""Put arrays into a rollout buffer only if they fit, and say which one does not."""

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import UserError

_FLOAT = np.dtype(np.float32)


def on_host(tensor: torch.Tensor) -> NDArray[np.float32]:
    """Return a tensor of any device and float type as an array."""
    try:
        found: NDArray[Any] = tensor.numpy()  # to look first whether it can be takes longer
    except (RuntimeError, TypeError):
        found = tensor.float().numpy(force=True)
    return found if found.dtype is _FLOAT else found.astype(_FLOAT)


def store(target: NDArray[Any], array: NDArray[Any], name: str) -> None:
    """Write an array into its place in a buffer, if it fits and nothing but digits is lost.

    Raises:
        UserError: it has another shape, or numbers that the target's dtype cannot hold.
    """
    array = np.asarray(array)
    _check_fit(array, target.shape, target.dtype, name)
    target[...] = array


def row(array: NDArray[Any], count: int, name: str) -> NDArray[np.float32]:
    """Return a copy of (N,) or (N, 1) as N numbers in a row: `store` for what has no place.

    Raises:
        UserError: it has another shape, or numbers that float32 cannot hold.
    """
    array = np.asarray(array)
    if array.shape not in ((count,), (count, 1)) or not _can_cast(array.dtype, _FLOAT):
        _check_fit(array, (count, 1) if array.ndim == 2 else (count,), _FLOAT, name)
    return array.astype(_FLOAT).ravel()


def check_finite(name: str, array_T_N: NDArray[Any], valid_T_N: NDArray[np.bool_]) -> None:
    """Look for what is infinite or not a number in valid steps, shape (T, N, ...).

    Raises:
        UserError: naming the first such step, its environment and the number.
    """
    if array_T_N.dtype.kind != "f" or (finite := np.isfinite(array_T_N)).all():
        return
    wrong = ~finite.reshape(*valid_T_N.shape, -1) & valid_T_N[:, :, None]
    for t, n, i in np.argwhere(wrong):
        number = array_T_N[t, n].ravel()[i]
        raise UserError(f"the {name} of environment {n} at step {t} is {number}")


def reshaped(array: NDArray[Any], like: NDArray[Any]) -> NDArray[Any]:
    """Return (N,) as (N, 1) or the other way, as SB3 does; `store` refuses what cannot be."""
    array = np.asarray(array)
    return array.reshape(like.shape) if array.size == like.size else array


def _check_fit(
    array: NDArray[Any], shape: tuple[int, ...], dtype: np.dtype[Any], name: str
) -> None:
    if array.shape != shape:
        raise UserError(f"the {name} has shape {array.shape}, where {shape} is expected")
    if array.dtype != dtype and not _can_hold(dtype, array):
        raise UserError(f"the {name} is {array.dtype}, which {dtype} cannot hold")


def _can_hold(dtype: np.dtype[Any], array: NDArray[Any]) -> bool:
    if _can_cast(array.dtype, dtype):
        return True
    with np.errstate(invalid="ignore"):
        return array.dtype.kind in "biuf" and np.array_equal(array.astype(dtype), array)


@cache
def _can_cast(given: np.dtype[Any], dtype: np.dtype[Any]) -> bool:
    """Tell whether no number becomes another one: a float loses digits, an integer what it is."""
    return np.can_cast(given, dtype, "safe" if dtype.kind in "iu" else "same_kind")

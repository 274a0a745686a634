"""Make one batch of what the members of a vector returned, and single actions of a batch."""

from collections.abc import Callable, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import concatenate, create_empty_array, iterate
from numpy.typing import NDArray

from .members import Info, Outcome

Batch = tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], Info]
"""Observations, rewards, terminations, truncations and infos of some members, in order."""

_OBJECT = np.dtype(object)
_PLAIN = frozenset((type(None), str, list, tuple, dict))
"""Types of most values in infos that stay objects."""
_ARRAYS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


class Batches:
    """Batch what members return, as Gymnasium's vector environments do.

    Args:
        observation_space: Of a single member.
        action_space: Of the vector.
    """

    def __init__(
        self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
    ) -> None:
        self.observations = _observer(observation_space)
        self._actions = action_space
        # A tuple of messages, one a member, needs no iterator of Gymnasium's.
        self._plain = isinstance(action_space, (*_ARRAYS, spaces.Tuple)) and not (
            isinstance(action_space, spaces.Tuple)
            and any(isinstance(s, (*_ARRAYS, spaces.Tuple, spaces.Dict)) for s in action_space)
        )

    def actions(self, actions: Any, count: int) -> list[Any]:
        """Return the actions of single members.

        Raises:
            TypeError: a string was given, which would be taken apart into letters.
            ValueError: there are not as many as members.
        """
        if isinstance(actions, str):
            raise TypeError("give a list of messages, one a member, not one string")
        single = list(actions if self._plain else iterate(self._actions, actions))
        if len(single) != count:
            raise ValueError(f"{len(single)} actions were given for {count} environments")
        return single

    def outcomes(self, outcomes: Sequence[Outcome]) -> Batch:
        """Batch outcomes; `final_obs` and `final_info` tell how episodes ended that were reset."""
        if not outcomes:
            none_N = np.zeros(0, np.bool_)
            return self.observations([]), np.zeros(0), none_N, none_N.copy(), {}
        observations, rewards, terminations, truncations, infos, finals = zip(
            *outcomes, strict=True
        )
        info = batch_infos(infos)
        if any(finals):
            info |= _batch_finals(finals)
        return (
            self.observations(observations),
            np.array(rewards, np.float64),
            np.array(terminations, np.bool_),
            np.array(truncations, np.bool_),
            info,
        )


def batch_infos(infos: Sequence[Info]) -> Info:
    """Batch the infos of N members as Gymnasium does, but change no value.

    Each key has an array of shape (N, ...) and, under `_key`, a mask of the members that have
    it. Numbers, or arrays of one shape, that all members have in one type become an array of
    that type; everything else, dictionaries too, stays as it is in an array of objects.
    """
    where = [i for i, info in enumerate(infos) if info]
    filled = infos if len(where) == len(infos) else [infos[i] for i in where]
    if len(set(map(len, filled))) == 1:  # the usual case: whoever has keys has the same
        try:
            keys = [*filled[0]]
            pick = itemgetter(*keys, keys[0])  # of two keys at least, so that it gives a tuple
            columns = [*zip(*map(pick, filled), strict=True)]
        except KeyError:
            pass
        else:
            return _masked(keys, columns, where, len(infos))
    batch: Info = {}
    for key in dict.fromkeys(key for info in filled for key in info):
        where = [i for i, info in enumerate(infos) if key in info]
        batch |= _masked([key], [[infos[i][key] for i in where]], where, len(infos))
    return batch


def _masked(
    keys: Sequence[str], columns: Sequence[Sequence[Any]], where: list[int], count: int
) -> Info:
    """Make arrays of columns, and say which members they are of.

    Columns of objects are rows of one table, and all share one mask, which nobody may change:
    each array costs as much time as a third of a step.
    """
    mask_N = np.zeros(count, np.bool_)
    mask_N[where] = True
    mask_N.flags.writeable = False
    batch: Info = dict.fromkeys(map("_{}".format, keys), mask_N)
    names, objects = [], []
    for key, values in zip(keys, columns, strict=False):
        dtype = _type_of(values)
        if dtype is _OBJECT:
            names.append(key)
            objects.append(values)
        else:
            batch[key] = _column(values, dtype, where, count)
    flat = np.fromiter(chain.from_iterable(objects), _OBJECT, len(names) * len(where))
    table = flat.reshape(len(names), len(where))
    if len(where) < count:
        found, table = table, np.empty((len(names), count), _OBJECT)  # which NumPy fills with None
        table[:, where] = found
    batch.update(zip(names, table, strict=True))
    return batch


def _column(values: Sequence[Any], dtype: Any, where: list[int], count: int) -> NDArray[Any]:
    """Return an array of numbers, or of arrays of one shape, 0 where a member has none."""
    if len(where) == count:
        return np.fromiter(values, dtype, count) if dtype else np.array(values)
    column = (
        np.zeros(count, dtype) if dtype else np.zeros((count, *values[0].shape), values[0].dtype)
    )
    for i, value in zip(where, values, strict=True):
        column[i] = value
    return column


def _batch_finals(finals: Sequence[tuple[Any, Info] | None]) -> Info:
    ended_N = np.array([final is not None for final in finals])
    return {
        "final_obs": np.fromiter((final[0] if final else None for final in finals), _OBJECT),
        "_final_obs": ended_N,
        "final_info": batch_infos([final[1] if final else {} for final in finals]),
        "_final_info": ended_N.copy(),
    }


def _type_of(values: Sequence[Any]) -> Any:
    """Return the type of an array that holds values as they are; None for that of their own."""
    kind = type(values[0])
    if kind in _PLAIN or len(set(map(type, values))) > 1:
        return _OBJECT
    if kind is bool or kind is float or issubclass(kind, np.number | np.bool_):
        return kind
    if kind is int:
        return int if all(-(2**63) <= value < 2**63 for value in values) else _OBJECT
    if kind is np.ndarray and len({(v.shape, v.dtype) for v in values}) == 1:
        return None
    return _OBJECT


def _observer(space: spaces.Space[Any]) -> Callable[[Sequence[Any]], Any]:
    if not isinstance(space, (*_ARRAYS, spaces.Tuple, spaces.Dict)):
        return tuple

    def observe(items: Sequence[Any]) -> Any:
        if not items:  # an empty batch has the shape and type of a batch
            return create_empty_array(space, n=0, fn=np.zeros)
        out: Any = create_empty_array(space, n=len(items), fn=np.empty)
        return concatenate(space, items, out)

    return observe

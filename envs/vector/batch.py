"""Make one batch of what the members of a vector returned, and single actions of a batch."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain, compress
from operator import itemgetter
from typing import Any, NamedTuple

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
_FLAG = frozenset((bool,))
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
    it, which others may share and nobody may change. Numbers, or arrays of one shape, that all
    members have in one type become an array of that type; everything else, dictionaries too,
    stays as it is in an array of objects.
    """
    where = None if all(infos) else tuple([i for i, info in enumerate(infos) if info])
    return _batch_some(infos if where is None else [infos[i] for i in where], where, len(infos))


def _batch_some(filled: Sequence[Info], where: tuple[int, ...] | None, count: int) -> Info:
    """Batch the infos of some members, or of all, which are not empty."""
    if len(set(map(len, filled))) == 1:  # the usual case: whoever has keys has the same
        try:
            return _alike(filled, where, count)
        except KeyError:
            pass
    batch: Info = {}
    numbers = range(count) if where is None else where
    for key in dict.fromkeys(key for info in filled for key in info):
        having = [
            (i, {key: info[key]}) for i, info in zip(numbers, filled, strict=True) if key in info
        ]
        its, single = zip(*having, strict=True)
        batch |= _alike(single, None if len(its) == count else its, count)
    return batch


class _Layout(NamedTuple):
    """Where the values of an info go."""

    masks: tuple[str, ...]
    """Names of the masks."""
    objects: tuple[str, ...]
    """Keys whose columns are of objects for certain."""
    pick: Callable[[Info], Sequence[Any]]
    """Returns the values of these keys."""
    flags: tuple[str, ...]
    """Keys whose columns are of booleans, if all are like the first."""
    others: tuple[str, ...]
    """Keys whose columns have to be looked through."""


@lru_cache(maxsize=256)
def _layout(keys: tuple[str, ...], kinds: tuple[type, ...]) -> _Layout:
    """Return the layout of infos with these keys, of which the first has values of these types."""
    plain = [kind in _PLAIN for kind in kinds]
    objects = tuple(compress(keys, plain))
    flags = tuple([key for key, kind in zip(keys, kinds, strict=True) if kind is bool])

    def pick(info: Info) -> Sequence[Any]:
        return [info[key] for key in objects]

    return _Layout(
        tuple(f"_{key}" for key in keys),
        objects,
        itemgetter(*objects) if len(objects) > 1 else pick,  # which of one would be no sequence
        flags,
        tuple([key for key in keys if key not in (*objects, *flags)]),
    )


def _alike(infos: Sequence[Info], where: tuple[int, ...] | None, count: int) -> Info:
    """Batch infos that have the same keys.

    Columns of objects are columns of one table: each array costs as much time as a third of a
    step.

    Raises:
        KeyError: they have not.
    """
    first = infos[0]
    layout = _layout((*first,), (*map(type, first.values()),))
    batch: Info = dict.fromkeys(layout.masks, _mask(where, count))
    width = len(layout.objects)
    rows: Any = map(layout.pick, infos)
    if where is not None:
        table = [(None,) * width] * count
        for i, row in zip(where, rows, strict=True):
            table[i] = row
        rows = table
    flat = np.fromiter(chain.from_iterable(rows), _OBJECT, width * count)
    batch.update(zip(layout.objects, flat.reshape(count, width).T, strict=False))
    for key in layout.flags:
        flags = [info[key] for info in infos]
        if where is None and _FLAG.issuperset(map(type, flags)):
            batch[key] = np.fromiter(flags, np.bool_, count)
        else:
            batch[key] = _column(flags, where, count)
    for key in layout.others:
        batch[key] = _column([info[key] for info in infos], where, count)
    return batch


@lru_cache(maxsize=1024)
def _mask(where: tuple[int, ...] | None, count: int) -> NDArray[np.bool_]:
    """Return a mask of some members, or of all, that cannot be changed."""
    mask_N = np.zeros(count, np.bool_)
    mask_N[slice(None) if where is None else [*where]] = True
    mask_N.flags.writeable = False
    return mask_N


def _column(values: Sequence[Any], where: tuple[int, ...] | None, count: int) -> NDArray[Any]:
    """Return an array of values; where a member has none it holds 0, or None among objects."""
    dtype = _type_of(values)
    if where is None:
        return np.fromiter(values, dtype, count) if dtype else np.array(values)
    if dtype is _OBJECT:
        column = np.empty(count, _OBJECT)  # which NumPy fills with None
    elif dtype:
        column = np.zeros(count, dtype)
    else:
        column = np.zeros((count, *values[0].shape), values[0].dtype)
    for i, value in zip(where, values, strict=True):
        column[i] = value
    return column


def _batch_finals(finals: Sequence[tuple[Any, Info] | None]) -> Info:
    count = len(finals)
    where = tuple([i for i, final in enumerate(finals) if final])
    ended_N = _mask(where if len(where) < count else None, count)
    return {
        "final_obs": np.fromiter([f and f[0] for f in finals], _OBJECT, count),
        "_final_obs": ended_N,
        "final_info": batch_infos([f[1] if f else {} for f in finals]),
        "_final_info": ended_N,
    }


def _type_of(values: Sequence[Any]) -> Any:
    """Return the type of an array that holds values as they are; None for that of their own."""
    kinds = set(map(type, values))
    kind = kinds.pop()
    if kinds or kind in _PLAIN:
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

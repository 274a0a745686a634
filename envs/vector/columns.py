"""Arrays of what stands under the keys of many infos: of one key, or of all in one pass."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain, compress
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .members import Info

Final = tuple[Any, Info]
"""Observation and info with which an episode ended."""

_OBJECT, _BOOL = np.dtype(object), np.dtype(np.bool_)
_PLAIN = frozenset((type(None), str, list, tuple, dict))
"""Types of most values in infos that stay objects."""
_FLAG = frozenset((bool,))


def column_of(key: Any, infos: Sequence[Info]) -> tuple[NDArray[Any], NDArray[np.bool_]] | None:
    """Return the array of one key and the mask of the members that have it; None if none has."""
    try:
        values, where = [info[key] for info in infos], None
    except KeyError:
        where = [i for i, info in enumerate(infos) if key in info]
        values = [infos[i][key] for i in where]
    if not values:
        return None
    mask_N = _mask((True,) * len(infos)) if where is None else _mask_of([key in i for i in infos])
    return _column(values, where, len(infos)), mask_N


def final_observations(finals: Sequence[Final | None]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the observations with which episodes ended, and the mask of their members."""
    observations = [final and final[0] for final in finals]
    return np.fromiter(observations, _OBJECT, len(finals)), _mask_of(finals)


def all_columns(infos: Sequence[Info]) -> Info:
    """Return the arrays and masks of all keys."""
    layout = _layout_of(infos)
    if layout is not None and (tables := _tables(infos, layout)) is not None:
        return _named(layout, *tables, _mask_of(infos))
    return _batch_some(infos)


def with_finals(infos: Sequence[Info], finals: Sequence[Final | None]) -> Info:
    """Return these, and those of the observations and infos with which episodes ended."""
    count = len(infos)
    ends = [final[1] if final else {} for final in finals]
    both = [*infos, *ends]
    layout = _layout_of(both)
    # One table for both: to make an array takes longer than to fill it.
    if layout is not None and (tables := _tables(both, layout)) is not None:
        objects_N_K, flags_N_K = tables
        info = _named(layout, objects_N_K[:count], flags_N_K[:count], _mask_of(infos))
        end = _named(layout, objects_N_K[count:], flags_N_K[count:], _mask_of(ends))
    else:
        info, end = all_columns(infos), all_columns(ends)
    info["final_obs"], info["_final_obs"] = final_observations(finals)
    info["final_info"], info["_final_info"] = end, info["_final_obs"]
    return info


def _batch_some(infos: Sequence[Info]) -> Info:
    """Batch infos of whatever keys and values."""
    batch: Info = {}
    for key in dict.fromkeys(key for info in infos for key in info):
        has = [key in info for info in infos]
        batch[f"_{key}"] = _mask_of(has)
        where = None if all(has) else [*compress(range(len(infos)), has)]
        batch[key] = _column([info[key] for info in compress(infos, has)], where, len(infos))
    return batch


class _Part(NamedTuple):
    """Some keys of infos, whose values go into one table."""

    keys: tuple[str, ...]
    pick: Callable[[Info], tuple[Any, ...]]
    """Returns the values of an info in this order, or raises KeyError."""
    blank: tuple[Any, ...]
    """The values of a member that has no info."""


class _Layout(NamedTuple):
    """Where the values of infos go whose values are all booleans, or objects for certain."""

    names: tuple[str, ...]
    """Of the masks, then of the objects, then of the flags."""
    objects: _Part
    flags: _Part


def _layout_of(infos: Sequence[Info]) -> _Layout | None:
    """Return the layout that infos share which are not empty; None if they share none."""
    sizes = {*map(len, infos)} - {0}
    if len(sizes) != 1:
        return None
    first = next(filter(None, infos))
    return _layout((*first,), (*map(type, first.values()),))


@lru_cache(maxsize=256)
def _layout(keys: tuple[str, ...], kinds: tuple[type, ...]) -> _Layout | None:
    """Return the layout of infos with these keys, of which the first has values of these types."""
    objects = _part([k for k, kind in zip(keys, kinds, strict=True) if kind in _PLAIN], None)
    flags = _part([k for k, kind in zip(keys, kinds, strict=True) if kind is bool], False)
    if len(objects.keys) + len(flags.keys) < len(keys):
        return None
    masks = [f"_{key}" for key in keys]
    return _Layout((*masks, *objects.keys, *flags.keys), objects, flags)


def _part(keys: Sequence[str], blank: Any) -> _Part:
    def pick(info: Info) -> tuple[Any, ...]:
        return tuple([info[key] for key in keys])

    # That of operator is several times faster, and returns no tuple for one key.
    return _Part((*keys,), itemgetter(*keys) if len(keys) > 1 else pick, (blank,) * len(keys))


_Table = tuple[NDArray[Any], NDArray[np.bool_]]
"""The objects of infos, and their booleans, a row an info."""


def _tables(infos: Sequence[Info], layout: _Layout) -> _Table | None:
    """Return the values of infos that have the same keys, of which some may be empty.

    Each array that is made costs as much time as a third of a step, columns of one table cost
    less. None if the keys are not the same, or what should be a boolean is none.
    """
    try:
        objects, flags = _values(infos, layout.objects), _values(infos, layout.flags)
    except KeyError:
        return None
    if not _FLAG.issuperset({*map(type, flags)}):
        return None
    objects_N_K = np.fromiter(objects, _OBJECT, len(objects))
    flags_N_K = np.frombuffer(bytearray(flags), _BOOL) if flags else np.empty(0, _BOOL)
    count = len(infos)
    return objects_N_K.reshape(count, -1), flags_N_K.reshape(count, -1)


def _values(infos: Sequence[Info], part: _Part) -> list[Any]:
    pick = part.pick
    if all(infos):
        return [*chain.from_iterable(map(pick, infos))]
    return [*chain.from_iterable([pick(info) if info else part.blank for info in infos])]


def _named(
    layout: _Layout,
    objects_N_K: NDArray[Any],
    flags_N_K: NDArray[np.bool_],
    mask_N: NDArray[np.bool_],
) -> Info:
    """Return the batch of infos that have these rows of the tables."""
    columns = [mask_N] * (len(layout.objects.keys) + len(layout.flags.keys))
    columns.extend(objects_N_K.T)
    columns.extend(flags_N_K.T)
    return dict(zip(layout.names, columns, strict=True))


def _mask_of(things: Sequence[Any]) -> NDArray[np.bool_]:
    """Return the mask of the members that have something, which cannot be changed."""
    return _mask((*map(bool, things),))


@lru_cache(maxsize=1024)
def _mask(has: tuple[bool, ...]) -> NDArray[np.bool_]:
    mask_N = np.array(has, np.bool_)
    mask_N.flags.writeable = False
    return mask_N


def _column(values: Sequence[Any], where: Sequence[int] | None, count: int) -> NDArray[Any]:
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

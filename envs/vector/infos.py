"""The infos of many members as one dictionary, as Gymnasium's vector environments have it.

Each key has an array of shape (N, ...) and, under `_key`, a mask of the members that have it,
which others may share and nobody may change. Numbers, or arrays of one shape, that all members
have in one type become an array of that type; everything else, dictionaries too, stays as it is
in an array of objects. Where episodes ended and were followed by others in the same step,
`final_obs` and `final_info` tell how.

To make them all takes as long as eight members of a fast world take for a step, and most who
play look at two or three. So an array is made when it is looked at first, of what the members
had said when the dictionary was made.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, cast

import numpy as np

from .columns import Final, all_columns, column_of, final_observations, with_finals
from .members import Info
from .sealed import MaybeSealedFinal, SealedInfo, read_final, read_info


class Infos(dict[str, Any]):
    """The infos of N members: a dictionary in every respect, filled key by key.

    Args:
        infos: Of each member; empty where it has none. What is sealed is read when anything is
            looked at.
        finals: How the members' episodes ended that are followed by others already.
    """

    __slots__ = ("_finals", "_infos", "_sealed")

    def __init__(
        self,
        infos: Sequence[Info | SealedInfo],
        finals: Sequence[MaybeSealedFinal | None] = (),
    ) -> None:
        # A dictionary that is not empty, which is all that json, for one, would ask.
        _set_default(self, _UNFILLED, None)
        said: list[Any] = [*infos]
        if SealedInfo in {*map(type, said)}:
            self._take([], [])
            self._sealed: tuple[list[Any], Sequence[Any]] | None = (said, finals)
        else:
            # These are the members', who may use the dictionaries again, and arrays, too.
            self._take(said, map(read_final, finals))
            self._sealed = None
            all_said = chain(self._infos, [final[1] for final in self._finals if final])
            if np.ndarray in {*map(type, chain.from_iterable(map(dict.values, all_said)))}:
                self._fill()

    def __missing__(self, key: Any) -> Any:
        """Make what stands under a key when it is looked at first."""
        is_mask = isinstance(key, str) and key.startswith("_")
        if not self._make(key) and not (is_mask and self._make(key[1:])):
            raise KeyError(key)
        return self[key]

    def __contains__(self, key: object) -> bool:
        return self.get(key, self) is not self

    def get(self, key: Any, default: Any = None) -> Any:
        """Return what stands under a key, or something else."""
        try:
            return self[key]
        except KeyError:
            return default

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return dict, ([*self.items()],)

    def _read(self) -> None:
        """Take in what was sealed."""
        if self._sealed:
            infos, finals = self._sealed
            self._take(map(read_info, infos), map(read_final, finals))
            self._sealed = None

    def _take(self, infos: Iterable[Info], finals: Iterable[Final | None]) -> None:
        """Keep copies of what the members said."""
        self._infos = [*map(dict.copy, infos)]
        self._finals = [final and (final[0], dict.copy(final[1])) for final in finals]

    def _fill(self) -> None:
        """Make everything that was not looked at yet."""
        if dict.__contains__(self, _UNFILLED):
            self._read()
            finals = self._finals
            whole = with_finals(self._infos, finals) if finals else all_columns(self._infos)
            _pop(self, _UNFILLED, None)
            for key, value in whole.items():
                _set_default(self, key, value)
            self._infos, self._finals = [], []

    def _make(self, key: Any) -> bool:
        """Make the array of a key and its mask, and tell whether there is such a key."""
        self._read()
        made: tuple[Any, Any] | None
        if self._finals and (key == "final_obs" or key == "final_info"):
            made = final_observations(self._finals)
            if key == "final_info":
                made = Infos([final[1] if final else {} for final in self._finals]), made[1]
        else:
            made = column_of(key, self._infos)
        if made is not None:  # and not over what somebody has written there
            _set_default(self, key, made[0])
            _set_default(self, f"_{key}", made[1])
        return made is not None


_UNFILLED = object()
"""A key of what has not been filled; whoever goes through the keys fills it first."""
_set_default, _pop = cast(Any, dict.setdefault), cast(Any, dict.pop)


def _after_filling(name: str) -> Callable[..., Any]:
    """Return a method of dictionaries that sees everything."""
    method = getattr(dict, name)

    def whole(infos: Infos, *args: Any, **kwargs: Any) -> Any:
        for one in (infos, *args):
            if isinstance(one, Infos):
                one._fill()
        return method(infos, *args, **kwargs)

    return whole


for _name in (
    *("__iter__", "__reversed__", "__len__", "__repr__", "__eq__", "__ne__", "__delitem__"),
    *("__or__", "__ror__", "__ior__", "keys", "values", "items", "copy"),
    *("pop", "popitem", "setdefault", "update", "clear"),
):
    setattr(Infos, _name, _after_filling(_name))

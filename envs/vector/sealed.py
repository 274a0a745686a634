"""Infos on their way from a process, which are read when they are looked at.

To read the infos of a text environment takes longer than its step, for they hold the dialogue,
the choices and the tools' schemas. So a process sends the infos of all members that it tells of
at once in one piece, and a piece that nobody looks at is never read.
"""

import pickle
from collections.abc import Iterable, Sequence
from itertools import count, repeat
from typing import Any, cast

from .members import APPLY, Info, Job, Outcome
from .workers import Results


class Piece:
    """Infos as a process wrote them."""

    __slots__ = ("_infos", "_raw")

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._infos: list[Info] | None = None

    def read(self) -> list[Info]:
        """Return the infos, the same ones each time.

        Raises:
            RuntimeError: something in them cannot be made in this process.
        """
        if self._infos is None:
            try:
                self._infos = pickle.loads(self._raw)
            except Exception as error:  # a KeyError would be taken for a key that is not there
                raise RuntimeError(f"infos of a process cannot be read here: {error!r}") from error
            self._raw = b""
        return self._infos


class SealedInfo:
    """Where the info of a member stands: in which piece, and at which place."""

    __slots__ = ("_piece", "_place")

    def __init__(self, piece: Piece, place: int) -> None:
        self._piece, self._place = piece, place

    def read(self) -> Info:
        """Return the info."""
        return self._piece.read()[self._place]


MaybeSealedFinal = tuple[Any, Info | SealedInfo]
MaybeSealed = tuple[Any, Any, bool, bool, Info | SealedInfo, MaybeSealedFinal | None]
"""An outcome whose infos may be sealed."""

Told = tuple[Results, bytes]
"""What a process tells: what became of jobs, the infos taken out, and then these, pickled."""


def played_in(jobs: Iterable[Job]) -> set[int]:
    """Return the members whose jobs give an outcome with an info."""
    return {job[0] for job in jobs if job[1] != APPLY}


def seal(results: Results, played: set[int]) -> Told:
    """Return what a process tells of what became of jobs."""
    infos: list[Info] = []
    bare: Results = []
    for index, outcome in results:
        if index in played:
            observation, reward, terminated, truncated, info, final = outcome
            infos.append(info)
            if final is not None:
                infos.append(final[1])
                final = final[0], None
            outcome = observation, reward, terminated, truncated, None, final
        bare.append((index, outcome))
    return bare, pickle.dumps(infos, protocol=5)


def sealed(told: Told, played: set[int]) -> Results:
    """Return what became of jobs, with infos that are sealed."""
    bare, raw = told
    infos = map(SealedInfo, repeat(Piece(raw)), count())
    results: Results = []
    for index, outcome in bare:
        if index in played:
            observation, reward, terminated, truncated, _, final = outcome
            info = next(infos)
            final = final and (final[0], next(infos))
            outcome = observation, reward, terminated, truncated, info, final
        results.append((index, outcome))
    return results


def read_info(info: Info | SealedInfo) -> Info:
    """Return an info, sealed or not."""
    return info.read() if isinstance(info, SealedInfo) else info


def read_final(final: MaybeSealedFinal | None) -> tuple[Any, Info] | None:
    """Return how an episode ended, the info read."""
    return final and (final[0], read_info(final[1]))


def opened(outcomes: Sequence[MaybeSealed]) -> Sequence[Outcome]:
    """Return outcomes, their infos read."""
    if SealedInfo not in {type(outcome[4]) for outcome in outcomes}:
        return cast(Sequence[Outcome], outcomes)
    return [(*played, read_info(info), read_final(final)) for *played, info, final in outcomes]

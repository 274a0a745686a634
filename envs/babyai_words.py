"""What is seen in BabyAI, as an array and in words; either says all that the other does."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_VIEW = 7
"""Cells that the agent sees ahead of it (its own row included), and across."""
_COLOURS = ("red", "green", "blue", "purple", "yellow", "grey")
_THINGS = (
    "unseen", "empty", "wall", "open door", "closed door", "locked door", "key", "ball", "box"
)  # fmt: skip
_WORDS = (
    "", ",", "a", "after", "ball", "behind", "blue", "box", "door", "front", "go", "green", "grey",
    "in", "key", "left", "next", "object", "of", "on", "open", "pick", "purple", "put", "red",
    "right", "the", "then", "to", "up", "yellow", "you", "your",
)  # fmt: skip
_MISSION_LENGTH = 12
_DIRECTIONS = ("east", "south", "west", "north")
_MOST_TURNS = 256
"""A power of two, so that no turn is lost in float32."""
_CELL = len(_THINGS) + len(_COLOURS)
_SIZES = (_VIEW * _VIEW * _CELL, len(_DIRECTIONS), _MISSION_LENGTH * len(_WORDS), 1)
_ENDS = tuple(int(end) for end in np.cumsum(_SIZES))
OBSERVATION_SIZE = _ENDS[-1]

_THING_OF = np.zeros((11, 3), int)
"""Index into `_THINGS` by the numbers that minigrid has for objects and their states."""
_THING_OF[1], _THING_OF[2], _THING_OF[4] = 1, 2, (3, 4, 5)
_THING_OF[5], _THING_OF[6], _THING_OF[7] = 6, 7, 8


def encode(seen: dict[str, Any], turns: int) -> NDArray[np.float32]:
    """Return one array for an observation of minigrid and the turns that are left."""
    kinds, colours, states = np.moveaxis(seen["image"], 2, 0).astype(int)
    cells = np.zeros((_VIEW, _VIEW, _CELL), np.float32)
    things = _THING_OF[kinds, states]
    across, ahead = np.indices(kinds.shape)
    cells[across, ahead, things] = 1
    cells[across, ahead, len(_THINGS) + colours] = things > _THINGS.index("wall")
    words = seen["mission"].replace(",", " ,").split()
    numbers = [_WORDS.index(word) for word in words] + [0] * (_MISSION_LENGTH - len(words))
    parts = (
        cells.ravel(),
        np.eye(len(_DIRECTIONS), dtype=np.float32)[seen["direction"]],
        np.eye(len(_WORDS), dtype=np.float32)[numbers].ravel(),
        np.array([turns / _MOST_TURNS], np.float32),
    )
    return np.concatenate(parts)


def describe(observation: NDArray[np.float32]) -> str:
    """Say everything that an observation holds in words."""
    cells, directions, words, turns = np.split(observation, _ENDS[:-1])
    mission = " ".join(_WORDS[i] for i in words.reshape(_MISSION_LENGTH, -1).argmax(1))
    direction = _DIRECTIONS[directions.argmax()]
    seen = _read_cells(cells)
    carried = seen.pop((0, 0))
    things = sorted((place, name) for place, name in seen.items() if name != "wall")
    walls = [place for place, name in seen.items() if name == "wall"]
    told = [f"{_a(name)} {_where(*place)}" for place, name in things] + _runs(walls)
    return (
        f"Mission: {mission.strip().replace(' ,', ',')}. You face {direction} and carry "
        f"{'nothing' if carried == 'empty' else _a(carried)}. "
        f"You see {'; '.join(told) or 'an empty floor'}. "
        f"Turns left: {round(float(turns[0]) * _MOST_TURNS)}."
    )


def _read_cells(cells: NDArray[np.float32]) -> dict[tuple[int, int], str]:
    """Return what is seen by its place: steps ahead, and steps to the right."""
    cells = cells.reshape(_VIEW, _VIEW, _CELL)
    things = cells[:, :, : len(_THINGS)].argmax(2).tolist()
    colours = cells[:, :, len(_THINGS) :].argmax(2).tolist()
    seen = {}
    for across in range(_VIEW):
        for row in range(_VIEW):
            place = (_VIEW - 1 - row, across - _VIEW // 2)
            *state, thing = _THINGS[things[across][row]].split()
            if thing not in ("unseen", "empty", "wall"):
                thing = " ".join((*state, _COLOURS[colours[across][row]], thing))
            if place == (0, 0) or thing not in ("unseen", "empty"):
                seen[place] = thing
    return seen


def _a(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _where(ahead: int, right: int) -> str:
    return " and ".join(([_ahead(ahead)] if ahead else []) + ([_aside(right)] if right else []))


def _ahead(steps: int) -> str:
    return f"{steps} step{'s' if steps > 1 else ''} ahead" if steps else "beside you"


def _aside(steps: int) -> str:
    return f"{abs(steps)} to the {'right' if steps > 0 else 'left'}" if steps else "straight ahead"


def _runs(walls: Iterable[tuple[int, int]]) -> list[str]:
    """Say where walls are, those in a line together, the longest line first."""
    rest, told = sorted(walls), []
    while rest:
        lines = [_line(place, step, rest) for place in rest for step in ((0, 1), (1, 0))]
        line = max(lines, key=len)
        (ahead, right), (farthest, rightmost) = line[0], line[-1]
        if len(line) == 1:
            told.append(f"a wall {_where(ahead, right)}")
        elif ahead == farthest:
            told.append(f"a wall {_ahead(ahead)} from {_aside(right)} to {_aside(rightmost)}")
        else:
            told.append(f"a wall {_aside(right)} from {_ahead(ahead)} to {_ahead(farthest)}")
        rest = [place for place in rest if place not in line]
    return told


def _line(
    place: tuple[int, int], step: tuple[int, int], walls: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    line = []
    while place in walls:
        line.append(place)
        place = (place[0] + step[0], place[1] + step[1])
    return line

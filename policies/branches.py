"""Rows of tokens that go on in several ways behind one beginning, which is read once.

Idea: the choices at a point of a dialogue are a few tokens each, behind hundreds that they share.
They are read as one row: first the dialogue, then one choice behind the other, where each token
stands in the place that it would have in a row of its own, and sees the dialogue and its own
choice only. So many choices cost about as much as one.
"""

from collections.abc import Sequence
from itertools import accumulate, groupby
from typing import NamedTuple

import torch
from torch import Tensor

Ids = Sequence[int]


class Row(NamedTuple):
    """A row of T tokens."""

    ids: tuple[int, ...]
    branches: tuple[int, ...] = ()
    """Lengths of the branches in which it ends, side by side; none if it goes on in one way."""

    @property
    def stem(self) -> int:
        """How many tokens all branches share."""
        return len(self.ids) - sum(self.branches)

    @property
    def owners(self) -> list[int]:
        """Which branch each token belongs to, from 1 on; 0 for those that all share."""
        own = [i for i, length in enumerate(self.branches, 1) for _ in range(length)]
        return [0] * self.stem + own

    @property
    def detours(self) -> list[int]:
        """How many tokens of other branches stand between each token and the shared ones."""
        before = accumulate(self.branches, initial=0)
        own = [b for b, length in zip(before, self.branches, strict=False) for _ in range(length)]
        return [0] * self.stem + own


class Place(NamedTuple):
    """Where an action is read."""

    row: int
    """Number of the row."""
    before: int
    """The token of the row that stands before the action."""
    start: int
    """The first token of the action, where anything of it is read."""


def joined(
    prompts: Sequence[Ids], actions: Sequence[Ids], groups: Sequence[int] | None = None
) -> tuple[list[Row], list[Place]]:
    """Return the rows in which actions are read, all but the last token of each, and where.

    Args:
        prompts: What stands before each action.
        actions: The actions.
        groups: Numbers; neighbours of one number have the same prompt, and share rows. Without,
            a row with which another begins, as the turns of a dialogue do, is read in that one.
    """
    rows: list[Row] = []
    places: list[Place] = []
    for _, numbers in groupby(range(len(prompts)), groups.__getitem__ if groups else None):
        some, length = list[int](), 0
        members = list(numbers)
        for i in members:
            # All that stands in a row is compared with all of it, so rows are not to grow long.
            if some and length + len(actions[i]) > max(len(prompts[i]), _BRANCHES):
                _join(rows, places, prompts[i], [actions[k] for k in some])
                some, length = [], 0
            some.append(i)
            length += len(actions[i])
        _join(rows, places, prompts[members[0]], [actions[k] for k in some])
    if groups is None:
        rows, holders = _longest(rows)
        places = [place._replace(row=holders[place.row]) for place in places]
    return rows, places


_BRANCHES = 128
"""Tokens of branches that any prompt may have behind it."""


def _join(rows: list[Row], places: list[Place], prompt: Ids, actions: Sequence[Ids]) -> None:
    ends = [tuple(action[:-1]) for action in actions]
    starts = accumulate(map(len, ends), initial=len(prompt))
    places += [Place(len(rows), len(prompt) - 1, s) for s, _ in zip(starts, ends, strict=False)]
    ids = (*prompt, *(token for end in ends for token in end))
    rows.append(Row(ids, tuple(map(len, ends)) if len(ends) > 1 else ()))


def _longest(rows: Sequence[Row]) -> tuple[list[Row], list[int]]:
    """Return the rows with which no other begins, and in which of them each row is."""
    kept: list[Row] = []
    holders = [0] * len(rows)
    # In this order a row stands right behind those that begin with it.
    for i in sorted(range(len(rows)), key=lambda i: rows[i].ids, reverse=True):
        ids = rows[i].ids
        if not kept or kept[-1].ids[: len(ids)] != ids:
            kept.append(rows[i])
        holders[i] = len(kept) - 1
    return kept, holders


def tokens_before(place: Place, action: Ids) -> list[int]:
    """Return where in its row stands what is read before each token of an action."""
    return [place.before, *range(place.start, place.start + len(action) - 1)]


def asked(places: Sequence[Place], actions: Sequence[Ids]) -> list[list[int]]:
    """Return the tokens of each row behind which something is asked, ascending."""
    found: dict[int, set[int]] = {}
    for place, action in zip(places, actions, strict=True):
        found.setdefault(place.row, set()).update(tokens_before(place, action))
    return [sorted(found[row]) for row in sorted(found)]


def apart(owners_BT: Tensor) -> Tensor:
    """Tell which tokens of rows belong to no other branch, shape (B, T, T): may T see T?"""
    theirs_B1T, own_BT1 = owners_BT[:, None], owners_BT[:, :, None]
    return (theirs_B1T == 0) | (theirs_B1T == own_BT1)


def padded(lists: Sequence[Sequence[int]], width: int, left: bool, device: torch.device) -> Tensor:
    """Return lists of numbers as rows of so many, with zeros before or behind, shape (B, T)."""
    rows = [
        [*[0] * (width - len(one)), *one] if left else [*one, *[0] * (width - len(one))]
        for one in lists
    ]
    return torch.tensor(rows, device=device)

"""Rows of tokens that go on in several ways behind one beginning, which is read once.

Idea: the choices at a point of a dialogue are a few tokens each, behind hundreds that they share.
They are read as one row: first the dialogue, then one choice behind the other, where each token
stands in the place that it would have in a row of its own, and sees the dialogue and its own
choice only. So many choices cost about as much as one.
"""

from collections.abc import Sequence
from itertools import accumulate
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
    """The token that stands before the action."""
    start: int
    """The token with which it begins, if anything of it is read."""


def joined(prompts: Sequence[Ids], actions: Sequence[Ids]) -> tuple[list[Row], list[Place]]:
    """Return the rows in which actions are read, all but the last token of each, and where.

    Actions behind the same prompt share a row, where that is less to read and to attend to.
    """
    together: dict[tuple[int, ...], list[int]] = {}
    for i, prompt in enumerate(prompts):
        together.setdefault(tuple(prompt), []).append(i)
    rows: list[Row] = []
    places: dict[int, Place] = {}
    for prompt, members in together.items():
        ends = [tuple(actions[i][:-1]) for i in members]
        # What is shared is read once, but all that stands in a row is compared with all of it.
        shared = len(prompt) * len(members) >= sum(map(len, ends))
        for some in [members] if shared else [[i] for i in members]:
            start = len(prompt)
            for i in some:
                places[i] = Place(len(rows), len(prompt) - 1, start)
                start += len(actions[i]) - 1
            ids = (*prompt, *(token for i in some for token in actions[i][:-1]))
            branches = tuple(len(actions[i]) - 1 for i in some) if len(some) > 1 else ()
            rows.append(Row(ids, branches))
    return rows, [places[i] for i in range(len(prompts))]


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

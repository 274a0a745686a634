"""A minibatch in parts, each of which a thread of its own sees to."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch


class Threads:
    """As many threads as torch has; they end with this object."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(torch.get_num_threads())

    def each(self, see_to: Callable[[Any], Any], parts: list[Any]) -> list[Any]:
        """See to each part, and return what was found."""
        return list((self._pool.map if len(parts) > 1 else map)(see_to, parts))

    def sums(self, see_to: Callable[[Any], Any], parts: list[Any]) -> list[torch.Tensor]:
        """See to each part, and add up the first arrays that were found, the second ones, ..."""
        found = zip(*self.each(see_to, parts), strict=True)
        return [torch.from_numpy(sum(more, start=first)) for first, *more in found]


def parts_of(rows: int, least: int, *, multiple: int = 1) -> list[slice]:
    """Return which of some rows each of torch's threads sees to.

    Args:
        rows: How many, a multiple of what parts are.
        least: Fewest that are worth another thread.
        multiple: Parts are multiples of this.
    """
    parts = max(1, min(torch.get_num_threads(), rows // least))
    ends = [rows // multiple * i // parts * multiple for i in range(parts + 1)]
    return [slice(*ends[i : i + 2]) for i in range(parts)]

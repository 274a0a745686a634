"""A minibatch in parts, each of which a thread of its own sees to."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch


class Threads:
    """As many threads as torch has; they end with this object.

    Args:
        least: Fewest rows that are worth another thread.
    """

    def __init__(self, least: int) -> None:
        self._pool, self._least = ThreadPoolExecutor(torch.get_num_threads()), least

    def parts(self, rows: int) -> list[slice]:
        """Return which of so many rows each thread sees to."""
        parts = max(1, min(torch.get_num_threads(), rows // self._least))
        ends = [rows * i // parts for i in range(parts + 1)]
        return [slice(*ends[i : i + 2]) for i in range(parts)]

    def each(self, see_to: Callable[[Any], Any], parts: list[Any]) -> list[Any]:
        """See to each part, and return what was found."""
        return list((self._pool.map if len(parts) > 1 else map)(see_to, parts))

    def sums(self, see_to: Callable[[Any], Any], parts: list[Any]) -> list[torch.Tensor]:
        """See to each part, and add up the first arrays that were found, the second ones, ..."""
        found = zip(*self.each(see_to, parts), strict=True)
        return [torch.from_numpy(sum(more, start=first)) for first, *more in found]

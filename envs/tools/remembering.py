"""What was read from files, kept in memory: who trains asks the same again and again."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any, Generic, TypeVar
from weakref import WeakSet

Value = TypeVar("Value")
_everything: "WeakSet[Remembered[Any]]" = WeakSet()


class Remembered(Generic[Value]):
    """Values by keys, for as long as there is room.

    Args:
        most: Values that are kept. The next one takes the place of all of them.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._values: dict[Hashable, Value] = {}
        _everything.add(self)

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable) -> Value | None:
        """Return the value of a key, or None."""
        return self._values.get(key)

    def keep(self, key: Hashable, value: Value) -> None:
        """Keep the value of a key."""
        if len(self._values) >= self.most:
            self.forget()
        self._values[key] = value

    def forget(self) -> None:
        """Keep nothing of what there is."""
        self._values.clear()  # at once, as threads may be reading


def forget_everything() -> None:
    """Let whatever is asked next in this process be read."""
    for remembered in list(_everything):
        remembered.forget()


def identity(path: Path) -> tuple[Path, int, int]:
    """Return what tells a file from another one that takes its place.

    Raises:
        OSError: there is no such file.
    """
    about = path.stat()
    return path, about.st_ino, about.st_mtime_ns

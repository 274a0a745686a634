"""What a check of an environment says: what it found, or why there was nothing to look at."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something that an environment does and must not do."""

    what: str
    """What was seen, in a line."""
    advice: str
    """What to do about it."""
    seed: int | None = None
    """The seed of a `reset` that shows it; None where no single one does."""


class NotApplicable(Exception):
    """There is nothing to look at for a check; the message says why."""


class Broken(Exception):
    """The environment raised where it must not."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.what)
        self.finding = finding


@contextmanager
def shown_by(seed: int) -> Iterator[None]:
    """Tell the seed of an episode in which the environment raises."""
    try:
        yield
    except (Broken, NotApplicable):
        raise
    except Exception as error:
        what = f"it raised {type(error).__name__}: {shortened(error)}"
        raise Broken(Finding(what, "Mend what raises.", seed)) from error


def shortened(value: object, most: int = 160) -> str:
    """Return a value in one line of bounded length."""
    text = " ".join(str(value).split())
    return text if len(text) <= most else f"{text[:most]}..."

"""The checks that every environment passes, and that anybody may run on their own.

Each check is a small function of a `Subject` that returns None, or a `Finding` with the seed
that shows it. What a check cannot look at is not applicable, and it says why.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from ...errors import UserError
from ..views import find_spec, splits_of
from .contract import ends, gymnasium_checker, information, mattering, rendering, rewards
from .fairness import choices_tell_nothing, oracle, random_choices
from .findings import Broken, Finding, NotApplicable, shortened
from .hostile import hostile_messages
from .seeds import (
    fresh_process,
    global_generators,
    going_on,
    interference,
    same_seed,
    splits_overlap,
)
from .snapshots import snapshots
from .subject import Subject

Check = Callable[[Subject], Finding | None]


def _making(subject: Subject) -> None:
    """It can be made and started."""
    with closing(subject.make()) as env:
        env.reset(seed=subject.seed)


CHECKS: dict[str, Check] = {
    "making": _making,
    "gymnasium": gymnasium_checker,
    "rendering": rendering,
    "same seed": same_seed,
    "fresh process": fresh_process,
    "interference": interference,
    "global generators": global_generators,
    "going on": going_on,
    "splits": splits_overlap,
    "rewards": rewards,
    "ends": ends,
    "info": information,
    "snapshots": snapshots,
    "oracle": oracle,
    "random choices": random_choices,
    "choices tell": choices_tell_nothing,
    "hostile messages": hostile_messages,
}
"""The checks by name, in the order in which they run."""
ONCE = frozenset(("rendering", "fresh process", "splits", "hostile messages"))
"""Checks that look at all splits at once, or for which the first split stands for all."""


@dataclass(frozen=True)
class Result:
    """What one check says about one split."""

    check: str
    """The name of the check."""
    says: str
    """What holds where it passes, in a line."""
    split: str | None
    """The split; None for all of them, or where there is none."""
    finding: Finding | None = None
    """What failed."""
    skipped: str = ""
    """Why the check is not applicable."""
    warnings: tuple[str, ...] = ()
    """What Gymnasium's checker warns of."""


def check(
    env_id: str,
    *,
    splits: Sequence[str] | None = None,
    episodes: int = 200,
    hostile: int = 300,
    seed: int = 0,
) -> Iterator[Result]:
    """Run every check on an environment; yield each result as soon as it is there.

    Args:
        env_id: A Gymnasium id, or `module:id`.
        splits: The splits that are looked at; None for all.
        episodes: Episodes of each check that plays many.
        hostile: Hostile messages.
        seed: The first seed that is tried.

    Raises:
        UserError: there is no such environment or split.
    """
    known = _splits(env_id)
    unknown = [split for split in splits or () if split not in known]
    if unknown:
        raise UserError(f"{env_id} has no split {unknown[0]!r}; its splits are: {known}")
    subjects = [
        Subject(env_id, split, seed, episodes, hostile=hostile)
        for split in (splits or known or (None,))
    ]
    for name in CHECKS:
        for subject in subjects[:1] if name in ONCE else subjects:
            result = run(name, subject)
            yield result if name not in ONCE else replace(result, split=None)
            if name == "making" and result.finding:
                return


def _splits(env_id: str) -> tuple[str, ...]:
    spec = find_spec(env_id)
    try:
        return splits_of(spec)
    except Exception:  # its module cannot be imported: the first check says so
        return ()


def run(name: str, subject: Subject) -> Result:
    """Run the check of that name."""
    function = CHECKS[name]
    says = (function.__doc__ or "").partition("\n")[0]
    result = Result(name, says, subject.split)
    # Whoever makes an environment is warned; here a check says it, once.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = replace(result, finding=function(subject))
        except NotApplicable as why:
            result = replace(result, skipped=str(why))
        except Broken as broken:
            result = replace(result, finding=broken.finding)
        except Exception as error:
            what = f"it raised {type(error).__name__}: {shortened(error)}"
            finding = Finding(what, "Mend what raises.", subject.seed)
            result = replace(result, finding=finding)
    return replace(result, warnings=mattering(caught)) if name == "gymnasium" else result

"""What the checks of an environment say, as lines for the terminal."""

from collections.abc import Iterable, Iterator
from itertools import groupby

from ..envs.checking import CHECKS, Result
from .progress import progress_bar


def report(env_id: str, results: Iterable[Result], command: str) -> bool:
    """Print a line a check as it ends, and what failed; return whether nothing did.

    Args:
        env_id: The environment.
        results: What its checks say, in their order.
        command: What runs the same checks again, but for the seed.
    """
    marks: list[str] = []
    with progress_bar(len(CHECKS), "checks") as bar:
        for name, group in groupby(results, lambda result: result.check):
            splits = list(group)
            marks.append(_mark(splits))
            bar.write(f"{marks[-1]:5} {name:18} {_said(splits)}")
            for result in splits:
                for line in _details(result, command):
                    bar.write(f"      {line}")
            bar.update(1)
    passed, failed = marks.count("ok"), marks.count("FAIL")
    skipped = marks.count("-")
    print(f"{env_id}: {passed} checks passed, {failed} failed, {skipped} not applicable")
    return not failed


def _mark(splits: list[Result]) -> str:
    if any(result.finding for result in splits):
        return "FAIL"
    return "-" if all(result.skipped for result in splits) else "ok"


def _said(splits: list[Result]) -> str:
    why = splits[0].skipped if _mark(splits) == "-" else ""
    return f"not applicable: {why}" if why else splits[0].says


def _details(result: Result, command: str) -> Iterator[str]:
    split = f"split {result.split}: " if result.split else ""
    for warning in result.warnings:
        yield f"{split}{warning}"
    if result.finding:
        yield f"{split}{result.finding.what}"
        yield result.finding.advice
        if result.finding.seed is not None:
            yield f"again: {command} --seed {result.finding.seed}"

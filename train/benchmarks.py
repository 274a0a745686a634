"""Run the benchmarks of a checkout, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

from ..errors import UserError

FOLDER = Path(__file__).parents[1] / "benchmarks"
NAMES = ("envs", "buffers", "ppo", "text", "peers", "learning", "language")


def bench(names: list[str], rounds: int | None, results: Path | None) -> None:
    """Run benchmarks, which print their tables.

    Args:
        names: Which; none for all.
        rounds: Of each contestant; None for what the benchmark thinks best.
        results: JSON file for the results of one benchmark; folder for `NAME.json` of several, or
            of one where the folder is there already.

    Raises:
        UserError: there is no such benchmark, this is no checkout, the results cannot be written,
            which is found out before anything is measured, or a benchmark failed.
    """
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise UserError(f"unknown benchmark {unknown[0]!r}; there are: {', '.join(NAMES)}")
    if not FOLDER.is_dir():
        raise UserError("benchmarks are part of a checkout, and this is an installed package")
    chosen = names or NAMES
    paths = [_place(results, name, len(chosen) > 1) for name in chosen] if results else []
    for i, name in enumerate(chosen):
        command = [sys.executable, str(FOLDER / f"{name}.py")]
        if rounds is not None:
            command += ["--rounds", str(rounds)]
        if paths:
            command += ["--json", str(paths[i])]
        print(f"== {name}", flush=True)
        if subprocess.run(command).returncode:
            raise UserError(f"the benchmark {name} failed; what it printed says why")


def _place(results: Path, name: str, several: bool) -> Path:
    """Return where the results of a benchmark go, having seen that they can be written there."""
    path = results
    try:
        if several or results.is_dir():
            path = results / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        there = os.path.lexists(path)
        path.open("ab").close()
        if not there:
            path.unlink()
    except OSError as error:
        raise UserError(
            f"cannot write results to {path}: {error.strerror}; give another --json"
        ) from None
    return path

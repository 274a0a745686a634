"""Run the benchmarks of a checkout, each in a process of its own."""

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
        results: JSON file for the results of one benchmark, folder for those of several.

    Raises:
        UserError: there is no such benchmark, this is no checkout, or one of them failed.
    """
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise UserError(f"unknown benchmark {unknown[0]!r}; there are: {', '.join(NAMES)}")
    if not FOLDER.is_dir():
        raise UserError("benchmarks are part of a checkout, and this is an installed package")
    several = len(names) != 1
    for name in names or NAMES:
        command = [sys.executable, str(FOLDER / f"{name}.py")]
        if rounds is not None:
            command += ["--rounds", str(rounds)]
        if results is not None:
            path = results / f"{name}.json" if several else results
            path.parent.mkdir(parents=True, exist_ok=True)
            command += ["--json", str(path)]
        print(f"== {name}", flush=True)
        if subprocess.run(command).returncode:
            raise UserError(f"the benchmark {name} failed; what it printed says why")

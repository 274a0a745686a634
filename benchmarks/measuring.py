"""What the benchmarks share: rounds in turns on one core, CPU time, medians, tables, results.

Contestants of one table take turns in every round, so that a machine which gets slower for a
while gets slower for all of them. What is reported is the ratio of medians; seconds are of the
CPU, of one thread on one core.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from palaestra.train.records import commit, versions
from sides import ONE_THREAD
from tables import amount, listed

Row = dict[str, Any]
"""A line of a table."""


def options(document: str, rounds: int = 5) -> argparse.Namespace:
    """Read the command line of a benchmark: how many rounds, and where its results go."""
    parser = argparse.ArgumentParser(description=document.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


def one_core() -> None:
    """Keep this process to one core, and each library that has threads to one of them.

    Libraries read their limits when they are loaded, so the process begins anew with these.
    """
    if not ONE_THREAD.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | ONE_THREAD)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def in_turns(contestants: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of CPU time that each contestant took, one of each round.

    The first turn of each is not counted: it compiles, and fills caches.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            start = time.process_time()
            run()
            if turn:
                seconds[name].append(time.process_time() - start)
    return seconds


def compared(
    what: str, seconds: Mapping[str, Sequence[float]], work: float, unit: str
) -> list[Row]:
    """Return a row for each peer of the first contestant, and one for that itself.

    Args:
        what: What was done.
        seconds: Of each contestant and round.
        work: How much of it was done in a round.
        unit: What it is counted in.
    """
    medians = {name: statistics.median(spent) for name, spent in seconds.items()}
    ours = next(iter(medians.values()))
    return [
        {
            "what": what,
            "contestant": name,
            "ratio": median / ours,
            "per_second": work / median,
            "unit": unit,
            "seconds": list(seconds[name]),
        }
        for name, median in medians.items()
    ]


def report(
    rows: Sequence[Row], path: Path | None, peers: Mapping[str, Mapping[str, str]] | None = None
) -> None:
    """Print a table, ratios first, and write it with the machine and the versions if asked.

    Args:
        rows: Of the table.
        path: Where it is written.
        peers: Versions in the interpreter of each peer that has one of its own.
    """
    found = machine() | dict(peers or {})
    print(heading(found))
    wide = max(len(row["what"]) for row in rows)
    print(f"{'ours is':>8}  {'what':{wide}}  {'contestant':34}{'per second':>14}")
    for row in rows:
        ratio = f"{row['ratio']:.1f}x" if row["ratio"] != 1 else ""
        print(f"{ratio:>8}  {row['what']:{wide}}  {row['contestant']:34}{amount(row):>20}")
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"machine": found, "results": list(rows)}, indent=2) + "\n")


def heading(found: dict[str, Any]) -> str:
    """Write what stands above a table: on what it was measured."""
    told = {key: listed(said) if isinstance(said, dict) else said for key, said in found.items()}
    return "\n".join(f"{key}: {said}" for key, said in told.items()) + "\n"


def machine() -> dict[str, Any]:
    """Return on what is measured."""
    return {
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "system": platform.platform(),
        "load": ", ".join(f"{load:.1f}" for load in os.getloadavg()),
        "commit": commit(),
        "versions": versions(),
    }


def processor() -> str:
    """Return the name of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [text.partition(":")[2].strip() for text in lines if text.startswith("model name")]
    return names[0] if names else platform.machine()

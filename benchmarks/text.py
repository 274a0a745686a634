"""Steps per second of text environments, beside GEM's GuessTheNumber, in the same run.

    palaestra bench text --json text.json

GEM (`gem-llm`) is installed once into a virtual environment of its own. Every contestant has a
process of its own, and they take turns: in each round each steps for about a quarter of a
second, and the table gives medians of the rounds in steps per second, and the ratios of these.
Seconds are of CPU time where there is one thread, which then has one core, else of the clock.
Both suites make their environments by their own `make` and `make_vec`, go through the same loop
(`text_side.py`), are sent well-formed messages in a fixed order, and reset where an episode
ends; the games are equally large and long. Our threads and processes are both compared with
GEM's threads, for it has no processes.

GEM's observation is the newest message; `gem, dialogue` is GEM in the wrapper that gives the
whole dialogue, as the `info` of our environments does. Where messages are `new` none is ever
repeated, so that nothing can be remembered about it.
"""

import json
import os
import statistics
import subprocess
import sys
import venv
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from measuring import heading, machine, options

GEM = "gem-llm==0.1.0"
HERE = Path(__file__).parent
MODES = ("sync", "threads", "processes")
GEM_MODES = {"threads": "async", "processes": "async"}
COLUMNS = [("alone", 1), *((mode, n) for n in (8, 64) for mode in MODES)]


@dataclass(frozen=True)
class Contestant:
    """Whose environment is stepped, and with which messages."""

    suite: str
    world: str
    new: bool = False
    """Whether no message is ever repeated."""

    @property
    def ours(self) -> bool:
        """Whether it is no peer's."""
        return self.suite == "palaestra"

    @property
    def name(self) -> str:
        """How the table names it."""
        what = f"{self.suite} {self.world}" if self.ours else self.suite
        return f"{what}, new messages" if self.new else what


CONTESTANTS = [
    Contestant(suite, world, new)
    for new in (False, True)
    for suite, world in (
        ("palaestra", "GuessNumber"),
        ("palaestra", "Calculator"),
        ("gem", "GuessNumber"),
        ("gem, dialogue", "GuessNumber"),
    )
]


def main() -> None:
    """Measure, print the table, and write it if asked."""
    chosen = options(__doc__)
    gem = gem_interpreter()
    results = []
    with ExitStack() as stack:
        sides = {c: stack.enter_context(Side(c, gem)) for c in CONTESTANTS}
        [theirs, *_] = [side for c, side in sides.items() if not c.ours]
        found = machine() | {"gem-llm": theirs.ask(versions=["gem-llm", "numpy"])}
        print(heading(found))
        print(TITLES)
        for mode, n in COLUMNS:
            for row in measure(sides, mode, n, chosen.rounds):
                results.append(row)
                print(line(row), flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps({"machine": found, "results": results}, indent=2))


def measure(
    sides: "dict[Contestant, Side]", mode: str, n: int, rounds: int
) -> list[dict[str, Any]]:
    """Return a row for each contestant with N environments."""
    for side in sides.values():
        side.make(mode, n)
    runs: dict[Contestant, list[dict[str, float]]] = {c: [] for c in sides}
    for _ in range(rounds):
        for c, side in sides.items():
            runs[c].append(side.ask(run=True))
    for side in sides.values():
        side.ask(close=True)
    speeds = {c: statistics.median(r["steps"] / r["seconds"] for r in runs[c]) for c in sides}
    return [
        {
            "n": n,
            "mode": mode if c.ours else GEM_MODES.get(mode, mode),
            "contestant": c.name,
            "over": {p.name: speeds[c] / speeds[p] for p in peers(c)},
            "steps_per_second": speeds[c],
            "rounds": [r["steps"] / r["seconds"] for r in runs[c]],
            "resets_per_step": sum(r["resets"] for r in runs[c]) / sum(r["steps"] for r in runs[c]),
        }
        for c in sides
    ]


def peers(contestant: Contestant) -> list[Contestant]:
    """Return the contestants of GEM that play the same with the same messages."""
    return [
        c
        for c in CONTESTANTS
        if contestant.ours and not c.ours and (c.world, c.new) == (contestant.world, contestant.new)
    ]


TITLES = f"{'over gem':>8} {'over gem, dialogue':>19}   {'N':>2} {'mode':9}  {'contestant':36}" + (
    f"{'steps/s':>9} {'resets a step':>14}"
)


def line(row: dict[str, Any]) -> str:
    """Write a row of the table."""
    plain, dialogue = [f"{ratio:.2f}x" for ratio in row["over"].values()] or ["", ""]
    return (
        f"{plain:>8} {dialogue:>19}   {row['n']:2} {row['mode']:9}  {row['contestant']:36}"
        f"{row['steps_per_second']:9,.0f} {row['resets_per_step']:14.3f}"
    )


class Side:
    """The process of a contestant.

    Args:
        contestant: Who.
        gem: The interpreter that has GEM.
    """

    def __init__(self, contestant: Contestant, gem: Path) -> None:
        self._contestant = contestant
        self._process = subprocess.Popen(
            [sys.executable if contestant.ours else gem, HERE / "text_side.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()  # the end of its orders

    def make(self, mode: str, n: int) -> None:
        """Make the environments, and warm up."""
        c = self._contestant
        mode = mode if c.ours else GEM_MODES.get(mode, mode)
        self.ask(make={"suite": c.suite, "world": c.world, "mode": mode, "n": n, "new": c.new})

    def ask(self, **order: Any) -> Any:
        """Give an order and wait for the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"the process of {self._contestant.name} died")
        return json.loads(answer)


def gem_interpreter() -> Path:
    """Return the interpreter of the virtual environment that has GEM, made if need be."""
    root = HERE / ".venvs"
    folder = root / GEM.replace("==", "-")
    python, stamp = folder / "bin" / "python", folder / ".installed"
    if not stamp.exists():
        print(f"Installing {GEM} into {folder}: a minute, once.", flush=True)
        venv.create(folder, clear=True, with_pip=True)
        (root / ".gitignore").write_text("*\n")
        subprocess.run([python, "-m", "pip", "install", "--quiet", GEM], check=True)
        stamp.touch()
    return python


if __name__ == "__main__":
    main()

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
whole dialogue, as the `info` of our environments does. Nobody looks at the infos: those of a
vector of ours hold the dialogues and all else, but an array of each key is made when it is looked
at first. Where messages are `new` none is ever repeated, so that nothing can be remembered about
it.
"""

import json
import statistics
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import heading, machine, options
from sides import Side, interpreter

GEM = "gem-llm==0.1.0"
SIDE = Path(__file__).parent / "text_side.py"
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

    def mode(self, ours: str) -> str:
        """Return what its suite has for a mode of ours."""
        return ours if self.ours else GEM_MODES.get(ours, ours)

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
    gem = interpreter(GEM)
    results = []
    with ExitStack() as stack:
        sides = {
            c: stack.enter_context(Side(c.name, [sys.executable if c.ours else gem, SIDE]))
            for c in CONTESTANTS
        }
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
    for c, side in sides.items():
        make = {"suite": c.suite, "world": c.world, "mode": c.mode(mode), "n": n, "new": c.new}
        side.ask(make=make)
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
            "mode": c.mode(mode),
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


if __name__ == "__main__":
    main()

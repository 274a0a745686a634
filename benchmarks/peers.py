"""PPO beside SBX and PureJaxRL, and CartPole beside envpool: peers that have their own world.

    palaestra bench peers --json peers.json

Each peer is installed once into a virtual environment of its own, but for SB3, which ours has.
Every contestant has a process of its own, kept to one core and one thread, and they take turns;
seconds are of CPU time. PPO has the same recipe everywhere, and a round is so many steps of a
training that has compiled. SB3 and SBX train in what SB3's `make_vec_env` makes; PureJaxRL's
loop is written anew (`peers_side.py`), as it is in no package: Lu et al., "Discovered Policy
Optimisation" (2022), on gymnax's CartPole, all of it one compiled function; unlike the others it
does not bootstrap where the time is up. envpool steps in one thread, and waits for all.

`start` is the CPU time from the start of the interpreter to the end of a first rollout and
update. Once before, everybody could fill its cache: Numba's, and XLA's persistent one. That time
before, with empty caches, is `start, cold`, and is measured once.
"""

import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import Row, compared, options, report
from ppo import RECIPES
from sides import Side, interpreter

SIDE = Path(__file__).parent / "peers_side.py"
TRAINED = [what for what in RECIPES if what.startswith("CartPole")]
STARTED = "CartPole-v1, rl-zoo3's recipe"
WIDTHS = (1, 8, 64, 1024)


@dataclass(frozen=True)
class Contestant:
    """Who trains or steps, and what its interpreter has."""

    name: str
    requirements: tuple[str, ...] = ()
    """What pip is told to install into an interpreter of its own; with none it has ours."""

    def side(self, caches: str) -> Side:
        """Start it, with caches in a folder."""
        environment = {
            "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": f"{caches}/jax",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "NUMBA_CACHE_DIR": f"{caches}/numba",
        }
        python = interpreter(*self.requirements) if self.requirements else sys.executable
        return Side(self.name, [python, SIDE, self.name], environment)

    def versions(self) -> dict[str, str]:
        """Return what its own interpreter has, which is installed if need be."""
        required = [r.partition("==")[0].partition("[")[0] for r in self.requirements]
        with self.side("") as side:
            found: dict[str, str] = side.ask(versions=[*required, "gymnasium", "numpy"])
        return found


OURS = Contestant("palaestra")
SBX = Contestant(
    "SBX", ("sbx-rl==0.28.0", "jax[cpu]==0.10.2", "torch==2.13.0", "stable_baselines3==2.9.2")
)
PUREJAXRL = Contestant(
    "PureJaxRL on gymnax",
    # gymnax imports six, and does not say so.
    ("gymnax==1.0.1", "jax[cpu]==0.10.2", "flax==0.12.8", "optax==0.2.8", "six==1.17.0"),
)
ENVPOOL = Contestant("envpool", ("envpool==1.2.5",))


def main() -> None:
    """Measure, print the table, and write it if asked."""
    chosen = options(__doc__)
    learners = [OURS, Contestant("SB3"), SBX, PUREJAXRL]
    found = {c.name: c.versions() for c in (SBX, PUREJAXRL, ENVPOOL)}
    training = {what: {"train": RECIPES[what]} for what in TRAINED}
    stepping = {
        f"make_vec, CartPole-v1, N={n}": {"step": [n, max(2**18 // (n + 63), 256)]} for n in WIDTHS
    }
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as caches:
        rows += starts(learners, "start, cold", caches, 1)
        rows += starts(learners, "start", caches, chosen.rounds)
        rows += speeds(learners, training, caches, chosen.rounds)
        rows += speeds([OURS, ENVPOOL], stepping, caches, chosen.rounds)
    report(rows, chosen.json, found)


def starts(contestants: Sequence[Contestant], what: str, caches: str, rounds: int) -> list[Row]:
    """Return how long each takes from nothing to a first update."""
    name, n, _, settings = RECIPES[STARTED]
    seconds: dict[str, list[float]] = {c.name: [] for c in contestants}
    for _ in range(rounds):
        for c in contestants:
            with c.side(caches) as side:
                side.ask(train=[name, n, n * settings["n_steps"], settings])
                seconds[c.name].append(side.ask(spent=True))
    return compared(what, seconds, 1, "starts")


def speeds(
    contestants: Sequence[Contestant], orders: dict[str, dict[str, Any]], caches: str, rounds: int
) -> list[Row]:
    """Return how fast each does what it is ordered to do."""
    rows: list[Row] = []
    with ExitStack() as stack:
        sides = {c.name: stack.enter_context(c.side(caches)) for c in contestants}
        for what, order in orders.items():
            [work] = {side.ask(**order) for side in sides.values()}  # the same for all
            seconds: dict[str, list[float]] = {name: [] for name in sides}
            for _ in range(rounds):
                for name, side in sides.items():
                    seconds[name].append(side.ask(run=True))
            rows += compared(what, seconds, work, "steps")
    return rows


if __name__ == "__main__":
    main()

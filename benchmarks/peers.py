"""PPO beside SBX and PureJaxRL, and CartPole beside envpool: peers that have their own world.

    palaestra bench peers --json peers.json

Each peer is installed once into a virtual environment of its own, every contestant has a process
of its own, kept to one core and one thread, and they take turns; seconds are of CPU time. PPO has
the same recipe everywhere, and a round is so many steps of a training that has compiled. SB3 and
SBX train in what SB3's `make_vec_env` makes; PureJaxRL's loop is written anew
(`peers_side.py`), as it is in no package: Lu et al., "Discovered Policy Optimisation" (2022), on
gymnax's CartPole, all of it one compiled function; unlike the others it does not bootstrap where
the time is up.

`start` is the CPU time from the start of the interpreter to the end of a first rollout and
update. Once before, everybody could fill its cache: Numba's, and XLA's persistent one. Where it
says `cold`, caches are empty.
"""

import statistics
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import Row, compared, options, report
from ppo import RECIPES
from sides import Side, interpreter

SIDE = Path(__file__).parent / "peers_side.py"
ENVPOOL = ("envpool==1.2.5",)
SBX = ("sbx-rl==0.28.0", "jax[cpu]==0.10.2", "torch==2.13.0", "stable_baselines3==2.9.2")
GYMNAX = ("gymnax==1.0.1", "jax[cpu]==0.10.2", "flax==0.12.8", "optax==0.2.8", "six==1.17.0")
XLA = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
TRAINED = [what for what in RECIPES if what.startswith("CartPole")]
STARTED = "CartPole-v1, rl-zoo3's recipe"
WIDTHS = (1, 8, 64, 1024)


@dataclass(frozen=True)
class Contestant:
    """Who trains, and what runs it."""

    name: str
    python: Path

    def side(self, caches: str) -> Side:
        """Start it, with caches in a folder."""
        environment = {
            "XLA_FLAGS": XLA,
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": f"{caches}/jax",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "NUMBA_CACHE_DIR": f"{caches}/numba",
        }
        return Side(self.name, [self.python, SIDE, self.name], environment)


def main() -> None:
    """Measure, print the table, and write it if asked."""
    chosen = options(__doc__)
    mine, gymnax = Path(sys.executable), interpreter(*GYMNAX)
    contestants = [
        Contestant("palaestra", mine),
        Contestant("SB3", mine),
        Contestant("SBX", interpreter(*SBX)),
        Contestant("PureJaxRL on gymnax", gymnax),
    ]
    steppers = [Contestant("palaestra", mine), Contestant("envpool", interpreter(*ENVPOOL))]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as caches:
        rows += starts(contestants, "start, cold", caches, 1)
        rows += starts(contestants, "start", caches, chosen.rounds)
        for what in TRAINED:
            rows += rounds(contestants, what, {"train": RECIPES[what]}, caches, chosen.rounds)
        for n in WIDTHS:
            order = {"step": [n, max(2**18 // (n + 63), 256)]}
            rows += rounds(steppers, f"make_vec, CartPole-v1, N={n}", order, caches, chosen.rounds)
    report(rows, chosen.json)


def starts(contestants: list[Contestant], what: str, caches: str, count: int) -> list[Row]:
    """Return how long each takes from nothing to a first update."""
    name, n, _, settings = RECIPES[STARTED]
    seconds: dict[str, list[float]] = {c.name: [] for c in contestants}
    for _ in range(count):
        for c in contestants:
            with c.side(caches) as side:
                side.ask(train=[name, n, n * settings["n_steps"], settings])
                seconds[c.name].append(side.ask(spent=True))
    return compared(what, seconds, 1, "starts")


def rounds(
    contestants: list[Contestant], what: str, order: dict[str, Any], caches: str, count: int
) -> list[Row]:
    """Return how fast each works."""
    seconds: dict[str, list[float]] = {c.name: [] for c in contestants}
    with ExitStack() as stack:
        sides = {c.name: stack.enter_context(c.side(caches)) for c in contestants}
        work = statistics.fmean([side.ask(**order) for side in sides.values()])
        for _ in range(count):
            for name, side in sides.items():
                seconds[name].append(side.ask(run=True))
    return compared(what, seconds, work, "steps")


if __name__ == "__main__":
    main()

"""One side of `text.py`: makes the environments of one suite and steps them, when told to.

Run by the interpreter that has the suite, so it needs nothing else. Both suites go through the
same loops.
"""

import functools
import importlib
import itertools
import os
import time
from collections.abc import Iterator
from typing import Any

from sides import orders

CORES = os.sched_getaffinity(0)
ROUND = 0.25
"""Seconds that a round is meant to take."""
GEM_GAME = "game:GuessTheNumber-v0-hard"
SPAN, TURNS = 31, 5
"""Numbers among which one is to be found, and guesses, in GuessNumber and so in GEM's game."""


def main() -> None:
    """Answer one order after the other."""
    for order, reply in orders():
        answer: Any = None
        match order:
            case {"make": made_as}:
                side = Side(**made_as)
            case {"run": _}:
                answer = side.run()
            case {"close": _}:
                side.close()
        reply(answer)


class Side:
    """Environments of one suite that have warmed up, and messages to send them.

    Args:
        suite: `palaestra`, `gem`, or `gem, dialogue`, which shows the dialogue so far.
        world: `GuessNumber` or `Calculator`.
        mode: `alone` or a vector mode of the suite.
        n: Number of environments.
        new: Whether every message is new; otherwise they come round again.
    """

    def __init__(self, suite: str, world: str, mode: str, n: int, new: bool) -> None:
        # One core for what has one thread, all of them for what has more.
        os.sched_setaffinity(0, {max(CORES)} if mode in ("alone", "sync") else CORES)
        self._n, self._play = n, _alone if mode == "alone" else _vector
        make = _palaestra if suite == "palaestra" else _gem
        self._env = make(world, mode, n, suite == "gem, dialogue")
        self._messages = [_messages(suite, world, new, member) for member in range(n)]
        # Others on the machine do not slow CPU time down, but it is no measure of threads.
        self._clock = time.process_time if mode in ("alone", "sync") else time.perf_counter
        self._steps = n
        while (seconds := self.run()["seconds"]) < ROUND / 4:
            self._steps *= 2
        self._steps = max(round(self._steps / n * ROUND / seconds), 1) * n

    def run(self) -> dict[str, float]:
        """Take steps for about a round and tell how many, how long it took, and the resets."""
        count = self._steps // self._n
        batches: Any = list(itertools.islice(zip(*self._messages, strict=True), count))
        if self._play is _alone:
            batches = [message for (message,) in batches]
        self._env.reset(seed=0)
        start = self._clock()
        resets = self._play(self._env, batches)
        seconds = self._clock() - start
        return {"steps": self._steps, "seconds": seconds, "resets": resets}

    def close(self) -> None:
        """End what was started."""
        if pool := getattr(self._env, "thread_pool_executer", None):  # GEM's, which has no close
            pool.shutdown()
        elif hasattr(self._env, "close"):
            self._env.close()


def _alone(env: Any, messages: list[str]) -> int:
    resets = 0
    for message in messages:
        _, _, terminated, truncated, _ = env.step(message)
        if terminated or truncated:
            env.reset()
            resets += 1
    return resets


def _vector(env: Any, batches: list[tuple[str, ...]]) -> int:
    resets = 0
    for batch in batches:
        _, _, terminated, truncated, _ = env.step(batch)  # which resets where an episode ends
        resets += int((terminated | truncated).sum())
    return resets


def _palaestra(world: str, mode: Any, n: int, dialogue: bool) -> Any:
    env_id = f"palaestra/{world}-v0"
    if mode == "alone":
        import gymnasium

        importlib.import_module("palaestra.envs")
        return gymnasium.make(env_id)
    from palaestra.envs.vector import make_vec

    return make_vec(env_id, n, mode, autoreset="SameStep")  # as GEM's vectors do


def _gem(world: str, mode: Any, n: int, dialogue: bool) -> Any:
    """Make GEM's game, as large as GuessNumber."""
    import gem
    from gem.wrappers.observation_wrapper import ObservationWrapper

    game = {"min_number": 1, "max_number": SPAN, "max_turns": TURNS}
    wrap = functools.partial(ObservationWrapper, include_action=True, include_chat_template=False)
    wrappers = [wrap] if dialogue else []
    if mode == "alone":
        env = gem.make(GEM_GAME, **game)
        return wrap(env) if wrappers else env
    return gem.make_vec([GEM_GAME] * n, wrappers=wrappers, async_mode=mode == "async", **game)


def _messages(suite: str, world: str, new: bool, member: int) -> Iterator[str]:
    """Yield well-formed messages for one environment: all there are, in turn."""
    if suite != "palaestra":
        said = [f"\\boxed{{{number}}}" for number in range(1, SPAN + 1)]
    elif world == "GuessNumber":
        said = [f"<answer>{number}</answer>" for number in range(1, 400 + SPAN)]
    else:
        sums = [f"{a} {operation} {a + 9}" for a in range(2, 60) for operation in "+-*/"]
        said = [m for s in sums for m in (f"<calculator>{s}</calculator>", "<answer>5</answer>")]
    first = 2 * member % len(said)
    for i, message in enumerate(itertools.cycle(said[first:] + said[:first])):
        yield f"Try {i} of {member}: {message}" if new else message


if __name__ == "__main__":
    main()

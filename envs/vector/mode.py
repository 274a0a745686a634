"""Which mode suits a world: measured on a few steps of one that is thrown away."""

import os
import time
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium

from .members import Maker

Mode = Literal["sync", "threads", "processes"]
"""In the caller's thread; in threads, for worlds that wait; in processes, for worlds that
compute."""

WAITING = 0.2e-3
"""Seconds of waiting in a step that are worth a thread; handing over costs a fifth of it."""
COMPUTING = 0.5e-3
"""Seconds of computing in a step that are worth a process; two of them begin to pay at half."""
SHARE = 0.1e-3
"""Seconds of work in a step of all its members that are worth a further process."""

_ROUNDS, _STEPS, _ENOUGH, _SLOW = 3, 32, 0.05, 1.0


@dataclass(frozen=True)
class StepTime:
    """What a step takes on average, in seconds."""

    wall: float
    """By the clock."""
    cpu: float
    """Of the thread's own computing."""
    waiting: float
    """For a tool or a server; not for a CPU that other programs keep busy."""

    @property
    def waits(self) -> bool:
        """Whether a step waits for at least 0.2 ms and for half of its time."""
        return self.waiting >= max(WAITING, self.wall / 2)


def measure(maker: Maker) -> StepTime:
    """Measure some steps of a new environment.

    The first does not count, as it may load or compile something, unless it takes a second. Of
    three rounds the fastest counts, as other programs only ever make steps slower; worlds whose
    steps take milliseconds are measured once.
    """
    env = maker()
    try:
        env.action_space.seed(0)
        first = _play(env, 1)
        if first.wall > _SLOW:
            return first
        rounds = [_play(env, _STEPS)]
        while len(rounds) < _ROUNDS and rounds[-1].wall * _STEPS < _ENOUGH:
            rounds.append(_play(env, _STEPS))
        return min(rounds, key=lambda time: time.wall)
    finally:
        env.close()


def choose(time: StepTime, num_envs: int, cpus: int | None = None) -> tuple[Mode, int]:
    """Return the mode for a world, and how many workers it gets.

    Threads, one a member, if a step waits for at least 0.2 ms and for half of its time;
    processes, one a CPU, if it computes for at least 0.5 ms and there is more than one CPU;
    otherwise the caller's own thread, which nothing beats when steps are cheap.
    """
    cpus = available_cpus() if cpus is None else cpus
    if num_envs == 1:
        return "sync", 1
    if time.waits:
        return "threads", num_envs
    if time.cpu >= COMPUTING and cpus > 1:
        return "processes", min(num_envs, cpus)
    return "sync", 1


def workers(mode: Mode, time: StepTime, num_envs: int, cpus: int | None = None) -> int:
    """Return how many threads or processes suit a world that was told to have them.

    A thread a member if its steps wait. Otherwise one a CPU, but no more than have enough to do in
    a step of all members, 0.5 ms for a thread and 0.1 ms for a process: with less, handing over
    costs more than sharing saves.
    """
    if mode == "threads" and time.waits:
        return num_envs
    cpus = available_cpus() if cpus is None else cpus
    enough = COMPUTING if mode == "threads" else SHARE
    return max(1, min(num_envs, cpus, int(num_envs * time.wall / enough)))


def available_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _play(env: gymnasium.Env[Any, Any], steps: int) -> StepTime:
    """Play steps until they have taken long enough, and average over them."""
    _, info = env.reset(seed=0)
    wall = cpu = waiting = 0.0
    played = 0
    while played < steps and wall < _ENOUGH:
        action = _action(env, info, played)
        since, busy_since, slept = time.perf_counter(), time.thread_time(), _sleeps()
        _, _, terminated, truncated, info = env.step(action)
        has_slept = _sleeps() != slept
        busy, took = time.thread_time() - busy_since, time.perf_counter() - since
        wall, cpu, played = wall + took, cpu + busy, played + 1
        waiting += max(took - busy, 0) if has_slept else 0
        if terminated or truncated:
            _, info = env.reset()
    return StepTime(wall / played, cpu / played, waiting / played)


def _sleeps() -> float:
    """Return how often this thread gave its CPU away of its own accord."""
    try:
        import resource

        return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    except (ImportError, AttributeError):  # not Linux: take all waiting for its own
        return time.perf_counter()


def _action(env: gymnasium.Env[Any, Any], info: dict[str, Any], n: int) -> Any:
    """Return an admissible message in turn, as random letters would call no tool."""
    choices = info.get("choices")
    if choices and isinstance(env.action_space, gymnasium.spaces.Text):
        return choices[n % len(choices)]
    return env.action_space.sample()

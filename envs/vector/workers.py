"""Where the members of a vector live: in the caller's thread, or in threads of their own.

Each backend takes jobs, at most one a member at a time, and gives back their outcomes.
"""

import threading
import time
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from .members import Facts, Job, Maker, Members, check_alike

Results = list[tuple[int, Any]]
"""Members and what became of their jobs."""

GRACE = 1.0
"""Seconds that steps in flight are given when nobody waits for them any more."""


class Backend(Protocol):
    """Does jobs for a vector."""

    facts: Facts
    """What is the same for all members."""
    lost: set[int]
    """Members whose process died, until they are reset; their jobs give `LOST`."""

    def send(self, jobs: Sequence[Job]) -> None:
        """Begin jobs, of members that have none."""

    def receive(self, timeout: float | None) -> Results:
        """Wait for outcomes and return all that are there; none if the time is up.

        Raises what an environment raised.
        """

    def close(self, patience: float | None = None) -> None:
        """End everything.

        Args:
            patience: Seconds that steps in flight may take; None for as long as they need,
                where nothing else can end them.
        """


class Caller:
    """Do jobs in the caller's thread, when their outcomes are asked for."""

    def __init__(self, makers: Sequence[Maker], same_step: bool) -> None:
        self.lost: set[int] = set()
        self._jobs: deque[Job] = deque()
        self.members = Members(makers, 0, same_step)
        self.facts = self.members.facts

    def send(self, jobs: Sequence[Job]) -> None:
        """Put jobs in line."""
        self._jobs.extend(jobs)

    def receive(self, timeout: float | None) -> Results:
        """Do the job that is first in line."""
        job = self._jobs.popleft()
        return [(job[0], self.members.do(*job))]

    def close(self, patience: float | None = None) -> None:
        """Close the environments."""
        self.members.close()


class Threads:
    """Do jobs in threads, for worlds that wait; a member stays in the thread that made it.

    Args:
        makers: Make the members.
        same_step: Whether an episode that ends is followed by the next in the same step.
        num_workers: Number of threads.
    """

    def __init__(self, makers: Sequence[Maker], same_step: bool, num_workers: int) -> None:
        self.lost: set[int] = set()
        self._outbox: SimpleQueue[Any] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._inboxes: list[SimpleQueue[Any]] = []
        self._worker_of: list[int] = []
        try:
            facts: list[Facts] = []
            for part in parts(len(makers), num_workers):
                self._start(part, makers, same_step)
                if not facts:  # alone, so that what all of them load is loaded once
                    facts.append(self._next())
            facts += [self._next() for _ in self._threads[1:]]
            check_alike(facts)
        except BaseException:
            self.close()
            raise
        self.facts = facts[0]

    def send(self, jobs: Sequence[Job]) -> None:
        """Give each thread its jobs."""
        split: dict[int, list[Job]] = {}
        for job in jobs:
            split.setdefault(self._worker_of[job[0]], []).append(job)
        for worker, its in split.items():
            self._inboxes[worker].put(its)

    def receive(self, timeout: float | None) -> Results:
        """Wait for outcomes."""
        results: Results = []
        try:
            results += self._next(timeout)
            while True:
                results += self._next(0)
        except Empty:
            return results

    def close(self, patience: float | None = None) -> None:
        """Let the threads close their environments and end."""
        for inbox in self._inboxes:
            inbox.put(None)
        until = None if patience is None else time.monotonic() + patience
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(None if until is None else max(until - time.monotonic(), 0))

    def _start(self, part: range, makers: Sequence[Maker], same_step: bool) -> None:
        inbox: SimpleQueue[Any] = SimpleQueue()
        thread = threading.Thread(
            target=_live,
            args=(makers[part.start : part.stop], part.start, same_step, inbox, self._outbox),
            name=f"vector-{len(self._threads)}",
            daemon=True,
        )
        self._worker_of += [len(self._threads)] * len(part)
        self._inboxes.append(inbox)
        self._threads.append(thread)
        thread.start()

    def _next(self, timeout: float | None = None) -> Any:
        found = self._outbox.get(timeout=timeout) if timeout != 0 else self._outbox.get_nowait()
        if isinstance(found, BaseException):
            raise found
        return found


def _live(
    makers: Sequence[Maker],
    first: int,
    same_step: bool,
    inbox: "SimpleQueue[Any]",
    outbox: "SimpleQueue[Any]",
) -> None:
    """Make members and do their jobs, until told to end; the main loop of a thread."""
    try:
        members = Members(makers, first, same_step)
    except BaseException as error:
        outbox.put(error)
        return
    outbox.put(members.facts)
    try:
        while (jobs := inbox.get()) is not None:
            try:
                members.work(jobs, outbox.put)
            except BaseException as error:  # even SystemExit: somebody waits for an answer
                outbox.put(error)
    finally:
        members.close()


def parts(count: int, num_workers: int) -> list[range]:
    """Divide members among workers, as evenly as can be."""
    num_workers = max(1, min(count, num_workers))
    edges = [count * w // num_workers for w in range(num_workers + 1)]
    return [range(a, b) for a, b in pairwise(edges)]

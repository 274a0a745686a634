"""Members of a vector in processes of their own, which may die without harm to the others."""

import selectors
import time
from collections.abc import Sequence

from ...errors import UserError
from .members import RESET, STEP, Job, Maker, check_alike
from .mode import available_cpus
from .process import Worker, WorkerDied, watch
from .sealed import played_in, sealed
from .workers import GRACE, Results, parts

LOST = object()
"""The outcome of a job whose process died."""

_LOOK = 1.0
"""Seconds after which a silent process is looked at."""
_DEATHS = 3
"""Deaths of a worker in a row, without a step in between, after which nobody starts it again."""


class Processes:
    """Do jobs in processes, which talk through a pipe each and share nothing.

    They are new interpreters, not forks, so they neither inherit the caller's threads and
    locks nor run its main module, and a script needs no guard. A process has at most one
    message with jobs at a time, so that neither side ever waits for the other to read.

    Args:
        makers: Make the members; sent by cloudpickle.
        same_step: Whether an episode that ends is followed by the next in the same step.
        num_workers: Number of processes.
    """

    def __init__(self, makers: Sequence[Maker], same_step: bool, num_workers: int) -> None:
        self.lost: set[int] = set()
        self._given_up: Results = []
        self._selector = selectors.DefaultSelector()
        self._workers: list[Worker] = []
        try:
            for part in parts(len(makers), num_workers):
                self._workers.append(Worker(part, makers[part.start : part.stop], same_step))
            for worker in self._workers:
                worker.start()
            for worker in self._workers:
                self._greet(worker)
            facts = [worker.facts for worker in self._workers]
            check_alike(facts)
        except WorkerDied:
            self.close()
            raise UserError("a process died as it made its environments: make one alone") from None
        except BaseException:
            self.close()
            raise
        self.facts = facts[0]
        # Where the workers need every CPU, to watch for what they say would slow them down.
        self._watchful = len(self._workers) < available_cpus()
        self._worker_of = [worker for worker in self._workers for _ in worker.part]

    def send(self, jobs: Sequence[Job]) -> None:
        """Give each process its jobs; a dead one is started again for a reset."""
        touched = {}
        for job in jobs:
            worker = self._worker_of[job[0]]
            if job[0] in self.lost and job[1] != RESET:
                self._given_up.append((job[0], LOST))
                continue
            self.lost.discard(job[0])
            worker.waiting.append(job)
            touched[id(worker)] = worker
        for worker in touched.values():
            if worker.pipe is not None or self._start(worker):
                self._give(worker)

    def receive(self, timeout: float | None) -> Results:
        """Wait for outcomes."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            results, self._given_up = self._given_up, []
            left = _LOOK if until is None else min(_LOOK, max(until - time.monotonic(), 0))
            if self._watchful:
                watch(lambda: any(worker.busy and worker.speaks for worker in self._workers))
            heard = self._selector.select(0 if results else left)
            for key, _ in heard:
                results += self._listen(key.data)
            if not heard:  # the pipe of a dead process stays open in what it forked
                for worker in [w for w in self._workers if w.busy and w.is_dead()]:
                    self._bury(worker)
            results += self._given_up
            self._given_up = []
            if results or (until is not None and time.monotonic() >= until):
                return results

    def close(self, patience: float | None = None) -> None:
        """End the processes; those that are busy after a while are killed."""
        for worker in self._workers:
            worker.hang_up()
        until = time.monotonic() + (GRACE if patience is None else patience)
        for worker in self._workers:
            worker.end(until)
        self._selector.close()

    def _listen(self, worker: Worker) -> Results:
        try:
            told = sealed(worker.hear(), played_in(worker.busy.values()))
        except WorkerDied:
            self._bury(worker)
            return []
        for index, _ in told:
            if worker.busy.pop(index)[1] == STEP:
                worker.deaths = 0
        self._give(worker)
        return told

    def _start(self, worker: Worker) -> bool:
        """Start a worker anew, and tell whether it lived long enough to make its members."""
        try:
            worker.start()
            self._greet(worker)
        except WorkerDied:
            self._bury(worker)
            return False
        return True

    def _greet(self, worker: Worker) -> None:
        worker.greet()
        self._selector.register(worker.pipe, selectors.EVENT_READ, worker)  # type: ignore[arg-type]
        worker.listed = True

    def _give(self, worker: Worker) -> None:
        """Send what waits, if the worker has nothing to do."""
        if worker.waiting and not worker.busy:
            try:
                worker.give()
            except WorkerDied:
                self._bury(worker)

    def _bury(self, worker: Worker) -> None:
        """Clear away a worker that died, and give up its jobs and members.

        Raises:
            UserError: it always dies.
        """
        if worker.listed:
            self._selector.unregister(worker.pipe)  # type: ignore[arg-type]
            worker.listed = False
        jobs = [*worker.busy.values(), *worker.waiting]
        worker.busy, worker.waiting = {}, []
        worker.hang_up()
        worker.end(time.monotonic() + GRACE)
        worker.deaths += 1
        if worker.deaths >= _DEATHS:
            raise UserError(
                f"the process of members {worker.part.start} to {worker.part.stop - 1} died "
                f"{_DEATHS} times without a step in between (the last time {worker.manner}); "
                "play the environment alone to see why"
            )
        self.lost.update(worker.part)
        self._given_up += [(job[0], LOST) for job in jobs]

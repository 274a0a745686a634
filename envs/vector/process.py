"""A worker of a vector in a process of its own: the caller's end of it, and its own."""

import contextlib
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
from gymnasium.vector.utils import CloudpickleWrapper

from .members import APPLY, Facts, Job, Maker, Members, Raised
from .sealed import played_in, seal
from .workers import GRACE

WATCH = 0.0002
"""Seconds that both ends of a pipe are awake before they sleep until something comes."""


class WorkerDied(Exception):
    """The process came to its end, and nobody had asked for it."""


class Worker:
    """A process, the pipe to it, and its jobs.

    Args:
        part: The members that live in it.
        makers: Make these members.
        same_step: Whether an episode that ends is followed by the next in the same step.
    """

    def __init__(self, part: range, makers: Sequence[Maker], same_step: bool) -> None:
        self.part = part
        # Pickled first: what cannot be is told before a process is started.
        wrapped = [CloudpickleWrapper(maker) for maker in makers]
        self._order = pickle.dumps((wrapped, part.start, same_step))
        self.pipe: Connection | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.facts: Facts
        self._owner = os.getpid()
        self.busy: dict[int, Job] = {}
        """The jobs that it was given, by member."""
        self.waiting: list[Job] = []
        """The jobs that it will be given next."""
        self.listed = False
        """Whether the caller listens to it."""
        self.deaths = 0
        """How often it died since its last step."""
        self.manner = ""
        """How it died."""

    def start(self) -> None:
        """Start the process, which then makes its members."""
        ours, theirs = socket.socketpair()
        live = f"live({theirs.fileno()}, {os.getpid()})"
        code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import live; {live}"
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # so that all that it started can be ended with it
            )
        self.pipe = Connection(ours.detach())
        self._ears = select.poll()
        self._ears.register(self.pipe, select.POLLIN)
        self._send(self._order)

    def greet(self) -> None:
        """Wait until the members are made."""
        self.facts = self.hear()

    def give(self) -> None:
        """Send the jobs that wait."""
        jobs, self.waiting = self.waiting, []
        self.busy = {job[0]: job for job in jobs}
        # A function may be one that the process cannot import, a lambda or a script's own.
        writer = cloudpickle if any(job[1] == APPLY for job in jobs) else pickle
        self._send(writer.dumps(jobs, protocol=5))

    @property
    def speaks(self) -> bool:
        """Whether the process has begun to say something, or hung up."""
        return bool(self._ears.poll(0))

    def hear(self) -> Any:
        """Return what the process says, or raise what it raised.

        Raises:
            WorkerDied: it died.
        """
        assert self.pipe is not None
        try:
            message = self.pipe.recv_bytes()
        except (EOFError, OSError):
            raise WorkerDied from None
        told = pickle.loads(message)
        if isinstance(told, Raised):
            raise told.error
        return told

    def hang_up(self) -> None:
        """Close the pipe, upon which the process closes its members and ends."""
        if self.pipe is not None:
            self.pipe.close()
            self.pipe = None

    def is_dead(self) -> bool:
        """Tell whether the process has come to its end."""
        return self._process is not None and self._process.poll() is not None

    def end(self, until: float) -> None:
        """Wait for the end of the process, and kill it and all that it started when it is late."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():  # a fork leaves it to its parent
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(until - time.monotonic(), 0))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
        self.manner = f"by signal {-status}" if status < 0 else f"with code {status}"

    def _send(self, message: bytes) -> None:
        assert self.pipe is not None
        try:
            self.pipe.send_bytes(message)
        except OSError:
            raise WorkerDied from None


def watch(for_it: Callable[[], bool]) -> bool:
    """Look out for what is likely to come at once, and tell whether it came.

    To be woken takes a process longer than a step of a fast world. Whoever else wants the
    processor gets it in between.
    """
    until = time.perf_counter() + WATCH
    while time.perf_counter() < until:
        if for_it():
            return True
        os.sched_yield()
    return False


def live(descriptor: int, parent: int) -> None:
    """Make members and do their jobs until the pipe closes; the main loop of a process."""
    threading.Thread(target=_end_with, args=(descriptor, parent), daemon=True).start()
    os.set_inheritable(descriptor, False)
    pipe = Connection(descriptor)

    def tell(told: Any) -> None:
        pipe.send_bytes(pickle.dumps(told, protocol=5))

    with contextlib.suppress(EOFError, ConnectionError):
        try:
            wrapped, first, same_step = pickle.loads(pipe.recv_bytes())
            members = Members([w.fn for w in wrapped], first, same_step)
        except Exception as error:
            tell(Raised(error, traceback.format_exc()))
            return
        try:
            tell(members.facts)
            _serve(pipe, members, tell)
        finally:
            members.close()


def _serve(pipe: Connection, members: Members, tell: Callable[[Any], None]) -> None:
    ears = select.poll()
    ears.register(pipe, select.POLLIN)
    while True:
        watch(lambda: bool(ears.poll(0)))
        _do(pickle.loads(pipe.recv_bytes()), members, tell)


def _do(jobs: Sequence[Job], members: Members, tell: Callable[[Any], None]) -> None:
    played = played_in(jobs)
    try:
        members.work(jobs, lambda results: tell(seal(results, played)))
    except Exception as error:
        tell(Raised(error, traceback.format_exc()))


def _end_with(descriptor: int, parent: int) -> None:
    """End this process when its caller hangs up or is gone, even in the middle of a step."""
    caller = select.poll()
    caller.register(descriptor, select.POLLHUP)
    while not caller.poll(1000) and os.getppid() == parent:
        pass
    time.sleep(GRACE)
    os.killpg(0, signal.SIGKILL)

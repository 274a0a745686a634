"""Run a function in a process of its own, which is killed when it takes too long."""

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

_GRACE = 0.4
"""Seconds that a new process may spend on its start before they count."""


class Late(Exception):
    """The function was not done in time, and its process has been killed."""


class Killable:
    """A function whose work ends when its time is over, whatever it does.

    The process is started at the first call, serves all that follow, and is killed with every
    process that it started itself when one is late; the next call starts another. Calls from
    several threads have a process each. None is left when the object is gone.

    Args:
        function: Importable by its module and name, as `pickle` asks.
        seconds: What a call may take.
    """

    def __init__(self, function: Callable[..., Any], seconds: float) -> None:
        self.function, self.seconds = function, seconds
        self._forget()

    def __call__(self, **arguments: Any) -> Any:
        """Return what the function returns, or raise what it raises.

        Raises:
            Late: it was not done in time.
            ChildProcessError: its process died.
        """
        called = time.monotonic()
        worker = self._take()
        try:
            done, result = worker.run(arguments, called, self.seconds)
        except BaseException:
            worker.kill()
            raise
        self._idle.append(worker)
        if not done:
            raise result
        return result

    def close(self) -> None:
        """End the processes that wait for a call."""
        _kill_all(self._idle)

    def __reduce__(self) -> tuple[Any, ...]:
        return Killable, (self.function, self.seconds)

    def _take(self) -> "_Worker":
        if self._owner != os.getpid():  # a fork shares pipes with its parent: leave them alone
            self._forget()
        try:
            return self._idle.pop()  # atomic, so that no lock has to survive a fork
        except IndexError:
            return _Worker(self.function)

    def _forget(self) -> None:
        self._owner = os.getpid()
        self._idle: list[_Worker] = []
        weakref.finalize(self, _kill_all, self._idle)


def _kill_all(workers: "list[_Worker]") -> None:
    while workers:
        workers.pop().kill()


class _Worker:
    """A process that calls one function again and again, and the pipe to it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        # Pickled first: what cannot be is told before a process is started.
        order = pickle.dumps(function)
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                # By its path and not as a module of this package, which takes longer to import.
                [sys.executable, "-P", __file__, str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what it prints must not mix with what this process prints
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        self._pipe = Connection(ours.detach())
        self._owner = os.getpid()
        self._pipe.send_bytes(order)
        self._ready = False

    def run(self, arguments: dict[str, Any], called: float, seconds: float) -> tuple[bool, Any]:
        """Return whether the function came to an end, and its result or exception."""
        try:
            self._pipe.send(arguments)
            if not self._ready and self._pipe.poll(_GRACE + seconds):
                self._ready = self._pipe.recv()
                called = min(time.monotonic(), called + _GRACE)
            if not self._ready or not self._pipe.poll(max(called + seconds - time.monotonic(), 0)):
                raise Late
            answer: tuple[bool, Any] = self._pipe.recv()
        except (EOFError, ConnectionError):
            raise ChildProcessError("the process of the tool died") from None
        return answer

    def kill(self) -> None:
        """End the process and all that it started."""
        if self._owner == os.getpid():
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                self._process.kill()
            self._process.wait()
        self._pipe.close()


def _serve(descriptor: int, parent: int) -> None:
    """Answer calls that come through a pipe, until it closes; the main loop of the process."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    pipe = Connection(descriptor)
    try:
        function = pickle.loads(pipe.recv_bytes())
        pipe.send(True)
        while True:
            arguments = pipe.recv()
            try:
                answer = True, function(**arguments)
            except Exception as error:
                answer = False, error
            _send(pipe, answer)
    except (EOFError, ConnectionError):
        pass


def _end_with(parent: int) -> None:
    """End this process when its parent is gone, even in the middle of a call."""
    while os.getppid() == parent:
        time.sleep(1)
    os.killpg(0, signal.SIGKILL)


def _send(pipe: Connection, answer: tuple[bool, Any]) -> None:
    try:
        message = pickle.dumps(answer)
        pickle.loads(message)  # some exceptions can be written and not read
    except Exception:
        message = pickle.dumps((False, RuntimeError(repr(answer[1]))))
    pipe.send_bytes(message)


if __name__ == "__main__":
    _serve(*map(int, sys.argv[1:]))

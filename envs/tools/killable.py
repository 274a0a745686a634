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
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

_START = 60.0
"""Seconds that the start of a process may take, imports included; no call is charged for them."""


class Late(Exception):
    """The function was not done in time, and its process has been killed."""


class Killable:
    """A function whose work ends when its time is over, whatever it does.

    The process is started at the first call, serves all that follow, and is killed when one is
    late; the next call starts another. What it starts itself is of its process group and killed
    with it, unless it asks for a session or a group of its own: that is for the function to end.
    Calls from several threads have a process each. None is left when the object is gone.

    Args:
        function: Importable by its module and name, as `pickle` asks.
        seconds: What a call may take, beside the start of its process.

    Raises:
        ValueError: the function is defined in the program itself, which cannot be imported.
    """

    def __init__(self, function: Callable[..., Any], seconds: float) -> None:
        if _module_of(function) in ("__main__", "__mp_main__"):
            raise ValueError(
                f"{function!r} cannot run in a process of its own, for it is part of the program "
                "that was started: define it in a module that can be imported"
            )
        self.function, self.seconds = function, seconds
        self._forget()

    def __call__(self, **arguments: Any) -> Any:
        """Return what the function returns, or raise what it raises.

        Raises:
            Late: it was not done in time.
            ChildProcessError: its process died or did not start.
        """
        worker = self._take()
        try:
            worker.start()
            done, result = worker.run(arguments, self.seconds)
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
        while True:
            try:
                worker = self._idle.pop()  # atomic, so that no lock has to survive a fork
            except IndexError:
                return _Worker(self.function)
            if worker.lives():
                return worker
            worker.kill()  # it died while it waited, which is no fault of this call

    def _forget(self) -> None:
        self._owner = os.getpid()
        self._idle: list[_Worker] = []
        weakref.finalize(self, _kill_all, self._idle)


def _module_of(function: Callable[..., Any]) -> str | None:
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__module__", None)


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

    def start(self) -> None:
        """Wait until the process has imported the function."""
        if not self._ready:
            self._ready = self._receive(_START)
        if not self._ready:
            raise ChildProcessError(f"the process of the tool did not start within {_START:g} s")

    def run(self, arguments: dict[str, Any], seconds: float) -> tuple[bool, Any]:
        """Return whether the function came to an end, and its result or exception."""
        called = time.monotonic()
        try:
            self._pipe.send(arguments)
        except ConnectionError:
            raise _died() from None
        answer: tuple[bool, Any] | None = self._receive(called + seconds - time.monotonic())
        if answer is None:
            raise Late
        return answer

    def _receive(self, seconds: float) -> Any:
        """Return what the process says, or None if it says nothing in time."""
        try:
            return self._pipe.recv() if self._pipe.poll(max(seconds, 0)) else None
        except (EOFError, ConnectionError):
            raise _died() from None

    def lives(self) -> bool:
        """Tell whether the process can be called."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End the process and its group."""
        if self._owner == os.getpid():
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                self._process.kill()
            self._process.wait()
        self._pipe.close()


def _died() -> ChildProcessError:
    return ChildProcessError("the process of the tool died")


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

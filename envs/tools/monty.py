"""Programs in Monty: an interpreter of a part of Python that has no door to the outside."""

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

from . import ToolError, ToolTimeout

_MEMORY = 64 << 20
"""Bytes of heap that a program may use."""
_GRACE, _LAST_GRACE = 0.1, 0.2
"""Seconds after its limit until a program's interpreter, and then the whole worker, is ended."""
_START_SECONDS = 60.0


class Monty:
    """Run programs in `pydantic-monty`, in a worker process that waits for the next one.

    Monty is an interpreter written in Rust, without files, sockets, processes or the host's
    environment, and with limits on time, memory and recursion. It knows a part of Python: no
    inheritance of classes, no `yield`, few modules; a last value that is an instance is shown
    without its `__repr__`. A program sees a clock that stands still,
    a fixed seed of `random`, and sleeps that take no time, so it says the same on every run;
    what is not exact is whether one that needs nearly the limit is ended.

    Args:
        seconds: How long a program may run.
    """

    name: ClassVar[str] = "monty"

    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds = seconds

    def run(self, code: str, room: int = 10_000) -> str:
        """Run a program and return what it prints and the value of its last expression.

        Raises:
            ToolError: the program failed.
            ToolTimeout: the program took too long.
            OSError: the interpreter does not start.
        """
        deadline = time.monotonic() + self.seconds
        kind, text = _run(code, self.seconds, room)
        if kind == "crash":
            # Whose fault was it? A program that brings down a second, fresh worker did it itself.
            left = max(deadline - time.monotonic(), 0.1)
            kind, text = _run(code, left, room)
        match kind:
            case "output":
                return text
            case "error":
                raise ToolError(text)
            case "timeout" | "late":
                raise ToolTimeout(f"the program was ended after {self.seconds:g} s")
            case _:
                raise ToolError("the program brought the interpreter down")


def _run(code: str, seconds: float, room: int) -> tuple[str, str]:
    try:
        worker = _idle.pop()  # atomic, so that no lock has to survive a fork
    except IndexError:
        worker = _Worker()
    try:
        kind, text = worker.ask(code, seconds, room)
    except BaseException:
        worker.end()
        raise
    if kind in ("crash", "late"):
        worker.end()
    else:
        _idle.append(worker)
    return kind, text


class _Worker:
    """A worker process; whoever takes it off the list of idle ones has it alone."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("monty_worker.py")
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(script), str(_GRACE), str(_MEMORY)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Nothing of the host's environment but what finding modules and the binary needs.
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            },
            start_new_session=True,
        )
        self._received = b""
        if self._line(_START_SECONDS)[0] != "ready":
            self.end()
            raise OSError("the Python interpreter Monty does not start")

    def ask(self, code: str, seconds: float, room: int) -> tuple[str, str]:
        """Run a program; return what became of it, "late" if there is no answer in time."""
        request = json.dumps({"code": code, "seconds": seconds, "room": room}) + "\n"
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(request.encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            return "crash", ""
        return self._line(seconds + _LAST_GRACE)

    def end(self) -> None:
        """End the worker and its interpreter."""
        # Its group is its own, and stays reserved until it has been waited for.
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _line(self, seconds: float) -> tuple[str, str]:
        """Read an answer: "late" if none comes in time, "crash" if none can come."""
        deadline = time.monotonic() + seconds
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._received:
            left = max(deadline - time.monotonic(), 0)
            if not select.select([descriptor], [], [], left)[0]:
                return "late", ""
            received = os.read(descriptor, 1 << 16)
            if not received:
                return "crash", ""
            self._received += received
        line, _, self._received = self._received.partition(b"\n")
        kind, text = json.loads(line)
        return kind, text


_idle: list[_Worker] = []


def _end_all() -> None:
    while _idle:
        _idle.pop().end()


atexit.register(_end_all)
# A fork shares pipes with its parent: the workers stay with the latter.
os.register_at_fork(after_in_child=_idle.clear)

"""The process in which `monty.Monty` runs programs: a JSON line in, a JSON line out.

Run by its path, so that it starts without Gymnasium; it imports nothing of this package. A
process of its own because Monty's bindings start threads, which a fork of the host would lose,
and so that whatever goes wrong here can be ended from outside.
"""

import datetime
import json
import resource
import sys

import pydantic_monty

_RECURSION, _SUSPENSIONS = 500, 1000
_ADDRESS_SPACE = 1 << 30
"""Bytes for this process, which writes out values that may be much longer than they are large."""
_POLICY: pydantic_monty.OSPolicy = {
    # The same program says the same on every run: it sees no clock, no entropy, and no sleep.
    "datetime": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    "sleep": "zero",
    "process_time": "zero",
    "random_start": {"seed": 0},
}


def main() -> None:
    """Say "ready", then answer a request a line until the input ends."""
    grace, memory = float(sys.argv[1]), int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with pydantic_monty.Monty(max_processes=1, feed_duration_limit_grace=grace) as pool:
        with pool.checkout() as session:
            assert session.feed_run("1 + 1") == 2
        _say("ready", "")
        for line in sys.stdin:
            request = json.loads(line)
            _say(*_outcome(pool, request["code"], request["seconds"], request["room"], memory))


def _say(kind: str, text: str) -> None:
    sys.stdout.write(json.dumps([kind, text]) + "\n")
    sys.stdout.flush()


def _outcome(
    pool: pydantic_monty.Monty, code: str, seconds: float, room: int, memory: int
) -> tuple[str, str]:
    """Run a program; return "output", "error", "timeout" or "crash" and its text."""
    limits: pydantic_monty.ResourceLimits = {
        "max_feed_duration_secs": seconds,
        "max_memory": memory,
        "max_recursion_depth": _RECURSION,
        "max_suspensions": _SUSPENSIONS,
    }
    printed = _Printed(room)
    try:
        with pool.checkout(limits=limits, os_policy=_POLICY) as session:
            value = session.feed_run(code, print_callback=printed)
        if value is not None:
            printed("stdout", f"{value!r}\n")
    except pydantic_monty.MontyCrashedError as error:
        return ("timeout" if error.timed_out else "crash"), str(error)
    except (pydantic_monty.MontySyntaxError, pydantic_monty.MontyRuntimeError) as error:
        return _failed(error)
    except (ValueError, RecursionError, MemoryError) as error:
        # The value is too long or nested too deep to be written out.
        return "error", f"{type(error).__name__}: {error}"[:room]
    return "output", "".join(printed.parts)


def _failed(
    error: pydantic_monty.MontySyntaxError | pydantic_monty.MontyRuntimeError,
) -> tuple[str, str]:
    frames = error.traceback()
    # Monty's own time limit has no line; a program may raise TimeoutError, too.
    if isinstance(error.exception(), TimeoutError) and not frames:
        return "timeout", str(error)
    where = f" (line {frames[-1].line})" if frames else ""
    return "error", error.display("type-msg")[-2000:] + where


class _Printed:
    """Keep what is printed, up to a number of characters, and drop the rest."""

    def __init__(self, room: int) -> None:
        self.parts: list[str] = []
        self._room = room

    def __call__(self, stream: str, text: str) -> None:
        self.parts.append(text[: self._room])
        self._room -= len(self.parts[-1])
        if not self._room:
            self.parts = ["".join(self.parts)]


if __name__ == "__main__":
    main()

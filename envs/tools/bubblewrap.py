"""Programs in CPython inside bubblewrap: Linux namespaces with nothing of the host in them."""

import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import ClassVar

from ...errors import UserError
from . import ToolError, ToolTimeout

_NOBODY = 65534
_MEMORY, _FILE_SIZE, _TEMPORARY = 128 << 20, 8 << 20, 16 << 20
"""Bytes: address space of a process, size of a file, and of all files together."""
_PROCESSES, _OPEN_FILES = 16, 64
_KEPT_ERRORS = 4000
"""Characters that are kept of what a program says about its failure."""

_LAUNCHER = f"""
import resource, sys, traceback
def start(seconds):
    for name, limit in (("AS", {_MEMORY}), ("FSIZE", {_FILE_SIZE}), ("NPROC", {_PROCESSES}),
                        ("NOFILE", {_OPEN_FILES}), ("CORE", 0), ("CPU", seconds)):
        kind = getattr(resource, "RLIMIT_" + name)
        resource.setrlimit(kind, (limit, limit + 1 if name == "CPU" else limit))
    code = sys.stdin.buffer.read().decode()
    space = {{"__name__": "__main__", "__builtins__": __builtins__}}
    import ast, random
    random.seed(0)
    tree, last = ast.parse(code), None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        last = compile(ast.Expression(tree.body.pop().value), "main.py", "eval")
    exec(compile(tree, "main.py", "exec"), space)
    value = None if last is None else eval(last, space)
    if value is not None:
        print(repr(value))
    sys.stdout.flush()
try:
    start(int(sys.argv[1]))
except Exception as error:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno for f in frames if f.filename == "main.py"]
    where = f" (line {{lines[-1]}})" if lines else ""
    sys.stdout.flush()
    sys.exit("".join(traceback.format_exception_only(error)[-1:]).strip() + where)
"""


class Bubblewrap:
    """Run programs in full CPython behind bubblewrap (`bwrap`).

    A program has its own user, process, network, IPC and host-name namespaces, no capability,
    a cleared environment, and a file system that holds the read-only system and Python, and
    16 MB of files of its own. It cannot raise its limits on memory, CPU, processes and files.
    Where the host is root, it runs as nobody, since root's limit on processes is not kept.
    Everything in it ends when `bwrap` is killed.

    Hashes of strings and `random` are seeded, but clocks, process ids, `os.urandom`, threads
    and a program that needs nearly the limit are not exact on replay. It may be the system's
    Python and not the host's, where nobody cannot read the latter.

    Args:
        seconds: How long a program may run, starting included.

    Raises:
        UserError: bubblewrap is not here, or does not work here.
    """

    name: ClassVar[str] = "bubblewrap"

    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds = seconds
        self._command = _working_command()

    def run(self, code: str, room: int = 10_000) -> str:
        """Run a program and return what it prints and the value of its last expression.

        Raises:
            ToolError: the program failed.
            ToolTimeout: the program took too long.
            OSError: bubblewrap does not start.
        """
        try:
            source = code.encode()
        except UnicodeEncodeError as error:
            raise ToolError(f"SyntaxError: the program is not valid Unicode: {error}") from None
        status, output, errors = _run(self._command, source, self.seconds, room)
        if status in (None, 128 + signal.SIGXCPU, 128 + signal.SIGKILL):
            raise ToolTimeout(f"the program was ended after {self.seconds:g} s")
        if errors.startswith("bwrap: ") and not _works(self._command):
            # Asked, because a program can write this, too.
            raise OSError(f"bubblewrap failed: {errors}")
        if status:
            last = errors.strip().rpartition("\n")[2]
            raise ToolError(last or f"the program ended with status {status}")
        return output


@cache
def _working_command() -> tuple[str, ...]:
    """Return the command that runs the launcher, with a Python that works in the sandbox."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise UserError("the sandbox bubblewrap needs the program bwrap, which is not installed")
    pythons = (
        (sys.base_prefix, Path(os.path.realpath(sys.executable)).name),
        ("/usr", "python3"),
    )
    for prefix, executable in pythons:
        command = (bwrap, *_walls(prefix), f"/python/bin/{executable}", "-s", "-S", "-c", _LAUNCHER)
        if _works(command):
            return command
    raise UserError("the sandbox bubblewrap does not work here: bwrap may not make namespaces")


def _works(command: tuple[str, ...]) -> bool:
    try:
        return _run(command, b"print(6 * 7)", 20.0, 100)[:2] == (0, "42\n")
    except OSError:
        return False


def _walls(prefix: str) -> list[str]:
    """Return the options of `bwrap`, with the Python under `prefix` at /python."""
    system = []
    for name in ("bin", "lib", "lib64", "sbin"):
        path = Path("/", name)
        if path.is_symlink():
            system += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            system += ["--ro-bind", str(path), str(path)]
    return [
        "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session",
        "--cap-drop", "ALL", "--uid", str(_NOBODY), "--gid", str(_NOBODY), "--hostname", "sandbox",
        "--clearenv", "--setenv", "PYTHONHASHSEED", "0", "--setenv", "LANG", "C.UTF-8",
        "--ro-bind", "/usr", "/usr", *system, "--ro-bind", prefix, "/python",
        "--dev", "/dev", "--remount-ro", "/dev",
        "--size", str(_TEMPORARY), "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp",
    ]  # fmt: skip


def _run(
    command: tuple[str, ...], source: bytes, seconds: float, room: int
) -> tuple[int | None, str, str]:
    """Run a command; return its status (None if it was late), output and errors, both bounded."""
    deadline = time.monotonic() + seconds
    nobody = _NOBODY if os.getuid() == 0 else None
    with open(os.memfd_create("program"), "w+b") as program:
        program.write(source)
        program.seek(0)
        process = subprocess.Popen(
            [*command, str(max(1, round(seconds)))],
            stdin=program,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={},
            cwd="/",
            start_new_session=True,
            user=nobody,
            group=nobody,
            extra_groups=None if nobody is None else [],
        )
    with process:
        try:
            output, errors = _read(process, (room, _KEPT_ERRORS), deadline)
            status = process.wait(max(deadline - time.monotonic(), 0.0))
        except (TimeoutError, subprocess.TimeoutExpired):
            return None, "", ""
        finally:
            # With bwrap, the first process of the namespace ends, and with it all in there.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return status, output, errors


def _read(
    process: subprocess.Popen[bytes], rooms: tuple[int, int], deadline: float
) -> tuple[str, str]:
    """Read output and errors to their ends, and keep no more of each than there is room for."""
    assert process.stdout is not None
    assert process.stderr is not None
    pipes = (process.stdout, process.stderr)
    kept = {pipe.fileno(): b"" for pipe in pipes}
    # A character is at most four bytes.
    most = {pipe.fileno(): 4 * room for pipe, room in zip(pipes, rooms, strict=True)}
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(deadline - time.monotonic(), 0.0))
            if not ready or time.monotonic() > deadline:
                raise TimeoutError
            for key, _ in ready:
                received = os.read(key.fd, 1 << 16)
                if not received:
                    selector.unregister(key.fileobj)
                kept[key.fd] += received[: max(most[key.fd] - len(kept[key.fd]), 0)]
    texts = [kept[pipe.fileno()].decode(errors="replace") for pipe in pipes]
    return texts[0][: rooms[0]], texts[1][: rooms[1]]

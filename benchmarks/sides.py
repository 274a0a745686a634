"""Contestants that have a process of their own, and peers that have an interpreter of their own.

Peers import this, too, so it needs nothing but Python.
"""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).parent
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)
"""Variables that keep libraries to one thread; they read them when they are loaded."""


class Side:
    """The process of a contestant, which answers lines of JSON.

    Args:
        name: Who it is.
        command: What runs it.
        environment: Variables beside our own and those that keep libraries to one thread.
    """

    def __init__(
        self, name: str, command: list[str | Path], environment: dict[str, str] | None = None
    ) -> None:
        self._name = name
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | ONE_THREAD | (environment or {}),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()  # the end of its orders

    def ask(self, **order: Any) -> Any:
        """Give an order and wait for the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"the process of {self._name} died")
        return json.loads(answer)


def orders() -> Iterator[tuple[dict[str, Any], Callable[[Any], None]]]:
    """Yield, in the process of a contestant, each order and what takes the answer to it.

    Which versions it has of some packages is answered for every contestant.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints is no answer

    def reply(answer: Any) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    for line in sys.stdin:
        order = json.loads(line)
        if "versions" in order:
            found = {name: importlib.metadata.version(name) for name in order["versions"]}
            reply({"python": platform.python_version(), **found})
        else:
            yield order, reply


def interpreter(*requirements: str) -> Path:
    """Return the interpreter of a virtual environment that has a peer, made if need be.

    Args:
        requirements: What pip is told to install; the first names the folder.
    """
    root = HERE / ".venvs"
    folder = root / requirements[0].replace("==", "-")
    python, stamp = folder / "bin" / "python", folder / ".installed"
    if not stamp.exists() or stamp.read_text() != "\n".join(requirements):
        print(f"Installing {requirements[0]} into {folder}: minutes, once.", flush=True)
        venv.create(folder, clear=True, with_pip=True)
        (root / ".gitignore").write_text("*\n")
        subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True)
        stamp.write_text("\n".join(requirements))
    return python

"""Contestants that have a process of their own, and peers that have an interpreter of their own."""

import json
import os
import subprocess
import venv
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).parent
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


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
            env=os.environ | dict.fromkeys(_THREADS, "1") | (environment or {}),
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

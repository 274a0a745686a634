"""Records: one line of JSON for each episode, from which boards are computed."""

import functools
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..errors import UserError
from .recipe import fits


@dataclass(frozen=True)
class Record:
    """What is known of one episode that was played to its end."""

    env: str
    """Id of the environment, version included."""
    split: str | None
    """Split of its tasks, None if it has none."""
    purpose: str
    """`evaluation`, or `validation` for one in the course of a training."""
    agent: str
    """The agent's name."""
    agent_hash: str
    """Hash of everything that decides how it plays."""
    training_seed: int | None
    """Seed of its training, None if it was not trained here."""
    training_steps: int | None
    """Steps of its training so far, None if it was not trained here."""
    episode_seed: int
    """Seed of the environment's reset, and of the agent's own draws."""
    episode_return: float
    """Sum of the rewards."""
    success: bool | None
    """Whether the task was solved, None where that has no meaning."""
    length: int
    """Steps, or messages of the agent."""
    tokens: int
    """Tokens that the agent generated."""
    seconds: float
    """Wall time; in a batch, the episode's share."""
    recipe_hash: str | None = None
    """Hash of what it was trained with: other recipes are other agents."""
    cost: float | None = None
    """Dollars that the agent's messages cost, None where they have no price."""
    valid: bool = True
    """False if the machinery failed in every attempt: then nothing was learned about the agent."""
    failures: dict[str, int] = field(default_factory=dict)
    """How often each `info["failure"]` occurred; under `infra`, attempts that were repeated."""
    kind: str | None = None
    """Kind of the task, where there are several."""
    command: str = ""
    """What plays the episode again."""
    commit: str | None = None
    """Commit of Palaestra, None outside a checkout."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of the libraries."""

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes two records the same episode of the same agent."""
        return (*self.contest, self.episode_seed)

    @property
    def contest(self) -> tuple[Any, ...]:
        """What the records of an evaluation share: all of the key but the episode."""
        return (
            self.env, self.split, self.purpose, self.agent, self.agent_hash,
            self.training_seed, self.training_steps,
        )  # fmt: skip


class RecordFile:
    """Append records so that a kill loses none that was finished.

    Each record is one write of one line, on the disk before `append` returns. A line that an
    earlier kill cut short is closed off, so that it spoils no other.

    Args:
        path: A file of JSON Lines; it and its folder are made if need be.

    Raises:
        UserError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise UserError(f"cannot write records to {path}: {error.strerror}") from None
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")

    def append(self, record: Record) -> None:
        """Write one record and wait until the disk has it."""
        line = (json.dumps(asdict(record), ensure_ascii=False) + "\n").encode()
        if os.write(self._file, line) != len(line):
            raise OSError(28, "No space left on device")
        os.fsync(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        os.close(self._file)


def read_records(paths: Iterable[Path]) -> list[Record]:
    """Read records from files, each episode once, in the order of the files.

    A line that a kill cut short is passed over; it was no finished episode.

    Raises:
        UserError: a file cannot be read, holds no record, or has a line that is none.
    """
    found: dict[tuple[Any, ...], Record] = {}
    for path in paths:
        records = _read(path)
        if not records:
            raise UserError(
                f"{path} holds no records yet; play some episodes first: "
                f"palaestra evaluate --env ID --agent random --records {path}"
            )
        for record in records:
            # What was played again counts in place of what the machinery had spoilt.
            if record.valid or record.key not in found:
                found[record.key] = record
    return list(found.values())


def existing(path: Path) -> set[tuple[Any, ...]]:
    """Return the keys of the valid records in a file, none if there is no file."""
    return {record.key for record in _read(path) if record.valid} if path.exists() else set()


def _read(path: Path) -> list[Record]:
    try:
        lines = path.read_text("utf-8", "replace").split("\n")
    except OSError as error:
        raise UserError(f"cannot read records from {path}: {error.strerror}") from None
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            raw = json.loads(line)
        except ValueError:
            if _is_torn(line):
                continue
            raise UserError(f"{path}, line {number}: not a record; remove the line") from None
        records.append(_checked(raw, f"{path}, line {number}"))
    return records


def _is_torn(line: str) -> bool:
    """Tell whether a line is the beginning of a record; whole ones end with two brackets."""
    beginning = '{"env"'
    return beginning.startswith(line) or (line.startswith(beginning) and line[-2:] != "}}")


def _checked(raw: Any, where: str) -> Record:
    known = {f.name for f in fields(Record)}
    if not isinstance(raw, dict) or not raw.keys() <= known:
        raise UserError(f"{where}: not a record of this version; remove the line")
    try:
        record = Record(**raw)
    except TypeError:
        raise UserError(f"{where}: a field is missing; remove the line") from None
    for field_ in fields(record):
        if not fits(getattr(record, field_.name), field_.type):
            raise UserError(f"{where}: {field_.name} is of a wrong type; remove the line")
    return record


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    libraries = (
        "palaestra", "gymnasium", "stable_baselines3", "torch", "transformers", "numba", "numpy",
    )  # fmt: skip
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in libraries
    }


@functools.cache
def commit() -> str | None:
    """Return the commit of the checkout, with `-dirty` if it has changes; None elsewhere."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        said = subprocess.run(git, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said.stdout.strip() or None

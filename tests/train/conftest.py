"""What the tests of this folder share: small language models, threads, counts of rows."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from palaestra.policies.tiny import make_tiny
from palaestra.train.demonstrations import demonstrations


@pytest.fixture(scope="session")
def tiny_chat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an untrained model that knows the words of Calculator."""
    folder = tmp_path_factory.mktemp("tiny-chat")
    shown = demonstrations("palaestra/Calculator-v0", "blind", 50, 0)
    make_tiny(folder, list(shown), seed=0, width=32, layers=2)
    return folder


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Let torch have so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], list[int]]:
    """Return what counts, from then on, of how many rows a module's `forward` is told each time."""

    def count(module: Any) -> list[int]:
        counts: list[int] = []
        forward = module.forward

        def counting(seen: Any, rows_B: Any, *more: Any) -> None:
            counts.append(len(rows_B))
            forward(seen, rows_B, *more)

        monkeypatch.setattr(counting, "get_overload", forward.get_overload, raising=False)
        monkeypatch.setattr(module, "forward", counting)
        return counts

    return count

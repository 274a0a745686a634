"""Small language models, and one thread and several, for every test of this folder."""

from collections.abc import Iterator
from pathlib import Path

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

"""Small language models for every test of this folder."""

from pathlib import Path

import pytest
from palaestra.policies.tiny import make_tiny
from palaestra.train.demonstrations import demonstrations


@pytest.fixture(scope="session")
def tiny_chat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an untrained model that knows the words of Calculator."""
    folder = tmp_path_factory.mktemp("tiny-chat")
    shown = demonstrations("palaestra/Calculator-v0", "blind", 50, 0)
    make_tiny(folder, list(shown), seed=0, width=32, layers=2)
    return folder

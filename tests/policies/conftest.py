"""Small language models for every test of this folder."""

from pathlib import Path

import pytest
from palaestra.policies.tiny import make_tiny

DIALOGUES = [
    [
        {"role": "system", "content": "Answer."},
        {"role": "user", "content": f"What is {x} plus {y}?"},
        {"role": "assistant", "content": f"<calculator>{x} + {y}</calculator>"},
        {"role": "tool", "content": str(x + y)},
        {"role": "assistant", "content": f"<answer>{x + y}</answer>"},
    ]
    for x in range(10, 40)
    for y in (7, 25, 90)
]


@pytest.fixture(scope="session")
def tiny_chat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an untrained model that has a chat template of its own."""
    folder = tmp_path_factory.mktemp("tiny-chat")
    make_tiny(folder, DIALOGUES, seed=0, width=32, layers=3)
    return folder

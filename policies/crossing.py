"""What an observation says: texts from UTF-8 bytes, and the messages of a dialogue."""

import json
from typing import Any

import torch

Message = dict[str, Any]


def texts(rows: torch.Tensor) -> list[str]:
    """Decode rows of zero-padded UTF-8 bytes, shape (R, bytes)."""
    raw = rows.to("cpu", torch.uint8).numpy()
    return [row.tobytes().rstrip(b"\0").decode("utf-8", "ignore") for row in raw]


def messages(dialogue: str) -> list[Message]:
    """Return the messages of a dialogue that crossed as JSON Lines."""
    return [json.loads(line) for line in dialogue.split("\n") if line]

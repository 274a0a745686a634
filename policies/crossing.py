"""What an observation says: texts from UTF-8 bytes, and the messages of a dialogue."""

import json
from collections.abc import Sequence
from typing import Any

import torch

Message = dict[str, Any]


def behind(prefix: Sequence[Message], dialogue: Sequence[Message]) -> Sequence[Message]:
    """Return what of a dialogue follows a prefix, which opens with the system's message itself."""
    return dialogue[1:] if prefix and dialogue and dialogue[0]["role"] == "system" else dialogue


def texts(rows: torch.Tensor) -> list[str]:
    """Decode rows of zero-padded UTF-8 bytes, shape (R, bytes)."""
    raw = rows.to("cpu", torch.uint8).numpy()
    return [row.tobytes().rstrip(b"\0").decode("utf-8", "ignore") for row in raw]


def messages(dialogue: str) -> list[Message]:
    """Return the messages of a dialogue that crossed as JSON Lines."""
    return [json.loads(line) for line in dialogue.split("\n") if line]

"""How text crosses to a network: as UTF-8 bytes, so that no tokenizer is taken for granted."""

import json
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray


def as_lines(messages: list[dict[str, Any]], room: int) -> str:
    """Write a dialogue as JSON Lines, a message a line with its role and content.

    Args:
        messages: The dialogue.
        room: Bytes; where they do not suffice, the question is what stays longest.
    """
    kept = [{"role": m["role"], "content": m["content"]} for m in messages]
    lines = [json.dumps(message, ensure_ascii=False) for message in kept]
    while len(lines) > 3 and _size(lines) > room:
        del kept[2], lines[2]
    # Even these may be too long: then the end of the rules goes, of the newest, of the question.
    for i in dict.fromkeys((0, len(kept) - 1, 1)):
        if (excess := _size(lines) - room) > 0:
            content = kept[i]["content"]
            kept[i]["content"] = content[: max(len(content) - excess, 0)]
            lines[i] = json.dumps(kept[i], ensure_ascii=False)
    while lines and _size(lines) > room:
        del lines[0]
    return "\n".join(lines)


def room_for(env: gymnasium.Env[Any, Any]) -> int:
    """Return how many bytes a dialogue may fill: so many for each message that may be sent."""
    turns = env.get_wrapper_attr("max_turns") if env.has_wrapper_attr("max_turns") else None
    usual = _TURN_BYTES * min(turns, _MOST_TURNS) if isinstance(turns, int) else 0
    return max(usual, _LEAST_BYTES)


_TURN_BYTES, _LEAST_BYTES, _MOST_TURNS = 2048, 4096, 64


def _size(lines: list[str]) -> int:
    return len("\n".join(lines).encode())


def write(row: NDArray[np.uint8], text: str) -> None:
    """Write a text into a row of zeros; what finds no room is left out."""
    raw = text.encode()[: len(row)]
    row[: len(raw)] = np.frombuffer(raw, np.uint8)

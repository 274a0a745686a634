"""Networks: from observations to distributions over actions, and values."""

from pathlib import Path

PACKAGED_MODEL = "SmolLM2-135M-Instruct"
"""The language model that comes with Palaestra."""


def is_gguf(path: Path) -> bool:
    """Tell whether a language model lies there in one file of llama.cpp's format."""
    return path.suffix == ".gguf" and path.is_file()

"""Networks: from observations to distributions over actions, and values."""

PACKAGED_MODEL = "SmolLM2-135M-Instruct"
"""The language model that comes with Palaestra."""

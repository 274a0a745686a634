"""The global generators of random numbers, which stable-baselines3 and others draw from."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def states() -> dict[str, Any]:
    """Return where all of them stand."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),  # noqa: NPY002 - the global one is what is meant
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore(found: dict[str, Any]) -> None:
    """Put all of them where they stood."""
    random.setstate(found["python"])
    np.random.set_state(found["numpy"])  # noqa: NPY002 - the global one is what is meant
    torch.set_rng_state(found["torch"])
    if torch.cuda.is_available() and found["cuda"]:
        torch.cuda.set_rng_state_all(found["cuda"])


@contextmanager
def left_alone() -> Iterator[None]:
    """Put them back after something that seeds them."""
    found = states()
    try:
        yield
    finally:
        restore(found)

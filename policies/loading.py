"""What language models run under."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from .adapting import layers_of

_WORTH_TWO = 2**15
"""Weights of a matrix from which on its products are worth a second thread."""


@contextmanager
def running(model: PreTrainedModel) -> Iterator[None]:
    """Let a model learn at its fastest inside the block."""
    with without_denormals(), _threads_that_pay(model):
        yield


@contextmanager
def _threads_that_pay(model: PreTrainedModel) -> Iterator[None]:
    """Keep a small model to one thread: two would wait for each other as long as they work.

    Source: 63 steps of a warm start on two cores, 64 wide: 7.1 s with one thread, 7.0 with two,
    and beside one busy process 5.8 and 8.4; 256 wide, two take two thirds of the time of one.
    """
    threads = torch.get_num_threads()
    if max(p.numel() for p in layers_of(model).parameters()) < _WORTH_TWO:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def without_denormals() -> Iterator[None]:
    """Take numbers for 0 that are too small to be told from it, which a CPU is slow with.

    Attention that has made up its mind is full of them: an update takes up to twice as long.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)

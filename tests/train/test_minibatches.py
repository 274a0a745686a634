"""Minibatches: everything once, in a fair order, and what somebody keeps stays as it was."""

from collections import Counter
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from palaestra.train.minibatches import Minibatches, shuffled

CPU = torch.device("cpu")
ITEMS: list[tuple[str, tuple[int, ...]]] = [
    ("f4", (4,)), ("f4", ()), ("f8", (3,)), ("i8", (1,)), ("u1", (8,)), ("u1", (3,)),
    ("?", (5,)), ("?", (4,)), ("i4", (2, 2)), ("u1", (40, 60)), ("f4", (700,)), ("i2", (3,)),
]  # fmt: skip


def make(tensors: Any) -> tuple[torch.Tensor, ...]:
    return tuple(tensors)


def fields(count: int, items: list[tuple[str, tuple[int, ...]]]) -> list[Any]:
    rng = np.random.default_rng(count)
    return [rng.integers(0, 100, (count, *shape)).astype(dtype) for dtype, shape in items]


@pytest.mark.parametrize("where", ["cpu", "elsewhere"])
@settings(max_examples=60)
@given(
    count=st.sampled_from([1, 2, 33, 511, 513, 1100]),
    size=st.integers(1, 1200),
    more=st.lists(st.sampled_from(ITEMS), max_size=7),
    seed=st.integers(0, 2**53),
)
def test_the_fields_of_a_transition_stay_together(
    where: str, count: int, size: int, more: Any, seed: int
) -> None:
    minibatches = Minibatches(make, CPU)
    minibatches._on_cpu = where == "cpu"  # the way to another device, which need not be there
    arrays, order = fields(count, [*more, ("f4", ())]), shuffled(count, seed)
    minibatches.load(arrays)
    for _ in range(2):
        start = 0
        for batch in minibatches.epoch(size, order):
            rows = order[start : start + size]
            for tensor, array in zip(batch, arrays, strict=True):
                assert np.array_equal(tensor.numpy(), array[rows])
                assert tensor.numpy().dtype == array.dtype
                assert tensor.is_contiguous()
            start += size
        assert count <= start < count + size


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_they_come_on_the_gpu() -> None:
    minibatches, arrays = Minibatches(make, torch.device("cuda")), fields(70, ITEMS)
    minibatches.load(arrays)
    order = shuffled(70, 1)
    for i, batch in enumerate(minibatches.epoch(32, order)):
        for tensor, array in zip(batch, arrays, strict=True):
            assert tensor.is_cuda
            assert np.array_equal(tensor.cpu().numpy(), array[order[32 * i : 32 * (i + 1)]])


# Memory


KEEP: dict[str, Any] = {
    "sample": lambda batch: batch,
    "tensor": lambda batch: batch[0],
    "view": lambda batch: batch[0][:, 1:],
    "flat view": lambda batch: batch[0].flatten(),
    "array": lambda batch: batch[0].numpy(),
}


@pytest.mark.parametrize("keep", KEEP)
def test_what_is_kept_stays_as_it_was(keep: str) -> None:
    minibatches, arrays = Minibatches(make, CPU), fields(64, ITEMS[:3])
    minibatches.load(arrays)
    kept, copies = [], []
    for epoch in range(5):
        for i, batch in enumerate(minibatches.epoch(16, shuffled(64, epoch))):
            if i in (1, 3):
                kept.append(KEEP[keep](batch))
                first = kept[-1][0] if keep == "sample" else kept[-1]
                copies.append(np.asarray(first).copy())
        del batch
    for found, copy in zip(kept, copies, strict=True):
        assert np.array_equal(np.asarray(found[0] if keep == "sample" else found), copy)


def test_epochs_may_be_read_side_by_side() -> None:
    minibatches, arrays = Minibatches(make, CPU), fields(64, ITEMS[:3])
    minibatches.load(arrays)
    orders = [shuffled(64, seed) for seed in range(4)]
    epochs = [minibatches.epoch(16, order) for order in orders]
    for i in range(4):
        for order, epoch in zip(orders, epochs, strict=True):
            assert np.array_equal(next(epoch)[0], arrays[0][order[16 * i : 16 * (i + 1)]])


def test_memory_is_used_again_once_it_is_free() -> None:
    minibatches = Minibatches(make, CPU)
    minibatches.load(fields(64, ITEMS[:3]))
    places = set()
    for epoch in range(9):
        for batch in minibatches.epoch(16, shuffled(64, epoch)):  # the last is held, as in PPO
            places.add(batch[0].data_ptr())
    assert len(places) == 8


def test_a_graph_is_not_spoilt() -> None:
    minibatches, weight = Minibatches(make, CPU), torch.ones(4, requires_grad=True)
    minibatches.load(fields(64, [("f4", (4,))]))
    kept = []
    for epoch in range(4):
        for (seen,) in minibatches.epoch(20, shuffled(64, epoch)):
            kept.append(((seen @ weight).sum(), seen.sum(0).clone()))
        del seen
    for loss, gradient in kept:
        weight.grad = None
        loss.backward()
        assert torch.allclose(weight.grad, gradient)


# The order


@given(st.integers(1, 5000), st.integers(0, 2**53))
def test_an_order_has_every_number_once(count: int, seed: int) -> None:
    order = shuffled(count, seed)
    assert np.array_equal(np.sort(order), np.arange(count))
    assert np.array_equal(order, shuffled(count, seed))


def test_every_order_is_as_likely_as_any_other() -> None:
    seeds = np.random.default_rng(0).integers(0, 2**53, 24_000)
    counts = Counter(tuple(map(int, shuffled(4, int(seed)))) for seed in seeds)
    assert set(counts) == set(permutations(range(4)))
    chi_squared = sum((count - 1000) ** 2 / 1000 for count in counts.values())
    assert 9 < chi_squared < 45  # 23 degrees of freedom: one in 200 is outside, on either side


def test_so_is_every_place_in_a_long_one() -> None:
    orders = np.array([shuffled(1000, seed) for seed in range(400)], float)
    # The mean of 400 uniform places in 0..999 has a standard deviation of 14.4.
    assert np.abs(orders.mean(axis=0) - 499.5).max() < 5 * 14.4
    neighbours = np.corrcoef(orders[:, :-1].ravel(), orders[:, 1:].ravel())[0, 1]
    assert abs(neighbours) < 0.01

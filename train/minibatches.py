"""Random minibatches: one compiled gather an epoch.

Idea: what belongs to a transition lies in one row of 32-bit words, so that visiting the rows in
random order reads one piece of memory each and not one for each field. An epoch is written
into one block of memory, field by field, and its minibatches are slices of it that were made
once: torch needs longer to make them than the gather takes.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

_WIDEST = 2048
"""Bytes of a field up to which it is packed; of a wider one a second copy is not worth it."""
_BLOCKS = 2
"""Blocks that take turns, as an epoch begins while its loop still holds the last minibatch."""
_CHUNK = 512
"""Rows gathered at a time, so that they are in the cache for each of their fields."""

Order = NDArray[np.uint32]
Sample = TypeVar("Sample")


class Minibatches(Generic[Sample]):
    """Minibatches of the transitions that were last loaded, in a new random order each epoch.

    They may be kept and changed: memory is used again only if nobody else has a tensor of it.

    Args:
        make: Makes a sample of its tensors, which are in the order of the fields.
        device: Where the tensors are to be.
        immutable: Whether samples cannot be changed, so that one may be yielded again.
    """

    def __init__(
        self,
        make: Callable[[Sequence[torch.Tensor]], Sample],
        device: torch.device,
        immutable: bool = True,
    ) -> None:
        self._make, self._device, self._immutable = make, device, immutable
        self._on_cpu = device.type == "cpu"
        self._key: Any = None
        self._blocks: list[_Block[Sample]] = []
        """Memory for epochs of this key: the size of a minibatch, and what the rows hold."""

    def load(self, fields: Sequence[NDArray[Any]]) -> None:
        """Take fields of M transitions, of shape (M, ...) and any dtype; one at least is narrow."""
        self._count, self._fields = len(fields[0]), list(fields)
        narrow = [i for i, field in enumerate(fields) if is_narrow(field[0])]
        # Widest items first: then the items of each field are aligned, whatever M is.
        self._narrow = sorted(narrow, key=lambda i: -fields[i].itemsize)
        self._wide = [i for i in range(len(fields)) if i not in set(narrow)]
        words = [_words(fields[i]) for i in self._narrow]
        self._widths_F = np.array([part.shape[1] for part in words])
        self._layout = [(fields[i].dtype, fields[i].shape[1:]) for i in self._narrow]
        self._shape = self._count, self._layout, self._wide
        if self._on_cpu:
            self._rows_M_W = np.concatenate(words, axis=1)
        else:
            self._parts = [torch.as_tensor(fields[i], device=self._device) for i in self._narrow]

    def epoch(self, size: int, order_M: Order) -> Iterator[Sample]:
        """Yield the transitions in this order, in minibatches of `size`; the last may be short."""
        if not self._on_cpu:
            yield from self._complete(self._gather_on_device(size, order_M), size, order_M)
            return
        block = self._unused_block(size)
        _gather(order_M, self._rows_M_W, self._widths_F, block.words)
        if block.samples:
            yield from block.samples
        else:
            yield from self._complete(block.batches, size, order_M)

    def _unused_block(self, size: int) -> "_Block[Sample]":
        key = size, self._shape
        if key != self._key:
            self._key, self._blocks = key, []
        # The one that was used longest ago comes first, as it is most likely to be free.
        for block in self._blocks:
            if block.is_unused():
                self._blocks.remove(block)
                break
        else:
            make = self._make if self._immutable and not self._wide else None
            block = _Block(size, self._count, self._layout, make, np.argsort(self._narrow).tolist())
            del self._blocks[: 1 - _BLOCKS]
        self._blocks.append(block)
        return block

    def _gather_on_device(self, size: int, order_M: Order) -> list[tuple[torch.Tensor, ...]]:
        """Gather where the tensors are: only the order travels, once an epoch."""
        order = torch.as_tensor(order_M.view(np.int32), device=self._device)
        gathered = [torch.split(part.index_select(0, order), size) for part in self._parts]
        back = np.argsort(self._narrow).tolist()
        return list(zip(*(gathered[i] for i in back), strict=True))

    def _complete(
        self, batches: Sequence[tuple[torch.Tensor, ...]], size: int, order_M: Order
    ) -> Iterator[Sample]:
        """Add the wide fields to the narrow ones, when they are asked for."""
        for i, narrow in enumerate(batches):
            tensors = list(narrow)
            rows = order_M[i * size : (i + 1) * size]
            for k in self._wide:  # ascending, so each finds its place
                wide = torch.as_tensor(self._fields[k].take(rows, axis=0), device=self._device)
                tensors.insert(k, wide)
            yield self._make(tensors)


def shuffled(count: int, seed: int) -> Order:
    """Return the numbers below `count` in random order, each order as likely as any other."""
    order = np.empty(count, np.uint32)
    _shuffle(order, seed)
    return order


def is_narrow(item: NDArray[Any]) -> bool:
    """Whether a field with such items is packed: short, and of whole words."""
    return item.nbytes <= _WIDEST and item.nbytes % 4 == 0


class _Block(Generic[Sample]):
    """The memory of one epoch and its minibatches."""

    def __init__(
        self,
        size: int,
        count: int,
        layout: Sequence[tuple[np.dtype[Any], tuple[int, ...]]],
        make: Callable[[Sequence[torch.Tensor]], Sample] | None,
        back: list[int],
    ) -> None:
        self._memory, fields = _allocate(count, layout)
        self.words: NDArray[np.uint32] = self._memory.numpy().view(np.uint32)
        self.batches = list(zip(*(torch.split(fields[i], size) for i in back), strict=True))
        self.samples = [make(batch) for batch in self.batches] if make else []
        del fields
        tensors = [tensor for batch in self.batches for tensor in batch]
        self._watched: list[Any] = [self.batches, self.samples, *self.samples, *tensors]
        del tensors
        self._own = self._holders()

    def is_unused(self) -> bool:
        """Whether nobody holds a minibatch, one of its tensors, a view or a graph of one."""
        return self._holders() == self._own

    def _holders(self) -> int:
        storage = self._memory.untyped_storage()._cdata
        views: int = torch._C._storage_Use_Count(storage)
        return sum(map(sys.getrefcount, self._watched)) + views


def _allocate(
    count: int, layout: Sequence[tuple[np.dtype[Any], tuple[int, ...]]]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return memory for an epoch, and the fields in it, each of shape (count, ...)."""
    lengths = [count * dtype.itemsize * int(np.prod(shape)) // 4 for dtype, shape in layout]
    memory = torch.empty(sum(lengths), dtype=torch.int32)
    fields = [
        part.view(torch.from_numpy(np.empty(0, dtype)).dtype).view(count, *shape)
        for part, (dtype, shape) in zip(torch.split(memory, lengths), layout, strict=True)
    ]
    return memory, fields


def _words(field: NDArray[Any]) -> NDArray[np.uint32]:
    """View a field as 32-bit words, shape (M, W)."""
    return np.ascontiguousarray(field).reshape(len(field), -1).view(np.uint32)


@njit(cache=True, nogil=True, error_model="numpy")
def _shuffle(order_M: Order, seed: int) -> None:
    """Shuffle as Fisher and Yates do, with the numbers of SplitMix64 (Steele et al., 2014).

    A number below n comes without a division in most cases and without the bias of a
    remainder: Lemire, "Fast Random Integer Generation in an Interval" (2019).
    """
    state, low_bits = np.uint64(seed), np.uint64(0xFFFFFFFF)
    for m in range(order_M.shape[0]):
        order_M[m] = m
    for n in range(order_M.shape[0], 1, -1):
        bound = np.uint64(n)
        while True:
            state += np.uint64(0x9E3779B97F4A7C15)
            mixed = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            product = ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(32)) * bound
            low = product & low_bits
            if low >= bound or low >= (low_bits + np.uint64(1)) % bound:
                break
        k = np.int64(product >> np.uint64(32))
        order_M[n - 1], order_M[k] = order_M[k], order_M[n - 1]


@njit(cache=True, nogil=True, error_model="numpy")
def _gather(
    order_M: Order,
    rows_M_W: NDArray[np.uint32],
    widths_F: NDArray[np.int64],
    memory: NDArray[np.uint32],
) -> None:
    """Write field after field what the rows hold side by side."""
    count = order_M.shape[0]
    for first in range(0, count, _CHUNK):
        order_C = order_M[first : first + _CHUNK]
        offset = 0
        for width in widths_F:
            start = count * offset + first * width
            part = memory[start : start + order_C.shape[0] * width]
            if width == 1:
                _gather_words(order_C, rows_M_W, offset, part)
            else:
                _gather_field(order_C, rows_M_W, offset, width, part)
            offset += width


# In functions of their own, and with unsigned indices, LLVM makes them fast.


@njit(cache=True, nogil=True, error_model="numpy")
def _gather_words(
    order_C: Order, rows_M_W: NDArray[np.uint32], offset: int, part_C: NDArray[np.uint32]
) -> None:
    for c in range(order_C.shape[0]):
        part_C[c] = rows_M_W[order_C[c], offset]


@njit(cache=True, nogil=True, error_model="numpy")
def _gather_field(
    order_C: Order,
    rows_M_W: NDArray[np.uint32],
    offset: int,
    width: int,
    part: NDArray[np.uint32],
) -> None:
    rows, row_width = rows_M_W.ravel(), np.uint64(rows_M_W.shape[1])
    for c in range(order_C.shape[0]):
        source = np.uint64(order_C[c]) * row_width + np.uint64(offset)
        target = np.uint64(c) * np.uint64(width)
        for w in range(np.uint64(width)):
            part[target + w] = rows[source + w]

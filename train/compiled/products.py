"""Products of small matrices that lie in memory in any regular way, at the speed of the core.

Idea: BLAS copies a matrix before it multiplies, which for a convolution takes as long as the
product. Here a tile of the product stays in the core's registers while its factors are read from
wherever they lie. LLVM does not find that by itself, so the tile is written in its own language.
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from ...envs import fresh  # noqa: F401

WIDTH = 32
"""Columns of a tile."""
_FEATURES = get_host_cpu_features()
IS_FAST = bool(_FEATURES.get("fma"))
"""Whether the core is of a kind on which these products were seen to be faster than torch's."""
_LANES = 16 if _FEATURES.get("avx512f") else 8 if IS_FAST else 4
"""Numbers in a register."""
HEIGHT = 12 if _LANES == 16 else 3
"""Most rows of a tile: with these, it takes most of the core's registers and leaves some."""
_VECTORS = WIDTH // _LANES

_INT, _LANE, _FLOAT = ir.IntType(64), ir.IntType(32), ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, _LANES)
_FIRST = ir.Constant(ir.VectorType(_LANE, _LANES), None)


@njit(cache=True, nogil=True)
def add_product(rows, product, into, left, of_left, loops, right, of_right):  # type: ignore[no-untyped-def]
    """Add left times right to `WIDTH` columns of a product.

    Each matrix is part of a flat array of float32: of the product and of the right, every row is
    one run of numbers; a row of the left lies as three loops, one within the other, run through
    it. So with `(start, step)` where the first row lies and how far it is from one to the next,

        product[start + step * r + c] += sum over i, j, k of
            left[start_left + step_left * r + step_i * i + step_j * j + step_k * k]
            * right[start_right + step_right * n + c]

    where n counts the terms. Nothing looks at bounds.

    Args:
        rows: How many r there are, from 1 to `HEIGHT`.
        product: The array that is added to.
        into: Start and step of the product.
        left: An array.
        of_left: Start and step of the left.
        loops: Count and step of each loop, from the outermost on; every count is above 0.
        right: An array.
        of_right: Start and step of the right.
    """
    _add_product(rows, product, into, left, of_left, loops, right, of_right)  # type: ignore[call-arg]


@intrinsic
def _add_product(typing, rows, product, into, left, of_left, loops, right, of_right):  # type: ignore[no-untyped-def]
    """Write the code of `add_product`."""

    def write(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
        unpack: Any = cgutils.unpack_tuple

        def matrix(array: int, place: int) -> tuple[Any, Any]:
            made = context.make_array(signature.args[array])(context, builder, values[array])
            start, step = unpack(builder, values[place], 2)
            return builder.gep(made.data, [start]), step

        (product, step), (left, row_step), right = matrix(1, 2), matrix(3, 4), matrix(6, 7)
        loops = [unpack(builder, loop, 2) for loop in unpack(builder, values[5], 3)]
        done = builder.append_basic_block()
        choice = builder.switch(values[0], done)
        for height in range(1, HEIGHT + 1):
            block = builder.append_basic_block()
            choice.add_case(height, block)
            builder.position_at_end(block)
            lefts = [builder.gep(left, [builder.mul(row_step, _INT(r))]) for r in range(height)]
            sums = iter(_sum(builder, lefts, loops, *right))
            for r in range(height):
                row = builder.gep(product, [builder.mul(step, _INT(r))])
                for v in range(_VECTORS):
                    total = builder.fadd(_load(builder, row, v), next(sums))
                    builder.store(total, _vector_at(builder, row, v), align=4)
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(rows, product, into, left, of_left, loops, right, of_right), write


def _sum(
    builder: Any, lefts: Sequence[Any], loops: Sequence[Any], right: Any, step: Any
) -> list[Any]:
    """Write the loops over what is summed, and return the sums of a tile, row by row."""

    def nest(depth: int, offset: Any, right: Any, sums: list[Any]) -> tuple[Any, list[Any]]:
        if depth == len(loops):
            terms = [_load(builder, right, v) for v in range(_VECTORS)]
            factors = [_spread(builder, builder.load(builder.gep(row, [offset]))) for row in lefts]
            # Rounded once, where the core can.
            products = [builder.fmul(f, t, flags=("contract",)) for f in factors for t in terms]
            pairs = zip(sums, products, strict=True)
            sums = [builder.fadd(total, more, flags=("contract",)) for total, more in pairs]
            return builder.gep(right, [step]), sums
        count, stride = loops[depth]
        before, body, after = builder.block, *(builder.append_basic_block() for _ in range(2))
        builder.branch(body)
        builder.position_at_end(body)
        first = [_INT(0), offset, right, *sums]
        state = [builder.phi(value.type) for value in first]
        turn, offset, right, *sums = state
        right, sums = nest(depth + 1, offset, right, sums)
        turn = builder.add(turn, _INT(1))
        following = [turn, builder.add(offset, stride), right, *sums]
        for phi, value, other in zip(state, first, following, strict=True):
            phi.add_incoming(value, before)
            phi.add_incoming(other, builder.block)
        builder.cbranch(builder.icmp_signed("<", turn, count), body, after)
        builder.position_at_end(after)
        return right, sums

    zeros = [ir.Constant(_VECTOR, None)] * (len(lefts) * _VECTORS)
    return nest(0, _INT(0), right, zeros)[1]


def _vector_at(builder: Any, row: Any, v: int) -> Any:
    return builder.bitcast(builder.gep(row, [_INT(v * _LANES)]), _VECTOR.as_pointer())


def _load(builder: Any, row: Any, v: int) -> Any:
    return builder.load(_vector_at(builder, row, v), align=4)


def _spread(builder: Any, number: Any) -> Any:
    """Return a vector of one number."""
    empty = ir.Constant(_VECTOR, ir.Undefined)
    return builder.shuffle_vector(builder.insert_element(empty, number, _LANE(0)), empty, _FIRST)

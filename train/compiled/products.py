"""Products of small matrices that lie in memory in any regular way, at the speed of the core.

Idea: BLAS copies a matrix before it multiplies, which for a convolution takes as long as the
product. Here a tile of the product stays in the core's registers while its factors are read from
wherever they lie. LLVM does not find that by itself, so the tile is written in its own language.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import product as pairs
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
LANES = 16 if _FEATURES.get("avx512f") else 8 if IS_FAST else 4
"""Numbers in a register."""
HEIGHT = 12 if LANES == 16 else 3
"""Most rows of a tile: with these, it takes most of the core's registers and leaves some."""
VECTORS = WIDTH // LANES
ONCE = 1, 0
"""A loop of `multiply` that is none."""

INT, _LANE, _FLOAT = ir.IntType(64), ir.IntType(32), ir.FloatType()
VECTOR = ir.VectorType(_FLOAT, LANES)
ZERO = ir.Constant(VECTOR, None)
_FIRST = ir.Constant(ir.VectorType(_LANE, LANES), None)


@njit(cache=True, nogil=True)
def multiply(rows, adds, product, into, left, of_left, loops, right, of_right):  # type: ignore[no-untyped-def]
    """Write left times right to `WIDTH` columns of a product, or add it to them.

    Each matrix is part of a flat array of float32: of the product and of the right, every row is
    one run of numbers; a row of the left lies as three loops, one within the other, run through
    it. So with `(start, step)` where the first row lies and how far it is from one to the next,

        product[start + step * r + c] = sum over i, j, k of
            left[start_left + step_left * r + step_i * i + step_j * j + step_k * k]
            * right[start_right + step_right * n + c]

    where n counts the terms. Nothing looks at bounds.

    Args:
        rows: How many r there are, from 1 to `HEIGHT`.
        adds: Whether to add to what is there, which is not read otherwise.
        product: The array that is written to.
        into: Start and step of the product.
        left: An array.
        of_left: Start and step of the left.
        loops: Count and step of each loop, from the outermost on; every count is above 0.
        right: An array.
        of_right: Start and step of the right.
    """
    _multiply(rows, adds, product, into, left, of_left, loops, right, of_right)  # type: ignore[call-arg]


@njit(cache=True, nogil=True)
def multiply_all(sizes, adds, product, into, left, of_left, right, of_right):  # type: ignore[no-untyped-def]
    """Write left times right, or add it, a tile at a time.

    Args:
        sizes: Rows of the left, its columns, and those of the right, a multiple of `WIDTH`. If one
            is 0, nothing is written.
        adds: As for `multiply`.
        product: The array that is written to.
        into: Start and step of the product.
        left: An array.
        of_left: Where the left begins, and how far it is from one row to the next, and of columns.
        right: An array.
        of_right: Start and step of the right.
    """
    rows, terms, columns = sizes
    if rows == 0 or terms == 0:
        return
    begin, down, across = of_left
    loops, tall = (ONCE, ONCE, (terms, across)), even(rows, HEIGHT)
    for c in range(0, columns, WIDTH):
        for r in range(0, rows, tall):
            multiply(
                min(tall, rows - r), adds, product, (into[0] + r * into[1] + c, into[1]),
                left, (begin + r * down, down), loops, right, (of_right[0] + c, of_right[1]),
            )  # fmt: skip


@njit(inline="always")
def copy(these, to):  # type: ignore[no-untyped-def]
    """Write numbers of an array to another one, as many as that takes."""
    for i in range(len(to)):
        to[i] = these[i]


@njit(inline="always")
def even(count, most):  # type: ignore[no-untyped-def]
    """Return how many rows a tile has if none is to have much fewer.

    Args:
        count: How many rows there are.
        most: How many a tile may have.
    """
    tiles = (count + most - 1) // most
    return (count + tiles - 1) // tiles


@intrinsic
def _multiply(typing, rows, adds, product, into, left, of_left, loops, right, of_right):  # type: ignore[no-untyped-def]
    """Write the code of `multiply`."""

    def write(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
        def matrix(array: int, place: int) -> tuple[Any, Any]:
            start, step = unpack(builder, values[place], 2)
            numbers = pointer(context, builder, signature, values, array)
            return builder.gep(numbers, [start]), step

        (target, step), (left, row_step), (right, right_step) = map(matrix, (2, 4, 7), (3, 5, 8))
        loops = [unpack(builder, loop, 2) for loop in unpack(builder, values[6], 3)]

        def tile(height: int) -> None:
            lefts = rows_of(builder, left, row_step, height)

            def nest(depth: int, offset: Any, right: Any, *sums: Any) -> list[Any]:
                if depth == len(loops):
                    factors = [spread(builder, row, offset) for row in lefts]
                    more = added(builder, sums, pairs(factors, load(builder, right, VECTORS)))
                    return [builder.gep(right, [right_step]), *more]
                count, stride = loops[depth]

                def turn(offset: Any, *state: Any) -> list[Any]:
                    return [builder.add(offset, stride), *nest(depth + 1, offset, *state)]

                return repeat(builder, count, turn, offset, right, *sums)[1:]

            _, *sums = nest(0, INT(0), right, *[ZERO] * (height * VECTORS))
            targets = rows_of(builder, target, step, height)
            with builder.if_else(values[1]) as (to_add, to_write):
                with to_add:
                    add_to(builder, targets, sums)
                with to_write:
                    write_to(builder, targets, sums)

        for_each_case(builder, values[0], HEIGHT, tile)
        return context.get_dummy_value()

    of_arguments = rows, types.boolean, product, into, left, of_left, loops, right, of_right
    return types.void(*of_arguments), write


# What the code of tiles is written with

unpack: Any = cgutils.unpack_tuple


def pointer(context: Any, builder: Any, signature: Any, values: Sequence[Any], i: int) -> Any:
    """Return where the numbers of an array lie that is the argument i."""
    return context.make_array(signature.args[i])(context, builder, values[i]).data


def for_each_case(builder: Any, case: Any, most: int, write: Callable[[int], None]) -> None:
    """Write the code of each case from 1 on: of a tile for each number of its rows, say."""
    done = builder.append_basic_block()
    choice = builder.switch(case, done)
    for number in range(1, most + 1):
        block = builder.append_basic_block()
        choice.add_case(number, block)
        builder.position_at_end(block)
        write(number)
        builder.branch(done)
    builder.position_at_end(done)


def repeat(builder: Any, count: Any, turn: Callable[..., Sequence[Any]], *first: Any) -> list[Any]:
    """Write a loop, in which each turn takes what the last one left; return what is left then."""
    before, body, after = builder.block, *(builder.append_basic_block() for _ in range(2))
    builder.branch(body)
    builder.position_at_end(body)
    state = [builder.phi(value.type) for value in (INT(0), *first)]
    left = [builder.add(state[0], INT(1)), *turn(*state[1:])]
    for phi, value, other in zip(state, (INT(0), *first), left, strict=True):
        phi.add_incoming(value, before)
        phi.add_incoming(other, builder.block)
    builder.cbranch(builder.icmp_signed("<", left[0], count), body, after)
    builder.position_at_end(after)
    return left[1:]


def rows_of(builder: Any, matrix: Any, step: Any, height: int) -> list[Any]:
    """Return where the first rows of a matrix lie."""
    return [builder.gep(matrix, [builder.mul(step, INT(r))]) for r in range(height)]


def load(builder: Any, row: Any, count: int) -> list[Any]:
    """Return the first vectors of a row."""
    return [builder.load(_vector_at(builder, row, v), align=4) for v in range(count)]


def spread(builder: Any, row: Any, offset: Any) -> Any:
    """Return a vector of one number."""
    number = builder.load(builder.gep(row, [offset]))
    empty = ir.Constant(VECTOR, ir.Undefined)
    return builder.shuffle_vector(builder.insert_element(empty, number, _LANE(0)), empty, _FIRST)


def added(builder: Any, sums: Sequence[Any], factors: Iterable[tuple[Any, Any]]) -> list[Any]:
    """Return sums to each of which a product is added, rounded once if the core can."""
    products = [builder.fmul(*two, flags=("contract",)) for two in factors]
    both = zip(sums, products, strict=True)
    return [builder.fadd(total, more, flags=("contract",)) for total, more in both]


def add_to(builder: Any, rows: Sequence[Any], sums: Sequence[Any]) -> None:
    """Add sums to rows of a product, one after the other: they may lie upon each other."""
    for row, own in zip(rows, _shared(sums, len(rows)), strict=True):
        before = load(builder, row, len(own))
        write_to(builder, [row], list(map(builder.fadd, before, own)))


def write_to(builder: Any, rows: Sequence[Any], sums: Sequence[Any]) -> None:
    """Write sums to rows of a product."""
    for row, own in zip(rows, _shared(sums, len(rows)), strict=True):
        for v, total in enumerate(own):
            store(builder, row, v, total)


def store(builder: Any, row: Any, v: int, vector: Any) -> None:
    """Write a vector of a row."""
    builder.store(vector, _vector_at(builder, row, v), align=4)


def _vector_at(builder: Any, row: Any, v: int) -> Any:
    return builder.bitcast(builder.gep(row, [INT(v * LANES)]), VECTOR.as_pointer())


def _shared(values: Sequence[Any], rows: int) -> list[Sequence[Any]]:
    """Return what is of each row."""
    count = len(values) // rows
    return [values[r * count : (r + 1) * count] for r in range(rows)]

"""Sums of vectors that lie in a square, and whether vectors are zero, at the speed of the core.

LLVM does not see that the places which a loop writes to are apart, if there are sixteen of them,
nor that one which looks for a number may look at many at once; so both are in its own language.
"""

from collections.abc import Iterable, Sequence
from itertools import chain, product
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .products import (
    INT,
    LANES,
    VECTOR,
    ZERO,
    add_to,
    for_each_case,
    load,
    pointer,
    repeat,
    rows_of,
    unpack,
    write_to,
)

Matrix = Sequence[Sequence[float]]


@intrinsic
def are_zero(typing, vectors, source, start):  # type: ignore[no-untyped-def]
    """Tell whether some vectors of an array, from a place on, hold nothing but zeros."""
    bits = ir.VectorType(ir.IntType(32), LANES)

    def write(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
        first = builder.gep(pointer(context, builder, signature, values, 1), [values[2]])

        def turn(offset: Any, found: Any) -> list[Any]:
            (vector,) = load(builder, builder.gep(first, [offset]), 1)
            both = builder.or_(found, builder.bitcast(vector, bits))
            return [builder.add(offset, INT(LANES)), both]

        _, found = repeat(builder, values[0], turn, INT(0), ir.Constant(bits, None))
        found = builder.and_(found, ir.Constant(bits, [2**31 - 1] * LANES))  # but for their signs
        whole = ir.IntType(32 * LANES)
        return builder.icmp_unsigned("==", builder.bitcast(found, whole), whole(0))

    return types.boolean(vectors, source, start), write


class Kind(NamedTuple):
    """What is done with a square of vectors."""

    matrix: Matrix
    """Each of its rows is a sum of a line of vectors."""
    adds: bool = False
    """Whether sums are added to what is there."""
    ends_layer: bool = False
    """Whether a bias is added to sums, and a relu follows; a NaN stays one."""


def summing(*kinds: Kind) -> Any:
    """Return what sums up squares of vectors, first along their rows, then along their columns."""

    @intrinsic
    def sums(typing, kind, vectors, source, of_source, target, of_target, beyond, bias):  # type: ignore[no-untyped-def]
        """Write vectors of each sum of a kind, which are counted from 1 on.

        Where source and target lie is said as where the first vector does, and the steps down and
        across; and if a square may end before, how many vectors it has down and across, where the
        others are read and written `beyond`. A bias lies as a source with one vector does.
        """

        def write(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
            def numbers(array: int) -> Any:
                return pointer(context, builder, signature, values, array)

            def square(array: int, place: int, side: int) -> list[list[Any]]:
                begin, down, across, *ends = unpack(
                    builder, values[place], signature.args[place].count
                )
                rows = rows_of(builder, builder.gep(numbers(array), [begin]), down, side)
                found = [rows_of(builder, row, across, side) for row in rows]
                for i, j in product(range(side), repeat=2) if ends else ():
                    is_row, is_column = (
                        builder.icmp_signed("<", INT(k), end)
                        for k, end in zip((i, j), ends, strict=True)
                    )
                    inside = builder.and_(is_row, is_column)
                    found[i][j] = builder.select(inside, found[i][j], numbers(6))
                return found

            def of_kind(number: int) -> None:
                matrix, adds, ends_layer = kinds[number - 1]
                seen, made = square(2, 3, len(matrix[0])), square(4, 5, len(matrix))

                def turn(offset: Any) -> list[Any]:
                    def vector(at: Any) -> Any:
                        return load(builder, builder.gep(at, [offset]), 1)[0]

                    lines = [_along(builder, matrix, map(vector, row)) for row in seen]
                    columns = [_along(builder, matrix, line) for line in zip(*lines, strict=True)]
                    totals = list(chain.from_iterable(zip(*columns, strict=True)))
                    if ends_layer:
                        added = vector(numbers(7))
                        totals = [_relu(builder, builder.fadd(total, added)) for total in totals]
                    keep = add_to if adds else write_to
                    for at, total in zip(chain.from_iterable(made), totals, strict=True):
                        keep(builder, [builder.gep(at, [offset])], [total])
                    return [builder.add(offset, INT(LANES))]

                repeat(builder, values[1], turn, INT(0))

            for_each_case(builder, values[0], len(kinds), of_kind)
            return context.get_dummy_value()

        of_arguments = kind, vectors, source, of_source, target, of_target, beyond, bias
        return types.void(*of_arguments), write

    return sums


def _relu(builder: Any, vector: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", vector, ZERO), ZERO, vector)


def _along(builder: Any, matrix: Matrix, line: Iterable[Any]) -> list[Any]:
    """Return the sums of a line of vectors."""
    vectors, sums = list(line), []
    for row in matrix:
        total = None
        for factor, vector in zip(row, vectors, strict=True):
            if factor == 0:
                continue
            if abs(factor) != 1:
                vector = builder.fmul(vector, ir.Constant(VECTOR, [abs(factor)] * LANES))
            if factor < 0:
                total = builder.fsub(ZERO if total is None else total, vector)
            else:
                total = vector if total is None else builder.fadd(total, vector)
        sums.append(total)
    return sums

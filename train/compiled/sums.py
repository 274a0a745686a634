"""Sums of vectors that lie in a square, and whether vectors are zero, at the speed of the core.

LLVM does not see that the places which a loop writes to are apart, if there are sixteen of them,
nor that one which looks for a number may look at many at once; so both are in its own language.
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .products import (
    INT,
    LANES,
    VECTOR,
    ZERO,
    add_to,
    load,
    pointer,
    repeat,
    rows_of,
    store,
    unpack,
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


def summing(matrix: Matrix, *, adds: bool = False) -> Any:
    """Return what sums up squares of vectors, first along their rows, then along their columns.

    Args:
        matrix: Has a row for each sum.
        adds: Whether they are added to what is there.
    """

    def along(builder: Any, line: Sequence[Any]) -> list[Any]:
        sums = []
        for row in matrix:
            total = None
            for factor, vector in zip(row, line, strict=True):
                if factor == 0:
                    continue
                if abs(factor) != 1:
                    size = ir.Constant(VECTOR, [abs(factor)] * LANES)
                    vector = builder.fmul(vector, size)
                if factor < 0:
                    total = builder.fsub(ZERO if total is None else total, vector)
                else:
                    total = vector if total is None else builder.fadd(total, vector)
            sums.append(total)
        return sums

    @intrinsic
    def sums(typing, vectors, source, of_source, target, of_target):  # type: ignore[no-untyped-def]
        """Write vectors of each sum; where they lie, as the first one and the steps of both."""

        def write(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
            def square(array: int, place: int, side: int) -> list[list[Any]]:
                start, down, across = unpack(builder, values[place], 3)
                numbers = pointer(context, builder, signature, values, array)
                rows = rows_of(builder, builder.gep(numbers, [start]), down, side)
                return [rows_of(builder, row, across, side) for row in rows]

            seen, made = square(1, 2, len(matrix[0])), square(3, 4, len(matrix))

            def turn(offset: Any) -> list[Any]:
                lines = [
                    [load(builder, builder.gep(at, [offset]), 1)[0] for at in row] for row in seen
                ]
                lines = [along(builder, line) for line in lines]
                lines = [along(builder, line) for line in zip(*lines, strict=True)]
                for row, line in zip(zip(*made, strict=True), lines, strict=True):
                    for at, total in zip(row, line, strict=True):
                        place = builder.gep(at, [offset])
                        if adds:
                            add_to(builder, [place], [total])
                        else:
                            store(builder, place, 0, total)
                return [builder.add(offset, INT(LANES))]

            repeat(builder, values[0], turn, INT(0))
            return context.get_dummy_value()

        return types.void(vectors, source, of_source, target, of_target), write

    return sums

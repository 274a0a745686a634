"""Slopes on their way back through an activation, and their sums, at the speed of the core.

Idea: where a layer has few outputs, what it passes on is computed where it is used: BLAS would
write as many numbers as there are activations, to be read once. LLVM does not see that rows,
weights and sums lie apart, so the loop is written in its own language.
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ...envs import fresh  # noqa: F401
from .products import (
    INT,
    LANES,
    VECTOR,
    VECTORS,
    ZERO,
    added,
    for_each_case,
    load,
    pointer,
    repeat,
    rows_of,
    spread,
    store,
    unpack,
)

LINEAR, TANH, RELU = range(3)
"""Activations."""
MOST_TERMS = 4
"""Most outputs of a layer whose slopes are multiplied by its weight on the way."""
_ONE = ir.Constant(VECTOR, [1.0] * LANES)


@intrinsic
def pass_back(  # type: ignore[no-untyped-def]
    typing, activation, rows, terms, values, of_values, slopes, of_slopes, weights, sums
):
    """Replace `WIDTH` columns of what an activation returned by slopes, and write their sums.

    They are slopes with respect to what the activation was given: those with respect to what it
    returned, y, times its derivative, which is 1 - y * y for tanh, and for relu 1 where y is above
    0. Nothing looks at bounds. The arguments, after Numba's own, are:

    - which activation, and how many rows, above 0;
    - the terms: 0 if the slopes with respect to y are given; else each of these is the sum of so
      many products, at most `MOST_TERMS`, of what is given and of weights;
    - the values, flat, which are changed, where their first column begins, and how far it is from
      one row to the next;
    - what is given, flat, and where it lies, likewise;
    - the weights, flat: a row for each term, as long as one of values;
    - the sums, as long as a row of values, of which those of the columns are written.
    """

    def write(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:
        (column, step), (first, slope_step) = (unpack(builder, arguments[i], 2) for i in (4, 6))

        def at(array: int, place: Any) -> Any:
            return builder.gep(pointer(context, builder, signature, arguments, array), [place])

        def loop(number: int) -> None:  # they count from 1 on: activations of 0 terms, of 1 term...
            terms, activation = divmod(number - 1, len(_DERIVATIVES))
            weights = rows_of(builder, at(7, column), step, terms)
            factors = [load(builder, row, VECTORS) for row in weights]

            def turn(value: Any, slope: Any, *sums: Any) -> list[Any]:
                given = [ZERO] * VECTORS if terms else load(builder, slope, VECTORS)
                for k, row in enumerate(factors):
                    term = spread(builder, slope, INT(k))
                    given = added(builder, given, [(term, factor) for factor in row])
                made = [
                    _DERIVATIVES[activation](builder, *both)
                    for both in zip(load(builder, value, VECTORS), given, strict=True)
                ]
                for v, vector in enumerate(made):
                    store(builder, value, v, vector)
                beyond = builder.gep(value, [step]), builder.gep(slope, [slope_step])
                return [*beyond, *map(builder.fadd, sums, made)]

            begin = at(3, column), at(5, first)
            _, _, *found = repeat(builder, arguments[1], turn, *begin, *[ZERO] * VECTORS)
            for v, vector in enumerate(found):
                store(builder, at(8, column), v, vector)

        number = builder.add(builder.mul(arguments[2], INT(len(_DERIVATIVES))), arguments[0])
        cases = len(_DERIVATIVES) * (MOST_TERMS + 1)
        for_each_case(builder, builder.add(number, INT(1)), cases, loop)
        return context.get_dummy_value()

    of_arguments = activation, rows, terms, values, of_values, slopes, of_slopes, weights, sums
    return types.void(*of_arguments), write


def _of_tanh(builder: Any, value: Any, slope: Any) -> Any:
    square = builder.fmul(value, value, flags=("contract",))
    return builder.fmul(slope, builder.fsub(_ONE, square, flags=("contract",)))


def _of_relu(builder: Any, value: Any, slope: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", value, ZERO), slope, ZERO)


_DERIVATIVES = {LINEAR: lambda builder, value, slope: slope, TANH: _of_tanh, RELU: _of_relu}

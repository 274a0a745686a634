"""Products with mixtures of matrices, and what their parts owe of the gradient.

A mixture is a matrix whose row n is `a[n] + x[n] * b[n] + y[n] * c[n]`. It is made in the core's
registers as it is multiplied by.
"""

from collections.abc import Sequence
from itertools import product as pairs
from typing import Any

from numba import njit, types
from numba.extending import intrinsic

from ...envs import fresh  # noqa: F401
from .products import (
    HEIGHT,
    INT,
    LANES,
    VECTORS,
    WIDTH,
    ZERO,
    add_to,
    added,
    for_each_case,
    load,
    pointer,
    repeat,
    rows_of,
    spread,
    unpack,
)

MIXED_HEIGHT = HEIGHT if LANES == 16 else 2
"""Most rows of a tile of a product with a mixture, of `WIDTH` columns."""
PARTED_HEIGHT = 3 if LANES == 16 else 2
"""Most rows of a tile in which each part of a mixture has a sum of its own."""
PARTED_WIDTH = 2 * LANES if LANES == 16 else LANES
"""Columns of such a tile."""


@njit(cache=True, nogil=True)
def add_mixed_product(rows, product, into, left, of_left, terms, factors, parts, of_parts):  # type: ignore[no-untyped-def]
    """Add left times a mixture to `WIDTH` columns of a product.

    All arrays are flat, of float32. Of the product and of the left, a row is one run of numbers;
    of each part, all its rows are one. Nothing looks at bounds.

    Args:
        rows: From 1 to `MIXED_HEIGHT`.
        product: The array that is added to.
        into: Where its first row lies, and how far it is from one to the next.
        left: An array.
        of_left: As `into`, of the left.
        terms: How many are summed, above 0.
        factors: Where x and y lie, in the same array as the left.
        parts: An array.
        of_parts: Where a, b and c lie.
    """
    _add_mixed_product(rows, product, into, left, of_left, terms, factors, parts, of_parts)  # type: ignore[call-arg]


@njit(cache=True, nogil=True)
def add_parted_products(rows, products, into, left, start, times, terms, right, first):  # type: ignore[no-untyped-def]
    """Add to `PARTED_WIDTH` columns of three products.

    Of left, of shape (times, terms, `PARTED_HEIGHT`), and right, of shape (times, 2 + terms,
    `PARTED_WIDTH`), the products `P[t] = left[t].T @ right[t, 2:]` are made, and the sums over t
    of P, of x P and of y P are added, where x and y, `right[t, :2]`, multiply columns. Nothing
    looks at bounds.

    Args:
        rows: How many of P are wanted, from 1 to `PARTED_HEIGHT`.
        products: The array that is added to, flat.
        into: Where the first row of the first lies, how far it is from one row to the next, and
            from one product to the next.
        left: A flat array.
        start: Where its numbers begin.
        times: Above 0.
        terms: Above 0.
        right: A flat array.
        first: Where its numbers begin.
    """
    _add_parted_products(rows, products, into, left, start, times, terms, right, first)  # type: ignore[call-arg]


@intrinsic
def _add_mixed_product(typing, rows, product, into, left, of_left, terms, factors, parts, of_parts):  # type: ignore[no-untyped-def]
    """Write the code of `add_mixed_product`."""
    arguments = rows, product, into, left, of_left, terms, factors, parts, of_parts

    def write(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
        target, left, parts = (pointer(context, builder, signature, values, i) for i in (1, 3, 7))
        (start, step), (first, row_step) = (unpack(builder, values[i], 2) for i in (2, 4))
        target, top = builder.gep(target, [start]), builder.gep(left, [first])
        factors = [builder.gep(left, [at]) for at in unpack(builder, values[6], 2)]
        parts = [builder.gep(parts, [at]) for at in unpack(builder, values[8], 3)]

        def tile(height: int) -> None:
            lefts = rows_of(builder, top, row_step, height)

            def turn(n: Any, *sums: Any) -> list[Any]:
                here = [builder.gep(part, [builder.mul(n, INT(WIDTH))]) for part in parts]
                mixed, *others = (load(builder, row, VECTORS) for row in here)
                for factor, other in zip(factors, others, strict=True):
                    mixed = added(builder, mixed, pairs([spread(builder, factor, n)], other))
                ours = [spread(builder, row, n) for row in lefts]
                return [builder.add(n, INT(1)), *added(builder, sums, pairs(ours, mixed))]

            zeros = [ZERO] * (height * VECTORS)
            _, *found = repeat(builder, values[5], turn, INT(0), *zeros)
            add_to(builder, rows_of(builder, target, step, height), found)

        for_each_case(builder, values[0], MIXED_HEIGHT, tile)
        return context.get_dummy_value()

    return types.void(*arguments), write


@intrinsic
def _add_parted_products(typing, rows, products, into, left, start, times, terms, right, first):  # type: ignore[no-untyped-def]
    """Write the code of `add_parted_products`."""
    arguments = rows, products, into, left, start, times, terms, right, first
    vectors = PARTED_WIDTH // LANES

    def write(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
        target, left, right = (pointer(context, builder, signature, values, i) for i in (1, 3, 7))
        begin, step, apart = unpack(builder, values[2], 3)
        targets = rows_of(builder, builder.gep(target, [begin]), apart, 3)
        begins = builder.gep(left, [values[4]]), builder.gep(right, [values[8]])

        def tile(height: int) -> None:
            zeros = [ZERO] * (height * vectors)

            def term(left: Any, right: Any, *sums: Any) -> list[Any]:
                factors = [spread(builder, left, INT(r)) for r in range(height)]
                more = added(builder, sums, pairs(factors, load(builder, right, vectors)))
                return [*_after(builder, left, right), *more]

            def turn(left: Any, right: Any, *sums: Any) -> list[Any]:
                x, y, right = (builder.gep(right, [INT(i * PARTED_WIDTH)]) for i in range(3))
                x, y = load(builder, x, vectors), load(builder, y, vectors)
                left, right, *found = repeat(builder, values[6], term, left, right, *zeros)
                count = len(found)
                whole = [builder.fadd(*two) for two in zip(sums[:count], found, strict=True)]
                of_x = added(builder, sums[count : 2 * count], zip(x * height, found, strict=True))
                of_y = added(builder, sums[2 * count :], zip(y * height, found, strict=True))
                return [left, right, *whole, *of_x, *of_y]

            _, _, *sums = repeat(builder, values[5], turn, *begins, *zeros * 3)
            for i, target in enumerate(targets):
                own = sums[i * len(zeros) : (i + 1) * len(zeros)]
                add_to(builder, rows_of(builder, target, step, height), own)

        for_each_case(builder, values[0], PARTED_HEIGHT, tile)
        return context.get_dummy_value()

    return types.void(*arguments), write


def _after(builder: Any, left: Any, right: Any) -> list[Any]:
    return [builder.gep(left, [INT(PARTED_HEIGHT)]), builder.gep(right, [INT(PARTED_WIDTH)])]

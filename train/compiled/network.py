"""Dense layers, forward and backward, over parameters that lie in one flat array.

Kernels know a tower of layers by a table, `layers_L_5`, with a row for each layer: its inputs and
outputs, where its weight (outputs x inputs, row by row) and its bias begin in the flat array,
and its activation. So one compiled function serves networks of any width and depth.

Floating-point operations here may be reordered and fused, as BLAS does, too.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numba import njit, types
from numba.core import imputils
from numba.extending import intrinsic
from numba.np import arrayobj
from numpy.typing import NDArray

from .elementary import tanh
from .products import WIDTH
from .slopes import MOST_TERMS, RELU, TANH, pass_back

INPUTS, OUTPUTS, WEIGHT, BIAS, ACTIVATION = range(5)
"""Columns of a table of layers."""
_SMALL = 2**13
"""Most numbers of a weight that is worth turning: OpenBLAS packs larger ones anyway."""
_FEW, _PACKED = 32, 2**18
"""Most rows, and fewest products, for which OpenBLAS takes longer to pack a weight than it takes
to multiply by it."""

_fill: Any = arrayobj.populate_array
_borrowed: Any = imputils.impl_ret_borrowed
Floats = NDArray[np.float32]
Layers = NDArray[np.int64]


Function = TypeVar("Function", bound=Callable[..., Any])


def fast(function: Function) -> Function:
    """Compile a function of the network; what is not a number stays so.

    It becomes part of whatever calls it. Called, it would be there twice, on its own and in the
    caller's library, and LLVM orders the operations of the two differently: which one is found
    depends on whether the caller was compiled or loaded from the cache.
    """
    options = {"contract", "reassoc", "nsz", "arcp"}
    jit = njit(cache=True, nogil=True, error_model="numpy", fastmath=options, forceinline=True)
    return cast(Function, jit(function))


class Network(NamedTuple):
    """A policy and its value function as kernels take them."""

    actor_L_5: Layers
    """Layers from the observation to logits or means."""
    critic_L_5: Layers
    """Layers from the observation to its value."""
    choices_A: NDArray[np.int64]
    """Number of choices in each part of a discrete action; empty for a Gaussian one."""
    log_std: int
    """Where the logarithms of a Gaussian's standard deviations begin; -1 if there are none."""


@fast
def forward(
    inputs_B_I: Floats, parameters: Floats, turned: Floats, layers_L_5: Layers, work: Floats
) -> Floats:
    """Return what a tower says about B rows of inputs, shape (B, outputs).

    Args:
        inputs_B_I: Inputs.
        parameters: All parameters.
        turned: What `turn` wrote of them.
        layers_L_5: The tower.
        work: Takes the outputs of all layers one after the other; `memory` says how much it
            must hold. The answer is its last part.
    """
    rows, start, below_B_I = inputs_B_I.shape[0], 0, inputs_B_I
    for row in layers_L_5:
        outputs = row[OUTPUTS]
        above_B_O = as_rows(work[start:], rows, outputs)
        weight_O_I, bias_O = _of(parameters, row)
        if weight_O_I.size <= _SMALL:
            np.dot(below_B_I, _turned_of(turned, row), above_B_O)
        elif 1 < rows <= _FEW and rows * weight_O_I.size >= _PACKED:
            _multiply_few(below_B_I, weight_O_I, above_B_O)
        else:
            np.dot(below_B_I, weight_O_I.T, above_B_O)
        _add_and_activate(above_B_O, bias_O, row[ACTIVATION])
        below_B_I = above_B_O
        start += rows * outputs
    return below_B_I


@fast
def _multiply_few(below_B_I: Floats, weight_O_I: Floats, above_B_O: Floats) -> None:
    """Multiply a few rows by a large weight, of which each number is read once.

    Eight sums side by side keep the core busy while it reads.
    """
    rows, (outputs, inputs) = below_B_I.shape[0], weight_O_I.shape
    by_four, by_two = rows // 4 * 4, outputs // 2 * 2
    for o in range(0, by_two, 2):
        for b in range(0, by_four, 4):
            s00 = s10 = s20 = s30 = s01 = s11 = s21 = s31 = np.float32(0)
            for i in range(inputs):
                w0, w1 = weight_O_I[o, i], weight_O_I[o + 1, i]
                x0, x1 = below_B_I[b, i], below_B_I[b + 1, i]
                x2, x3 = below_B_I[b + 2, i], below_B_I[b + 3, i]
                s00, s10, s20, s30 = s00 + x0 * w0, s10 + x1 * w0, s20 + x2 * w0, s30 + x3 * w0
                s01, s11, s21, s31 = s01 + x0 * w1, s11 + x1 * w1, s21 + x2 * w1, s31 + x3 * w1
            above_B_O[b, o], above_B_O[b, o + 1] = s00, s01
            above_B_O[b + 1, o], above_B_O[b + 1, o + 1] = s10, s11
            above_B_O[b + 2, o], above_B_O[b + 2, o + 1] = s20, s21
            above_B_O[b + 3, o], above_B_O[b + 3, o + 1] = s30, s31
    for b in range(rows):
        for o in range(by_two if b < by_four else 0, outputs):
            total = np.float32(0)
            for i in range(inputs):
                total += below_B_I[b, i] * weight_O_I[o, i]
            above_B_O[b, o] = total


@fast
def turn(parameters: Floats, layers_L_5: Layers, turned: Floats) -> None:
    """Write small weights of a tower inputs x outputs, as BLAS multiplies by them fastest.

    Args:
        parameters: All parameters.
        layers_L_5: The tower.
        turned: As long as these; each weight is written into its own place.
    """
    for row in layers_L_5:
        weight_O_I, _ = _of(parameters, row)
        if weight_O_I.size > _SMALL:
            continue
        turned_I_O = _turned_of(turned, row)
        for i in range(turned_I_O.shape[0]):
            for o in range(turned_I_O.shape[1]):
                turned_I_O[i, o] = weight_O_I[o, i]


@fast
def backward(
    inputs_B_I: Floats,
    parameters: Floats,
    layers_L_5: Layers,
    work: Floats,
    scratch: Floats,
    ones_1_B: Floats,
    gradient: Floats,
) -> None:
    """Write the gradient of a loss with respect to a tower's weights and biases.

    Args:
        inputs_B_I: Inputs of `forward`.
        parameters: All parameters.
        layers_L_5: The tower.
        work: As `forward` left it, but its last part holds the gradient of the loss with
            respect to the outputs. It is used up.
        scratch: Of B x the most outputs of a layer.
        ones_1_B: Ones.
        gradient: Of all parameters; the tower's part is written.
    """
    rows = inputs_B_I.shape[0]
    end = rows * layers_L_5[:, OUTPUTS].sum()
    for k in range(len(layers_L_5) - 1, -1, -1):
        row = layers_L_5[k]
        inputs, outputs = row[INPUTS], row[OUTPUTS]
        start = end - rows * outputs
        slope_B_O = as_rows(work[start:], rows, outputs)
        weight_O_I, _ = _of(parameters, row)
        d_weight_O_I, d_bias_O = _of(gradient, row)
        if k == len(layers_L_5) - 1:
            np.dot(ones_1_B, slope_B_O, as_rows(d_bias_O, 1, outputs))  # the sum of the rows
        below_B_I = inputs_B_I
        if k > 0:
            below_B_I = as_rows(work[start - rows * inputs :], rows, inputs)
        np.dot(slope_B_O.T, below_B_I, d_weight_O_I)
        if k > 0:
            below = layers_L_5[k - 1]
            passed_B_I, (_, d_bias_I) = as_rows(scratch, rows, inputs), _of(gradient, below)
            _pass(
                slope_B_O, weight_O_I, passed_B_I, below[ACTIVATION], ones_1_B, below_B_I, d_bias_I
            )
        end = start


@fast
def _pass(
    slope_B_O: Floats,
    weight_O_I: Floats,
    passed_B_I: Floats,
    activation: int,
    ones_1_B: Floats,
    values_B_I: Floats,
    sums_I: Floats,
) -> None:
    """Replace inputs of a layer, which an activation returned, by the gradient before that.

    Args:
        slope_B_O: The gradient with respect to the layer's outputs.
        weight_O_I: The layer's.
        passed_B_I: Memory.
        activation: What returned the inputs.
        ones_1_B: Ones.
        values_B_I: The inputs; the gradient with respect to what the activation was given.
        sums_I: Written: the sum of its rows, which is the gradient with respect to a bias.
    """
    (rows, inputs), outputs = values_B_I.shape, slope_B_O.shape[1]
    terms, slopes, step = outputs, slope_B_O.ravel(), outputs
    if outputs > MOST_TERMS or inputs % WIDTH > 0:
        np.dot(slope_B_O, weight_O_I, passed_B_I)
        terms, slopes, step = 0, passed_B_I.ravel(), inputs
    if inputs % WIDTH > 0:
        _through(values_B_I.ravel(), slopes, activation)
        np.dot(ones_1_B, values_B_I, as_rows(sums_I, 1, inputs))
        return
    for i in range(0, inputs, WIDTH):
        pass_back(  # type: ignore[call-arg]
            activation, rows, terms, values_B_I.ravel(), (i, inputs),
            slopes, (0 if terms else i, step), weight_O_I.ravel(), sums_I,
        )  # fmt: skip


@fast
def memory(layers_L_5: Layers, rows: int) -> int:
    """Return how many numbers `work` holds for so many rows."""
    return int(rows * layers_L_5[:, OUTPUTS].sum())


@fast
def aligned(size: int) -> Floats:
    """Return memory for so many numbers that begins where a line of the cache does.

    BLAS multiplies a tenth faster there.
    """
    whole = np.empty(size + 15, np.float32)
    first = -whole.ctypes.data % 64 // 4
    return whole[first : first + size]


@fast
def as_rows(numbers: Floats, rows: int, columns: int) -> Floats:
    """View the first numbers of a flat array as a matrix.

    `reshape` asks at each use what is known here, and takes seconds to compile.
    """
    matrix: Floats = _as_rows(numbers, rows, columns)  # type: ignore[call-arg]
    return matrix


@intrinsic
def _as_rows(typing, numbers, rows, columns):  # type: ignore[no-untyped-def]
    matrix = types.Array(numbers.dtype, 2, "C")

    def write(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        flat = context.make_array(numbers)(context, builder, values[0])
        made = context.make_array(matrix)(context, builder)
        step = context.get_constant(types.intp, context.get_abi_sizeof(flat.data.type.pointee))
        steps = builder.mul(values[2], step), step
        _fill(made, flat.data, values[1:], steps, step, flat.meminfo)
        return _borrowed(context, builder, matrix, made._getvalue())

    return matrix(numbers, types.intp, types.intp), write


@fast
def _of(array: Floats, row: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return the weight and the bias of a layer, or their gradients."""
    weight = as_rows(array[row[WEIGHT] :], row[OUTPUTS], row[INPUTS])
    return weight, array[row[BIAS] : row[BIAS] + row[OUTPUTS]]


@fast
def _turned_of(turned: Floats, row: NDArray[np.int64]) -> Floats:
    """Return the weight of a layer, inputs x outputs."""
    return as_rows(turned[row[WEIGHT] :], row[INPUTS], row[OUTPUTS])


@fast
def _add_and_activate(outputs_B_O: Floats, bias_O: Floats, activation: int) -> None:
    for b in range(outputs_B_O.shape[0]):
        row_O = outputs_B_O[b]
        if activation == TANH:
            for o in range(row_O.shape[0]):
                row_O[o] = tanh(row_O[o] + bias_O[o])
        elif activation == RELU:
            for o in range(row_O.shape[0]):
                row_O[o] = max(row_O[o] + bias_O[o], np.float32(0.0))
        else:
            for o in range(row_O.shape[0]):
                row_O[o] += bias_O[o]


@fast
def _through(values: Floats, slopes: Floats, activation: int) -> None:
    """Replace what an activation returned by the gradient with respect to what it was given."""
    if activation == TANH:
        for i in range(values.shape[0]):
            values[i] = slopes[i] * (np.float32(1.0) - values[i] * values[i])
    elif activation == RELU:
        for i in range(values.shape[0]):
            values[i] = slopes[i] if values[i] > np.float32(0.0) else np.float32(0.0)
    else:
        for i in range(values.shape[0]):
            values[i] = slopes[i]

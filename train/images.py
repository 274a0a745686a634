"""Compiled layers in torch's graph: those of stable-baselines3's NatureCNN."""

from collections.abc import Callable, Sequence
from threading import local
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.torch_layers import NatureCNN
from torch import nn
from torch.autograd.function import once_differentiable

from .compiled import dense
from .compiled.convolutions import backward, forward, lay_out, room_for, row_of
from .compiled.network import Floats, aligned
from .compiled.products import WIDTH
from .compiled.structure import can_be_compiled, is_as_written
from .compiled.windows import MADE, OUT_HEIGHT, OUT_WIDTH, Table
from .threads import Threads, parts_of

_SHARE = 8
"""Fewest images that are worth another thread."""
_MANY = 2**18
"""Fewest weights of a dense layer that are worth reading as they lie."""


class _Own(local):
    """What each thread keeps for itself from one minibatch to the next.

    Args:
        size: Numbers of an image.
        table_L_14: The layers.
    """

    def __init__(self, size: int, table_L_14: Table) -> None:
        self.room = room_for(size, table_L_14)
        self._of_dense = aligned(0)

    def of_dense(self, inputs: int, outputs: int) -> Floats:
        """Return memory for a dense layer."""
        count = dense.room_for(inputs, outputs)
        if len(self._of_dense) < count:
            self._of_dense = aligned(count)
        return self._of_dense


class _Images:
    """The images of a rollout, and what is made of them.

    Args:
        images: Shape (M, C, H, W).
        scale: Multiplies each number of an image.
        table_L_14: The layers.
    """

    def __init__(self, images: torch.Tensor, scale: float, table_L_14: Table) -> None:
        self.images_M_D = lay_out(images.numpy(), table_L_14)
        self.scale, self.table_L_14 = np.float32(scale), table_L_14
        self.threads = Threads()
        self.own = _Own(self.images_M_D.shape[1], table_L_14)


class _Convolve(torch.autograd.Function):
    """Weights and biases of all layers in, features of shape (B, F) out."""

    @staticmethod
    def forward(
        ctx: Any, seen: _Images, rows_B: torch.Tensor, *parameters: torch.Tensor
    ) -> torch.Tensor:
        flat, biases = _joined(parameters[::2]), _joined(parameters[1::2])
        count, table = len(rows_B), seen.table_L_14
        made, features = int(table[:, MADE].sum()), int(table[-1, MADE])
        work = aligned(count * made).reshape(count, made)
        outputs_B_F = aligned(count * features).reshape(count, features)

        def see_to(part: slice) -> None:
            rows, own = rows_B[part].numpy(), work[part].ravel()
            forward(
                seen.images_M_D, rows, seen.scale, flat, biases, table, own, outputs_B_F[part],
                seen.own.room,
            )  # fmt: skip

        ctx.parts = parts_of(count, _SHARE)
        seen.threads.each(see_to, ctx.parts)
        ctx.seen, ctx.rows_B, ctx.flat = seen, rows_B, flat
        ctx.save_for_backward(torch.from_numpy(work), *parameters[::2])
        return torch.from_numpy(outputs_B_F)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes_B_F: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        seen, (said, *weights) = ctx.seen, ctx.saved_tensors
        work = said.numpy()
        flat, slopes = ctx.flat, slopes_B_F.contiguous().numpy()
        sizes, filters = [w.numel() for w in weights], [len(w) for w in weights]

        def see_to(part: slice) -> tuple[Floats, Floats]:
            rows, own = ctx.rows_B[part].numpy(), work[part].ravel()
            of_both = np.empty_like(flat), np.empty(sum(filters), np.float32)
            backward(
                seen.images_M_D, rows, seen.scale, flat, seen.table_L_14, own, slopes[part],
                of_both, seen.own.room,
            )  # fmt: skip
            return of_both

        of_weights, of_biases = seen.threads.sums(see_to, ctx.parts)
        of_each = torch.split(of_weights, sizes), torch.split(of_biases, filters)
        gradients: list[torch.Tensor | None] = [None, None]
        for weight, of_weight, of_bias in zip(weights, *of_each, strict=True):
            gradients += [of_weight.view_as(weight), of_bias]
        return tuple(gradients)


class _Say(torch.autograd.Function):
    """What a dense layer is told, its weights and biases in, what it says out."""

    @staticmethod
    def forward(
        ctx: Any, seen: _Images, told_B_I: torch.Tensor, *parameters: torch.Tensor
    ) -> torch.Tensor:
        tensors = told_B_I, *parameters
        told, weights_O_I, bias_O = (tensor.detach().numpy() for tensor in tensors)
        (outputs, inputs), count = weights_O_I.shape, len(told)
        said_B_O = np.empty((count, outputs), np.float32)

        def see_to(part: slice) -> None:
            room = seen.own.of_dense(inputs, outputs)
            dense.forward(told[part], weights_O_I.ravel(), bias_O, said_B_O[part], room)

        seen.threads.each(see_to, parts_of(count, WIDTH, multiple=WIDTH))
        ctx.seen = seen
        ctx.save_for_backward(told_B_I, parameters[0])
        return torch.from_numpy(said_B_O)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes_B_O: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        seen, (told_B_I, weights) = ctx.seen, ctx.saved_tensors
        (outputs, inputs), flat = weights.shape, weights.numpy().ravel()
        slopes, passed = slopes_B_O.contiguous().numpy(), None

        def see_to(part: slice) -> None:
            room = seen.own.of_dense(inputs, outputs)
            dense.backward(slopes, flat, part.start, part.stop, passed_B_I, room)

        if ctx.needs_input_grad[1]:
            passed_B_I = np.empty(told_B_I.shape, np.float32)
            seen.threads.each(see_to, parts_of(inputs, WIDTH, multiple=WIDTH))
            passed = torch.from_numpy(passed_B_I)
        of_weights = slopes_B_O.T @ told_B_I if ctx.needs_input_grad[2] else None
        of_bias = slopes_B_O.sum(0) if ctx.needs_input_grad[3] else None
        return None, passed, of_weights, of_bias


def convolver(
    extractor: nn.Module, images: torch.Tensor, scale: float
) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Return what makes features of rows of a rollout, or None where torch has to.

    Args:
        extractor: Compiled if it is a NatureCNN in which nobody has changed anything but the
            number of convolutions and of their filters, the size of these and their steps.
        images: Of the whole rollout, shape (M, C, H, W), on the CPU.
        scale: Multiplies each number of an image.
    """
    if (
        type(extractor) is not NatureCNN
        or not can_be_compiled(extractor, forward)
        or images.dim() != 4
        or images.dtype not in (torch.uint8, torch.float32)
    ):
        return None
    table_L_14 = _table_of(_layers_of(extractor.cnn), images)
    if table_L_14 is None:
        return None
    seen = _Images(images, scale, table_L_14)
    convolve: Any = _Convolve.apply
    say: Any = _Say.apply

    def read(rows_B: torch.Tensor) -> torch.Tensor:
        layers = _layers_of(extractor.cnn)  # which a hook of a gradient may have replaced
        now_L_14 = _table_of(layers, images)
        if now_L_14 is None or not np.array_equal(now_L_14, table_L_14):
            in_torch: torch.Tensor = extractor(images.index_select(0, rows_B) * scale)
            return in_torch
        parameters = [p for layer in layers for p in (layer.weight, layer.bias)]
        made: torch.Tensor = convolve(seen, rows_B, *parameters)
        others: Any = extractor.linear
        if _is_large(others, made):
            first, others = others[0], others[1:]
            made = say(seen, made, first.weight, first.bias)
        made = others(made)
        return made

    return read


def _is_large(layers: nn.Module, told_B_I: torch.Tensor) -> bool:
    """Tell whether layers begin with a dense one that is compiled."""
    if type(layers) is not nn.Sequential or len(layers) == 0:
        return False
    first: Any = layers[0]
    return (
        type(first) is nn.Linear
        and is_as_written(layers)
        and first.bias is not None
        and first.weight.numel() >= _MANY
        and first.weight.shape == (len(first.bias), told_B_I.shape[1])
        and first.weight.dtype is first.bias.dtype is torch.float32
        and len(told_B_I) > 0
        and len(told_B_I) % WIDTH == 0
        and told_B_I.shape[1] % WIDTH == 0
    )


def _joined(tensors: Sequence[torch.Tensor]) -> Floats:
    joined: Floats = torch.cat([tensor.detach().flatten() for tensor in tensors]).numpy()
    return joined


def _layers_of(cnn: nn.Module) -> list[nn.Conv2d]:
    """Return the convolutions of a network that consists of nothing else; none of others."""
    if type(cnn) is not nn.Sequential:
        return []
    modules: list[Any] = list(cnn)
    kinds = [type(module) for module in modules]
    if kinds != [nn.Conv2d, nn.ReLU] * (len(modules) // 2) + [nn.Flatten]:
        return []
    flatten = modules.pop()
    return modules[::2] if (flatten.start_dim, flatten.end_dim) == (1, -1) else []


def _table_of(layers: list[nn.Conv2d], images: torch.Tensor) -> Table | None:
    """Return the table of layers, None if there is none or one is not compiled."""
    table = []
    channels, *size = images.shape[1:]
    for layer in layers:
        filters, window = layer.out_channels, layer.kernel_size
        if not _is_plain(layer) or layer.weight.shape != (filters, channels, *window):
            return None
        if window[0] > size[0] or window[1] > size[1]:
            return None
        # Sums of numbers of any size would lose the digits of small ones beside a large one.
        in_sums = images.dtype is torch.uint8
        row = row_of(channels, filters, window, layer.stride, size, in_sums=in_sums)
        table.append(row)
        channels, size = filters, [row[OUT_HEIGHT], row[OUT_WIDTH]]
    return np.array(table, np.int64) if table else None


def _is_plain(layer: nn.Conv2d) -> bool:
    return (
        layer.out_channels % WIDTH == 0
        and layer.padding in ((0, 0), "valid")
        and layer.dilation == (1, 1)
        and layer.groups == 1
        and layer.bias is not None
        and layer.bias.shape == (layer.out_channels,)
        and layer.weight.dtype is layer.bias.dtype is torch.float32
    )

"""Compiled convolutions in torch's graph: those of stable-baselines3's NatureCNN."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.torch_layers import NatureCNN
from torch import nn
from torch.autograd.function import once_differentiable

from .compiled.convolutions import Layers, backward, forward, lay_out, memory
from .compiled.network import Floats
from .compiled.products import IS_FAST, WIDTH
from .compiled.structure import has_hooks, modules_of

_SHARE = 8
"""Fewest images that are worth another thread."""


class _Images:
    """The images of a rollout, and what is made of them.

    Args:
        images: Shape (M, C, H, W).
        scale: Multiplies each number of an image.
        layers_L_8: The layers.
        features: How many numbers come out for each image.
    """

    def __init__(
        self, images: torch.Tensor, scale: float, layers_L_8: Layers, features: int
    ) -> None:
        flat_M_C_P = images.flatten(2).numpy()
        self.images_M_D = np.empty_like(flat_M_C_P).reshape(len(images), -1)
        lay_out(flat_M_C_P, self.images_M_D)
        self.scale, self.layers_L_8, self.features = np.float32(scale), layers_L_8, features
        self._threads = ThreadPoolExecutor(torch.get_num_threads())
        self._spare: Floats | None = None

    def each(self, see_to: Callable[[Any], Any], parts: Iterable[Any]) -> list[Any]:
        """See to some parts, each in a thread of its own."""
        parts = list(parts)
        return list((self._threads.map if len(parts) > 1 else map)(see_to, parts))

    def parts(self, rows: int) -> list[slice]:
        """Return which of so many images each of torch's threads sees to."""
        parts = max(1, min(torch.get_num_threads(), rows // _SHARE))
        ends = [rows * i // parts for i in range(parts + 1)]
        return [slice(*ends[i : i + 2]) for i in range(parts)]

    def take(self, rows: int) -> Floats:
        """Return memory for what the layers say of so many images, shape (B, numbers).

        What was given back is taken again: to clear memory that is new takes as long as to fill it.
        """
        spare, self._spare = self._spare, None
        if spare is None or len(spare) < rows:
            return np.empty((rows, memory(self.layers_L_8, 1)), np.float32)
        return spare

    def give_back(self, work: Floats) -> None:
        """Take back what `take` gave."""
        self._spare = work


class _Convolve(torch.autograd.Function):
    """Weights and biases of all layers in, features of shape (B, F) out."""

    @staticmethod
    def forward(
        ctx: Any, seen: _Images, rows_B: torch.Tensor, *parameters: torch.Tensor
    ) -> torch.Tensor:
        weights, biases = parameters[::2], torch.cat(parameters[1::2]).numpy()
        flat = torch.cat([w.flatten() for w in weights]).numpy()
        work, outputs_B_F = seen.take(len(rows_B)), np.empty((len(rows_B), seen.features), "f4")

        def see_to(part: slice) -> None:
            forward(
                seen.images_M_D, rows_B[part].numpy(), seen.scale, flat, biases, seen.layers_L_8,
                work[part].ravel(), outputs_B_F[part],
            )  # fmt: skip

        seen.each(see_to, seen.parts(len(rows_B)))
        ctx.seen, ctx.rows_B, ctx.work = seen, rows_B, work
        ctx.save_for_backward(*weights)
        return torch.from_numpy(outputs_B_F)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes_B_F: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        seen, rows_B, work, weights = ctx.seen, ctx.rows_B, ctx.work, ctx.saved_tensors
        flat = torch.cat([w.flatten() for w in weights]).numpy()
        sizes, filters = [w.numel() for w in weights], [len(w) for w in weights]
        slopes = slopes_B_F.contiguous().numpy()

        def see_to(part: slice) -> tuple[Floats, Floats]:
            of_both = np.empty_like(flat), np.zeros(sum(filters), np.float32)
            backward(
                seen.images_M_D, rows_B[part].numpy(), seen.scale, flat, seen.layers_L_8,
                work[part].ravel(), slopes[part], of_both,
            )  # fmt: skip
            return of_both

        found = seen.each(see_to, seen.parts(len(rows_B)))
        seen.give_back(work)
        of_weights, of_biases = (torch.from_numpy(sum(each)) for each in zip(*found, strict=True))
        gradients: list[torch.Tensor | None] = [None, None]
        of_each = torch.split(of_weights, sizes), torch.split(of_biases, filters)
        for weight, of_weight, of_bias in zip(weights, *of_each, strict=True):
            gradients += [of_weight.view_as(weight), of_bias]
        return tuple(gradients)


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
        or not (IS_FAST and hasattr(forward, "get_overload"))  # or Numba compiles nothing
        or images.dim() != 4
        or images.dtype not in (torch.uint8, torch.float32)
        or any("forward" in vars(m) or has_hooks(m) for m in modules_of(extractor))
    ):
        return None
    layers = _layers_of(extractor.cnn, *images.shape[1:])
    if layers is None:
        return None
    seen, parameters = _Images(images, scale, *layers), list(extractor.cnn.parameters())
    convolve: Any = _Convolve.apply
    linear = extractor.linear

    def read(rows_B: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = linear(convolve(seen, rows_B, *parameters))
        return features

    return read


def _layers_of(cnn: nn.Module, channels: int, height: int, width: int) -> tuple[Layers, int] | None:
    """Return the table of layers and how many numbers come out; None if one is not compiled."""
    modules = list(cnn.children())
    kinds = [type(module) for module in modules]
    pairs = len(modules) // 2
    if (
        not pairs
        or type(cnn) is not nn.Sequential
        or kinds != [nn.Conv2d, nn.ReLU] * pairs + [nn.Flatten]
    ):
        return None
    flatten: Any = modules.pop()
    if (flatten.start_dim, flatten.end_dim) != (1, -1):
        return None
    table = []
    for layer in modules[::2]:
        assert isinstance(layer, nn.Conv2d)
        filters = layer.out_channels
        if not _is_plain(layer) or layer.weight.shape != (filters, channels, *layer.kernel_size):
            return None
        (tall, wide), (down, across) = layer.kernel_size, layer.stride
        if tall > height or wide > width:
            return None
        table.append((channels, filters, tall, wide, down, across, height, width))
        channels = filters
        height, width = (height - tall) // down + 1, (width - wide) // across + 1
    return np.array(table, np.int64), channels * height * width


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

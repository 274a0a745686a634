"""Matrix products of a language model on a CPU, with weights laid out as its cores read them.

Idea: a model that writes multiplies a few rows by large matrices, again and again. oneDNN does
that two to three times as fast as the plain product once it may keep a copy of each matrix in an
order of its own, and torch has that for whoever asks. Only matrices that are not trained have
one: torch's fused optimisers do not tell that they have changed a weight.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SMALLEST = 2**15
"""Weights of a matrix that is worth the longer way to the product."""


def pack(model: nn.Module) -> None:
    """Let the layers of a model multiply so from now on, where torch and the device can."""
    for layer in model.modules():
        if type(layer) is nn.Linear and _can_be_packed(layer.weight):
            layer.__class__ = PackedLinear


class PackedLinear(nn.Linear):
    """A layer that keeps its weights laid out, beside the plain ones, while they are frozen."""

    _packed: dict[bool, tuple[int, Any]]

    def forward(self, input: Tensor) -> Tensor:
        """Return the product."""
        if self.weight.requires_grad or not _can_be_packed(self.weight):
            return F.linear(input, self.weight, self.bias)
        product: Tensor
        if input.requires_grad and torch.is_grad_enabled():
            differentiable: Any = _Product
            product = differentiable.apply(input, self)
        else:  # as a model writes, for which autograd's way takes long
            product = self.multiply(input)
        return product if self.bias is None else product + self.bias

    def multiply(self, input: Tensor, transposed: bool = False) -> Tensor:
        """Multiply by the weights, or by the transposed weights, without a bias."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            input, self._laid_out(transposed), None, "none", [], ""
        )
        return product

    def _laid_out(self, transposed: bool) -> Any:
        version = self.weight._version
        packed = self.__dict__.setdefault("_packed", {})
        if transposed not in packed or packed[transposed][0] != version:
            weight = self.weight.detach()
            weight = weight.t().contiguous() if transposed else weight
            packed[transposed] = version, torch.ops.mkldnn._reorder_linear_weight(weight, None)
        return packed[transposed][1]

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_packed"}


class _Product(torch.autograd.Function):
    """The product with weights that are not trained."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, layer: PackedLinear) -> Tensor:
        ctx.layer = layer
        return layer.multiply(input)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.layer.multiply(gradient.contiguous(), transposed=True), None


def _can_be_packed(weight: Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and weight.numel() >= _SMALLEST
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )

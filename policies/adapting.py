"""Which weights of a language model are trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..errors import UserError


def adapt(
    model: PreTrainedModel, last_layers: int | None = None, lora_rank: int | None = None
) -> int:
    """Freeze a model but for what is to be trained.

    Args:
        model: A causal LM; changed in place.
        last_layers: Train so many of the last layers and the norm behind them; None for all
            layers, and without `lora_rank` for all other weights, too.
        lora_rank: Train no weights of these layers but adapters of this rank beside them (Hu et
            al., "LoRA", 2021), which begin as nothing; None for the weights themselves.

    Returns:
        The first layer of which anything is trained.

    Raises:
        UserError: there are not so many layers, a number is below 1, or peft is missing.
    """
    config = None if lora_rank is None else adapter_config(model, last_layers, lora_rank)
    layers, first = _chosen(model, last_layers)
    model.requires_grad_(lora_rank is None and last_layers is None)
    if config is not None:
        from peft import inject_adapter_in_model

        inject_adapter_in_model(config, model)
    elif last_layers is not None:
        layers[first:].requires_grad_(True)
        for norm in _norms_behind(model, layers):
            norm.requires_grad_(True)
    return first


def adapter_config(model: PreTrainedModel, last_layers: int | None, lora_rank: int) -> Any:
    """Return peft's configuration of the adapters that `adapt` adds.

    Args:
        model: The model.
        last_layers: So many of the last layers get adapters; all if None.
        lora_rank: Their rank.

    Raises:
        UserError: as `adapt`.
    """
    if lora_rank < 1:
        raise UserError(f"lora_rank={lora_rank} must be at least 1")
    try:
        from peft import LoraConfig
    except ImportError:
        raise UserError("adapters need peft: pip install 'palaestra[lora]'") from None
    layers, first = _chosen(model, last_layers)
    products = (nn.Linear, Conv1D)
    names = {n.rpartition(".")[2] for n, m in layers.named_modules() if isinstance(m, products)}
    # No dropout: a probability that changes between rollout and update is not PPO's ratio.
    return LoraConfig(
        r=lora_rank,
        lora_alpha=2 * lora_rank,
        lora_dropout=0.0,
        target_modules=sorted(names),
        layers_to_transform=list(range(first, len(layers))),
    )


def merged_weights(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield all weights as a model without adapters has them, by transformers' names."""
    for name, weight in model.state_dict().items():
        path, _, last = name.rpartition(".")
        if ".lora_" in name:
            continue
        if path.endswith(".base_layer"):
            path = path.removesuffix(".base_layer")
            layer: Any = model.get_submodule(path)
            added = [layer.get_delta_weight(adapter) for adapter in layer.active_adapters]
            weight = sum(added, weight) if last == "weight" else weight
        yield f"{path}.{last}", weight.detach()


class Start(nn.Module):
    """The weights that are trained, as they were at the start.

    Args:
        model: What `adapt` has changed.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        # In a list, so that this module does not hold them as its own.
        self._trained = [[p for p in model.parameters() if p.requires_grad]]
        for place, parameter in enumerate(self._trained[0]):
            self.register_buffer(f"_{place}", parameter.detach().clone(), persistent=False)

    @contextmanager
    def instead(self) -> Iterator[None]:
        """Put them into the model for a while, in which nothing is to be learned."""
        trained = self._trained[0]
        now = [parameter.data for parameter in trained]
        try:
            for parameter, first in zip(trained, self.buffers(), strict=True):
                parameter.data = first
            with torch.no_grad():
                yield
        finally:
            for parameter, data in zip(trained, now, strict=True):
                parameter.data = data


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """Return the layers of a model, whatever its architecture calls them."""
    count = model.config.num_hidden_layers
    lists = (m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == count)
    if (found := next(lists, None)) is None:
        raise UserError(f"{type(model).__name__} has no list of {count} layers")
    return found


def _norms_behind(model: PreTrainedModel, layers: nn.ModuleList) -> list[nn.Module]:
    body: Any = model.base_model
    return [m for m in body.children() if m is not layers and "Norm" in type(m).__name__]


def _chosen(model: PreTrainedModel, last_layers: int | None) -> tuple[nn.ModuleList, int]:
    layers = layers_of(model)
    count = len(layers) if last_layers is None else last_layers
    if not 1 <= count <= len(layers):
        raise UserError(f"last_layers={last_layers}, but this model has {len(layers)} layers")
    return layers, len(layers) - count

"""The compiled actor of `ChoicePolicy` in torch's graph."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.autograd.function import once_differentiable

from ..policies.choices import SCALE, ChoiceScorer
from ..policies.minilm import EMBEDDING
from .compiled.choices import Actor, backward, forward
from .compiled.network import Floats
from .compiled.products import WIDTH
from .compiled.structure import can_be_compiled
from .threads import Threads, parts_of

_SHARE = 16
"""Fewest rows that are worth another thread."""
_FACTOR = np.float32(SCALE)


class _Choices:
    """The choices of a rollout.

    Args:
        features_M_F: As `MiniLMExtractor` returns them.
        choices: How many a row has.
    """

    def __init__(self, features_M_F: torch.Tensor, choices: int) -> None:
        self.features_M_F: Floats = features_M_F.contiguous().numpy()
        self.choices, self.threads = choices, Threads()


class _Score(torch.autograd.Function):
    """The actor's parameters in, a score for each choice, shape (B, K), out."""

    @staticmethod
    def forward(
        ctx: Any, seen: _Choices, rows_B: torch.Tensor, *parameters: torch.Tensor
    ) -> torch.Tensor:
        actor, rows = _arrays(parameters), rows_B.numpy()
        scores_B_K = np.empty((len(rows), seen.choices), np.float32)

        def see_to(part: slice) -> Floats:
            own, scores = rows[part], scores_B_K[part]
            hidden_2_N_W = np.empty((2, scores.size, len(actor.bias_W)), np.float32)
            forward(seen.features_M_F, own, _FACTOR, actor, hidden_2_N_W, scores)
            return hidden_2_N_W

        ctx.parts = parts_of(len(rows), _SHARE)
        hidden = seen.threads.each(see_to, ctx.parts)
        ctx.seen, ctx.rows = seen, rows
        ctx.save_for_backward(*parameters, *map(torch.from_numpy, hidden))
        return torch.from_numpy(scores_B_K)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes_B_K: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        seen, slopes = ctx.seen, slopes_B_K.contiguous().numpy()
        count = len(Actor._fields)
        parameters, hidden = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        actor = _arrays(parameters)

        def see_to(of_part: tuple[slice, torch.Tensor]) -> Actor:
            part, said = of_part[0], of_part[1].numpy()
            found = Actor(*map(np.zeros_like, actor))
            backward(seen.features_M_F, ctx.rows[part], _FACTOR, actor, said, slopes[part], found)
            return found

        parts = list(zip(ctx.parts, hidden, strict=True))
        return None, None, *seen.threads.sums(see_to, parts)


def scorer(
    network: nn.Module, features_M_F: torch.Tensor
) -> Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]] | None:
    """Return what makes latents of rows of a rollout, or None where torch has to.

    Args:
        network: Compiled if it is a `ChoiceScorer` in which nobody has changed anything but the
            layers of the critic; its units are a multiple of 32.
        features_M_F: Of the whole rollout, on the CPU.
    """
    if (
        type(network) is not ChoiceScorer
        or not can_be_compiled(network, forward)
        or features_M_F.dtype is not torch.float32
        or _parameters_of(network) is None
    ):
        return None
    with torch.no_grad():
        dialogue_M_2E, choices_M_K_E, mask_M_K = network.split(features_M_F)
        cosine_M_K = torch.bmm(choices_M_K_E, dialogue_M_2E[:, EMBEDDING:, None]).squeeze(2)
        of_rows = (cosine_M_K, mask_M_K, dialogue_M_2E * SCALE)
    seen = _Choices(features_M_F, choices_M_K_E.shape[1])
    score: Any = _Score.apply

    def latents(rows_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        parameters = _parameters_of(network)  # which a hook of a gradient may have replaced
        if parameters is None:
            found: tuple[torch.Tensor, torch.Tensor] = network(features_M_F.index_select(0, rows_B))
            return found
        cosine_B_K, mask_B_K, scaled_B_2E = (x.index_select(0, rows_B) for x in of_rows)
        scores_B_K = score(seen, rows_B, *parameters)
        return network.logits(scores_B_K, cosine_B_K, mask_B_K), network.critic(scaled_B_2E)

    return latents


def _parameters_of(network: ChoiceScorer) -> list[Any] | None:
    """Return the actor's parameters, None if it is not built as `ChoiceScorer` builds it."""
    actor: Any = network.actor
    kinds = [type(module) for module in actor] if type(actor) is nn.Sequential else []
    if kinds != [nn.Linear, nn.Tanh, nn.Linear, nn.Tanh] or type(network.score) is not nn.Linear:
        return None
    layers = actor[0], actor[2], network.score
    parameters = [p for layer in layers for p in (layer.weight, layer.bias)]
    width = actor[0].out_features
    shapes = [(width, 5 * EMBEDDING), (width,), (width, width), (width,), (1, width), (1,)]
    plain = (
        width > 0
        and width % WIDTH == 0
        and all(
            p is not None and p.dtype is torch.float32 and p.is_contiguous() and p.shape == shape
            for p, shape in zip(parameters, shapes, strict=True)
        )
    )
    return parameters if plain else None


def _arrays(parameters: Any) -> Actor:
    return Actor(*(p.detach().numpy() for p in parameters))

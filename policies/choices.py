"""A policy that scores choices by what they say, whatever their number in the list."""

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import nn
from torch.nn import functional as F

from .minilm import EMBEDDING, MiniLMExtractor

_MASKED = -1e8
"""Logit of a padded choice: finite, so that the entropy stays a number."""
SCALE = EMBEDDING**0.5
"""Unit vectors have entries near 0.05; scaled up, they are what a linear layer expects."""


class ChoicePolicy(ActorCriticPolicy):
    """SB3 policy for `AsChoices`: embeddings in, one logit a choice out.

    Each choice is scored by the same network, from the embeddings of the task, of the world's
    newest reply and of the choice, and from the products of the latter with the former two; so
    the logits follow the choices wherever they stand. A learned multiple of the cosine between
    reply and choice is added. It starts above zero, which means "report what you were told";
    without it, asking the right thing and reporting the result have each no value until the
    other is learned. What to ask is left to reward. The critic reads the task and the reply.
    Source: He et al., "Deep Reinforcement Learning with a Natural Language Action Space"
    (2016), whose interaction function this extends.

    Args:
        width: Units of each hidden layer.
        resemblance: Where the multiple of the cosine starts.
        kwargs: For `ActorCriticPolicy`.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        width: int = 128,
        resemblance: float = 8.0,
        **kwargs: Any,
    ) -> None:
        self._width, self._resemblance = width, resemblance
        kwargs.setdefault("features_extractor_class", MiniLMExtractor)
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | {
            "width": self._width,
            "resemblance": self._resemblance,
        }

    def _build_mlp_extractor(self) -> None:
        choices = int(self.action_space.n)  # type: ignore[attr-defined]
        self.mlp_extractor = ChoiceScorer(choices, self._width, self._resemblance).to(self.device)  # type: ignore[assignment]

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        # The scorer's output already is the logits.
        self.action_net = nn.Identity()
        self.optimizer = self.optimizer_class(
            self.parameters(),
            lr=lr_schedule(1),  # type: ignore[call-arg]
            **self.optimizer_kwargs,
        )


class ChoiceScorer(nn.Module):
    """The two networks of `ChoicePolicy`, in the shape of SB3's `MlpExtractor`."""

    def __init__(self, choices: int, width: int, resemblance: float) -> None:
        super().__init__()
        self.latent_dim_pi, self.latent_dim_vf = choices, width
        self._choices = choices
        self.resemblance = nn.Parameter(torch.tensor(resemblance))
        self.actor = nn.Sequential(
            nn.Linear(5 * EMBEDDING, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()
        )
        self.score = nn.Linear(width, 1)
        self.critic = nn.Sequential(
            nn.Linear(2 * EMBEDDING, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()
        )

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits (B, K) and the critic's latent (B, width)."""
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits of the choices, shape (B, K)."""
        dialogue_B_2E, choices_B_K_E, mask_B_K = self.split(features)
        task_B_E, reply_B_E = dialogue_B_2E.chunk(2, dim=1)
        # The choice itself and its products with task and reply, in one product.
        factors_B_3_E = torch.stack([torch.ones_like(task_B_E), task_B_E, reply_B_E], 1)
        seen_B_K_3_E = factors_B_3_E.unsqueeze(1) * choices_B_K_E.unsqueeze(2)
        # What task and reply add to the first layer is the same for all choices of a row.
        first: Any = self.actor[0]
        of_dialogue, of_choice = first.weight.split([2 * EMBEDDING, 3 * EMBEDDING], dim=1)
        shared_B_W = F.linear(dialogue_B_2E, of_dialogue)
        hidden = shared_B_W.unsqueeze(1) + F.linear(seen_B_K_3_E.flatten(2), of_choice)
        hidden = hidden * SCALE + first.bias
        for module in list(self.actor)[1:]:
            hidden = module(hidden)
        scores_B_K = self.score(hidden).squeeze(-1)
        return self.logits(scores_B_K, seen_B_K_3_E[:, :, 2].sum(-1), mask_B_K)

    def logits(
        self, scores_B_K: torch.Tensor, cosine_B_K: torch.Tensor, mask_B_K: torch.Tensor
    ) -> torch.Tensor:
        """Return the logits of the choices, shape (B, K).

        Args:
            scores_B_K: What the network says of them.
            cosine_B_K: Between reply and choice.
            mask_B_K: 0 where there is no choice.
        """
        return (scores_B_K + self.resemblance * cosine_B_K).masked_fill(mask_B_K == 0, _MASKED)

    def forward_critic(self, features: torch.Tensor) -> torch.Tensor:
        """Return the critic's latent, shape (B, width)."""
        dialogue_B_2E, *_ = self.split(features)
        latent: torch.Tensor = self.critic(dialogue_B_2E * SCALE)
        return latent

    def split(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the dialogues' (B, 2 E), the choices' (B, K, E) and the mask (B, K)."""
        dialogue, choices, mask = torch.split(
            features, [2 * EMBEDDING, self._choices * EMBEDDING, self._choices], dim=1
        )
        return dialogue, choices.reshape(-1, self._choices, EMBEDDING), mask

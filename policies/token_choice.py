"""Tokens as actions: how they are taken, and how likely they were."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


def through(ids: list[int], end: int) -> list[int]:
    """Return the tokens of a message: all up to the first that ends a turn, and that one."""
    return ids[: ids.index(end) + 1] if end in ids else ids


def likeliest(logits_AV: Tensor, rows: list[int]) -> Tensor:
    """Return the likeliest tokens, shape (A,)."""
    return logits_AV.argmax(1)


class Sampler:
    """Sample tokens from the softmax of the logits, each row by a generator of its own.

    Args:
        temperature: What logits are divided by.
        rngs: A generator a row. One number is drawn from each, whatever the length of the
            replies: the next reply of a dialogue does not depend on its neighbours in a batch.
    """

    def __init__(self, temperature: float, rngs: Sequence[np.random.Generator]) -> None:
        self._temperature = temperature
        self._rngs = [np.random.default_rng(rng.integers(2**63)) for rng in rngs]

    def __call__(self, logits_AV: Tensor, rows: list[int]) -> Tensor:
        """Return tokens, shape (A,), for the rows of these numbers."""
        sums_AV = torch.softmax(logits_AV.double() / self._temperature, 1).cumsum(1)
        draws_A1 = sums_AV.new_tensor([[self._rngs[row].random()] for row in rows])
        return _drawn(sums_AV, draws_A1)


class Writer:
    """Takes tokens for a `decoding.Decoder`, and keeps their log-probabilities.

    Args:
        temperature: What logits are divided by.
        greedy: Whether to take the likeliest token instead of sampling.
    """

    def __init__(self, temperature: float, greedy: bool = False) -> None:
        self.temperature, self.greedy = temperature, greedy
        self._log_probs: dict[int, list[float]] = {}

    def __call__(self, logits_AV: Tensor, rows: list[int]) -> Tensor:
        """Return tokens, shape (A,), for the rows of these numbers."""
        log_probs_AV = _normalized(_cooled(logits_AV, self.temperature))
        chosen_A = self.take(log_probs_AV, rows)
        taken_A = log_probs_AV.gather(1, chosen_A[:, None])[:, 0]
        for row, log_prob in zip(rows, taken_A.tolist(), strict=True):
            self._log_probs.setdefault(row, []).append(log_prob)
        return chosen_A

    def take(self, log_probs_AV: Tensor, rows: list[int]) -> Tensor:
        """Return the likeliest tokens, or sampled ones, by torch's global generator."""
        if self.greedy:
            return log_probs_AV.argmax(1)
        # With one number a row, where `multinomial` draws one for each token that there is.
        sums_AV = log_probs_AV.exp().cumsum(1)
        return _drawn(sums_AV, torch.rand(len(rows), 1, device=sums_AV.device))

    def log_probs(self, said: Sequence[Sequence[int]]) -> Tensor:
        """Return the log-probability of each row as a whole, shape (B,)."""
        taken = [self._log_probs[row][: len(tokens)] for row, tokens in enumerate(said)]
        return torch.stack([torch.tensor(row).sum() for row in taken])


class Evaluated(NamedTuple):
    """How likely some messages are."""

    log_probs_B: Tensor
    """Of each as a whole."""
    entropies_B: Tensor | None
    """Mean over the tokens of each; or the sum over them of the negative KL divergence from what
    was first likely, if that was given."""


def evaluate_tokens(
    head: Any,
    hidden_BNH: Tensor,
    said: Sequence[Sequence[int]],
    temperature: float,
    entropy: bool,
    first_MV: Tensor | None = None,
    allowed_MV: Tensor | None = None,
) -> Evaluated:
    """Return how likely messages are, from what the last layer says before each of their tokens.

    Args:
        head: From what the last layer says to logits.
        hidden_BNH: N of the longest message.
        said: The tokens of each message.
        temperature: What logits are divided by.
        entropy: Whether to compute entropies, too.
        first_MV: Log-probabilities of each token of all messages at the start, which entropies
            are then relative to.
        allowed_MV: What may stand there; what may not has no probability.
    """
    logits_MV, tokens_M, places_BN = _logits(head, hidden_BNH, said, temperature, allowed_MV)
    taken_M, entropy_M = _Likelihood.apply(logits_MV, tokens_M, entropy, first_MV)  # type: ignore[no-untyped-call]
    sums_B = _per_row(taken_M, places_BN).sum(1)
    if not entropy:
        return Evaluated(sums_B, None)
    entropies_B = _per_row(entropy_M, places_BN).sum(1)
    return Evaluated(
        sums_B, entropies_B if first_MV is not None else entropies_B / places_BN.sum(1)
    )


def all_log_probs(
    head: Any,
    hidden_BNH: Tensor,
    said: Sequence[Sequence[int]],
    temperature: float,
    allowed_MV: Tensor | None = None,
) -> Tensor:
    """Return the log-probabilities of all that could stand where each token of messages stands.

    Returns:
        Shape (M, V), M tokens of all messages together; `evaluate_tokens` says what is given.
    """
    logits_MV, _, _ = _logits(head, hidden_BNH, said, temperature, allowed_MV)
    return _normalized(logits_MV)


def held(logits: Tensor, allowed: Tensor | None) -> Tensor:
    """Return logits under which what is not allowed has no probability."""
    return logits if allowed is None else logits.masked_fill(~allowed.to(logits.device), _NEVER)


_NEVER = -1e9
"""Logit of what may not stand: finite, so that 0 times it is 0."""


def _logits(
    head: Any,
    hidden_BNH: Tensor,
    said: Sequence[Sequence[int]],
    temperature: float,
    allowed_MV: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits, shape (M, V), the tokens taken, (M,), and where they stand, (B, N)."""
    counts = [len(tokens) for tokens in said]
    places_BN = torch.arange(max(counts), device=hidden_BNH.device) < torch.tensor(
        counts, device=hidden_BNH.device
    ).unsqueeze(1)
    # Logits of padding would cost as much as those of tokens.
    hidden_MH = hidden_BNH[:, : max(counts)][places_BN]
    tokens_M = torch.tensor([t for tokens in said for t in tokens], device=hidden_BNH.device)
    logits_MV = held(_cooled(head(hidden_MH).float(), temperature), allowed_MV)
    return logits_MV, tokens_M, places_BN


class _Likelihood(torch.autograd.Function):
    """Log-probabilities of tokens and entropies, in few passes over the logits.

    There are a hundred times as many logits as anything else, so passes over them are what a
    loss costs: here two on the way in, and one, over their own memory, on the way back.
    """

    @staticmethod
    def forward(
        ctx: Any, logits_MV: Tensor, tokens_M: Tensor, entropy: bool, first_MV: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        norms_M = torch.logsumexp(logits_MV, 1)
        log_probs_MV = logits_MV - norms_M[:, None]
        taken_M = log_probs_MV.gather(1, tokens_M[:, None])[:, 0]
        entropy_M = torch.zeros_like(taken_M)
        # A product of matrices adds up so many numbers to 1e-3 only.
        if entropy and first_MV is not None:
            probs_MV = log_probs_MV.exp()
            # Near the start nothing cancels: what is summed is small itself.
            entropy_M = -torch.linalg.vecdot(probs_MV, log_probs_MV.sub_(first_MV))
        else:
            probs_MV = log_probs_MV.exp_()
            if entropy:
                entropy_M = norms_M - torch.linalg.vecdot(probs_MV, logits_MV)
        ctx.save_for_backward(logits_MV, probs_MV, tokens_M, norms_M, entropy_M, first_MV)
        ctx.entropy = entropy
        return taken_M, entropy_M

    @staticmethod
    def backward(
        ctx: Any, of_taken_M: Tensor, of_entropy_M: Tensor
    ) -> tuple[Tensor, None, None, None]:
        logits_MV, probs_MV, tokens_M, norms_M, entropy_M, first_MV = ctx.saved_tensors
        slopes_M1 = -of_taken_M[:, None]
        if ctx.entropy and bool(of_entropy_M.any()):
            # d entropy / d logit = -p (log p + entropy), where log p is less what it first was
            surprise_MV = logits_MV - (norms_M - entropy_M)[:, None]
            if first_MV is not None:
                surprise_MV -= first_MV
            slopes_MV = surprise_MV.mul_(-of_entropy_M[:, None]).add_(slopes_M1).mul_(probs_MV)
        else:
            slopes_MV = probs_MV * slopes_M1
        slopes_MV.scatter_add_(1, tokens_M[:, None], of_taken_M[:, None])
        return slopes_MV, None, None, None


def _normalized(logits_MV: Tensor) -> Tensor:
    """Return log-probabilities.

    `log_softmax` would be off by 1e-5 where there are 50,000 tokens, always to one side.
    """
    return logits_MV - torch.logsumexp(logits_MV, 1, keepdim=True)


def _cooled(logits: Tensor, temperature: float) -> Tensor:
    return logits if temperature == 1 else logits / temperature


def _drawn(sums_AV: Tensor, draws_A1: Tensor) -> Tensor:
    """Return the tokens that numbers from 0 to 1 mean, given the sums of the probabilities."""
    # The first whose sum is above the draw: what has no probability is never taken.
    found_A1 = torch.searchsorted(sums_AV, draws_A1 * sums_AV[:, -1:], right=True)
    return found_A1[:, 0].clamp(max=sums_AV.shape[1] - 1)


def _per_row(values_M: Tensor, places_BN: Tensor) -> Tensor:
    return values_M.new_zeros(places_BN.shape).masked_scatter(places_BN, values_M)

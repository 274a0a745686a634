"""Tokens as actions: how they are taken, and how likely they were."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .packed import PackedLinear


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


class Allowed(NamedTuple):
    """What may stand where each of the M tokens of some messages stands.

    Where it is but the token that stands there, there is no choice, and the place is in neither
    list.
    """

    many_P: Tensor
    """Places where many tokens may stand."""
    mask_PV: Tensor
    """Whether each token of the vocabulary may stand there."""
    few_Q: Tensor
    """Places where few may stand."""
    ids_QK: Tensor
    """Which these are, ascending, in rows of one length."""
    real_QK: Tensor
    """Which of them are real."""

    @classmethod
    def of(cls, bits_MV: NDArray[np.uint8], vocabulary: int) -> "Allowed":
        """Return what bits allow, eight tokens a byte, the first of each in its lowest bit.

        Args:
            bits_MV: Shape (M, ceil(V / 8)); none stands for a token beyond the vocabulary.
            vocabulary: V.
        """
        counts_M = np.bitwise_count(bits_MV).sum(1, dtype=np.int64)
        many_P = np.flatnonzero(counts_M > _FEW)
        few_Q = np.flatnonzero((counts_M > 1) & (counts_M <= _FEW))
        # Bytes without a bit are almost all, and are passed over first.
        rows, bytes_ = np.nonzero(bits_MV[few_Q])
        in_byte = np.unpackbits(bits_MV[few_Q[rows], bytes_, None], axis=1, bitorder="little")
        found, bit = np.nonzero(in_byte)
        real_QK = np.arange(counts_M[few_Q].max(initial=0)) < counts_M[few_Q, None]
        ids_QK = np.zeros(real_QK.shape, np.int64)
        ids_QK[real_QK] = 8 * bytes_[found] + bit
        places_P, *of_few = map(torch.from_numpy, (many_P, few_Q, ids_QK, real_QK))
        return cls(places_P, unpacked(bits_MV[many_P], vocabulary), *of_few)

    def in_full(self) -> "Allowed":
        """Return the same with all places among those where many may stand."""
        mask_QV = self.mask_PV.new_zeros(len(self.few_Q), self.mask_PV.shape[1])
        mask_QV[self.real_QK.nonzero()[:, 0], self.ids_QK[self.real_QK]] = True
        return Allowed(
            torch.cat([self.many_P, self.few_Q]), torch.cat([self.mask_PV, mask_QV]),
            self.few_Q[:0], self.ids_QK[:0], self.real_QK[:0],
        )  # fmt: skip


_FEW = 32
"""Tokens that may stand somewhere, of which logits are computed one by one."""


def evaluate_tokens(
    head: Any,
    hidden_BNH: Tensor,
    said: Sequence[Sequence[int]],
    temperature: float,
    entropy: bool,
    first: Sequence[Tensor] | None = None,
    allowed: Allowed | None = None,
) -> Evaluated:
    """Return how likely messages are, from what the last layer says before each of their tokens.

    Args:
        head: From what the last layer says to logits.
        hidden_BNH: N of the longest message, or as far as `allowed` leaves a choice.
        said: The tokens of each message.
        temperature: What logits are divided by.
        entropy: Whether to compute entropies, too.
        first: What `all_log_probs` said of them at the start, which entropies are then relative
            to.
        allowed: What may stand where each token stands; what may not has no probability.
    """
    parts, places_BN = _parts(head, hidden_BNH, said, temperature, allowed)
    starts: Sequence[Tensor | None] = [None] * len(parts) if first is None else first
    likelihood: Any = _Likelihood
    # Of what alone may stand somewhere both are 0, and have a gradient, which is 0, too.
    taken_M = entropy_M = hidden_BNH.flatten()[:0].float().sum().repeat(sum(map(len, said)))
    for part, start_PV in zip(parts, starts, strict=True):
        taken_P, entropy_P = likelihood.apply(part.logits_PV, part.taken_P, entropy, start_PV)
        taken_M = taken_M.index_copy(0, part.places_P, taken_P)
        entropy_M = entropy_M.index_copy(0, part.places_P, entropy_P)
    sums_B = _per_row(taken_M, places_BN).sum(1)
    if not entropy:
        return Evaluated(sums_B, None)
    entropies_B = _per_row(entropy_M, places_BN).sum(1)
    return Evaluated(sums_B, entropies_B if first is not None else entropies_B / places_BN.sum(1))


@torch.no_grad()
def all_log_probs(
    head: Any,
    hidden_BNH: Tensor,
    said: Sequence[Sequence[int]],
    temperature: float,
    allowed: Allowed | None = None,
) -> list[Tensor]:
    """Return the log-probabilities of all that could stand where each token of messages stands.

    Returns:
        What `evaluate_tokens` takes, which says what is given.
    """
    parts, _ = _parts(head, hidden_BNH, said, temperature, allowed)
    return [_normalized(part.logits_PV) for part in parts]


def unpacked(bits_MV: NDArray[np.uint8], vocabulary: int) -> Tensor:
    """Return bits as `Allowed.of` takes them, as bool, shape (M, V)."""
    allowed_MV = np.unpackbits(bits_MV, axis=1, count=vocabulary, bitorder="little")
    return torch.from_numpy(allowed_MV.view(bool))


def held(logits: Tensor, allowed: Tensor | None) -> Tensor:
    """Return logits under which what is not allowed has no probability."""
    return logits if allowed is None else logits.masked_fill(~allowed.to(logits.device), _NEVER)


_NEVER = -1e9
"""Logit of what may not stand: finite, so that 0 times it is 0."""


class _Part(NamedTuple):
    """Some of the tokens of messages, and the logits of what may stand where they stand."""

    logits_PV: Tensor
    """V of the vocabulary, or of less: the others have no probability there."""
    taken_P: Tensor
    """Which of these was taken."""
    places_P: Tensor
    """Which of all tokens these are."""


def _parts(
    head: Any,
    hidden_BNH: Tensor,
    said: Sequence[Sequence[int]],
    temperature: float,
    allowed: Allowed | None,
) -> tuple[list[_Part], Tensor]:
    """Return logits of the tokens of messages, and where these stand, shape (B, N).

    A grammar leaves many tokens, as those of a tag, few others than themselves, or none: the
    product with the whole vocabulary, and all that is computed of it, is for the rest.
    """
    counts = [len(tokens) for tokens in said]
    device = hidden_BNH.device
    places_BN = torch.arange(max(counts), device=device) < torch.tensor(
        counts, device=device
    ).unsqueeze(1)
    rows_M, columns_M = places_BN.nonzero(as_tuple=True)
    tokens_M = torch.tensor([t for tokens in said for t in tokens], device=device)

    def hidden(places_P: Tensor) -> Tensor:
        # Logits of padding would cost as much as those of tokens.
        at_P = rows_M[places_P] * hidden_BNH.shape[1] + columns_M[places_P]
        return hidden_BNH.flatten(0, 1).index_select(0, at_P)

    def whole(places_P: Tensor, mask_PV: Tensor | None) -> _Part:
        logits_PV = held(_cooled(head(hidden(places_P)).float(), temperature), mask_PV)
        return _Part(logits_PV, tokens_M[places_P], places_P)

    if allowed is None:
        return [whole(torch.arange(len(tokens_M), device=device), None)], places_BN
    # What multiplies in a way of its own, as adapters do, is asked for all.
    if type(head) not in (nn.Linear, PackedLinear):
        allowed = allowed.in_full()
    allowed = Allowed(*(tensor.to(device) for tensor in allowed))
    parts = []
    if len(allowed.many_P):
        parts.append(whole(allowed.many_P, allowed.mask_PV))
    if len(few_Q := allowed.few_Q):
        logits_QK = _products(head, hidden(few_Q), allowed.ids_QK).float()
        logits_QK = held(_cooled(logits_QK, temperature), allowed.real_QK)
        taken_QK = allowed.real_QK & (allowed.ids_QK == tokens_M[few_Q, None])
        parts.append(_Part(logits_QK, taken_QK.int().argmax(1), few_Q))
    return parts, places_BN


def _products(head: nn.Linear, hidden_PH: Tensor, ids_PK: Tensor) -> Tensor:
    """Return the logits of some tokens for each place, shape (P, K)."""
    logits_PK = (head.weight[ids_PK] @ hidden_PH[:, :, None])[:, :, 0]
    return logits_PK if head.bias is None else logits_PK + head.bias[ids_PK]


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

"""Tokens as actions: their distribution, log-probabilities and gradients, against torch's own."""

import numpy as np
import pytest
import torch
from palaestra.policies.token_choice import Allowed, Writer, all_log_probs, evaluate_tokens
from scipy.stats import chisquare
from torch import nn

SAID = [[3, 1, 0], [2], [4, 4]]


def evaluated(entropy: bool, temperature: float, by_hand: bool) -> list[torch.Tensor]:
    """Return log-probabilities, entropies and the gradients of a weighing of them."""
    torch.manual_seed(0)
    head = nn.Linear(6, 5, bias=False)
    hidden_BNH = torch.randn(3, 3, 6, requires_grad=True)
    if by_hand:
        log_probs, entropies = [], []
        for row, tokens in zip(hidden_BNH, SAID, strict=True):
            each = torch.distributions.Categorical(logits=head(row[: len(tokens)]) / temperature)
            log_probs.append(each.log_prob(torch.tensor(tokens)).sum())
            entropies.append(each.entropy().mean())
        result = torch.stack(log_probs), torch.stack(entropies)
    else:
        result = evaluate_tokens(head, hidden_BNH, SAID, temperature, entropy)
    loss = (result[0] * torch.tensor([1.0, -2.0, 0.5])).sum()
    if entropy:
        loss = loss + (result[1] * torch.tensor([0.3, 1.0, -1.0])).sum()
    loss.backward()
    seen = [result[0], hidden_BNH.grad, head.weight.grad]
    return [*seen, result[1]] if entropy else seen


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("entropy", [True, False])
def test_likelihoods_and_gradients_are_those_of_torch(entropy: bool, temperature: float) -> None:
    ours, torchs = (evaluated(entropy, temperature, by_hand) for by_hand in (False, True))
    for one, other in zip(ours, torchs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "wrapped"])
@pytest.mark.parametrize("held", ["free", "few", "many", "few and many", "one and many", "one"])
def test_divergences_and_their_gradients_are_those_of_torch(held: str, wrapped: bool) -> None:
    torch.manual_seed(0)
    head, before, hidden = nn.Linear(6, 50), nn.Linear(6, 50), torch.randn(3, 3, 6)
    hidden.requires_grad_()
    heads = [nn.Sequential(layer) if wrapped else layer for layer in (head, before)]
    tokens = sum(map(len, SAID))
    shares = {
        "free": [1.0], "few": [0.1], "many": [0.9], "few and many": [0.1, 0.9, 0.1],
        "one and many": [0.9, 0.0, 0.0], "one": [0.0],
    }[held]  # fmt: skip
    allowed = torch.rand(tokens, 50) < torch.tensor([shares]).repeat(6, 1).flatten()[:tokens, None]
    allowed[torch.arange(tokens), torch.tensor([t for said in SAID for t in said])] = True
    bits = Allowed.of(np.packbits(allowed.numpy(), axis=1, bitorder="little"), 50)
    first = all_log_probs(heads[1], hidden, SAID, 0.7, bits)
    found = evaluate_tokens(heads[0], hidden, SAID, 0.7, True, first, bits)
    expected, place = [], 0
    for row, said in zip(hidden, SAID, strict=True):
        may = allowed[place : place + len(said)]
        here = row[: len(said)]
        now, then = (
            torch.distributions.Categorical(logits=(logits / 0.7).masked_fill(~may, -1e9))
            for logits in (head(here), before(here).detach())
        )
        expected += [
            now.log_prob(torch.tensor(said)).sum(),
            -torch.distributions.kl_divergence(now, then).sum(),
        ]
        place += len(said)
    weighing, trained = torch.randn(6), [hidden, head.weight, head.bias]
    ours = torch.stack([found.log_probs_B, found.entropies_B], 1).flatten()
    torchs = torch.stack(expected)
    torch.testing.assert_close(ours, torchs, atol=1e-5, rtol=1e-4)
    for one, other in zip(
        torch.autograd.grad(ours @ weighing, trained, materialize_grads=True),
        torch.autograd.grad(torchs @ weighing, trained),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_a_vocabulary_as_large_as_those_of_language_models_is_added_up_exactly() -> None:
    torch.manual_seed(0)
    head, hidden = nn.Linear(8, 49_152), torch.randn(1, 4, 8)
    nn.init.normal_(head.weight, std=2.0)
    said = [[1, 2, 3, 4]]
    with torch.no_grad():
        first = all_log_probs(head, hidden, said, 1.0)
        same = evaluate_tokens(head, hidden, said, 1.0, True, first)
        entropies = evaluate_tokens(head, hidden, said, 1.0, True).entropies_B
        each = torch.distributions.Categorical(logits=head(hidden[0]).double())
    assert same.entropies_B.abs().max() < 1e-4
    assert abs(entropies[0] - each.entropy().mean()) < 1e-5


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    head = nn.Linear(4, 5, bias=False).double()
    hidden = torch.randn(3, 3, 4, dtype=torch.float64, requires_grad=True)

    def both(hidden_BNH: torch.Tensor) -> tuple[torch.Tensor, ...]:
        # The likelihoods are of float32 logits, so the differences are taken of coarser steps.
        return tuple(evaluate_tokens(head, hidden_BNH, SAID, 1.0, True))

    assert torch.autograd.gradcheck(both, (hidden,), eps=1e-2, atol=1e-2)


def test_tokens_are_sampled_from_the_softmax() -> None:
    torch.manual_seed(3)
    logits = torch.tensor([1.0, 0.0, 2.0, -torch.inf])
    writer = Writer(temperature=2.0)
    drawn = writer(logits.expand(4000, 4), list(range(4000)))
    expected = torch.softmax(logits.double() / 2.0, 0)
    counts = torch.bincount(drawn, minlength=4)
    assert counts[3] == 0
    assert chisquare(counts[:3], expected[:3] * 4000).pvalue > 0.001


def test_a_writer_keeps_the_likelihood_of_what_it_wrote() -> None:
    torch.manual_seed(0)
    writer, logits = Writer(0.5, greedy=True), torch.randn(2, 3, 4)
    first = writer(logits[0], [0, 1, 2])
    second = writer(logits[1][:2], [0, 2])  # row 1 has ended
    said = [[int(first[0]), int(second[0])], [int(first[1])], [int(first[2]), int(second[1])]]
    log_probs = torch.log_softmax(logits / 0.5, 2)
    expected = [
        log_probs[0, 0, said[0][0]] + log_probs[1, 0, said[0][1]],
        log_probs[0, 1, said[1][0]],
        log_probs[0, 2, said[2][0]] + log_probs[1, 1, said[2][1]],
    ]
    torch.testing.assert_close(writer.log_probs(said), torch.stack(expected))


def test_among_very_many_tokens_errors_do_not_add_up() -> None:
    """Those of `log_softmax` all have one sign: 24 tokens would be off by 6e-5."""
    torch.manual_seed(0)
    writer, logits, rows = Writer(1.0), 3 * torch.randn(8, 24, 50_000), list(range(8))
    said = torch.stack([writer(logits[:, n], rows) for n in range(24)], 1)
    exact = logits.double().log_softmax(2).gather(2, said[:, :, None]).sum((1, 2))
    torch.testing.assert_close(writer.log_probs(said.tolist()).double(), exact, atol=2e-5, rtol=0)


@pytest.mark.parametrize("distance", [0.0, 1e-3, 0.1])
def test_a_short_way_from_the_start_is_as_long_as_it_is_with_more_digits(distance: float) -> None:
    """The logits are given as they are: there is no head that rounds them."""
    torch.manual_seed(0)
    then_BNV = 5 * torch.randn(40, 12, 300) + 10
    now_BNV = then_BNV + distance * torch.randn_like(then_BNV)
    said = [[0] * 12] * 40
    first = all_log_probs(nn.Identity(), then_BNV, said, 1.0)
    found = evaluate_tokens(nn.Identity(), now_BNV, said, 1.0, True, first).entropies_B
    now, then = (x.double().log_softmax(2) for x in (now_BNV, then_BNV))
    expected = -(now.exp() * (now - then)).sum((1, 2))
    torch.testing.assert_close(found, expected.float(), atol=1e-5, rtol=1e-4)

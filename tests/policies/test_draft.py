"""What is sampled in fewer bits and learned from in all of them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from palaestra.errors import UserError
from palaestra.policies.causal_lm import CausalLM
from palaestra.policies.draft import Copy
from palaestra.policies.token_choice import Writer

from .test_language import policy, seen

BITS = "bfloat16"


def test_fewer_bits_write_and_all_of_them_judge(tiny_chat_folder: Path) -> None:
    ours, obs = policy(tiny_chat_folder, sampling_dtype=BITS), seen(tiny_chat_folder)
    writer = Writer(1.0)
    actions, values, log_probs = ours.write(obs, writer)
    rough = writer.log_probs(actions.tolist())
    # 32 bits come closer to each other than to what 16 of them find.
    again = ours.evaluate_actions(obs, actions)
    torch.testing.assert_close(again[1], log_probs, atol=1e-4, rtol=0)
    torch.testing.assert_close(again[0], values, atol=1e-5, rtol=1e-5)
    assert (rough - log_probs).abs().max() > 1e-3


@pytest.mark.parametrize("options", [{}, {"last_layers": 1}, {"lora_rank": 2}], ids=str)
def test_what_writes_has_learned_what_the_policy_has(
    tiny_chat_folder: Path, options: dict[str, int]
) -> None:
    ours = policy(tiny_chat_folder, sampling_dtype="float32", **options)
    plain, obs = policy(tiny_chat_folder, **options), seen(tiny_chat_folder)
    before = ours(obs, True)[0]
    for learner in (ours, plain):
        for _ in range(20):
            learner.evaluate_actions(obs, before)[1].sum().backward()
            learner.optimizer.step()
            learner.optimizer.zero_grad()
    (actions, _, log_probs), expected = ours(obs, True), plain(obs, True)
    assert torch.equal(actions, expected[0])
    assert not torch.equal(actions, before)
    torch.testing.assert_close(log_probs, expected[2], atol=1e-4, rtol=0)


def test_positions_keep_all_their_bits(tiny_chat_folder: Path) -> None:
    lm = CausalLM(str(tiny_chat_folder))
    copied: Any = Copy(lm.model, torch.bfloat16).engine
    theirs = dict(copied._decoder._model.named_buffers())
    assert {weight.dtype for weight in copied._decoder._model.parameters()} == {torch.bfloat16}
    assert theirs
    for name, ours in lm.model.named_buffers():
        assert torch.equal(theirs[name], ours)


@pytest.mark.parametrize("name", ["float7", "int8", "nn"])
def test_a_dtype_that_is_no_float_is_told(name: str, tiny_chat_folder: Path) -> None:
    for option in ("dtype", "sampling_dtype"):
        with pytest.raises(UserError, match=f"'{name}' is no float"):
            policy(tiny_chat_folder, **{option: name})

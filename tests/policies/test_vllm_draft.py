"""Messages that vLLM writes and the policy judges."""

import itertools
import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from palaestra.errors import UserError
from palaestra.policies.adapting import adapt, merged_weights
from palaestra.policies.causal_lm import CausalLM
from palaestra.policies.tiny import make_tiny
from palaestra.policies.token_choice import Writer

from .conftest import DIALOGUES
from .test_language import policy, seen


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model whose heads are as wide as vLLM's are on a CPU."""
    pytest.importorskip("vllm", reason="needs the extra [vllm]")
    # vLLM 0.32 for CPUs reads each `__dict__` there is, and one of llvmlite's is no dictionary.
    dispatcher: Any = pytest.importorskip("vllm.triton_utils.dispatcher")
    dispatcher.vars = lambda it: it.__dict__ if isinstance(it.__dict__, dict) else {}
    made = tmp_path_factory.mktemp("wide-heads")
    make_tiny(made, DIALOGUES, seed=0, width=64)
    config = json.loads((made / "config.json").read_text())
    config |= {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32}
    (made / "config.json").write_text(json.dumps(config))
    return made


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")


def taught(folder: Path, **options: Any) -> Any:
    """Return a policy that has learned something, after it wrote before."""
    ours, obs = policy(folder, **options), seen(folder)
    before = ours(obs, True)[0]
    for _ in range(20):
        ours.evaluate_actions(obs, before)[1].sum().backward()
        ours.optimizer.step()
        ours.optimizer.zero_grad()
    return ours, before


@pytest.mark.parametrize("options", [{}, {"last_layers": 1}, {"lora_rank": 2}], ids=str)
def test_it_writes_with_the_weights_of_the_policy(folder: Path, options: dict[str, Any]) -> None:
    obs = seen(folder)
    (ours, before), (plain, expected) = (
        taught(folder, **engine, **options) for engine in ({"sampling_engine": "vllm"}, {})
    )
    assert torch.equal(before, expected)
    (actions, values, log_probs), expected = ours(obs, True), plain(obs, True)
    assert not torch.equal(actions, before)
    assert torch.equal(actions, expected[0])
    torch.testing.assert_close(values, expected[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(log_probs, expected[2], atol=1e-4, rtol=0)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_messages_come_as_often_as_the_policy_says(folder: Path, temperature: float) -> None:
    ours, _ = taught(folder, sampling_engine="vllm", temperature=temperature)
    obs = seen(folder)[:1].repeat(1000, 1)
    torch.manual_seed(1)
    actions, _, log_probs = ours(obs)
    first = actions[:, 0].numpy()
    prefix, prompts = ours._prompts(obs[:1])
    hidden = ours.engine.last(prefix, prompts)
    logits = ours.language_model.get_output_embeddings()(hidden)[0] / temperature
    expected = 1000 * torch.softmax(logits, 0).detach().numpy()
    counts = np.bincount(first, minlength=len(expected))
    often = expected > 5
    assert often.sum() > 3
    distance = ((counts - expected)[often] ** 2 / expected[often]).sum()
    assert distance < 2.5 * often.sum() + 10
    assert len({tuple(row) for row in actions.tolist()}) > 100
    assert ours.evaluate_actions(obs[:8], actions[:8])[1].tolist() == pytest.approx(
        log_probs[:8].tolist(), abs=1e-4
    )


def test_dialogues_go_on_at_once_and_a_failure_leaves_none_behind(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, plain = (policy(folder, **e) for e in ({"sampling_engine": "vllm"}, {}))
    obs = seen(folder)

    def answer(numbers: list[int], actions_AL: torch.Tensor) -> torch.Tensor | None:
        if broken == "answers" and max(numbers) > 3:
            raise KeyboardInterrupt
        new = [whose[n] for n in numbers if n < 8]
        whose.extend(new)
        return obs[new] if new else None

    asking = itertools.count()

    def interrupted(*args: Any) -> Any:
        if broken == "asks" and next(asking) == 5:
            raise KeyboardInterrupt
        return ask(*args)

    ours(obs)
    engine = ours._draft._vllm.llm_engine
    ask = engine.add_request
    monkeypatch.setattr(engine, "add_request", interrupted)
    for fault in ("answers", "asks"):
        whose, broken = [0, 1, 2, 3], fault
        with pytest.raises(KeyboardInterrupt):
            ours.write(obs, Writer(1.0, greedy=True), answer)
        assert not engine.has_unfinished_requests()
    whose, broken = [0, 1, 2, 3], ""
    found = ours.write(obs, Writer(1.0, greedy=True), answer)
    assert sorted(whose) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    for mine, its in zip(found, plain(obs, True), strict=True):
        torch.testing.assert_close(mine, its[whose], atol=1e-4, rtol=1e-5)


def test_messages_depend_on_the_generator_of_torch_alone(folder: Path) -> None:
    obs, found = seen(folder), []
    for seed in (5, 5, 6):
        ours = policy(folder, sampling_engine="vllm")
        torch.manual_seed(seed)
        before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
        found.append([ours(obs)[0] for _ in range(2)])
        assert before == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert not torch.equal(found[0][0], found[0][1])
    assert not torch.equal(found[0][0], found[2][0])


def test_what_was_read_with_other_weights_is_forgotten(folder: Path) -> None:
    """It remembers blocks of 128 tokens."""
    long = [{"role": "user", "content": "What is 12 plus 30? " * 40}]
    ours, plain = (policy(folder, prefix=long, **e) for e in ({"sampling_engine": "vllm"}, {}))
    obs = seen(folder)
    for seed in (1, 2):
        assert torch.equal(ours(obs, True)[0], plain(obs, True)[0])
        for learner in (ours, plain):
            torch.manual_seed(seed)
            for parameter in learner.language_model.parameters():
                parameter.data += 0.3 * torch.randn_like(parameter)
    assert torch.equal(ours(obs, True)[0], plain(obs, True)[0])


def test_other_tokens_that_end_texts_end_no_message(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "many-ends"
    shutil.copytree(folder, other)
    config = json.loads((other / "config.json").read_text()) | {
        "eos_token_id": [0, *range(50, 200)]
    }
    (other / "config.json").write_text(json.dumps(config))
    ours, obs = policy(other, sampling_engine="vllm"), seen(other).repeat(4, 1)
    actions, _, log_probs = ours(obs)
    torch.testing.assert_close(ours.evaluate_actions(obs, actions)[1], log_probs, atol=1e-4, rtol=0)
    assert ((actions >= 50) & (actions < 200)).any(1).all()


def test_it_holds_messages_to_a_grammar(folder: Path) -> None:
    grammar = 'start: "7" | "12 + 30"'
    ours = policy(folder, sampling_engine="vllm", grammar=grammar)
    actions, _, log_probs = ours(seen(folder).repeat(8, 1))
    said = {ours.chat.text(row[: row.index(ours.chat.end)]) for row in actions.tolist()}
    assert said == {"7", "12 + 30"}
    assert (log_probs > -5).all()  # of next to nothing, were it not for the grammar


def test_who_lacks_it_is_told(tiny_chat_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    ours = policy(tiny_chat_folder, sampling_engine="vllm")
    with pytest.raises(UserError, match=r"palaestra\[vllm\]"):
        ours(seen(tiny_chat_folder))


def test_another_engine_is_told(tiny_chat_folder: Path) -> None:
    with pytest.raises(UserError, match="sampling_engine='sglang' must be vllm"):
        policy(tiny_chat_folder, sampling_engine="sglang")


def test_merged_weights_say_what_adapters_add(tiny_chat_folder: Path) -> None:
    plain, adapted = CausalLM(str(tiny_chat_folder)).model, CausalLM(str(tiny_chat_folder)).model
    adapt(adapted, lora_rank=2)
    for model in (plain, adapted):
        model.set_attn_implementation("sdpa")
    torch.manual_seed(0)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    weights = dict(merged_weights(adapted))
    assert weights.keys() == plain.state_dict().keys()
    ids = torch.arange(20)[None]
    assert not torch.allclose(plain(ids).logits, adapted(ids).logits, atol=1e-3)
    plain.load_state_dict(weights)
    torch.testing.assert_close(plain(ids).logits, adapted(ids).logits, atol=1e-5, rtol=1e-5)

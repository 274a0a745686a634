"""A language model as a policy: exact likelihoods, saved and loaded, in messages and choices."""

import copy
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from palaestra.envs.vector import make_vec
from palaestra.envs.views import make
from palaestra.errors import UserError
from palaestra.policies import language
from palaestra.policies.chat import Chat
from palaestra.policies.language import LanguagePolicy
from palaestra.policies.loading import without_denormals
from palaestra.policies.reading import UpperLayers
from palaestra.policies.token_choice import Writer
from palaestra.train.grpo import GRPO
from palaestra.train.ppo import PPO as OurPPO
from palaestra.train.token_vec_env import TokenVecEnv
from stable_baselines3 import PPO
from stable_baselines3.common.distributions import CategoricalDistribution
from transformers import GPT2Config, GPT2LMHeadModel, GraniteConfig, GraniteForCausalLM

LENGTH = 10
EXAMPLES = [
    {"role": "system", "content": "Answer."},
    {"role": "user", "content": "What is 12 plus 9?"},
    {"role": "assistant", "content": "<calculator>12 + 9</calculator>"},
]


def vector(folder: Path, n: int = 4, **kwargs: Any) -> TokenVecEnv:
    made = make_vec(
        "palaestra/Calculator-v0", n, "sync", "dialogue", autoreset="SameStep", **kwargs
    )
    return TokenVecEnv(made, str(folder), LENGTH, monitor=True)


def policy(folder: Path, **options: Any) -> LanguagePolicy:
    env = vector(folder)
    torch.manual_seed(0)
    made = LanguagePolicy(
        env.observation_space, env.action_space, lambda _: 1e-3, model=str(folder), **options
    )
    made.set_training_mode(False)
    return made


def seen(folder: Path) -> torch.Tensor:
    env = vector(folder)
    env.seed(3)
    return torch.from_numpy(np.asarray(env.reset()))


def choices(n: int = 3) -> dict[str, torch.Tensor]:
    observed = [make("palaestra/Calculator-v0", "array").reset(seed=i)[0] for i in range(n)]
    return {k: torch.from_numpy(np.stack([o[k] for o in observed])) for k in observed[0]}


OPTIONS: list[dict[str, Any]] = [
    {}, {"last_layers": 1}, {"last_layers": 2, "lora_rank": 2}, {"prefix": EXAMPLES},
    {"prefix": EXAMPLES, "last_layers": 1, "temperature": 0.7},
    {"prefix": EXAMPLES, "last_layers": 1, "sampling_dtype": "bfloat16"},
    {"lora_rank": 2, "sampling_dtype": "bfloat16"},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_what_was_done_is_as_likely_when_it_is_learned_from(
    tiny_chat_folder: Path, options: dict[str, Any]
) -> None:
    ours, obs = policy(tiny_chat_folder, **options), seen(tiny_chat_folder)
    actions, values, log_probs = ours(obs)
    assert actions.shape == (4, LENGTH)
    assert actions.shape[1:] == ours.action_space.sample().shape
    again = ours.evaluate_actions(obs, actions.float())  # as SB3's buffers hand them out
    torch.testing.assert_close(again[0], values, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(again[1], log_probs, atol=1e-4, rtol=0)
    assert again[2] is not None
    assert (again[2] > 0).all()
    torch.testing.assert_close(ours.predict_values(obs), values, atol=1e-5, rtol=1e-5)


def test_the_likeliest_message_repeats_and_a_sample_does_not(tiny_chat_folder: Path) -> None:
    ours, obs = policy(tiny_chat_folder), seen(tiny_chat_folder)
    first, again = (ours(obs, deterministic=True)[0] for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(ours(obs)[0], ours(obs)[0])


@pytest.mark.parametrize("options", [*OPTIONS, {"grammar": "start: /[0-9]{1,4}/"}], ids=str)
def test_dialogues_that_go_on_at_once_are_as_likely_when_they_are_learned_from(
    tiny_chat_folder: Path, options: dict[str, Any]
) -> None:
    ours, first = policy(tiny_chat_folder, **options), seen(tiny_chat_folder)
    for weight in ours.value_net.parameters():  # so that all values are different
        torch.nn.init.normal_(weight, std=0.3)
    env = vector(tiny_chat_folder, n=11)
    env.seed(9)
    others = torch.from_numpy(np.asarray(env.reset()))
    observed, acted = [*first], dict[int, torch.Tensor]()

    def answer(numbers: list[int], actions_AL: torch.Tensor) -> torch.Tensor | None:
        acted.update(zip(numbers, actions_AL, strict=True))
        done = len(observed) - len(first)
        new = others[done : done + len(numbers)]
        observed.extend(new)
        return new if len(new) else None

    actions, values, log_probs = ours.write(first, Writer(ours.temperature), answer)
    assert sorted(acted) == list(range(15))
    assert torch.equal(torch.stack([acted[n] for n in range(15)]), actions)
    assert np.ptp(values.numpy()) > 0.1
    again = ours.evaluate_actions(torch.stack(observed), actions)
    torch.testing.assert_close(again[0], values, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(again[1], log_probs, atol=1e-4, rtol=0)


def test_what_was_written_is_not_read_again(
    tiny_chat_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grammar = r"start: /[0-9]{1,3}<\/answer>/"  # behind `<` there is no choice
    ours = policy(tiny_chat_folder, prefix=EXAMPLES, last_layers=1, grammar=grammar)
    obs = seen(tiny_chat_folder)
    actions, values, log_probs = ours(obs)
    said = [ours.chat.text(row) for row in ours._said(actions)]
    assert all(text.endswith("</answer>") for text in said)

    def read_again(*args: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(ours.engine._decoder, "_forward", read_again)
    again = ours.evaluate_actions(obs, actions)
    torch.testing.assert_close(again[0], values, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(again[1], log_probs, atol=1e-5, rtol=0)
    kl, entropy = ours.kl_and_entropy(obs, actions)
    torch.testing.assert_close(kl, torch.zeros(4))
    torch.testing.assert_close(entropy, again[2])


def test_padding_behind_the_end_counts_for_nothing(tiny_chat_folder: Path) -> None:
    ours, obs = policy(tiny_chat_folder), seen(tiny_chat_folder)
    actions = ours(obs)[0]
    actions[:, 4] = ours.chat.end
    other = actions.clone()
    other[:, 5:] = 7
    one, two = (ours.evaluate_actions(obs, a)[1] for a in (actions, other))
    assert torch.equal(one, two)


def test_dropout_changes_nothing_between_rollout_and_update(
    tiny_chat_folder: Path, tmp_path: Path
) -> None:
    tokenizer = Chat(str(tiny_chat_folder)).tokenizer
    end = tokenizer.eos_token_id
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=1, bos_token_id=end,
        eos_token_id=end, resid_pdrop=0.5, embd_pdrop=0.5,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    ours, obs = policy(tmp_path), seen(tmp_path)
    actions, _, log_probs = ours(obs)
    ours.set_training_mode(True)
    assert ours.training
    again = ours.evaluate_actions(obs, actions)[1]
    torch.testing.assert_close(again, log_probs, atol=1e-4, rtol=0)


def test_a_model_that_scales_its_logits_is_refused(tiny_chat_folder: Path, tmp_path: Path) -> None:
    tokenizer = Chat(str(tiny_chat_folder)).tokenizer
    config = GraniteConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=1, num_key_value_heads=1, logits_scaling=8.0,
    )  # fmt: skip
    GraniteForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="GraniteForCausalLM scales or caps"):
        policy(tmp_path)


def test_a_fused_step_is_noticed(tiny_chat_folder: Path) -> None:
    ours, obs = policy(tiny_chat_folder), seen(tiny_chat_folder)
    actions, _, _ = ours(obs)
    optimizer = torch.optim.Adam(ours.parameters(), lr=0.01, fused=True)
    ours.evaluate_actions(obs, actions)[1].sum().backward()
    optimizer.step()
    actions, values, log_probs = ours(obs)
    again = ours.evaluate_actions(obs, actions)
    torch.testing.assert_close(again[1], log_probs, atol=1e-4, rtol=0)
    torch.testing.assert_close(again[0], values, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_start_is_remembered_whatever_is_trained(
    tiny_chat_folder: Path, options: dict[str, Any]
) -> None:
    ours, obs = policy(tiny_chat_folder, relative_entropy=True, **options), seen(tiny_chat_folder)
    at_start = policy(tiny_chat_folder, **options)
    actions, _, _ = ours(obs)
    divergences, entropies = ours.kl_and_entropy(obs, actions)
    torch.testing.assert_close(divergences, torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(entropies, at_start.evaluate_actions(obs, actions)[2])
    for _ in range(3):
        ours.evaluate_actions(obs, actions)[1].sum().backward()
        ours.optimizer.step()
    ours(obs)  # forgets what it had read
    weights = [p.detach().clone() for p in ours.parameters()]
    divergences = ours.kl_and_entropy(obs, actions)[0]
    assert (divergences > 1e-6).all()
    assert all(torch.equal(a, b) for a, b in zip(weights, ours.parameters(), strict=True))
    torch.testing.assert_close(divergences, -ours.evaluate_actions(obs, actions)[2])
    # Over all the messages of one token, which can be listed: the end, or another token.
    one = torch.full_like(actions, ours.chat.end)
    divergence, expected = ours.kl_and_entropy(obs, one)[0], torch.zeros(4)
    for token in range(len(ours.chat.tokenizer)):
        two = one.clone()
        two[:, 0] = token
        now, then = (_of_first(p, obs, two) for p in (ours, at_start))
        expected += now.exp() * (now - then)
    torch.testing.assert_close(divergence, expected, atol=1e-4, rtol=1e-3)


def _of_first(ours: LanguagePolicy, obs: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """Return the log-probability of the first token of each message."""
    prefix, prompts = ours._prompts(obs)
    with torch.no_grad():
        hidden = ours.engine.evaluate(prefix, prompts, [[t] for t in actions[:, 0].tolist()])
        head: Any = ours.language_model.get_output_embeddings()
        logits = head(hidden[:, 0]) / ours.temperature
    return logits.log_softmax(1).gather(1, actions[:, :1])[:, 0]


def test_choices_have_a_start_too(tiny_chat_folder: Path) -> None:
    env = make("palaestra/Calculator-v0", "array")
    ours = LanguagePolicy(
        env.observation_space, env.action_space, lambda _: 1e-2, model=str(tiny_chat_folder),
        relative_entropy=True,
    )  # fmt: skip
    obs = choices()
    actions = ours(obs)[0]
    first = ours.get_distribution(obs).distribution
    assert ours.evaluate_actions(obs, actions)[2].abs().max() < 1e-5
    ours.evaluate_actions(obs, actions)[1].sum().backward()
    ours.optimizer.step()
    expected = torch.distributions.kl_divergence(ours.get_distribution(obs).distribution, first)
    divergences, entropies = ours.kl_and_entropy(obs, actions)
    torch.testing.assert_close(divergences, expected, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(entropies, ours.get_distribution(obs).entropy())


def test_choices_that_were_next_to_impossible_are_no_infinity_away() -> None:
    def distribution(*logits: float) -> CategoricalDistribution:
        return CategoricalDistribution(3).proba_distribution(torch.tensor([logits]))

    with without_denormals():
        first = distribution(0.0, -120.0, -1e8)
        assert first.distribution.probs[0, 1] == 0
        found = language._kl(distribution(0.0, 0.0, -1e8), first)
    assert abs(float(found) - (120 / 2 - math.log(2))) < 1e-3


def test_the_start_is_asked_again_where_fewer_may_be_chosen(tiny_chat_folder: Path) -> None:
    env = make("palaestra/Calculator-v0", "array")
    ours = LanguagePolicy(
        env.observation_space, env.action_space, lambda _: 1e-2, model=str(tiny_chat_folder),
        relative_entropy=True,
    )  # fmt: skip
    obs, actions = choices(), torch.zeros(3)
    for few in (6, 3, 0):
        obs["mask"][:, few:] = 0
        for rows in (slice(1), slice(3)):  # some are known of the second
            some = {part: values[rows] for part, values in obs.items()}
            divergences = ours.kl_and_entropy(some, actions[rows])[0]
            torch.testing.assert_close(divergences, torch.zeros_like(divergences))


def test_the_critic_moves_the_model_only_if_told(tiny_chat_folder: Path) -> None:
    obs = seen(tiny_chat_folder)
    for share in (0.0, 1.0):
        ours = policy(tiny_chat_folder, critic_gradient=share)
        torch.nn.init.ones_(ours.value_net[3].weight)
        values, _, _ = ours.evaluate_actions(obs, ours(obs)[0])
        values.sum().backward()
        moved = [p.grad is not None and bool(p.grad.any()) for p in
                 ours.language_model.parameters()]  # fmt: skip
        assert any(moved) is (share > 0)


@pytest.mark.parametrize(("normalized", "temperature"), [(False, 1.0), (True, 1.0), (True, 0.25)])
def test_choices_are_as_likely_as_the_messages_they_are(
    tiny_chat_folder: Path, normalized: bool, temperature: float
) -> None:
    env = make("palaestra/Calculator-v0", "array")
    ours = LanguagePolicy(
        env.observation_space, env.action_space, lambda _: 1e-3, model=str(tiny_chat_folder),
        length_normalization=normalized, temperature=temperature,
    )  # fmt: skip
    obs = choices()
    obs["mask"][1, 2:] = 0
    actions, values, log_probs = ours(obs)
    again = ours.evaluate_actions(obs, actions.float())
    torch.testing.assert_close(again[1], log_probs)
    assert values.shape == (3, 1)
    probs = ours.get_distribution(obs).distribution.probs
    assert probs[1, 2:].sum() == 0
    # Written out by transformers: the log-probability of the second choice's tokens.
    said = bytes(obs["choices"][0, 1].tolist()).rstrip(b"\0").decode()
    question = ours._tokens(bytes(obs["dialogue"][0].tolist()).rstrip(b"\0").decode())[1]
    rows = []
    for k in range(6):
        text = bytes(obs["choices"][0, k].tolist()).rstrip(b"\0").decode()
        tokens = [*ours.chat.tokenize(text), ours.chat.end]
        hidden = ours.engine.evaluate([], [question], [tokens])[0]
        log_p = ours.language_model.get_output_embeddings()(hidden).log_softmax(1)
        taken = log_p.gather(1, torch.tensor(tokens)[:, None])
        rows.append((taken.mean() if normalized else taken.sum()) / temperature)
    assert said
    torch.testing.assert_close(probs[0], torch.stack(rows).softmax(0), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("options", OPTIONS[:3], ids=str)
def test_unchanged_ppo_trains_saves_and_loads_it(
    tiny_chat_folder: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    env = vector(tiny_chat_folder)
    model = PPO(
        LanguagePolicy, env, n_steps=4, batch_size=8, n_epochs=2, seed=0,
        policy_kwargs={"model": str(tiny_chat_folder), **options},
    )  # fmt: skip
    before = copy.deepcopy(model.policy.state_dict())
    model.learn(16)
    after = model.policy.state_dict()
    assert any(not torch.equal(after[name], before[name]) for name in before)
    assert {name for name in after if "base" not in name and "value" not in name} == {
        name for name, p in model.policy.named_parameters() if p.requires_grad
        and "value" not in name
    }  # fmt: skip
    model.save(tmp_path / "model.zip")
    again = PPO.load(tmp_path / "model.zip", device="cpu")
    obs = np.asarray(env.reset())
    assert np.array_equal(
        model.predict(obs, deterministic=True)[0], again.predict(obs, deterministic=True)[0]
    )
    for name, tensor in again.policy.state_dict().items():
        assert torch.equal(tensor, after[name]), name


@pytest.mark.parametrize("options", [OPTIONS[1], OPTIONS[4]], ids=str)
def test_unchanged_ppo_learns_what_ours_learns(
    tiny_chat_folder: Path, options: dict[str, Any]
) -> None:
    start = [
        p.detach() for p in policy(tiny_chat_folder, **options).parameters() if p.requires_grad
    ]
    learned = []
    for algorithm in (PPO, OurPPO):
        model = algorithm(
            # The whole rollout as a minibatch, for each shuffles in its own way, and no Adam, whose
            # first step is a sign.
            LanguagePolicy, vector(tiny_chat_folder), n_steps=4, batch_size=16, n_epochs=3,
            learning_rate=0.1, ent_coef=0.01, device="cpu", seed=0,
            policy_kwargs={
                "model": str(tiny_chat_folder), "optimizer_class": torch.optim.SGD,
                "optimizer_kwargs": {}, **options,
            },
        )  # fmt: skip
        torch.manual_seed(5)  # of the messages
        model.learn(32)
        learned.append([p.detach() for p in model.policy.parameters() if p.requires_grad])
    for stock, ours, first in zip(*learned, start, strict=True):
        torch.testing.assert_close(ours - first, stock - first, atol=2e-6, rtol=1e-3)
    assert not torch.allclose(learned[1][-1], start[-1], atol=1e-5)


@pytest.mark.parametrize("algorithm", [OurPPO, GRPO])
def test_earlier_turns_of_whole_dialogues_are_read_with_the_last(
    tiny_chat_folder: Path, algorithm: type[OurPPO], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    run = UpperLayers.run

    def count(self: UpperLayers, prefix: Any, rows: Any, *rest: Any) -> Any:
        read.append(sum(len(row.ids) for row in rows))
        return run(self, prefix, rows, *rest)

    monkeypatch.setattr(UpperLayers, "run", count)
    # Empty messages, which are the same tokens when the next turn shows them.
    end = Chat(str(tiny_chat_folder)).end
    monkeypatch.setattr(Writer, "take", lambda _, said_AV, rows: torch.full((len(rows),), end))
    total, learned = {}, {}
    for whole in (False, True):
        model = algorithm(
            LanguagePolicy, vector(tiny_chat_folder, group_size=2), n_steps=8, batch_size=8,
            n_epochs=1, device="cpu", seed=0,
            policy_kwargs={"model": str(tiny_chat_folder), "whole_dialogues": whole},
            **({"group_size": 2} if algorithm is GRPO else {}),
        )  # fmt: skip
        _, callback = model._setup_learn(32)
        model.collect_rollouts(model.env, callback, model.rollout_buffer, 8)
        read.clear()
        model.train()
        total[whole], learned[whole] = sum(read), model.rollout_buffer
    assert total[True] < 0.8 * total[False]
    assert np.array_equal(learned[True].observations, learned[False].observations)


def test_only_what_was_trained_is_saved(tiny_chat_folder: Path) -> None:
    sizes = []
    for options in OPTIONS[:3]:
        buffer = io.BytesIO()
        torch.save(policy(tiny_chat_folder, **options).state_dict(), buffer)
        sizes.append(len(buffer.getvalue()))
    assert sizes[2] < sizes[1] < sizes[0]


def test_weights_of_another_base_are_refused(tiny_chat_folder: Path) -> None:
    state = policy(tiny_chat_folder, last_layers=1).state_dict()
    other = policy(tiny_chat_folder, last_layers=1)
    state["base_sha256"] = state["base_sha256"] + 1
    with pytest.raises(UserError, match="another model"):
        other.load_state_dict(state)
    with pytest.raises(UserError, match="last_layers"):
        other.load_state_dict(policy(tiny_chat_folder, last_layers=2).state_dict())


def test_what_it_cannot_read_is_named(tiny_chat_folder: Path) -> None:
    numbers, words = spaces.Box(0, 1, (4,)), spaces.Text(10)
    for observed, acted in ((numbers, spaces.Discrete(2)), (words, words)):
        with pytest.raises(UserError, match="AsChoices"):
            LanguagePolicy(observed, acted, lambda _: 1e-3, model=str(tiny_chat_folder))
    for options in ({"temperature": 0.0}, {"critic_gradient": 2.0}, {"critic_scale": -1.0}):
        with pytest.raises(UserError, match=next(iter(options))):
            policy(tiny_chat_folder, **options)


def test_a_prefix_that_fills_the_context_is_named(tiny_chat_folder: Path) -> None:
    long = [EXAMPLES[0], {"role": "user", "content": "seven " * 3000}]
    with pytest.raises(UserError, match="no room"):
        policy(tiny_chat_folder, prefix=long)(seen(tiny_chat_folder))

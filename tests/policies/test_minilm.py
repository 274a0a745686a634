"""The sentence encoder against a plain reference, its cache, and the extractor around it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from palaestra import assets
from palaestra.envs import views
from palaestra.policies.choices import ChoicePolicy
from palaestra.policies.minilm import EMBEDDING, MiniLMExtractor, SentenceEncoder, sentence_encoder
from stable_baselines3 import PPO
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

CPU = torch.device("cpu")
TEXTS = [
    "What is 79 reduced by 86?",
    "<calculator>79 - 86</calculator>",
    "<answer>-7</answer>",
    "São Tomé and Príncipe",
    "What is the capital of the country that has the largest area of those that end in n?",
    "a longer message, of many words, " * 9,
    "one that is far too long for the encoder and is cut off at its end " * 40,
]


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder(CPU)


@pytest.fixture(scope="module")
def reference() -> dict[str, torch.Tensor]:
    """Embed as the model card says, one text at a time."""
    folder = assets.minilm_directory()
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    embeddings = {}
    for text in TEXTS:
        tokens = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            mean = model.eval()(**tokens).last_hidden_state[0].mean(0)
        embeddings[text] = mean / mean.norm()
    return embeddings


def test_embeddings_equal_those_of_the_plain_reference(
    encoder: SentenceEncoder, reference: dict[str, torch.Tensor]
) -> None:
    found = encoder(TEXTS)
    assert found.shape == (len(TEXTS), EMBEDDING)
    for text, embedding in zip(TEXTS, found, strict=True):
        torch.testing.assert_close(embedding, reference[text], atol=1e-5, rtol=0)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(len(TEXTS)))


def test_a_text_that_is_cut_off_brings_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    logging.enable_propagation()
    try:
        SentenceEncoder(CPU)([TEXTS[-1]])
    finally:
        logging.disable_propagation()
    assert not caplog.records


def test_no_text_has_no_meaning(encoder: SentenceEncoder) -> None:
    silence, word = encoder(["", "word"])
    assert not silence.any()
    assert word.any()


def test_meaning_shows_in_the_cosine(encoder: SentenceEncoder) -> None:
    capital, city, number = encoder(["the capital of France", "Paris", "17 times 4"])
    assert capital @ city > capital @ number


def test_an_embedding_depends_on_its_text_alone() -> None:
    filler = [f"{n} times {n + 1}" for n in range(40)]
    alone = SentenceEncoder(CPU)
    together = SentenceEncoder(CPU)
    one_by_one = torch.cat([alone([text]) for text in TEXTS])
    at_once = together([*filler, *reversed(TEXTS)])[len(filler) :].flip(0)
    assert torch.equal(one_by_one, at_once)


def test_a_text_that_is_asked_for_twice_is_computed_once() -> None:
    encoder = SentenceEncoder(CPU)
    calls: list[int] = []
    encoder._model.register_forward_hook(lambda *_: calls.append(1))
    first = encoder(["a", "b", "a"])
    assert len(calls) == 1  # both of the same length
    again = encoder(["b", "a"])
    assert len(calls) == 1
    assert torch.equal(first[0], first[2])
    assert torch.equal(again, first[[1, 0]])
    encoder(["c"])
    assert len(calls) == 2


def test_the_cache_forgets_the_oldest_and_answers_whole_all_the_same() -> None:
    encoder = SentenceEncoder(CPU, capacity=3)
    texts = [f"word {n}" for n in range(8)]
    found = encoder(texts)
    assert found.shape == (8, EMBEDDING)
    assert list(encoder._cache) == ["", *texts[-2:]]
    assert torch.equal(encoder(texts), found)
    assert len(encoder._cache) == 3


def test_a_device_has_one_encoder() -> None:
    assert sentence_encoder(CPU) is sentence_encoder(torch.device("cpu"))


# The extractor


@pytest.fixture
def env() -> Iterator[Any]:
    with views.make("palaestra/Calculator-v0", "array") as made:
        yield made


def as_tensors(observations: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {
        key: torch.as_tensor(np.stack([o[key] for o in observations])) for key in observations[0]
    }


def test_features_are_task_newest_reply_choices_and_mask(env: Any) -> None:
    _, info = env.reset(seed=3)
    call = info["choices"].index(env.unwrapped.solution())
    first, _ = env.reset(seed=3)
    second, _, _, _, after = env.step(call)
    extractor = MiniLMExtractor(env.observation_space)
    features = extractor(as_tensors([first, second]))
    encoder = sentence_encoder(CPU)
    choices = extractor.choices
    assert features.shape == (2, extractor.features_dim) == (2, (2 + choices) * EMBEDDING + choices)
    told = after["messages"][-1]["content"]
    asked = after["messages"][1]["content"]
    for row, reply, offered in ((0, "", info["choices"]), (1, told, after["choices"])):
        padded = [*offered, *[""] * (choices - len(offered))]
        expected = encoder([asked, reply, *padded]).flatten()
        assert torch.equal(features[row, : len(expected)], expected)
        mask = [1.0] * len(offered) + [0.0] * (choices - len(offered))
        assert features[row, len(expected) :].tolist() == mask


def test_what_the_system_and_the_agent_say_is_not_taken_for_the_world(env: Any) -> None:
    lines = b'{"role": "system", "content": "s"}\n{"role": "assistant", "content": "a"}'
    observation, _ = env.reset(seed=0)
    observation["dialogue"][:] = 0
    observation["dialogue"][: len(lines)] = np.frombuffer(lines, np.uint8)
    features = MiniLMExtractor(env.observation_space)(as_tensors([observation]))
    assert not features[0, : 2 * EMBEDDING].any()


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 1, (4,)),
        spaces.Dict({"dialogue": spaces.Box(0, 255, (8,), np.uint8)}),
        spaces.Dict({"dialogue": spaces.Discrete(2), "mask": spaces.MultiBinary(2)}),
    ],
)
def test_another_observation_space_is_refused(space: spaces.Space[Any]) -> None:
    with pytest.raises(ValueError, match="AsChoices"):
        MiniLMExtractor(space)  # type: ignore[arg-type]


def test_a_saved_policy_holds_no_encoder(env: Any, tmp_path: Path) -> None:
    model = PPO(ChoicePolicy, env, n_steps=8, batch_size=8, device="cpu")
    model.predict(env.reset(seed=0)[0])
    path = tmp_path / "model.zip"
    model.save(path)
    # The encoder has 22.7 million parameters, 90 MB in float32.
    assert path.stat().st_size < 8_000_000
    names = list(model.policy.state_dict())
    assert names
    assert not [name for name in names if "extractor" in name.replace("mlp_extractor", "")]
    assert sum(p.numel() for p in model.policy.parameters()) < 1_000_000

"""The packaged language model as an agent."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from palaestra.agents import resolve
from palaestra.agents.language_model import LanguageModel
from palaestra.errors import UserError
from palaestra.policies import PACKAGED_MODEL
from palaestra.train.evaluation import Evaluation, seat
from palaestra.train.records import Record, read_records

CALCULATOR = "palaestra/Calculator-v0"


@pytest.fixture(scope="module")
def shown() -> Any:
    return seat(CALCULATOR, "test", PACKAGED_MODEL, {"shots": 4, "max_new_tokens": 24}, "cpu")


def outcome(record: Record) -> tuple[Any, ...]:
    return (record.episode_seed, record.episode_return, record.length, record.tokens)


def test_four_examples_are_enough_to_solve_sums(shown: Any, tmp_path: Path) -> None:
    evaluation = Evaluation(shown, CALCULATOR, "test")
    evaluation.run(range(6), tmp_path / "records", batch=6)
    records = sorted(read_records([tmp_path / "records"]), key=lambda r: r.episode_seed)
    assert sum(r.success or False for r in records) >= 3
    assert all(r.tokens > 0 and r.valid for r in records)
    evaluation.run(range(2), tmp_path / "again", batch=2)
    again = sorted(read_records([tmp_path / "again"]), key=lambda r: r.episode_seed)
    assert list(map(outcome, again)) == list(map(outcome, records[:2]))


def test_a_grammar_leaves_calls_and_answers(shown: Any) -> None:
    said = []
    for grammar in ("", "calls"):
        agent = LanguageModel(
            shown.seat, shots=1, temperature=2.0, max_new_tokens=8, grammar=grammar, device="cpu"
        )
        with Evaluation(agent, CALCULATOR, "test").make() as env:
            observation, info = env.reset(seed=0)
        rngs = [np.random.default_rng(seed) for seed in range(8)]
        acted = agent.act([observation] * 8, [info] * 8, rngs)
        said.append([action.startswith(("<calculator>", "<answer>")) for action in acted.actions])
    free, held = said
    assert all(held)
    assert not all(free)
    assert agent.name == f"{PACKAGED_MODEL} (1 shots, T=2, grammar)"
    assert agent.fingerprint() != shown.fingerprint()


def test_another_template_makes_another_agent(shown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before, chat = shown.fingerprint(), shown._lm.chat
    monkeypatch.setattr(chat.tokenizer, "chat_template", chat.tokenizer.chat_template + " ")
    monkeypatch.delitem(vars(chat), "fingerprint")  # which had been computed
    assert shown.fingerprint() != before


def test_its_name_says_who_it_is(shown: Any) -> None:
    assert shown.name == f"{PACKAGED_MODEL} (4 shots)"
    assert shown.view == "text"
    assert shown.training_seed is None


def test_it_is_saved_without_its_weights_and_loaded(shown: Any, tmp_path: Path) -> None:
    shown.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["agent.json"]
    kind, found = resolve(str(tmp_path))
    assert kind is LanguageModel
    loaded = LanguageModel.load(found["folder"], shown.seat, device="cpu")
    assert (loaded.name, loaded.options) == (shown.name, shown.options)
    assert loaded.fingerprint() == shown.fingerprint()
    hot = LanguageModel.load(found["folder"], shown.seat, device="cpu", temperature=0.5)
    assert hot.name == f"{PACKAGED_MODEL} (4 shots, T=0.5)"
    assert hot.fingerprint() != shown.fingerprint()


def test_without_examples_it_writes_all_the_same(shown: Any) -> None:
    agent = LanguageModel(shown.seat, shots=0, max_new_tokens=3, device="cpu")
    evaluation = Evaluation(agent, CALCULATOR, "test")
    with evaluation.make() as env:
        observation, info = env.reset(seed=0)
        acted = agent.act([observation], [info], [])
    assert len(acted.actions) == len(acted.tokens) == 1
    assert 1 <= acted.tokens[0] <= 3
    assert agent.name == f"{PACKAGED_MODEL} (0 shots)"
    assert agent.fingerprint() != shown.fingerprint()


@pytest.mark.parametrize(
    "options",
    [
        {"shots": -1}, {"temperature": -0.1}, {"temperature": float("nan")},
        {"max_new_tokens": 0}, {"dtype": "float7"},
        {"grammar": "start: ("},
    ],
    ids=str,
)  # fmt: skip
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        seat(CALCULATOR, "test", PACKAGED_MODEL, options, "cpu")


def test_either_case_of_the_name_will_do() -> None:
    kind, found = resolve(PACKAGED_MODEL.lower())
    assert kind is LanguageModel
    assert found == {"model": PACKAGED_MODEL.lower()}

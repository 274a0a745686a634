"""Reasoning: every generator plays fair, and no answer talks its scorer round."""

import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator
from decimal import getcontext
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from palaestra.envs.plans import Plan
from palaestra.envs.questions import generators
from palaestra.envs.questions.generators import Generator, split_of
from palaestra.envs.questions.reasoning_names import HARD, NAMES, SLOW
from palaestra.envs.reasoning import Reasoning
from palaestra.envs.speech import CHARSET, MAX_OBSERVATION_LENGTH
from palaestra.errors import UserError

each_name = pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.learning] if n in SLOW else []) for n in NAMES],
)
"""The slow ones are looked at where there is time."""
CASES = [(name, None) for name in NAMES] + [(name, "hard") for name in HARD]
LONGEST = 4096
HOSTILE = (
    "",
    "nan",
    "inf",
    "-inf",
    "1e999999999",
    "1e-999999999",
    "1e999999999/1e999999999",
    "nan+nanj",
    "[NaN, NaN, NaN]",
    '["nan", "nan"]',
    "null",
    '{"a": 1}',
    "9" * LONGEST,
    "0x" + "f" * (LONGEST - 2),
    "[" * LONGEST,
    "(" * LONGEST,
    "{" * LONGEST,
    "'" * LONGEST,
    "-" * LONGEST,
    "1/" * (LONGEST // 2),
    "a," * (LONGEST // 2),
    "1 " * (LONGEST // 2),
    "\n" * LONGEST,
    "UDLR" * (LONGEST // 4),
    "9**9**9**9**9",
    "9* *9",
    "factorial(99999)",
    "[[1]] * 99999999",
    "lambda: 0",
    "\x00\ud800",
    "𝟘𝟙",
    "１２",
    "1:1:1:1",
    "9" * 400 + " days, 1:1",
    "A=1," * (LONGEST // 4),
    "$\\frac{" + " " * (LONGEST - 7),
)


def test_every_name_is_a_generator_of_the_installed_version() -> None:
    known = pytest.importorskip("reasoning_gym.factory").DATASETS
    assert set(NAMES) <= set(known)
    assert len(set(NAMES)) == len(NAMES) > 60


def test_every_hard_level_is_of_a_generator_and_has_an_id() -> None:
    assert set(HARD) < set(NAMES)
    assert len(HARD) > 40
    for name in NAMES:
        ids = {f"palaestra/Reasoning-{name}-hard{suffix}-v0" for suffix in ("", "-python")}
        assert ids & set(gymnasium.registry) == (ids if name in HARD else set())


@pytest.mark.parametrize("name", HARD)
def test_hard_is_harder_in_something_and_easier_in_nothing(name: str) -> None:
    """Which way is harder, the curriculum says: its levels begin with the easiest."""
    factory = pytest.importorskip("reasoning_gym.factory")
    hard, standard = (Generator(name, level).config for level in ("hard", "standard"))
    gains = []
    for attribute in factory.create_curriculum(name).attributes.values():
        first, last = attribute.levels[0], attribute.levels[-1]
        (now, most), (before, most_before) = (span(attribute, of) for of in (hard, standard))
        if isinstance(first, int | float):
            sign = 1 if last > first else -1
            assert sign * most >= sign * most_before, attribute.name
            gains.append(sign * (now - before) / max(abs(before), 1))
            assert gains[-1] >= 0, attribute.name
        elif isinstance(first[0], str):
            assert set(most) >= set(most_before), attribute.name
    assert max(gains) >= 1 / 8


def span(attribute: Any, config: Any) -> tuple[Any, Any]:
    """Return the middle and the end of the range that a configuration has an attribute in."""
    if hasattr(attribute, "field_name"):
        value = getattr(config, attribute.field_name)
        return value, value
    low = getattr(config, attribute.lower_field_name)
    high = getattr(config, attribute.upper_field_name)
    return (low + high) / 2, high


def test_hard_tasks_are_other_tasks_of_the_same_splits() -> None:
    for name in ("chain_sum", "survo"):
        questions = {
            (level, split): {plan.question for seed in range(5) for plan in siblings(env, seed)}
            for level in Reasoning.levels
            for split in Reasoning.splits
            for env in [Reasoning(name, level=level, split=split)]
        }
        assert all(len(asked) >= 8 for asked in questions.values())
        for (level, split), asked in questions.items():
            assert {split_of(question) for question in asked} == {split}
            other = "standard" if level == "hard" else "hard"
            assert not asked & questions[other, split]


def test_hard_sums_have_as_many_and_as_long_numbers_as_there_are_at_that_level() -> None:
    sums = [
        plan.question
        for seed in range(9)
        for plan in siblings(Reasoning("chain_sum", level="hard"), seed)
    ]
    assert {len(re.findall(r"\d{5}", asked)) for asked in sums} == {6}


@pytest.mark.parametrize(("name", "level"), CASES)
def test_one_choice_is_right_and_only_that(name: str, level: str | None) -> None:
    env = Reasoning(name, split="test", level=level)
    for seed in range(1 if level or name in SLOW else 4):
        question, info = env.reset(seed=seed)
        assert question == env.task.question
        assert CHARSET.issuperset(question)
        assert 0 < len(question) <= MAX_OBSERVATION_LENGTH
        choices, start = info["choices"], env.get_state()
        assert len(set(choices)) == env.max_choices
        right = []
        for choice in choices:
            env.set_state(start)
            _, reward, terminated, truncated, info = env.step(choice)
            assert (terminated, truncated) == (True, False)
            assert reward == info["success"]
            right += [choice] if info["success"] else []
        env.set_state(start)
        assert right == [env.solution()]


@each_name
def test_only_the_seed_decides(name: str) -> None:
    """Neither are the global generators read, nor are they or the decimals touched."""
    seen = []
    for other in (1, 2):
        random.seed(other)
        np.random.seed(other)  # noqa: NPY002
        before = global_state()
        env = Reasoning(name)
        env.reset(seed=8)
        seen.append((env.reset(seed=7), env.step(env.solution()), env.reset()))
        assert global_state() == before
    assert seen[0] == seen[1]


def global_state() -> tuple[object, ...]:
    numpy_state = np.random.get_state()  # noqa: NPY002
    return random.getstate(), str(numpy_state), repr(getcontext())


@each_name
def test_the_splits_share_no_question(name: str) -> None:
    questions: dict[str, set[str]] = {}
    for split in Reasoning.splits:
        env = Reasoning(name, split=split)
        env.reset(seed=5)
        plans = [p for _ in range(1 if name in SLOW else 9) for p in env._siblings()]
        questions[split] = {plan.question for plan in plans}
        assert len(questions[split]) >= env.max_choices
    assert not questions["train"] & (questions["validation"] | questions["test"])
    assert not questions["validation"] & questions["test"]


def test_neighbouring_seeds_share_no_items() -> None:
    """The generators' own seeds do: item 1 of seed 0 is item 0 of seed 1."""
    library = pytest.importorskip("reasoning_gym")
    first, second = (library.create_dataset("lcm", seed=seed, size=2) for seed in (0, 1))
    assert first[1]["question"] == second[0]["question"]
    env = Reasoning("number_sorting")
    questions = [plan.question for seed in range(50) for plan in siblings(env, seed)]
    assert len(set(questions)) == len(questions)


def siblings(env: Reasoning, seed: int) -> Iterator[Plan]:
    env.reset(seed=seed)
    yield from env._siblings()


@each_name
def test_no_hostile_answer_is_right_or_slow_or_run(name: str, tmp_path: Path) -> None:
    generator, env = Generator(name), Reasoning(name)
    question, _ = env.reset(seed=1)
    item = generator.item(env.task.facts["item_seed"])
    canary = tmp_path / "canary"
    run = f"__import__('pathlib').Path({str(canary)!r}).touch()"
    for answer in (*HOSTILE, run, f"[{run}]", question, "\n".join([question] * 9)[:LONGEST]):
        start = time.perf_counter()
        assert not generator.solves(answer, item), answer[:40]
        assert time.perf_counter() - start < 0.5, answer[:40]
    assert not canary.exists()


@pytest.mark.parametrize("name", ["complex_arithmetic", "number_sorting", "power_function"])
def test_what_is_no_number_is_no_answer(name: str) -> None:
    env = Reasoning(name)
    for seed in range(20):
        env.reset(seed=seed)
        truth = env.task.plan.answer
        count = truth.count(",") + 1
        assert env._judge(truth)
        assert not any(
            env._judge(answer)
            for answer in (
                "nan",
                "nan + nani",
                "[" + ", ".join(["NaN"] * count) + "]",
                "[" + ", ".join(['"nan"'] * count) + "]",
            )
        )


def test_no_wrong_number_is_right_where_the_truth_is_negative() -> None:
    """The scorer's relative error is then negative, and its mark far above 1."""
    generator = Generator("calendar_arithmetic")
    items = (generator.item(seed) for seed in range(100))
    item = next(i for i in items if i["metadata"]["task"] == "count_days") | {"answer": "-1"}
    assert generator.solves("-1", item)
    assert not any(generator.solves(str(answer), item) for answer in range(100))


def test_a_sign_counts_and_so_does_the_end_of_a_word() -> None:
    env = Reasoning("gsm_symbolic")
    env.reset(seed=0)
    assert env._judge(env.task.plan.answer)
    assert not env._judge(f"-{env.task.plan.answer}")
    env = Reasoning("spell_backward")
    for seed in range(50):
        env.reset(seed=seed)
        assert env._judge(env.task.plan.answer.upper())
        assert not env._judge(env.task.plan.answer * 2)


def test_another_way_to_the_truth_is_right_too() -> None:
    generator = Generator("countdown")
    item = generator.item(0)
    assert not generator.solves(f" ({item['answer']}) * (1)", item)
    assert generator.solves(f"({item['answer']})", item)


def test_the_same_tasks_in_every_process() -> None:
    """Strings hash differently in each, and so sets of them are in another order."""
    program = (
        "import random; random.seed(1); before = random.getstate()\n"
        "from palaestra.envs.reasoning import Reasoning\n"
        "from palaestra.envs.questions.reasoning_names import NAMES\n"
        f"for name in sorted(set(NAMES) - {set(SLOW)!r}):\n"
        "    env = Reasoning(name); print(env.reset(seed=3), env.reset())\n"
        "assert random.getstate() == before\n"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) > 50_000


def test_with_python_the_agent_may_compute() -> None:
    env = Reasoning("count_primes", python="auto")
    _, info = env.reset(seed=0)
    assert info["python"] == "monty"
    assert [tool["function"]["name"] for tool in info["tools"]] == ["python"]
    assert "<python>" in info["messages"][0]["content"]
    said, _, terminated, _, info = env.step("<python>print(6 * 7)</python>")
    assert (said, terminated, info["failure"]) == ("42", False, None)
    assert env.solution() in info["choices"]
    assert env.step(env.solution())[1] == 1


def test_without_python_a_call_is_not_understood() -> None:
    env = Reasoning("count_primes")
    _, info = env.reset(seed=0)
    assert info["tools"] == []
    assert env.step("<python>print(6 * 7)</python>")[4]["failure"] == "format"


def test_a_state_belongs_to_its_generator() -> None:
    env, other = Reasoning("lcm"), Reasoning("gcd")
    env.reset(seed=0)
    with pytest.raises(UserError, match="lcm"):
        other.set_state(env.get_state())
    with pytest.raises(UserError, match="standard"):
        Reasoning("lcm", level="hard").set_state(env.get_state())


@pytest.mark.parametrize(("level", "names"), [("standard", NAMES), ("hard", HARD)])
def test_without_a_name_every_generator_sets_tasks(level: str, names: Collection[str]) -> None:
    env = Reasoning(level=level, split="test")
    assert set(env.names) == set(names)
    env.names = ("lcm", "gcd", "chain_sum", "base_conversion")
    kinds: Counter[str] = Counter()
    for seed in range(100):
        question, info = env.reset(seed=seed)
        item = Generator(env.task.kind, level).item(info["item_seed"])
        assert item["question"].strip() == question
        assert env.step(env.solution())[4]["success"]
        kinds[env.task.kind] += 1
    assert set(kinds) == set(env.names)
    assert min(kinds.values()) > 10


def test_mistakes_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="unknown generator"):
        Reasoning("gdc")
    with pytest.raises(UserError, match="unknown split"):
        Reasoning("gcd", split="dev")
    with pytest.raises(UserError, match="the levels are: standard, hard"):
        Reasoning("gcd", level="harder")
    with pytest.raises(UserError, match="rearc has no hard tasks; these have: ab, "):
        Reasoning("rearc", level="hard")
    with pytest.raises(UserError, match="unknown sandbox"):
        Reasoning("gcd", python="playpen")
    monkeypatch.setattr(generators, "NAMES", ("syllogism",))
    with pytest.raises(UserError, match="fewer than 8 different answers"):
        Reasoning("syllogism").reset(seed=0)


def test_a_missing_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    generators._library.cache_clear()
    generators._dataset.cache_clear()
    with pytest.raises(UserError, match=r"pip install 'palaestra\[reasoning\]'"):
        Reasoning("gcd")

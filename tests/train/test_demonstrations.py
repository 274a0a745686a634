"""Dialogues that show how it is done, or only the form of it."""

import re

import pytest
from palaestra.envs.scoring import is_same
from palaestra.envs.views import make
from palaestra.train.demonstrations import Kind, demonstrations

CALCULATOR = "palaestra/Calculator-v0"


def test_an_oracle_is_always_right() -> None:
    for dialogue in demonstrations(CALCULATOR, "oracle", 50, 0):
        assert [m["role"] for m in dialogue] == ["system", "user", "assistant", "tool", "assistant"]
        assert dialogue[-1]["content"] == f"<answer>{dialogue[-2]['content']}</answer>"


def right(kind: Kind, count: int, mistakes: float = 0.0) -> float:
    """Return in which share of the dialogues the tool was asked what the question means."""
    operations = {"plus": "+", "increased": "+", "minus": "-", "reduced": "-", "times": "*",
                  "multiplied": "*", "divided": "/", "over": "/"}  # fmt: skip
    found = 0
    for dialogue in demonstrations(CALCULATOR, kind, count, 1, mistakes):
        x, word, y = re.findall(r"What is (\d+) (\w+).* (\d+)\?", dialogue[1]["content"])[0]
        called = dialogue[2]["content"].removeprefix("<calculator>").removesuffix("</calculator>")
        a, operation, b = called.split()
        same = (a, b) == (x, y) or (operation in "+*" and (a, b) == (y, x))
        found += same and operation == operations[word]
    return found / count


def test_blind_dialogues_hold_no_answer() -> None:
    assert right("oracle", 200) == 1.0
    assert right("blind", 1_200) == pytest.approx(1 / 6, abs=0.04)


def test_who_errs_says_anything_in_a_share_of_the_messages() -> None:
    # What is drawn by lot is right by chance in one of six.
    assert right("oracle", 1_200, mistakes=0.6) == pytest.approx(1 - 0.6 * 5 / 6, abs=0.05)
    assert right("oracle", 1_200, mistakes=1.0) == pytest.approx(1 / 6, abs=0.04)
    without = list(demonstrations(CALCULATOR, "oracle", 20, 1))
    assert list(demonstrations(CALCULATOR, "oracle", 20, 1, mistakes=0.0)) == without


def test_garbled_dialogues_hold_slips_of_all_kinds() -> None:
    choices = re.compile(r"<(calculator|answer)>[-+*/0-9. ]+</\1>")
    heard = set()
    for dialogue in demonstrations(CALCULATOR, "garbled", 100, 0):
        said = [m["content"] for m in dialogue if m["role"] == "assistant"]
        heard |= {m["content"].split(" ")[0] for m in dialogue[2:] if m["role"] != "assistant"}
        # Slips within a number leave what is well formed.
        assert sum(bool(choices.fullmatch(text)) for text in said) < len(said)
    assert {"Not", "error:"} <= heard


def test_blind_dialogues_report_what_the_tool_said() -> None:
    for dialogue in demonstrations("palaestra/Capitals-v0", "blind", 30, 0):
        *_, result, report = dialogue
        assert result["role"] == "tool"
        told = report["content"].removeprefix("<answer>").removesuffix("</answer>")
        assert is_same(told, result["content"])


def test_the_same_seed_shows_the_same_and_training_tasks_alone() -> None:
    one, other, third = (list(demonstrations(CALCULATOR, "blind", 60, seed)) for seed in (5, 5, 6))
    assert one == other != third
    numbers = {int(n) for d in one for n in re.findall(r"\d+", d[1]["content"])}
    assert not {n for n in numbers if n % 7 in (2, 5)}


@pytest.mark.parametrize("env_id", ["palaestra/GuessNumber-v0", "palaestra/CartPole-v1"])
def test_any_world_can_be_shown(env_id: str) -> None:
    kinds: tuple[Kind, ...] = ("blind",) if env_id.endswith("CartPole-v1") else ("blind", "oracle")
    for kind in kinds:
        [dialogue] = demonstrations(env_id, kind, 1, 0)
        assert dialogue[-1]["role"] == "assistant"
    make(env_id).close()

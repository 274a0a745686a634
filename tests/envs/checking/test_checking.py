"""Each check finds the world that has its fault, and no fault where there is none."""

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import gymnasium
import pytest
from palaestra.envs import checking
from palaestra.envs.checking import CHECKS, Result, check, hostile, run
from palaestra.envs.checking.playing import difference, packed
from palaestra.envs.checking.subject import Subject
from palaestra.errors import UserError
from palaestra.train.cli import main

HERE = Path(__file__).parent
WORLD = "broken_worlds:broken/{}-v0"

FAULTS = [
    ("making", "Unmakeable"),
    ("gymnasium", "OutsideOfItsSpace"),
    ("rendering", "ShowsNothing"),
    ("same seed", "Remembers"),
    ("fresh process", "OrderOfASet"),
    ("interference", "SharedByItsClass"),
    ("global generators", "ReadsRandom"),
    ("global generators", "SeedsNumPy"),
    ("going on", "SeedIgnored"),
    ("going on", "Repeats"),
    ("splits", "SharedTasks"),
    ("splits", "RareSharedTask"),
    ("rewards", "NotANumber"),
    ("rewards", "FiveForSuccess"),
    ("rewards", "RewardsFailure"),
    ("rewards", "PlainInfinity"),
    ("ends", "EndsTwice"),
    ("ends", "EndsByANumber"),
    ("ends", "GoesBeyond"),
    ("info", "WithoutAKey"),
    ("info", "WordForSuccess"),
    ("info", "UnknownFailure"),
    ("info", "InvalidReward"),
    ("info", "StrangeMessages"),
    ("info", "NoJSON"),
    ("info", "SameTwice"),
    ("info", "TooManyChoices"),
    ("info", "NoChoices"),
    ("info", "UnsayableChoice"),
    ("info", "OutsideOfItsSpace"),
    ("snapshots", "ForgetsItsGenerator"),
    ("snapshots", "ForgetsItsTurns"),
    ("snapshots", "LendsItsState"),
    ("snapshots", "KeepsAHandle"),
    ("oracle", "WrongOracle"),
    ("oracle", "SecretOracle"),
    ("random choices", "ThreeChoices"),
    ("random choices", "SenselessChoices"),
    ("choices tell", "SolutionFirst"),
    ("choices tell", "SolutionNeverFirst"),
    ("choices tell", "LongestIsRight"),
    ("choices tell", "DistractorsAreNear"),
    ("hostile messages", "RaisesAtNothing"),
    ("hostile messages", "RaisesAtSurrogates"),
    ("hostile messages", "Sleeps"),
    ("hostile messages", "Computes"),
    ("hostile messages", "Repeating"),
    ("hostile messages", "OutOfOrder"),
]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(HERE)
    yield
    for name in [name for name in gymnasium.registry if name.startswith("broken/")]:
        del gymnasium.registry[name]
    sys.modules.pop("broken_worlds", None)


def subject(name: str, seed: int = 40) -> Subject:
    return Subject(WORLD.format(name), None if name.startswith("Plain") else "train", seed)


@pytest.mark.parametrize(("name", "world"), FAULTS)
def test_a_fault_is_found_with_a_seed_that_shows_it(
    name: str, world: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hostile, "_PATIENCE", 1.0)
    found = run(name, subject(world))
    assert found.finding, found
    assert found.finding.what
    assert found.finding.advice
    if name == "gymnasium":  # whose checker has a seed of its own
        assert found.finding.seed is None
        return
    assert found.finding.seed is not None
    assert found.finding.seed >= 40
    assert run(name, subject(world, found.finding.seed)).finding


def test_what_the_process_remembers_hides_no_slow_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostile, "TIME_LIMIT", 0.5)
    found = run("hostile messages", subject("SlowAtFirst"))
    assert found.finding
    assert "a step took" in found.finding.what


def test_there_is_a_faulty_world_for_every_check() -> None:
    assert {name for name, _ in FAULTS} == set(CHECKS)


def failures(results: list[Result]) -> dict[str, str]:
    return {result.check: result.finding.what for result in results if result.finding}


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    results = list(check(WORLD.format("Mirror"), episodes=200))
    assert failures(results) == {}
    assert [result.check for result in results if result.skipped or result.warnings] == []
    assert {result.check for result in results} == set(CHECKS)
    assert {result.split for result in results} == {"train", "test", None}


def test_a_world_of_arrays_is_checked_as_far_as_it_goes() -> None:
    results = {result.check: result for result in check(WORLD.format("Plain"))}
    assert failures(list(results.values())) == {}
    skipped = {name for name, result in results.items() if result.skipped}
    assert {"info", "splits", "snapshots", "oracle", "choices tell", "hostile messages"} <= skipped
    assert not results["same seed"].skipped


@pytest.mark.parametrize("env_id", ["CartPole-v1", "FrozenLake-v1", "Taxi-v4", "Blackjack-v1"])
def test_nothing_is_found_in_an_environment_of_gymnasium(env_id: str) -> None:
    if env_id not in gymnasium.registry:
        pytest.skip(f"this Gymnasium has no {env_id}")
    results = [
        run(name, Subject(env_id, episodes=5))
        for name in CHECKS
        if name not in ("rendering", "fresh process")
    ]
    assert failures(results) == {}


def test_a_process_that_does_not_know_the_environment_is_no_fault() -> None:
    next(check(WORLD.format("Mirror")))
    result = run("fresh process", Subject("broken/Mirror-v0", "train"))
    assert "module:id" in result.skipped


def test_what_cannot_be_made_is_not_looked_at_further() -> None:
    (result,) = check(WORLD.format("Unmakeable"))
    assert result.check == "making"


def test_a_module_that_cannot_be_imported_is_a_finding() -> None:
    gymnasium.register("broken/Nowhere-v0", entry_point="nowhere:Nowhere")
    (result,) = check("broken/Nowhere-v0")
    assert result.finding
    assert "No module named 'nowhere'" in result.finding.what


def test_splits_can_be_picked() -> None:
    results = check(WORLD.format("Mirror"), splits=["test"])
    assert next(results).split == "test"
    with pytest.raises(UserError, match="has no split 'tomorrow'"):
        next(check(WORLD.format("Mirror"), splits=["tomorrow"]))
    with pytest.raises(UserError, match="cannot import nonsense"):
        next(check("nonsense:nonsense"))


def test_a_world_without_an_oracle_has_its_splits_compared_by_what_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    env_id = WORLD.format("SharedTasks")
    next(check(env_id))
    monkeypatch.delattr(gymnasium.spec("broken/Mirror-v0").entry_point, "solution")
    assert run("splits", Subject(env_id, seed=500)).finding
    assert not run("splits", Subject(WORLD.format("Mirror"), seed=500)).finding
    assert "solution()" in run("oracle", Subject(env_id, "train", seed=500)).skipped


@pytest.mark.parametrize("world", ["DrawsTheSolutionFirst", "PlainDraws"])
def test_random_moves_know_nothing_of_what_the_world_draws(world: str) -> None:
    """A stream of the seed itself is the one that the world has."""
    steps = [step for step in subject(world).steps("native") if step.over]
    assert len(steps) == 200
    assert 10 < sum(step.info["success"] for step in steps) < 45


# The corpus


def test_the_corpus_is_the_same_for_a_seed_and_calls_the_tools() -> None:
    schema = {"function": {"name": "weigh", "parameters": {"properties": {"what": {}}}}}
    one, other = (list(islice(hostile.messages([schema], seed), 2000)) for seed in (0, 1))
    assert one == list(islice(hostile.messages([schema]), 2000))
    assert one != other
    assert sum("<weigh>" in message for message in one) > 100
    assert sum('"what"' in message for message in one) > 100
    assert len(one[0]) > 4096
    assert {"", "\0", "\ud800", "<|im_end|>"} <= set(one[:300])
    assert len(set(one[:300])) > 250


def test_an_alarm_of_somebody_else_still_rings() -> None:
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    left = signal.setitimer(signal.ITIMER_REAL, 100)
    try:
        assert not run("hostile messages", subject("Mirror")).finding
        assert 90 < signal.getitimer(signal.ITIMER_REAL)[0] <= 100
        assert not rung
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *left)


def test_checks_run_in_any_thread() -> None:
    results: list[Result] = []
    thread = threading.Thread(
        target=lambda: results.append(run("hostile messages", subject("Mirror")))
    )
    thread.start()
    thread.join()
    assert not results[0].finding


# What is compared


def test_values_are_compared_whatever_their_order() -> None:
    assert packed({"a": 1, "b": {1, 2}}) == packed({"b": {2, 1}, "a": 1})
    assert packed(1.0) != packed(1.5)
    assert packed("1") != packed(b"1")
    assert packed(["ab"]) != packed(["a", "b"])
    assert packed(object()) == packed(object())


def test_a_difference_is_shown() -> None:
    assert difference([b"a", b"b"], [b"a", b"b"]) is None
    assert difference([b"a", b"b"], [b"a", b"c"]) == "'b' and then 'c' at message 1"
    assert difference([b"a"], [b"a", b"c"]) == "one play is longer than the other"


# The command


def test_the_command_says_what_failed_and_how_to_see_it_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    env_id = WORLD.format("FiveForSuccess")
    assert main(["check", env_id, "--episodes", "30", "--hostile", "10", "--seed", "7"]) == 1
    shown = capsys.readouterr().out
    assert "FAIL  rewards" in shown
    assert re.search(r"the reward is (5\.0|-0\.5), outside of \[-0\.1, 1\]", shown)
    assert f"again: palaestra check {env_id} --episodes 30 --hostile 10 --seed " in shown
    assert "ok    oracle" in shown
    assert shown.splitlines()[-1].startswith(f"{env_id}: ")


def test_the_command_is_content_with_a_good_world(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", WORLD.format("Plain"), "--episodes", "5", "--hostile", "0"]) == 0
    shown = capsys.readouterr().out
    assert "not applicable: it has no splits" in shown
    assert "FAIL" not in shown
    assert shown.splitlines()[-1].endswith("0 failed, 8 not applicable")


def test_the_command_finds_a_module_where_somebody_stands() -> None:
    answer = subprocess.run(
        [sys.executable, "-I", "-c", "from palaestra.train.cli import main; "
         f"raise SystemExit(main(['check', '{WORLD.format('Plain')}', '--episodes', '2']))"],
        cwd=HERE, capture_output=True, text=True,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert "9 checks passed, 0 failed, 8 not applicable" in answer.stdout


def test_the_command_knows_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "palaestra/CartPol-v1"]) == 2
    assert "did you mean 'palaestra/CartPole-v1'" in capsys.readouterr().err


def test_every_check_says_what_holds() -> None:
    assert all((function.__doc__ or "").strip() for function in CHECKS.values())
    assert set(CHECKS) > checking.ONCE

"""Evaluation: an episode is its seed, and a failure of the machinery is nobody's score."""

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from palaestra.agents import Actions, Agent
from palaestra.envs import views
from palaestra.envs.text import Task, TextEnv
from palaestra.envs.tools import Tool, ToolError
from palaestra.errors import UserError
from palaestra.train.board import standings
from palaestra.train.evaluation import INFRA_ATTEMPTS, Evaluation, examples, play, seat
from palaestra.train.records import Record, read_records

CARTPOLE, CALCULATOR = "palaestra/CartPole-v1", "palaestra/Calculator-v0"
SHAKY = "palaestra-tests/Shaky-v0"


class Shaky(TextEnv):
    """Its tool is out of order as often as `broken` says, task by task."""

    instructions = "Call <probe>text</probe>."
    splits: ClassVar[tuple[str, ...]] = ("train", "test")
    max_turns = 2
    max_choices = 1
    broken: ClassVar[Counter[int]] = Counter()
    opened: ClassVar[list["Shaky"]] = []
    closed: ClassVar[list["Shaky"]] = []

    def __init__(self, split: str = "train", render_mode: str | None = None) -> None:
        super().__init__(split, render_mode=render_mode)
        self.opened.append(self)

    @property
    def tools(self) -> dict[str, Tool]:
        def probe(text: str) -> str:
            """Probe.

            Args:
                text: Anything.
            """
            if text == "refuse":
                raise ToolError("no")
            if self.broken[self._seed] > 0:
                self.broken[self._seed] -= 1
                raise ConnectionError("the machine is on fire")
            return "fine"

        return {"probe": Tool(probe)}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        assert seed is not None
        self._seed = seed
        return super().reset(seed=seed, options=options)

    def close(self) -> None:
        self.closed.append(self)

    def _new_task(self) -> Task:
        return Task(f"Probe number {self.np_random.integers(1000)}.", "probing")

    def _choices(self) -> tuple[str, ...]:
        return ("<probe>x</probe>",)

    def _judge(self, answer: str) -> bool | str:
        return True

    def solution(self) -> str:
        return "<answer>x</answer>"


@pytest.fixture
def shaky() -> Iterator[type[Shaky]]:
    gymnasium.register(id=SHAKY, entry_point=Shaky, disable_env_checker=True)
    for kept in (Shaky.broken, Shaky.opened, Shaky.closed):
        kept.clear()
    yield Shaky
    del gymnasium.registry[SHAKY]


def evaluation(env_id: str, who: str, split: str | None = None, **options: Any) -> Evaluation:
    return Evaluation(seat(env_id, split, who, options, "cpu"), env_id, split, command="again")


def outcomes(path: Path) -> list[Record]:
    """Return the records by seed, without what the clock says."""
    records = sorted(read_records([path]), key=lambda record: record.episode_seed)
    return [replace(record, seconds=0.0) for record in records]


# Episodes


@pytest.mark.parametrize(
    ("env_id", "split"), [(CARTPOLE, None), (CALCULATOR, "test"), ("palaestra/Capitals-v0", "test")]
)
@pytest.mark.parametrize("who", ["random", "oracle"])
def test_the_batch_decides_nothing(
    tmp_path: Path, env_id: str, split: str | None, who: str
) -> None:
    measured = evaluation(env_id, who, split)
    episodes = 6 if who == "random" else 3
    for batch in (1, 4, 50):
        assert measured.run(range(episodes), tmp_path / f"{batch}", batch) == episodes
    assert outcomes(tmp_path / "1") == outcomes(tmp_path / "4") == outcomes(tmp_path / "50")


def test_an_episode_is_what_its_seed_says(tmp_path: Path) -> None:
    measured = evaluation(CALCULATOR, "random", "test")
    measured.run([5, 9, 7], tmp_path / "few")
    measured.run(range(12), tmp_path / "many")
    few, many = outcomes(tmp_path / "few"), outcomes(tmp_path / "many")
    assert few == [many[5], many[7], many[9]]
    with views.make(CALCULATOR, "text", split="test") as env:
        asked = [env.reset(seed=seed)[0] for seed in (5, 7, 9)]
    episodes = play(measured.agent, measured.make, [5, 7, 9])
    heard = {e.seed: e.info["messages"][1]["content"] for e in episodes}
    assert [heard[seed] for seed in (5, 7, 9)] == asked


def test_only_what_is_missing_is_played(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    measured = evaluation(CALCULATOR, "random", "test")
    told: list[int] = []
    assert measured.run([0, 2], path) == 2
    assert measured.run(range(4), path, tell=lambda e: told.append(e.seed)) == 2
    assert sorted(told) == [1, 3]
    content = path.read_bytes()
    assert measured.run(range(4), path) == 0
    assert path.read_bytes() == content
    # Somebody else's records are not this agent's.
    assert evaluation(CALCULATOR, "constant", "test").run(range(4), path) == 4
    assert evaluation(CALCULATOR, "constant", "test", message="x").run(range(4), path) == 4


def test_a_record_says_everything(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    evaluation(CALCULATOR, "oracle", "test").run([3], path)
    [line] = path.read_text().splitlines()
    raw = json.loads(line)
    assert list(raw) == [field.name for field in fields(Record)]
    expected = {
        "env": CALCULATOR, "split": "test", "purpose": "evaluation", "agent": "oracle",
        "training_seed": None, "training_steps": None, "episode_seed": 3, "episode_return": 1.0,
        "success": True, "length": 2, "tokens": 0, "valid": True, "failures": {},
        "command": "again",
    }  # fmt: skip
    assert {key: raw[key] for key in expected} == expected
    with views.make(CALCULATOR, "text", split="test") as env:
        assert raw["kind"] == env.reset(seed=3)[1]["kind"]
    assert raw["seconds"] > 0
    assert len(raw["agent_hash"]) == 64
    assert {"python", "palaestra", "torch"} <= raw["versions"].keys()


def test_success_without_a_word_for_it_is_the_threshold_of_the_return(tmp_path: Path) -> None:
    for who in ("random", "oracle"):
        evaluation(CARTPOLE, who).run(range(3), tmp_path / who)
    assert [r.success for r in outcomes(tmp_path / "oracle")] == [True] * 3
    assert all(r.episode_return >= 475 for r in outcomes(tmp_path / "oracle"))
    assert [r.success for r in outcomes(tmp_path / "random")] == [False] * 3
    assert [r.length for r in outcomes(tmp_path / "oracle")] == [500] * 3


def test_without_a_threshold_success_means_nothing(tmp_path: Path) -> None:
    env_id = "FrozenLake-v1"
    gymnasium.register(
        id="palaestra-tests/Lake-v0",
        entry_point=gymnasium.spec(env_id).entry_point,
        max_episode_steps=20,
    )
    try:
        evaluation("palaestra-tests/Lake-v0", "random").run([0], tmp_path / "records")
    finally:
        del gymnasium.registry["palaestra-tests/Lake-v0"]
    assert [r.success for r in outcomes(tmp_path / "records")] == [None]


# The machinery


def test_an_episode_in_which_the_machinery_fails_is_played_again(
    shaky: type[Shaky], tmp_path: Path
) -> None:
    path = tmp_path / "records.jsonl"
    shaky.broken.update({1: INFRA_ATTEMPTS - 1, 2: INFRA_ATTEMPTS, 3: 1})
    evaluation(SHAKY, "constant", "test", message="<probe>x</probe>").run(range(5), path, batch=2)
    records = outcomes(path)
    assert [r.episode_seed for r in records] == [0, 1, 2, 3, 4]
    assert [r.valid for r in records] == [True, True, False, True, True]
    infra = [r.failures.get("infra", 0) for r in records]
    assert infra == [0, INFRA_ATTEMPTS - 1, INFRA_ATTEMPTS, 1, 0]
    assert [r.length for r in records] == [2, 2, 1, 2, 2]
    assert shaky.broken.total() == 0  # not once more than that
    assert path.read_text().count("\n") == 5
    # The outage is over: whoever asks again gets what is missing, and no more.
    again = evaluation(SHAKY, "constant", "test", message="<probe>x</probe>")
    assert again.run(range(5), path, batch=2) == 1
    assert sorted((r.episode_seed, r.valid, r.length) for r in read_records([path])) == [
        (seed, True, 2) for seed in range(5)
    ]


def test_a_repeated_episode_ends_as_if_nothing_had_happened(
    shaky: type[Shaky], tmp_path: Path
) -> None:
    agent = evaluation(SHAKY, "random", "test")
    agent.run(range(3), tmp_path / "calm")
    shaky.broken.update({0: 2, 2: 1})
    agent.run(range(3), tmp_path / "stormy")
    forgotten = [replace(r, failures={}) for r in outcomes(tmp_path / "stormy")]
    assert forgotten == outcomes(tmp_path / "calm")


def test_boards_leave_out_what_the_machinery_spoilt(shaky: type[Shaky], tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    shaky.broken.update({1: INFRA_ATTEMPTS})
    evaluation(SHAKY, "constant", "test", message="<probe>x</probe>").run(range(3), path)
    [standing] = standings(read_records([path]))
    assert standing.rows[0].episodes == 2
    assert standing.rows[0].failures == {"infra": INFRA_ATTEMPTS}


def test_what_the_agent_got_wrong_is_counted_by_kind(shaky: type[Shaky], tmp_path: Path) -> None:
    for message, failure in (("<probe>refuse</probe>", "tool"), ("hm", "format")):
        path = tmp_path / failure
        evaluation(SHAKY, "constant", "test", message=message).run([0], path)
        [record] = outcomes(path)
        assert (record.failures, record.valid) == ({failure: 2}, True)


class Disconnected(Agent):
    """Reaches its model as often as `broken` says not, task by task; each word costs a dollar."""

    view = "native"
    name = "disconnected"

    def __init__(self, place: Any, broken: Counter[str]) -> None:
        super().__init__(place)
        self.broken = broken

    def act(self, observations: Any, infos: Any, rngs: Any) -> Actions:
        questions = [info["messages"][1]["content"] for info in infos]
        failed = ["no connection" if self.broken[q] > 0 else None for q in questions]
        self.broken.subtract(set(questions))
        actions = [None if reason else "<probe>x</probe>" for reason in failed]
        return Actions(actions, [1] * len(actions), [None if f else 1.0 for f in failed], failed)


def test_a_failure_of_the_agent_s_machinery_is_nobody_s_move(
    shaky: type[Shaky], tmp_path: Path
) -> None:
    measured = evaluation(SHAKY, "random", "test")
    with measured.make() as env:
        asked = [env.reset(seed=seed)[0] for seed in range(4)]
    broken = Counter({asked[1]: INFRA_ATTEMPTS - 1, asked[2]: INFRA_ATTEMPTS})
    agent = Disconnected(measured.agent.seat, broken)
    shaky.broken.update({3: 1})
    told: list[Any] = []
    Evaluation(agent, SHAKY, "test").run(range(4), tmp_path / "records", 2, told.append)
    records = outcomes(tmp_path / "records")
    infra = [{}, {"infra": INFRA_ATTEMPTS - 1}, {"infra": INFRA_ATTEMPTS}, {"infra": 1}]
    assert [r.failures for r in records] == infra
    assert [r.valid for r in records] == [True, True, False, True]
    assert [r.length for r in records] == [2, 2, 0, 2]
    assert [r.cost for r in records] == [2.0, 2.0, None, 2.0]
    assert [e.observation for e in told if e.broken] == ["no connection"]


@pytest.mark.parametrize("stop", [None, 1], ids=["played to the end", "given up"])
def test_every_environment_is_closed(shaky: type[Shaky], stop: int | None) -> None:
    measured = evaluation(SHAKY, "random", "test")
    episodes = play(measured.agent, measured.make, range(5), batch=3)
    for _ in itertools.islice(episodes, stop):
        pass
    episodes.close()  # type: ignore[attr-defined]
    assert len(shaky.opened) == 1 + 3  # one to look at its spaces
    assert sorted(map(id, shaky.closed)) == sorted(map(id, shaky.opened))


class Fainting(Agent):
    view = "native"
    name = "fainting"

    def act(self, observations: Any, infos: Any, rngs: Any) -> Any:
        raise RuntimeError("fainted")


def test_environments_are_closed_when_the_agent_faints(shaky: type[Shaky]) -> None:
    place = evaluation(SHAKY, "random", "test").agent.seat
    with pytest.raises(RuntimeError, match="fainted"):
        list(play(Fainting(place), lambda: views.make(SHAKY, split="test"), range(2)))
    assert len(shaky.closed) == len(shaky.opened) == 3


# Seats


@pytest.mark.parametrize(
    ("who", "options", "said"),
    [
        ("random", {"speed": 1}, "random has no option 'speed'; its options are: none"),
        ("constant", {"action": "left"}, "option action='left' of constant must be of type int"),
        ("constant", {"action": True}, "must be of type int"),
        ("constant", {"acton": 1}, "its options are: action, message"),
        ("SmolLM2-135M-Instruct", {"shots": 1.5}, "must be of type int"),
        ("SmolLM2-135M-Instruct", {"device": "cpu"}, "no option 'device'"),
    ],
)
def test_options_that_an_agent_does_not_take(who: str, options: Any, said: str) -> None:
    with pytest.raises(UserError) as error:
        seat(CALCULATOR, "test", who, options)
    assert said in str(error.value)


def test_a_whole_number_is_taken_for_a_float_and_a_seat_knows_its_environment() -> None:
    agent = seat(CALCULATOR, "test", "constant", {"action": 2})
    assert agent.options["action"] == 2
    assert agent.seat.env_id == CALCULATOR
    assert agent.seat.observation_space == views.make(CALCULATOR).observation_space


# Examples


@pytest.mark.parametrize("env_id", [CALCULATOR, "palaestra/Capitals-v0"])
def test_examples_show_one_of_each_kind_before_a_second_of_any(env_id: str) -> None:
    from palaestra.train.evaluation import _EXAMPLE_SEED

    kinds = {}
    with views.make(env_id, "text", split="train") as env:
        for seed in range(_EXAMPLE_SEED, _EXAMPLE_SEED + 100):
            _, info = env.reset(seed=seed)
            kinds[info["messages"][1]["content"]] = info["kind"]
    found = examples(env_id, 9)
    assert len(found) == 9
    asked = [dialogue[1]["content"] for dialogue in found]
    assert len(set(asked)) == 9
    shown = [kinds[question] for question in asked]
    count = len(set(kinds.values()))
    for start in range(0, 9, count):
        lot = shown[start : start + count]
        assert len(set(lot)) == len(lot)


@pytest.mark.parametrize("env_id", [CALCULATOR, "palaestra/Capitals-v0"])
def test_examples_are_no_tasks_that_anybody_is_tested_on(env_id: str) -> None:
    tested = set()
    for split in ("test", "validation"):
        with views.make(env_id, "text", split=split) as env:
            tested |= {env.reset(seed=seed)[0] for seed in range(300)}
    shown = {dialogue[1]["content"] for dialogue in examples(env_id, 20)}
    assert len(shown) > 10
    assert not shown & tested


def test_examples_are_solved_and_end_with_the_assistant() -> None:
    for dialogue in examples(CALCULATOR, 4):
        assert [m["role"] for m in dialogue] == [
            "system", "user", "assistant", "tool", "assistant"
        ]  # fmt: skip
        assert dialogue[-1]["content"] == f"<answer>{dialogue[-2]['content']}</answer>"


def test_an_array_environment_has_examples_in_words() -> None:
    found = examples(CARTPOLE, 3)
    assert len(found) == 3
    assert {d[0]["role"] for d in found} == {"system"}
    assert all(d[-1]["content"] in ("left", "right") for d in found)
    assert examples(CARTPOLE, 0) == []


def test_agents_draw_from_the_generator_of_the_episode(tmp_path: Path) -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    evaluation(CARTPOLE, "random").run(range(2), tmp_path / "records")
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002

"""Boards: intervals that mean what they say, and no ranking inside the noise."""

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from palaestra.errors import UserError
from palaestra.train.board import (
    Estimate,
    as_table,
    estimate,
    is_better,
    standings,
    write_page,
    written_interval,
)
from palaestra.train.records import Record
from rich.console import Console

ENV = "palaestra/Calculator-v0"
BASE = Record(
    env=ENV, split="test", purpose="evaluation", agent="random", agent_hash="0", training_seed=None,
    training_steps=None, episode_seed=0, episode_return=0.0, success=None, length=2, tokens=0,
    seconds=0.5, command="palaestra evaluate", versions={"numpy": "2"},
)  # fmt: skip


def played(agent: str, returns: Any, **changes: Any) -> list[Record]:
    return [
        replace(BASE, agent=agent, episode_seed=i, episode_return=float(value), **changes)
        for i, value in enumerate(returns)
    ]


def anchors(count: int = 20) -> list[Record]:
    return played("random", [0.0, 0.4] * (count // 2)) + played("oracle", [1.0] * count)


def row(records: list[Record], agent: str) -> Any:
    [standing] = standings(records)
    [found] = [r for r in standing.rows if r.agent == agent]
    return found


# Estimates


def test_a_large_sample_has_the_interval_of_the_normal_distribution() -> None:
    sample = np.random.default_rng(1).exponential(2.0, 2000)
    found = estimate(sample)
    half = 1.96 * sample.std(ddof=1) / np.sqrt(len(sample))
    assert found.mean == pytest.approx(sample.mean())
    assert found.low == pytest.approx(found.mean - half, abs=0.1 * half)
    assert found.high == pytest.approx(found.mean + half, abs=0.1 * half)


def test_the_interval_holds_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(2)
    samples = rng.binomial(1, 0.3, (200, 60)).astype(float)
    found = [estimate(sample) for sample in samples]
    holds = np.mean([e.low <= 0.3 <= e.high for e in found if e.low is not None and e.high])
    assert 0.89 <= holds <= 0.985


def test_agents_that_are_alike_are_seldom_called_different() -> None:
    rng = np.random.default_rng(3)
    pairs = rng.normal(size=(100, 2, 40))
    wrong = np.mean([is_better(a, b) or is_better(b, a) for a, b in pairs])
    assert wrong <= 0.12


def test_the_same_sample_has_the_same_interval() -> None:
    sample = np.random.default_rng(4).normal(size=30)
    assert estimate(sample) == estimate(sample)


def test_one_value_has_no_interval_and_is_never_better() -> None:
    one = np.array([5.0])
    assert estimate(one) == Estimate(5.0, None, None)
    assert written_interval(estimate(one)) == "–"
    assert not is_better(one, np.zeros(50))
    assert not is_better(np.ones(50) * 9, one)


def test_values_that_are_all_the_same_have_an_interval_of_no_width() -> None:
    assert estimate(np.ones(10)) == Estimate(1.0, 1.0, 1.0)
    assert is_better(np.ones(10), np.zeros(10))
    assert not is_better(np.ones(10), np.ones(10))


def test_scaling() -> None:
    assert Estimate(3.0, 2.0, 4.0).scaled(1.0, 5.0) == Estimate(0.5, 0.25, 0.75)
    assert Estimate(3.0, None, None).scaled(1.0, 5.0) == Estimate(0.5, None, None)
    assert Estimate(3.0, 2.0, 4.0).scaled(2.0, 2.0) is None


# Ranks


def test_the_anchors_score_0_and_1() -> None:
    records = anchors() + played("x", [0.6] * 20)
    assert row(records, "random").score.mean == pytest.approx(0)
    assert row(records, "oracle").score.mean == pytest.approx(1)
    assert row(records, "x").score.mean == pytest.approx(0.5)


def test_the_clearly_better_go_first_and_the_rest_share_a_rank() -> None:
    rng = np.random.default_rng(5)
    close = {name: rng.normal(0.5, 0.2, 40) for name in ("a", "b")}
    records = anchors(40) + [r for name, values in close.items() for r in played(name, values)]
    assert not is_better(close["a"], close["b"])
    assert not is_better(close["b"], close["a"])
    [standing] = standings(records)
    assert [(r.rank, r.agent) for r in standing.rows if r.agent in ("oracle", "random")] == [
        (1, "oracle"),
        (4, "random"),
    ]
    assert [r.rank for r in standing.rows if r.agent in close] == [2, 2]
    assert standing.missing == []


def test_of_those_that_share_a_rank_the_higher_mean_is_written_first() -> None:
    records = anchors(4) + played("low", [0.4, 0.6]) + played("high", [0.5, 0.7])
    [standing] = standings(records)
    agents = [r.agent for r in standing.rows]
    assert agents.index("high") < agents.index("low")


def test_with_several_training_seeds_the_seeds_are_what_varies() -> None:
    means = [0.2, 0.5, 0.8]
    records = anchors() + [
        r
        for seed, mean in enumerate(means)
        for r in played("ppo", [mean] * 50, training_seed=seed, agent_hash=str(seed))
    ]
    found = row(records, "ppo")
    assert (found.seeds, found.episodes) == (3, 150)
    # Of three values; of 150 episodes it would be a tenth as wide.
    assert (found.returns.low, found.returns.high) == pytest.approx((0.2, 0.8))
    assert found.returns.mean == pytest.approx(0.5)


def test_seeds_count_alike_however_often_each_has_played() -> None:
    records = played("ppo", [0.0] * 90, training_seed=0) + played(
        "ppo", [1.0] * 10, training_seed=1
    )
    assert row(records, "ppo").returns.mean == pytest.approx(0.5)


def test_stages_of_a_training_are_rows_of_their_own() -> None:
    records = played("ppo", [0.0] * 5, training_steps=100, training_seed=0) + played(
        "ppo", [1.0] * 5, training_steps=200, training_seed=0
    )
    [standing] = standings(records)
    assert [(r.training_steps, r.rank) for r in standing.rows] == [(200, 1), (100, 2)]


def test_two_agents_of_one_name_are_not_averaged() -> None:
    """`constant` with another message, or a model with other options, is another agent."""
    records = played("constant", [0.0] * 9, agent_hash="a") + played(
        "constant", [1.0] * 9, agent_hash="b"
    )
    [standing] = standings(records)
    assert [r.returns.mean for r in standing.rows] == [1.0, 0.0]


@pytest.mark.parametrize("absent", ["random", "oracle"])
def test_without_an_anchor_there_are_no_scores(absent: str, tmp_path: Path) -> None:
    records = [r for r in anchors() + played("x", [0.5] * 4) if r.agent != absent]
    [standing] = standings(records)
    assert standing.missing == [absent]
    assert all(r.score is None for r in standing.rows)
    write_page([standing], tmp_path / "page.html", records)
    assert f"evaluate {absent}" in (tmp_path / "page.html").read_text("utf-8")


def test_anchors_that_score_the_same_give_no_scores() -> None:
    records = played("random", [1.0] * 3) + played("oracle", [1.0] * 3)
    assert all(r.score is None for r in standings(records)[0].rows)


def test_environments_and_splits_are_apart() -> None:
    records = anchors() + [replace(r, split="paraphrase") for r in anchors()]
    records += [replace(r, env="palaestra/CartPole-v1", split=None) for r in anchors()]
    places = [(s.env, s.split) for s in standings(records)]
    assert places == [
        (ENV, "paraphrase"), (ENV, "test"), ("palaestra/CartPole-v1", None)
    ]  # fmt: skip


def test_what_the_machinery_spoilt_is_counted_and_left_out() -> None:
    spoilt = played("x", [0.0] * 5, valid=False, failures={"infra": 3})
    spoilt = [replace(r, episode_seed=100 + r.episode_seed) for r in spoilt]
    records = anchors() + played("x", [1.0] * 5, failures={"format": 1}) + spoilt
    found = row(records, "x")
    assert (found.episodes, found.returns.mean) == (5, 1.0)
    assert found.failures == {"format": 5, "infra": 15}


def test_who_has_nothing_but_what_was_spoilt_is_there_without_a_score(tmp_path: Path) -> None:
    spoilt = played("x", [0.0] * 2, valid=False, failures={"infra": 3}, cost=0.5)
    records = anchors() + spoilt
    found = row(records, "x")
    assert (found.rank, found.score, found.returns, found.success) == (None, None, None, None)
    assert (found.episodes, found.failures) == (0, {"infra": 6})
    [standing] = standings(records)
    assert [r.agent for r in standing.rows] == ["oracle", "random", "x"]
    assert [r.rank for r in standing.rows] == [1, 2, None]
    text, page = page_of(records, tmp_path / "page.html")
    assert "nan" not in text
    assert "x: 6 infra" in " ".join(page.text.split())
    for records in (anchors() + spoilt, spoilt):
        [line] = [line for line in shown(records).splitlines() if " x " in line]
        assert [cell.strip() for cell in line.split("│")[1:-1]] == [
            "–", "x", "–", "–", "–", "–", "0", "0", "–", "–", "6"
        ]  # fmt: skip


def test_what_the_machinery_spoilt_has_a_column_where_there_is_some() -> None:
    assert "Infra" not in shown(anchors())
    table = shown(anchors() + played("x" * 50, [0.5] * 4, cost=0.5, failures={"infra": 17}))
    assert "Infra" in table
    assert " 68 " in table
    assert "…" not in table


def test_an_anchor_that_was_spoilt_is_missing() -> None:
    records = [replace(r, valid=r.agent != "random") for r in anchors()]
    [standing] = standings(records)
    assert standing.missing == ["random"]
    assert all(r.score is None for r in standing.rows)


def test_a_row_of_one_episode_has_no_interval() -> None:
    found = row(anchors() + played("x", [0.7]), "x")
    assert (found.returns.low, found.score.low, found.score.high) == (None, None, None)
    assert found.score.mean == pytest.approx((0.7 - 0.2) / 0.8)


def test_validation_records_are_no_evaluation() -> None:
    records = played("ppo", [1.0] * 3, purpose="validation")
    with pytest.raises(UserError, match="no records of evaluations"):
        standings(records)


def test_means_of_tokens_seconds_and_success() -> None:
    records = played("x", [1.0, 0.0], tokens=10, seconds=2.0)
    records = [replace(r, success=r.episode_return > 0) for r in records]
    found = row(records, "x")
    assert (found.tokens, found.seconds, found.success) == (10.0, 2.0, 0.5)


def shown(records: list[Record]) -> str:
    [standing] = standings(records)
    console = Console(width=140)
    with console.capture() as captured:
        console.print(as_table(standing))
    return captured.get()


def test_costs_have_a_column_where_somebody_has_some(tmp_path: Path) -> None:
    records = anchors()
    assert "Dollars" not in shown(records)
    records += played("x", [0.5, 0.5, 0.5])
    records[-2:] = [replace(records[-1], cost=cost) for cost in (0.00012, 0.0002)]
    assert row(records, "x").cost == pytest.approx(0.00016)
    assert row(records, "random").cost is None
    text, page = page_of(records, tmp_path / "page.html")
    for place in (shown(records), text):
        assert "Dollars/ep." in place
        assert "0.00016" in place
    cells = sum(tag == "td" for tag, _ in page.tags)
    assert cells == 3 * sum(tag == "th" for tag, _ in page.tags)


@pytest.mark.parametrize(
    ("cost", "written"), [(0.0, "0"), (1.2345, "1.2"), (123.0, "120"), (2e-7, "0.0000002")]
)
def test_costs_are_written_with_two_digits_that_count(cost: float, written: str) -> None:
    assert f" {written} │" in shown(played("x", [0.5, 0.5], cost=cost))


def test_a_long_name_leaves_the_numbers_whole() -> None:
    name = "A-model-with-a-long-name-Instruct@some-host.example:8000 (9 shots)"
    table = shown(anchors() + played(name, [0.5] * 4, cost=0.5))
    assert "…" not in table
    assert "shots)" in table


def test_the_table_shows_every_row() -> None:
    [standing] = standings(anchors() + played("x", [0.5] * 4))
    console = Console(width=160, record=True)
    with console.capture() as shown:
        console.print(as_table(standing))
    for word in (ENV, "random", "oracle", "x", "95 % interval", "0.00", "1.00"):
        assert word in shown.get()


# The page


class Page(HTMLParser):
    """Collect tags, attributes and text, and check that tags are closed in order."""

    VOID = ("meta", "br", "link", "img", "input", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(records: list[Record], path: Path) -> tuple[str, Page]:
    write_page(standings(records), path, records)
    text = path.read_text("utf-8")
    return text, Page(text)


def curve(seed: int = 0) -> list[Record]:
    return [
        r
        for steps in (0, 100, 200)
        for r in played(
            "ppo", [steps / 200, 0.5], purpose="validation", training_seed=seed,
            training_steps=steps, split="validation",
        )
    ]  # fmt: skip


def test_the_page_is_whole_and_needs_nothing_else(tmp_path: Path) -> None:
    text, page = page_of(anchors() + curve(), tmp_path / "deep" / "page.html")
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text
    assert "@import" not in text
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "img", "iframe")
        assert not {"src", "href"} & attributes.keys()
    assert [path.name for path in tmp_path.rglob("*")] == ["deep", "page.html"]
    for word in (ENV, "oracle", "numpy 2", "palaestra evaluate"):
        assert word in page.text


def test_a_training_has_a_curve(tmp_path: Path) -> None:
    _, page = page_of(anchors() + curve() + curve(seed=1), tmp_path / "page.html")
    lines = [attributes for tag, attributes in page.tags if tag == "polyline"]
    assert len(lines) == 2
    assert all(len((line["points"] or "").split()) == 3 for line in lines)
    assert "ppo, seed 1" in page.text
    _, plain = page_of(anchors(), tmp_path / "plain.html")
    assert not [tag for tag, _ in plain.tags if tag == "polyline"]


def test_a_curve_has_its_points_at_the_steps(tmp_path: Path) -> None:
    records = anchors() + curve()
    [found] = standings(records)[0].curves
    assert [(step, e.mean) for step, e in found.points] == [(0, 0.25), (100, 0.5), (200, 0.75)]


HOSTILE = "</td><script>alert('x')</script>\"'&{{ 7 * 7 }}{% raw %}"


def test_hostile_names_are_text(tmp_path: Path) -> None:
    changes = {"command": HOSTILE, "commit": HOSTILE, "failures": {HOSTILE: 1}}
    records = anchors() + played(HOSTILE, [0.5] * 3, **changes)
    records += [replace(r, agent=HOSTILE) for r in curve()]
    records += played("x", [0.5] * 3, env=HOSTILE, split=HOSTILE, versions={HOSTILE: HOSTILE})
    text, page = page_of(records, tmp_path / "page.html")
    assert "script" not in {tag for tag, _ in page.tags}
    assert "<script" not in text
    assert page.text.count(HOSTILE) >= 4


def test_markup_of_the_terminal_in_a_name_is_text() -> None:
    [standing] = standings(played("[bold]x[/bold] [/]", [0.5] * 3))
    console = Console(width=160)
    with console.capture() as shown:
        console.print(as_table(standing))
    assert "[bold]x[/bold] [/]" in shown.get()


def test_a_page_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    records = anchors()
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "page.html", tmp_path):
        with pytest.raises(UserError, match="cannot write the page"):
            write_page(standings(records), path, records)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert not list(tmp_path.parent.glob(f".{tmp_path.name}.draft"))

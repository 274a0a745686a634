"""Boards: from records to a ranking that refuses to rank inside the noise."""

import math
import textwrap
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table as RichTable
from scipy.stats import bootstrap

from ..errors import UserError
from .records import Record

Sample = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval; the ends are None where one value is all there is."""

    mean: float
    low: float | None
    high: float | None

    def scaled(self, zero: float, one: float) -> "Estimate | None":
        """Return it on a scale on which two values are 0 and 1, None if they are the same."""
        if zero == one:
            return None
        low, high = (
            None if v is None else (v - zero) / (one - zero) for v in (self.low, self.high)
        )
        return Estimate((self.mean - zero) / (one - zero), low, high)


@dataclass(frozen=True)
class Row:
    """How one agent did in one environment."""

    agent: str
    training_steps: int | None
    rank: int | None
    """1 and the number of agents that are better beyond the noise; None without a return."""
    score: Estimate | None
    """Normalised: 0 is the random agent, 1 the oracle. None where one of the two is missing."""
    returns: Estimate | None
    """None where the machinery has spoilt every episode."""
    success: float | None
    episodes: int
    seeds: int
    """Training seeds; 1 for an agent that is not trained here, 0 without a return."""
    tokens: float | None
    """Generated in an episode, on average."""
    cost: float | None
    """Dollars of an episode, on average of those that have a price; None where none has."""
    seconds: float | None
    """Of an episode, on average."""
    failures: dict[str, int]
    """How often each occurred; under `infra`, attempts that the machinery has spoilt."""
    commands: list[str]
    """What plays its episodes again."""


@dataclass(frozen=True)
class Curve:
    """Held-out returns of one training run."""

    agent: str
    training_seed: int | None
    points: list[tuple[int, Estimate]]
    """Steps of the training, and the return there."""


@dataclass(frozen=True)
class Standing:
    """One environment, one split: who is better, and how they learned."""

    env: str
    split: str | None
    rows: list[Row]
    curves: list[Curve]

    @property
    def missing(self) -> list[str]:
        """The anchors without which there is no normalised score."""
        measured = {row.agent for row in self.rows if row.returns}
        return [name for name in ("random", "oracle") if name not in measured]

    @property
    def has_costs(self) -> bool:
        """Whether the episodes of anybody here have a price."""
        return any(row.cost is not None for row in self.rows)

    @property
    def has_infra(self) -> bool:
        """Whether the machinery has spoilt an attempt of anybody here."""
        return any("infra" in row.failures for row in self.rows)


def standings(records: Sequence[Record]) -> list[Standing]:
    """Rank the agents of each environment and split.

    Raises:
        UserError: there is no record of an evaluation.
    """
    played = [r for r in records if r.purpose == "evaluation"]
    if not played:
        raise UserError("there are no records of evaluations yet; make some: palaestra evaluate")
    places = sorted(
        {(r.env, r.split) for r in played}, key=lambda place: (place[0], place[1] or "")
    )
    return [
        Standing(
            env,
            split,
            _rows([r for r in played if (r.env, r.split) == (env, split)]),
            _curves([r for r in records if r.env == env and r.purpose == "validation"]),
        )
        for env, split in places
    ]


_FEWEST = 5
"""Values on each side that a claim needs; a bootstrap of fewer knows too little of the noise."""


def estimate(sample: Sample) -> Estimate:
    """Return the mean of a sample, shape (n,), with its 95 % bootstrap interval."""
    mean = float(sample.mean())
    if len(sample) < 2:
        return Estimate(mean, None, None)
    return Estimate(mean, *_interval((sample,), np.mean))


def is_better(a: Sample, b: Sample) -> bool:
    """Tell whether the mean of `a` is above that of `b` beyond the noise (95 %)."""
    if min(len(a), len(b)) < _FEWEST:
        return False
    low, _ = _interval((a, b), _difference_of_means)
    return low > 0


def _interval(samples: tuple[Sample, ...], statistic: Callable[..., Any]) -> tuple[float, float]:
    found = bootstrap(
        samples,
        statistic,
        confidence_level=0.95,
        n_resamples=4999,
        batch=100,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def _difference_of_means(a: Sample, b: Sample, axis: int = -1) -> Any:
    return a.mean(axis=axis) - b.mean(axis=axis)


def _units(records: Sequence[Record]) -> Sample:
    """Return the values that vary independently: those of training seeds, else of episodes.

    Episodes of one trained agent say how it plays; how its training fares, only other
    trainings can say. So with several training seeds each counts as one value, its mean.
    """
    seeds = sorted({r.training_seed for r in records if r.training_seed is not None})
    if len(seeds) < 2:
        return np.array([r.episode_return for r in records])
    by_seed = [[r.episode_return for r in records if r.training_seed == s] for s in seeds]
    return np.array([np.mean(returns) for returns in by_seed])


def _rows(records: Sequence[Record]) -> list[Row]:
    names = sorted({_player(r) for r in records}, key=str)
    groups = [[r for r in records if _player(r) == name] for name in names]
    spoilt = [group for group in groups if not any(r.valid for r in group)]
    groups = [group for group in groups if any(r.valid for r in group)]
    samples = [_units([r for r in group if r.valid]) for group in groups]
    means = {group[0].agent: float(s.mean()) for group, s in zip(groups, samples, strict=True)}
    rows = [_row(group, None, None, None) for group in spoilt]
    for group, sample in zip(groups, samples, strict=True):
        rank = 1 + sum(is_better(other, sample) for other in samples if other is not sample)
        returns = estimate(sample)
        anchored = "random" in means and "oracle" in means
        score = returns.scaled(means["random"], means["oracle"]) if anchored else None
        rows.append(_row(group, rank, returns, score))
    return sorted(rows, key=_order)


def _order(row: Row) -> tuple[float, float, str]:
    """Put the better first, and last who has no rank."""
    if row.rank is None or row.returns is None:
        return math.inf, 0.0, row.agent
    return row.rank, -row.returns.mean, row.agent


def _player(record: Record) -> tuple[str, int | None, str | None]:
    """Return whose row a record belongs to: trainings that differ in their seed share one."""
    trained = record.training_seed is not None
    identity = record.recipe_hash if trained else record.agent_hash
    return record.agent, record.training_steps, identity


def _row(
    group: Sequence[Record], rank: int | None, returns: Estimate | None, score: Estimate | None
) -> Row:
    valid = [r for r in group if r.valid]
    failures: dict[str, int] = {}
    for record in group:
        for failure, count in record.failures.items():
            failures[failure] = failures.get(failure, 0) + count
    return Row(
        agent=group[0].agent,
        training_steps=group[0].training_steps,
        rank=rank,
        score=score,
        returns=returns,
        success=_mean([r.success for r in valid]),
        episodes=len(valid),
        seeds=len({r.training_seed for r in valid}),
        tokens=_mean([r.tokens for r in valid]),
        cost=_mean([r.cost for r in valid]),
        seconds=_mean([r.seconds for r in valid]),
        failures=failures,
        commands=list(dict.fromkeys(r.command for r in group)),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of those that are known, None if none is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _curves(records: Sequence[Record]) -> list[Curve]:
    runs = sorted({(r.agent, r.training_seed, r.recipe_hash) for r in records}, key=str)
    curves = []
    for agent, seed, recipe in runs:
        run = (agent, seed, recipe)
        of_run = [
            r for r in records if (r.agent, r.training_seed, r.recipe_hash) == run and r.valid
        ]
        steps = sorted({r.training_steps or 0 for r in of_run})
        returns = [
            np.array([r.episode_return for r in of_run if (r.training_steps or 0) == step])
            for step in steps
        ]
        points = [(step, estimate(sample)) for step, sample in zip(steps, returns, strict=True)]
        curves.append(Curve(agent, seed, points))
    return curves


def as_table(standing: Standing) -> RichTable:
    """Return the ranking of one environment as a table for the terminal."""
    table = RichTable(title=escape(_title(standing)), title_justify="left", title_style="bold")
    for name in _columns(standing):
        table.add_column(name, justify="left" if name == "Agent" else "right", no_wrap=True)
    for row in standing.rows:
        # A long name goes on in the next line, lest it cut the numbers.
        rank, name, *numbers = _cells(row, standing)
        name = textwrap.fill(name, 40 - sum(len(column) + 3 for column in _further(standing)))
        table.add_row(*(escape(cell) for cell in (rank, name, *numbers)))
    return table


_COLUMNS = (
    "Rank", "Agent", "Score", "95 % interval", "Return", "Success", "Episodes", "Seeds",
    "Tokens/ep.", "Seconds/ep.",
)  # fmt: skip


def _columns(standing: Standing) -> tuple[str, ...]:
    return (*_COLUMNS, *_further(standing))


def _further(standing: Standing) -> tuple[str, ...]:
    """Return the columns that are there only where somebody has something in them."""
    return ("Dollars/ep.",) * standing.has_costs + ("Infra",) * standing.has_infra


def _cells(row: Row, standing: Standing) -> tuple[str, ...]:
    further = {"Dollars/ep.": _dollars(row.cost), "Infra": str(row.failures.get("infra", 0))}
    return (
        _or_dash(row.rank, "d"),
        row.agent,
        "–" if row.score is None else _hundredths(row.score.mean),
        written_interval(row.score),
        _or_dash(None if row.returns is None else row.returns.mean, ".2f"),
        _or_dash(row.success, ".0%"),
        str(row.episodes),
        str(row.seeds),
        _or_dash(row.tokens, ".0f"),
        _or_dash(row.seconds, ".3f"),
        *(further[column] for column in _further(standing)),
    )


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def written_interval(value: Estimate | None) -> str:
    """Write the interval of an estimate."""
    if value is None or value.low is None or value.high is None:
        return "–"
    return f"{_hundredths(value.low)} to {_hundredths(value.high)}"


def _dollars(cost: float | None) -> str:
    if cost is None:
        return "–"
    return np.format_float_positional(cost, precision=2, fractional=False, trim="-")


def _hundredths(value: float) -> str:
    """Write two decimals, and no zero with a minus."""
    return f"{round(value, 2) + 0.0:.2f}"


def _title(standing: Standing) -> str:
    return standing.env + (f", {standing.split}" if standing.split else "")


def write_page(found: Sequence[Standing], path: Path, records: Sequence[Record]) -> None:
    """Write a page that holds all it needs: tables, intervals, learning curves, commands.

    Raises:
        UserError: the file cannot be written.
    """
    template = (files(__package__) / "board.html").read_text("utf-8")
    engine = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = engine.from_string(template).render(
        standings=found,
        title=_title,
        columns=_columns,
        cells=_cells,
        bar=_bar,
        chart=_chart,
        written=written_interval,
        episodes=sum(r.purpose == "evaluation" for r in records),
        versions=records[-1].versions,
        commit=records[-1].commit,
    )
    draft = path.with_name(f".{path.name}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(page, "utf-8")
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise UserError(f"cannot write the page {path}: {error.strerror}") from None


@dataclass(frozen=True)
class Bar:
    """Where a score and its interval are drawn, in per cent of the width."""

    at: float
    left: float
    width: float


def _bar(row: Row) -> Bar | None:
    if row.score is None:
        return None
    low = row.score.mean if row.score.low is None else row.score.low
    high = row.score.mean if row.score.high is None else row.score.high
    at, left, right = (_percent(v) for v in (row.score.mean, low, high))
    return Bar(at, left, max(right - left, 0.6))


def _percent(score: float) -> float:
    """Place a score; the scale runs from -0.1 to 1.1."""
    return round(100 * (min(max(score, -0.1), 1.1) + 0.1) / 1.2, 2)


@dataclass(frozen=True)
class Chart:
    """A drawing of learning curves, in pixels of a 640 x 220 picture."""

    lines: list[tuple[str, str, str]]
    """Label, points of the line, points of the band around it."""
    levels: list[tuple[float, str]]
    """Heights of the grid, and their values."""
    ticks: list[tuple[float, str]]
    """Places on the axis of steps, and their values."""


_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 624, 12, 186


def _chart(curves: Sequence[Curve]) -> Chart | None:
    curves = [curve for curve in curves if len(curve.points) > 1]
    if not curves:
        return None
    estimates = [e for c in curves for _, e in c.points]
    lows = [e.mean if e.low is None else e.low for e in estimates]
    highs = [e.mean if e.high is None else e.high for e in estimates]
    bottom, top = min(0.0, *lows), max(highs)
    top = bottom + 1.0 if top <= bottom else top
    last = max(step for c in curves for step, _ in c.points) or 1

    def x(step: float) -> float:
        return round(_LEFT + (_RIGHT - _LEFT) * step / last, 1)

    def y(value: float) -> float:
        return round(_BOTTOM - (_BOTTOM - _TOP) * (value - bottom) / (top - bottom), 1)

    lines = []
    for curve in curves:
        middle = " ".join(f"{x(step)},{y(e.mean)}" for step, e in curve.points)
        upper = [f"{x(s)},{y(e.mean if e.high is None else e.high)}" for s, e in curve.points]
        lower = [f"{x(s)},{y(e.mean if e.low is None else e.low)}" for s, e in curve.points]
        label = (
            curve.agent
            if curve.training_seed is None
            else f"{curve.agent}, seed {curve.training_seed}"
        )
        lines.append((label, middle, " ".join(upper + lower[::-1])))
    quarters = [i / 4 for i in range(5)]
    return Chart(
        lines,
        [(y(v), f"{v:.3g}") for v in (bottom + (top - bottom) * q for q in quarters)],
        [(x(last * q), f"{last * q:,.0f}") for q in quarters],
    )

"""Films: true facts, and answers that a second computation finds too."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from palaestra import assets
from palaestra.envs.films import Films, _names, build_films
from palaestra.envs.questions.sql import Subject, rows_of
from palaestra.envs.scoring import is_same

TABLES = ("films", "directors", "actors", "genres", "countries")


def test_the_cache_holds_what_is_built_today(tmp_path: Path) -> None:
    """Else a change of the builder, under an old key, would change the tasks of new machines."""
    build_films(tmp_path / "fresh")
    for table in TABLES:
        query = f"SELECT * FROM {table}"
        assert rows_of(tmp_path / "fresh", query) == rows_of(Films.database_path(), query)


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("SELECT count(*) FROM films", "17470"),
        ("SELECT year FROM films WHERE title = 'Jaws'", "1975"),
        ("SELECT runtime FROM films WHERE title = 'Casablanca'", "102"),
        ("SELECT released FROM films WHERE title = 'Avatar'", "2009-12-16"),
        ("SELECT rated FROM films WHERE title = 'Pulp Fiction'", "R"),
        ("SELECT metacritic FROM films WHERE title = 'The Godfather'", "100"),
        ("SELECT title FROM films ORDER BY box_office DESC LIMIT 1", "Avatar"),
        (
            "SELECT name FROM directors JOIN films ON film = id WHERE title = 'Vertigo'",
            "Alfred Hitchcock",
        ),
        (
            "SELECT country FROM countries JOIN films ON film = id WHERE title = 'Amélie'",
            "France",
        ),
        (
            "SELECT count(*) FROM actors JOIN films ON film = id WHERE title = 'Alien' AND name IN "
            "('Sigourney Weaver', 'John Hurt', 'Ian Holm')",
            "3",
        ),
        (
            "SELECT count(*) FROM films JOIN directors ON directors.film = id JOIN actors ON "
            "actors.film = id WHERE directors.name = 'Steven Spielberg' AND actors.name = "
            "'Harrison Ford'",
            "4",
        ),
        ("SELECT count(*) FROM directors WHERE name = 'Stanley Kubrick'", "13"),
        (
            "SELECT title FROM films JOIN directors ON film = id WHERE name = 'Christopher Nolan' "
            "ORDER BY year LIMIT 1",
            "Following",
        ),
    ],
)
def test_facts_are_true(query: str, answer: str) -> None:
    assert Films().sql(query) == answer


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Olivier Nakache, Éric Toledano", ["Olivier Nakache", "Éric Toledano"]),
        ("Max Baer, Jr., Jane Doe", ["Max Baer, Jr.", "Jane Doe"]),
        ("Jane Doe, Ed Roe, Sr.", ["Jane Doe", "Ed Roe, Sr."]),
        ("Jane Doe, Jane Doe", ["Jane Doe"]),
        ("", []),
        (None, []),
    ],
)
def test_lists_of_names_are_taken_apart(text: str | None, names: list[str]) -> None:
    assert _names(text) == names


def test_no_cell_of_a_film_is_empty_text() -> None:
    for table in TABLES:
        for row in rows_of(Films.database_path(), f"SELECT * FROM {table}"):
            assert all(str(value).strip() for value in row.values())


Film = dict[str, Any]


@cache
def films() -> list[Film]:
    """The films as the source has them, their lists of names taken apart."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(assets.BOKEH_SAMPLES.read("bokeh_sampledata/_data/movies.db"))
        connection.row_factory = sqlite3.Row
        scores = {row["ID"]: dict(row) for row in connection.execute("SELECT * FROM tomatoes")}
        rows = [dict(row) for row in connection.execute("SELECT * FROM omdb ORDER BY ID")]
    seen: set[str] = set()
    found = []
    for row in rows:
        if row["imdbID"] not in seen:
            lists = {key: set(_names(row[key])) for key in ("Director", "Cast", "Genre", "Country")}
            found.append(row | lists | {"scores": scores[row["ID"]]})
            seen.add(row["imdbID"])
    return found


@cache
def films_by(key: str) -> dict[Any, list[Film]]:
    found: dict[Any, list[Film]] = {}
    for film in films():
        for name in film[key] if isinstance(film[key], set) else [film[key]]:
            found.setdefault(name, []).append(film)
    return found


def titled(s: Subject) -> list[Film]:
    return films_by("Title")[s["title"]]


def together(s: Subject) -> list[Film]:
    return [film for film in films_by("Director")[s["name"]] if s["actor"] in film["Cast"]]


def directed(s: Subject) -> list[Film]:
    return films_by("Director")[s["name"]]


def season(s: Subject) -> list[Film]:
    return [film for film in films_by("Genre")[s["genre"]] if film["Year"] == s["year"]]


def each(rows: list[Film], key: str, of: str = "") -> list[Any]:
    """The values of a column, where there are any."""
    values = [(row[of] if of else row)[key] for row in rows]
    return [value for value in values if value is not None]


def best(rows: list[Film], which: Callable[[list[Any]], Any], key: str, of: str = "") -> list[str]:
    values = each(rows, key, of)
    return [
        row["Title"] for row in rows if values and (row[of] if of else row)[key] == which(values)
    ]


def mean(values: list[float]) -> list[float]:
    return [sum(values) / len(values)] if values else []


def whole(values: list[float]) -> list[int]:
    return [int(value) for value in values]


def dated(rows: list[Film]) -> list[str]:
    return [row["Released"] for row in rows if not row["Released"].endswith("-01-01")]


EXPECTED: dict[str, Callable[[Subject], list[Any]]] = {
    "films.year": lambda s: each(titled(s), "Year"),
    "films.released": lambda s: dated(titled(s)),
    "films.runtime": lambda s: whole(each(titled(s), "Runtime")),
    "films.rated": lambda s: each(titled(s), "Rating"),
    "films.metacritic": lambda s: each(titled(s), "Metacritic"),
    "films.tomatometer": lambda s: each(titled(s), "Meter", "scores"),
    "films.reviews": lambda s: each(titled(s), "Reviews", "scores"),
    "films.box_office": lambda s: whole(each(titled(s), "BoxOffice", "scores")),
    "credits.director": lambda s: [name for film in titled(s) for name in film["Director"]],
    "credits.genre": lambda s: [name for film in titled(s) for name in film["Genre"]],
    "credits.country": lambda s: [name for film in titled(s) for name in film["Country"]],
    "credits.actors": lambda s: [len(film["Cast"]) for film in titled(s)],
    "pairs.title": lambda s: each(together(s), "Title"),
    "pairs.year": lambda s: each(together(s), "Year"),
    "pairs.runtime": lambda s: whole(each(together(s), "Runtime")),
    "pairs.metacritic": lambda s: each(together(s), "Metacritic"),
    "pairs.tomatometer": lambda s: each(together(s), "Meter", "scores"),
    "pairs.box_office": lambda s: whole(each(together(s), "BoxOffice", "scores")),
    "directors.count": lambda s: [len(directed(s))],
    "directors.first": lambda s: best(directed(s), min, "Year"),
    "directors.longest": lambda s: best(directed(s), max, "Runtime"),
    "directors.mean_runtime": lambda s: mean(each(directed(s), "Runtime")),
    "directors.best": lambda s: best(directed(s), max, "Meter", "scores"),
    "directors.mean_tomatometer": lambda s: mean(each(directed(s), "Meter", "scores")),
    "directors.actors": lambda s: [len(set().union(*(film["Cast"] for film in directed(s))))],
    "seasons.count": lambda s: [len(season(s))],
    "seasons.longest": lambda s: best(season(s), max, "Runtime"),
    "seasons.mean_runtime": lambda s: mean(each(season(s), "Runtime")),
    "seasons.most_reviewed": lambda s: best(season(s), max, "Reviews", "scores"),
    "seasons.reviews": lambda s: [sum(each(season(s), "Reviews", "scores"))],
    "seasons.best": lambda s: best(season(s), max, "Metacritic"),
}


@pytest.mark.parametrize("level", Films.levels)
def test_python_finds_the_same_answers_in_the_source(level: str) -> None:
    env = Films(level=level)
    rng = np.random.default_rng(0)
    asked: dict[str, int] = {}
    for topic in Films.topics(level):
        for i in rng.permutation(len(topic.subjects))[:150]:
            for template in topic.templates:
                plan = env._plan(template, topic.subjects[i])
                right = EXPECTED[template.kind](topic.subjects[i])
                if plan is None:
                    assert len(right) != 1 or not str(right[0]).isascii()
                else:
                    assert len(right) == 1
                    assert is_same(plan.answer, str(right[0])), (plan, right)
                    asked[template.kind] = asked.get(template.kind, 0) + 1
    assert set(asked) == {t.kind for topic in Films.topics(level) for t in topic.templates}
    assert min(asked.values()) >= 30

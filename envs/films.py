"""Films: questions about real films, their makers and genres, one read-only SQL tool."""

import sqlite3
from contextlib import closing
from pathlib import Path

from .. import assets
from .questions import films as ask
from .questions.sql import DatabaseEnv, Topic, rows_of

_SCHEMA = """
CREATE TABLE films (
    id INTEGER PRIMARY KEY, title TEXT, year INTEGER, released TEXT, runtime INTEGER, rated TEXT,
    metacritic INTEGER, tomatometer INTEGER, reviews INTEGER, box_office INTEGER);
CREATE TABLE directors (film INTEGER, name TEXT);
CREATE TABLE actors (film INTEGER, name TEXT);
CREATE TABLE genres (film INTEGER, genre TEXT);
CREATE TABLE countries (film INTEGER, country TEXT);
CREATE INDEX film_titles ON films (title);
CREATE INDEX film_years ON films (year);
CREATE INDEX directed_films ON directors (film);
CREATE INDEX director_names ON directors (name);
CREATE INDEX acted_films ON actors (film);
CREATE INDEX actor_names ON actors (name);
CREATE INDEX genre_films ON genres (film);
CREATE INDEX country_films ON countries (film);
"""
# A day of the first of January stands for a year without a day. Two films are there twice.
_FILMS = """
SELECT ID, Title, Year, CASE WHEN Released NOT LIKE '%-01-01' THEN Released END,
    CAST(omdb.Runtime AS INTEGER), omdb.Rating, Metacritic, Meter, Reviews,
    CAST(BoxOffice AS INTEGER)
FROM omdb JOIN tomatoes USING (ID)
WHERE ID IN (SELECT min(ID) FROM omdb GROUP BY imdbID) ORDER BY ID
"""
_LISTS = {"directors": "Director", "actors": "Cast", "genres": "Genre", "countries": "Country"}
_ONE_TITLE = "title IN (SELECT title FROM films GROUP BY lower(title) HAVING count(*) = 1)"
_TITLES = f"""
SELECT title FROM films WHERE {_ONE_TITLE} AND runtime + metacritic + tomatometer + reviews +
box_office IS NOT NULL ORDER BY title
"""
_CREDITED = f"""
SELECT title FROM films WHERE {_ONE_TITLE}
AND (SELECT count(*) FROM directors WHERE film = id) = 1
AND (SELECT count(*) FROM genres WHERE film = id) = 1
AND (SELECT count(*) FROM countries WHERE film = id) = 1
AND EXISTS (SELECT 1 FROM actors WHERE film = id) ORDER BY title
"""
"""Films with one director, one genre and one country."""
_PAIRS = """
SELECT directors.name, actors.name AS actor FROM directors JOIN films ON directors.film = id
JOIN actors ON actors.film = id WHERE directors.name <> actors.name
GROUP BY 1, 2 HAVING count(*) = 1 AND metacritic + box_office IS NOT NULL ORDER BY 1, 2
"""
"""Directors and actors with just one film of both, which is a well-known one."""
_DIRECTORS = """
SELECT name FROM directors JOIN films ON film = id GROUP BY name
HAVING count(*) >= 5 ORDER BY name
"""
_SEASONS = """
SELECT genre, year FROM genres JOIN films ON film = id WHERE year >= 1960
GROUP BY 1, 2 HAVING count(*) >= 5 ORDER BY 1, 2
"""


class Films(DatabaseEnv):
    """Answer questions about real films from a database, in SQL.

    ## Description
    "When was 'Jaws' made?": find the column that a phrase means, ask for it in SQL, report the
    result. The database has 17,470 films of 1940 to 2014 (Wikidata), with their directors, actors,
    genres and countries in tables of their own. The level `lookup` asks for a column of the
    film with a title; `join` asks who made a film, or for the one film that a director made
    with an actor; `aggregate` counts, adds, averages or finds the extreme among the films of a
    director, or of a genre and a year.

    A question without exactly one answer is not asked. The splits share no title, no director,
    and no genre with the same year. `paraphrase` asks about those of `test` in phrasings that
    no other split uses.

    ## Action Space
    `Text`: a message with one call, `<sql>SELECT year FROM films WHERE title = 'Jaws'</sql>` (or
    JSON in `<tool_call>`), or with the answer, `<answer>1975</answer>`.

    ## Observation Space
    `Text`: the question, then what the database says.

    ## Rewards
    1 for the right answer, 0 otherwise, -0.1 for a message that holds neither a call nor an
    answer.

    ## Episode End
    Terminated by an answer, or after 4 messages; truncated when the database fails, with
    `info["failure"] == "infra"`.

    ## Reference Scores
    Success on `test`, every level: random choices 0.12 (one in eight), oracle 1. On `lookup`, 200
    episodes each: PPO through `AsChoices` and MiniLM 0.83 (0.78 to 0.88; 6,144 steps, one
    training seed); SmolLM2-135M-Instruct, 9 shots, greedy 0.68 (0.61 to 0.74),
    sampled 0.31 (0.24 to 0.38). On `join` PPO 0.79 (0.73 to 0.84), trained alike.

    ## Version History
    v0: first version.
    """

    instructions = (
        "Answer the question from the database. Its tables are films(id, title, year, released, "
        "runtime, rated, metacritic, tomatometer, reviews, box_office), directors(film, name), "
        "actors(film, name), genres(film, genre) and countries(film, country), where film is the "
        "id of a film. Query it with <sql>SELECT ...</sql>. Then reply with "
        "<answer>result</answer>."
    )

    @staticmethod
    def database_path() -> Path:
        """Return the database of films."""
        return assets.built("films-1", build_films, assets.BOKEH_SAMPLES)

    @staticmethod
    def topics(level: str) -> tuple[Topic, ...]:
        """Return what a level asks about."""
        path = Films.database_path()
        if level == "lookup":
            return (Topic(ask.ABOUT_TITLES, rows_of(path, _TITLES), "{title}"),)
        if level == "join":
            return (
                Topic(ask.ABOUT_CREDITS, rows_of(path, _CREDITED), "{title}"),
                Topic(ask.ABOUT_PAIRS, rows_of(path, _PAIRS)),
            )
        return (
            Topic(ask.ABOUT_DIRECTORS, rows_of(path, _DIRECTORS)),
            Topic(ask.ABOUT_SEASONS, rows_of(path, _SEASONS), "{genre} {year}"),
        )


def build_films(path: Path) -> None:
    """Write the database, its lists of names turned into tables."""
    with closing(sqlite3.connect(":memory:")) as source:
        source.deserialize(assets.BOKEH_SAMPLES.read("bokeh_sampledata/_data/movies.db"))
        films = source.execute(_FILMS).fetchall()
        lists = {
            table: source.execute(f'SELECT ID, "{column}" FROM omdb ORDER BY ID').fetchall()
            for table, column in _LISTS.items()
        }
    kept = {film[0] for film in films}
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(_SCHEMA)
        connection.executemany(f"INSERT INTO films VALUES ({', '.join('?' * 10)})", films)
        for table, rows in lists.items():
            pairs = [(film, name) for film, text in rows if film in kept for name in _names(text)]
            connection.executemany(f"INSERT INTO {table} VALUES (?, ?)", pairs)


def _names(text: str | None) -> list[str]:
    """Take a list of names apart; a comma before "Jr." is part of a name."""
    joined = (text or "").replace(", Jr.", "\0 Jr.").replace(", Sr.", "\0 Sr.")
    names = (name.replace("\0", ",").strip() for name in joined.split(", "))
    return list(dict.fromkeys(name for name in names if name))

"""Elements: questions about chemical elements and isotopes, one read-only SQL tool."""

import sqlite3
from contextlib import closing
from pathlib import Path

from .. import assets
from .questions import elements as ask
from .questions.sql import DatabaseEnv, Subject, Topic, rows_of

_SCHEMA = """
CREATE TABLE elements (
    number INTEGER PRIMARY KEY, symbol TEXT, name TEXT, period INTEGER, block TEXT, series TEXT,
    weight REAL, density REAL, electronegativity REAL, discovered INTEGER);
CREATE TABLE phases (number INTEGER PRIMARY KEY, melting_point REAL, boiling_point REAL);
CREATE TABLE isotopes (
    number INTEGER, mass_number INTEGER, mass REAL, abundance REAL, spin TEXT, discovered INTEGER);
CREATE INDEX isotope_numbers ON isotopes (number);
"""
# The source keeps numbers such as 13.989999999999952: so many digits are noise.
_ELEMENTS = """
SELECT atomic_number, symbol, elements.name, period, block, series.name, round(atomic_weight, 8),
    round(density, 9), en_pauling, discovery_year
FROM elements JOIN series ON series_id = series.id ORDER BY atomic_number
"""
# Some elements have several forms that melt at different temperatures, some turn to gas at once.
_PHASES = """
SELECT atomic_number, round(max(melting_point), 4), round(max(boiling_point), 4)
FROM phasetransitions GROUP BY atomic_number HAVING count(*) = 1 AND count(is_sublimation_point) = 0
ORDER BY atomic_number
"""
_ISOTOPES = """
SELECT atomic_number, mass_number, mass, abundance, spin, discovery_year
FROM isotopes ORDER BY atomic_number, mass_number
"""
_NAMES = "SELECT name FROM elements ORDER BY number"
_KNOWN_ISOTOPES = """
SELECT name, mass_number FROM isotopes JOIN elements USING (number)
WHERE mass IS NOT NULL AND spin IS NOT NULL AND isotopes.discovered IS NOT NULL ORDER BY 1, 2
"""
_DENSITIES = (0.5, 1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15)
_YEARS = tuple(range(1740, 1950, 10))
"""Of discovery; before 1740 and after 1950 there is little to tell apart."""


class Elements(DatabaseEnv):
    """Answer questions about chemical elements and their isotopes from a database, in SQL.

    ## Description
    "What is the symbol of Iron?": find the column that a phrase means, ask for it in SQL, report
    the result. The database has the 118 elements, the temperatures at which most of them melt
    and boil, and 3,557 isotopes (from the package mendeleev). The level `lookup` asks for a column
    of an element; `join` asks about the isotopes and the phases of an element, which stand in
    tables of their own under its number; `aggregate` counts, adds, averages or finds the
    extreme among the elements of a period that are denser than so much, or of a block that were
    discovered after some year.

    A question without exactly one answer is not asked. The splits share no element, no period
    with the same density and no block with the same year. `paraphrase` asks about those of
    `test` in phrasings that no other split uses.

    ## Action Space
    `Text`: a message with one call, `<sql>SELECT symbol FROM elements WHERE name = 'Iron'</sql>`
    (or JSON in `<tool_call>`), or with the answer, `<answer>Fe</answer>`.

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
    episodes each: PPO through `AsChoices` and MiniLM 0.88 (0.83 to 0.93; 6,144 steps, one
    training seed); SmolLM2-135M-Instruct, 9 shots, greedy 0.83 (0.78 to 0.89),
    sampled 0.56 (0.48 to 0.62). On `join` PPO 0.71 (0.65 to 0.78), trained alike.

    ## Version History
    v0: first version.
    """

    instructions = (
        "Answer the question from the database. Its tables are elements(number, symbol, name, "
        "period, block, series, weight, density, electronegativity, discovered), phases(number, "
        "melting_point, boiling_point) in kelvin and isotopes(number, mass_number, mass, "
        "abundance, spin, discovered), where number is that of the element. Query it with "
        "<sql>SELECT ...</sql>. Then reply with <answer>result</answer>."
    )

    @staticmethod
    def database_path() -> Path:
        """Return the database of elements."""
        return assets.built("elements-1", build_elements, assets.MENDELEEV)

    @staticmethod
    def topics(level: str) -> tuple[Topic, ...]:
        """Return what a level asks about."""
        path = Elements.database_path()
        names = rows_of(path, _NAMES)
        if level == "lookup":
            return (Topic(ask.ABOUT_ELEMENTS, names),)
        if level == "join":
            isotopes = rows_of(path, _KNOWN_ISOTOPES)
            return Topic(ask.ABOUT_KINDS, names), Topic(ask.ABOUT_ISOTOPES, isotopes)
        periods: list[Subject] = [
            {"period": p, "density": d} for p in range(2, 8) for d in _DENSITIES
        ]
        blocks: list[Subject] = [{"block": b, "year": y} for b in "spdf" for y in _YEARS]
        return (
            Topic(ask.ABOUT_PERIODS, periods, "{period} {density}"),
            Topic(ask.ABOUT_BLOCKS, blocks, "{block} {year}"),
        )


def build_elements(path: Path) -> None:
    """Write the database: the columns that are filled and known to more than chemists."""
    with closing(sqlite3.connect(":memory:")) as source:
        source.deserialize(assets.MENDELEEV.read("mendeleev/elements.db"))
        tables = {
            "elements": source.execute(_ELEMENTS).fetchall(),
            "phases": source.execute(_PHASES).fetchall(),
            "isotopes": source.execute(_ISOTOPES).fetchall(),
        }
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(_SCHEMA)
        for table, rows in tables.items():
            places = ", ".join("?" * len(rows[0]))
            connection.executemany(f"INSERT INTO {table} VALUES ({places})", rows)

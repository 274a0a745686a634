"""The database: what it answers, and that no query changes, hangs or leaves it."""

import hashlib
import itertools
import json
import os
import pickle
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from palaestra.envs.capitals import Capitals
from palaestra.envs.tools import ToolError, ToolTimeout, sql
from palaestra.envs.tools.remembering import Remembered
from palaestra.envs.tools.sql import ReadOnlyDatabase, quoted

LONG = "(SELECT group_concat('aaaaaaaaaa','aaaaaaaaaa') FROM (SELECT 1 FROM cities LIMIT 49))"
"""A text about as long as the database lets one be."""


@pytest.fixture(scope="module")
def database() -> ReadOnlyDatabase:
    return ReadOnlyDatabase(Capitals.database_path())


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every query be run."""
    monkeypatch.setattr(sql, "_remembered", Remembered(1))
    monkeypatch.setattr(sql, "_MOST_LETTERS", -1)


@pytest.fixture(scope="module", autouse=True)
def _unchanged() -> Iterator[None]:
    """Compare the file and its folder before and after everything in this module."""

    def state() -> tuple[str, list[str]]:
        path = Capitals.database_path()
        names = sorted(p.name for p in path.parent.iterdir())
        return hashlib.sha256(path.read_bytes()).hexdigest(), names

    before = state()
    yield
    assert state() == before


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("SELECT capital FROM countries WHERE name = 'France'", "Paris"),
        ("select CAPITAL from COUNTRIES where NAME like 'fran%'", "Paris"),
        ("SELECT capital, continent FROM countries WHERE name = 'France';", "Paris, Europe"),
        ("SELECT 1 UNION SELECT 2", "1\n2"),
        ("SELECT NULL", "NULL"),
        ("SELECT name FROM countries WHERE name = 'Atlantis'", "no rows"),
        ("SELECT count(*) FROM countries", "252"),
        ("SELECT count(*) FROM cities", "34006"),
        (
            "WITH big AS (SELECT * FROM cities WHERE population > 1e6) SELECT 1 FROM big LIMIT 1",
            "1",
        ),
        ("SELECT upper(substr(name, 1, 3)) FROM countries WHERE capital = 'Paris'", "FRA"),
        ("-- a comment\nSELECT 3", "3"),
    ],
)
def test_answers(database: ReadOnlyDatabase, query: str, rows: str) -> None:
    assert database.query(query) == rows


def test_ten_rows_are_shown(database: ReadOnlyDatabase) -> None:
    lines = database.query("SELECT name FROM countries ORDER BY name").split("\n")
    assert len(lines) == 11
    assert "only the first 10" in lines[-1]
    assert len(database.query("SELECT name FROM countries LIMIT 10").split("\n")) == 10


@pytest.mark.parametrize(
    "query",
    [
        "SELECT country, count(*), sum(population) FROM cities GROUP BY country ORDER BY 3 DESC",
        "SELECT * FROM cities ORDER BY population DESC",
        "SELECT DISTINCT timezone FROM cities ORDER BY timezone",
        "SELECT c.name, max(t.population) FROM countries c JOIN cities t ON t.country = c.name "
        "GROUP BY c.name",
        "SELECT name FROM cities WHERE lower(name) LIKE '%san%' OR country LIKE '%republic%'",
    ],
)
def test_honest_work_over_every_row_is_within_the_limits(
    database: ReadOnlyDatabase, query: str
) -> None:
    assert "more rows" in database.query(query)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200))
def test_quoted_text_is_itself(database: ReadOnlyDatabase, text: str) -> None:
    assert database.query(f"SELECT {quoted(text)}") == text


REFUSED = {
    "insert": "INSERT INTO countries (name) VALUES ('Atlantis')",
    "update": "UPDATE countries SET capital = 'Lyon' WHERE name = 'France'",
    "delete": "DELETE FROM countries",
    "replace into": "REPLACE INTO countries (name) VALUES ('France')",
    "returning": "DELETE FROM cities RETURNING name",
    "drop table": "DROP TABLE countries",
    "drop index": "DROP INDEX city_names",
    "create table": "CREATE TABLE loot (x)",
    "create temp table": "CREATE TEMP TABLE loot AS SELECT * FROM cities",
    "create view": "CREATE VIEW loot AS SELECT 1",
    "create temp trigger": "CREATE TEMP TRIGGER t AFTER INSERT ON cities BEGIN SELECT 1; END",
    "create virtual table": "CREATE VIRTUAL TABLE loot USING fts5(x)",
    "alter": "ALTER TABLE countries RENAME TO nations",
    "reindex": "REINDEX",
    "analyze": "ANALYZE",
    "attach": "ATTACH 'loot.sqlite' AS loot",
    "attach uri": "ATTACH 'file:loot.sqlite?mode=rwc' AS loot",
    "attach memory": "ATTACH ':memory:' AS loot",
    "detach": "DETACH main",
    "vacuum": "VACUUM",
    "vacuum into": "VACUUM INTO 'loot.sqlite'",
    "begin": "BEGIN EXCLUSIVE",
    "savepoint": "SAVEPOINT s",
    "rollback": "ROLLBACK",
    "pragma": "PRAGMA query_only = OFF",
    "pragma read": "PRAGMA table_info(countries)",
    "pragma journal": "PRAGMA journal_mode = WAL",
    "pragma schema": "PRAGMA writable_schema = ON",
    "pragma temp": "PRAGMA temp_store_directory = '/'",
    "pragma function": "SELECT * FROM pragma_database_list",
    "load_extension": "SELECT load_extension('loot')",
    "readfile": "SELECT readfile('/etc/hosts')",
    "writefile": "SELECT writefile('loot', 'x')",
    "fts3_tokenizer": "SELECT fts3_tokenizer('simple')",
    "printf": "SELECT printf('%2000000000d', 1)",
    "format": "SELECT format('%.*c', 2000000000, 'x')",
    "zeroblob": "SELECT zeroblob(2000000000)",
    "randomblob": "SELECT randomblob(2000000000)",
    "hex": "SELECT hex(name) FROM cities",
    "random": "SELECT random()",
    "now": "SELECT datetime('now')",
    "current time": "SELECT CURRENT_TIMESTAMP",
    "concatenation bomb": "WITH RECURSIVE t(x) AS (SELECT 'a' UNION ALL SELECT x || x FROM t) "
    "SELECT max(length(x)) FROM t",
    "group_concat bomb": "SELECT group_concat(name) FROM cities",
    "replace bomb": "SELECT replace(replace(replace('aaaaaaaaaa', 'a', 'bbbbbbbbbb'), 'b', "
    "'cccccccccc'), 'c', 'dddddddddd')",
    "two statements": "SELECT 1; SELECT 2",
    "statement after comment": "SELECT 1; -- \nDROP TABLE countries",
    "null character": "SELECT '\0'",
    "lone surrogate": "SELECT '\ud800'",
    "long": "SELECT '" + "x" * 3000 + "'",
    "long pattern": f"SELECT 1 WHERE 'a' LIKE '{'%a' * 100}'",
    "deep expression": "SELECT " + "NOT " * 60 + "1",
    "brackets": "SELECT " + "(" * 900 + "1" + ")" * 900,
    "subqueries": "SELECT * FROM (" * 60 + "SELECT 1" + ")" * 60,
    "compounds": " UNION ALL ".join(["SELECT 1"] * 50),
    "joins": "SELECT 1 FROM " + ", ".join(["cities"] * 65),
    "unknown table": "SELECT * FROM treasures",
    "unknown column": "SELECT anthem FROM countries",
    "no sql": "Please tell me the capital of France",
    "unfinished": "SELECT name FROM",
    "unfinished string": "SELECT 'France",
    "parameter": "SELECT ?",
    "overflow": "SELECT sum(9223372036854775807) FROM cities",
}
ENDLESS = {
    "recursion": "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) "
    "SELECT max(n) FROM t",
    "cross join": "SELECT count(*) FROM cities a, cities b, cities c",
    "cross join ordered": "SELECT a.name FROM cities a, cities b ORDER BY a.latitude * b.latitude",
    "union of joins": "SELECT a.name, b.name FROM cities a, cities b UNION SELECT '', ''",
    "correlated": "SELECT max((SELECT count(*) FROM cities b WHERE b.latitude > a.latitude)) "
    "FROM cities a",
    "empty join": "SELECT 1 FROM cities a, cities b, cities c WHERE a.latitude + b.latitude > 1e9",
}
SLOW_STEPS = {
    "like": f"SELECT max(x LIKE '%aa{'_' * 45}b') FROM (SELECT {LONG} AS x), cities, cities",
    "instr": f"SELECT max(instr(x, substr(x, 1, 490) || 'b')) FROM (SELECT {LONG} AS x), cities, "
    "cities",
    "trim": f"SELECT max(trim(x, 'bcdefghijklmna')) FROM (SELECT {LONG} AS x), cities, cities",
    "replace": f"SELECT max(replace(replace(x, 'a', 'b'), 'b', 'c')) FROM (SELECT {LONG} AS x), "
    "cities, cities",
    "glob": f"SELECT max(x GLOB '{'*[a]?' * 9}b') FROM (SELECT {LONG} AS x), cities, cities",
}


@pytest.mark.parametrize("query", REFUSED.values(), ids=REFUSED)
def test_what_is_refused(database: ReadOnlyDatabase, query: str) -> None:
    with pytest.raises(ToolError) as caught:
        database.query(query)
    assert not isinstance(caught.value, ToolTimeout)
    assert 0 < len(str(caught.value)) <= 200


@pytest.mark.timeout(120)
@pytest.mark.parametrize("query", ENDLESS.values(), ids=ENDLESS)
def test_what_is_ended(database: ReadOnlyDatabase, query: str) -> None:
    with pytest.raises(ToolTimeout, match="took too long"):
        database.query(query)
    assert database.query("SELECT 1") == "1"


def test_the_schema_can_be_read_and_not_written(database: ReadOnlyDatabase) -> None:
    tables = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
    assert database.query(tables) == "cities\ncountries"
    assert "currency TEXT" in database.query("SELECT sql FROM sqlite_schema")
    with pytest.raises(ToolError):
        database.query("DELETE FROM sqlite_master")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("query", SLOW_STEPS.values(), ids=SLOW_STEPS)
def test_a_few_steps_that_take_long_are_ended_too(
    database: ReadOnlyDatabase, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "_SECONDS", 0.2)
    with pytest.raises(ToolTimeout, match="took too long"):
        database.query(query)


def test_honest_work_is_ended_too_once_the_time_is_up(
    database: ReadOnlyDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = "SELECT country, count(*) FROM cities GROUP BY country"
    assert "more rows" in database.query(query)
    hours = itertools.count(step=3600.0)
    monkeypatch.setattr(sql.time, "monotonic", lambda: next(hours))
    with pytest.raises(ToolTimeout, match="took too long"):
        database.query(query)


def test_the_same_query_gets_the_same_end(database: ReadOnlyDatabase) -> None:
    """Work is counted in steps, so a limit strikes at the same point each time."""

    def longest() -> int:
        low, high = 1, 2000
        while high - low > 1:
            middle = (low + high) // 2
            try:
                database.query(
                    f"SELECT count(*) FROM (SELECT 1 FROM cities LIMIT {middle}), "
                    f"(SELECT 1 FROM cities LIMIT {middle})"
                )
                low = middle
            except ToolTimeout:
                high = middle
        return low

    assert longest() == longest() > 100


@pytest.mark.parametrize(
    "query",
    [*REFUSED.values(), *ENDLESS.values()],
    ids=[*REFUSED, *ENDLESS],
)
def test_in_a_dialogue_a_bad_query_costs_a_turn_and_no_more(query: str) -> None:
    env = Capitals()
    env.reset(seed=0)
    call = {"name": "sql", "arguments": {"query": query}}
    said, reward, terminated, truncated, info = env.step(
        f"<tool_call>{json.dumps(call)}</tool_call>"
    )
    assert info["failure"] in ("tool", "timeout")
    assert info["reward_valid"]
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert said.startswith("error: ")
    assert env.observation_space.contains(said)


@settings(max_examples=50)
@given(st.text(st.characters(), max_size=300))
def test_any_text_is_answered_or_refused(database: ReadOnlyDatabase, query: str) -> None:
    try:
        assert isinstance(database.query(query), str)
    except ToolError:
        assert database.query("SELECT 1") == "1"


@pytest.fixture
def broken(tmp_path: Path) -> ReadOnlyDatabase:
    """A database whose file ends in the middle."""
    whole = Capitals.database_path().read_bytes()
    path = tmp_path / "broken.sqlite"
    path.write_bytes(whole[: len(whole) // 2])
    return ReadOnlyDatabase(path)


def test_a_broken_file_is_no_fault_of_the_query(broken: ReadOnlyDatabase) -> None:
    with pytest.raises(sqlite3.DatabaseError):
        broken.query("SELECT sum(population) FROM cities")


class Full:
    """A connection that finds no room for what it writes to the side."""

    def set_progress_handler(self, *_: object) -> None: ...

    def execute(self, _: str) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error


def test_a_full_disk_is_no_fault_of_the_query(monkeypatch: pytest.MonkeyPatch) -> None:
    database = ReadOnlyDatabase(Capitals.database_path())
    monkeypatch.setattr(database, "_connection", Full())
    with pytest.raises(sqlite3.OperationalError, match="full"):
        database.query("SELECT name FROM cities ORDER BY name")


def assert_infra(step: tuple[str, float, bool, bool, dict[str, object]]) -> None:
    said, reward, terminated, truncated, info = step
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert info["failure"] == "infra"
    assert info["reward_valid"] is False
    assert info["success"] is False
    assert info["choices"] == ()
    assert "out of order" in said
    assert Capitals().observation_space.contains(said)


def test_a_broken_file_is_an_infra_failure(broken: ReadOnlyDatabase) -> None:
    env = Capitals()
    env.reset(seed=0)
    env._database = broken
    assert_infra(env.step("<sql>SELECT sum(population) FROM cities</sql>"))


@pytest.mark.parametrize(
    "error", [sqlite3.DatabaseError("disk I/O error"), MemoryError(), RuntimeError("\ud800<|x|>")]
)
def test_whatever_a_tool_raises_is_an_infra_failure(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = Capitals()
    env.reset(seed=0)

    def fail(_: str) -> str:
        raise error

    monkeypatch.setattr(env._database, "query", fail)
    assert_infra(env.step("<sql>SELECT 1</sql>"))
    monkeypatch.undo()
    env.reset()
    assert env.step(env.solution())[4]["failure"] is None


def test_a_copy_works_like_the_original(database: ReadOnlyDatabase) -> None:
    copy = pickle.loads(pickle.dumps(database))
    query = "SELECT capital FROM countries WHERE name = 'France'"
    assert copy.query(query) == database.query(query)
    with pytest.raises(ToolError):
        copy.query("DELETE FROM cities")


def test_many_databases_share_one_process(database: ReadOnlyDatabase, tmp_path: Path) -> None:
    def processes() -> int:
        return len(psutil.Process().children(recursive=True))

    query = "SELECT 1 UNION SELECT 2 UNION SELECT count(*) FROM countries"
    assert database.query(query) == "1\n2\n252"
    before = processes()
    others = [ReadOnlyDatabase(Capitals.database_path()) for _ in range(3)]
    assert {other.query(query) for other in others} == {"1\n2\n252"}
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as made:
        made.execute("CREATE TABLE countries (name)")
    made.close()
    others.append(ReadOnlyDatabase(path))
    assert others[-1].query(query) == "0\n1\n2"
    assert processes() == before


def test_a_file_that_takes_the_place_of_another_is_read(tmp_path: Path) -> None:
    query = "SELECT 1 UNION SELECT 2 UNION SELECT count(*) FROM countries"
    path = tmp_path / "countries.sqlite"
    with sqlite3.connect(path) as made:
        made.execute("CREATE TABLE countries (name)")
    made.close()
    assert ReadOnlyDatabase(path).query(query) == "0\n1\n2"
    shutil.copy(Capitals.database_path(), tmp_path / "new")
    os.replace(tmp_path / "new", path)
    assert ReadOnlyDatabase(path).query(query) == "1\n2\n252"


@pytest.fixture
def remembered(_nothing_remembered: None, monkeypatch: pytest.MonkeyPatch) -> Remembered[str]:
    """Remember again, but nothing of other tests."""
    kept = Remembered[str](16)
    monkeypatch.setattr(sql, "_remembered", kept)
    monkeypatch.setattr(sql, "_MOST_LETTERS", 50)
    return kept


def test_what_was_answered_is_remembered(
    database: ReadOnlyDatabase, remembered: Remembered[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = ["SELECT 1", "SELECT count(*) FROM cities", "SELECT NULL"]
    answers = [database.query(query) for query in queries]
    assert len(remembered) == 3
    monkeypatch.setattr(ReadOnlyDatabase, "query_here", None)
    copy = pickle.loads(pickle.dumps(database))
    assert [copy.query(query) for query in queries] == answers


@pytest.mark.parametrize(("spaces", "kept"), [(0, 1), (39, 1), (40, 0)])
def test_what_is_long_is_not_remembered(
    database: ReadOnlyDatabase, remembered: Remembered[str], spaces: int, kept: int
) -> None:
    for _ in range(2):
        assert database.query(f"SELECT {' ' * spaces}77") == "77"
    assert len(remembered) == kept


def test_what_is_refused_late_or_asked_elsewhere_is_not_remembered(
    database: ReadOnlyDatabase, remembered: Remembered[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for query in ("DELETE FROM cities", "SELECT"):
        for _ in range(2):
            with pytest.raises(ToolError):
                database.query(query)
    assert database.query("SELECT 1 UNION SELECT 2 UNION SELECT 3") == "1\n2\n3"
    hours = itertools.count(step=3600.0)
    monkeypatch.setattr(sql.time, "monotonic", lambda: next(hours))
    with pytest.raises(ToolTimeout):
        database.query("SELECT count(*), avg(latitude) FROM cities")
    assert len(remembered) == 0


def test_another_file_in_the_same_place_is_asked_anew(
    tmp_path: Path, remembered: Remembered[str]
) -> None:
    path = tmp_path / "own.sqlite"
    for answer in ("red", "green"):
        with sqlite3.connect(tmp_path / answer) as made:
            made.execute("CREATE TABLE colours (name)")
            made.execute("INSERT INTO colours VALUES (?)", (answer,))
        made.close()
        (tmp_path / answer).replace(path)
        assert ReadOnlyDatabase(path).query("SELECT name FROM colours") == answer
    assert len(remembered) == 2


def test_a_file_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(Capitals.database_path(), tmp_path / "countries.sqlite")
    monkeypatch.chdir(tmp_path)
    here = ReadOnlyDatabase(Path("countries.sqlite"))
    monkeypatch.chdir(tmp_path.parent)
    for found in (here, pickle.loads(pickle.dumps(here))):
        assert found.query("SELECT 1 UNION SELECT 2 UNION SELECT 3") == "1\n2\n3"


def test_queries_are_the_same_whatever_came_before(database: ReadOnlyDatabase) -> None:
    query = "SELECT name FROM cities WHERE population > 5000000"
    fresh = ReadOnlyDatabase(Capitals.database_path()).query(query)
    rng = np.random.default_rng(0)
    for hostile in rng.permutation(list(REFUSED.values()))[:20]:
        with pytest.raises(ToolError):
            database.query(str(hostile))
    assert database.query(query) == fresh

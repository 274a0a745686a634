"""Search: what it finds, and that no query changes, hangs or leaves it."""

import contextlib
import hashlib
import itertools
import pickle
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from palaestra.envs.questions.factbook_store import PAGES, PASSAGES
from palaestra.envs.speech import CHARSET, MAX_OBSERVATION_LENGTH, harmless
from palaestra.envs.tools import ToolError, ToolTimeout, search
from palaestra.envs.tools.remembering import Remembered
from palaestra.envs.tools.search import PageIndex, PassageIndex, write_pages

PATHS = {PageIndex: PAGES.index_path(), PassageIndex: PASSAGES.index_path()}
PATH = PATHS[PageIndex]


@pytest.fixture(scope="module")
def pages() -> PageIndex:
    return PageIndex(PATH)


@pytest.fixture(scope="module")
def passages() -> PassageIndex:
    return PassageIndex(PATHS[PassageIndex])


@pytest.fixture(scope="module", params=PATHS)
def index(request: pytest.FixtureRequest) -> PageIndex | PassageIndex:
    made: PageIndex | PassageIndex = request.param(PATHS[request.param])
    return made


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every test search, and remember nothing of the others."""
    monkeypatch.setattr(search, "_remembered", Remembered(search._MOST_REMEMBERED))


@pytest.fixture(scope="module", autouse=True)
def _unchanged() -> Iterator[None]:
    """Compare the files and their folders before and after everything in this module."""

    def state() -> list[tuple[str, list[str]]]:
        return [
            (
                hashlib.sha256(path.read_bytes()).hexdigest(),
                sorted(p.name for p in path.parent.iterdir()),
            )
            for path in PATHS.values()
        ]

    before = state()
    yield
    assert state() == before


def names_in(hits: str) -> list[str]:
    return [hit.partition(" | ")[0] for hit in hits.split("\n")]


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ("capital of France", "france/government/1"),
        ("What is the capital of France?", "france/government/1"),
        ("FRANCE, CAPITALS!", "france/government/1"),
        ("Côte d'Ivoire capital", "cote-d-ivoire/government/1"),
        ("cote d’ivoire capital", "cote-d-ivoire/government/1"),
        ("Mont Blanc", "france/geography/7"),
        ("Kassaman", "algeria/government/15"),
    ],
)
def test_it_finds(pages: PageIndex, query: str, page: str) -> None:
    names = names_in(pages.search(query))
    assert page in names
    assert len(names) == len(set(names)) <= 5


def test_a_hit_has_name_title_and_excerpt(pages: PageIndex) -> None:
    first = pages.search("Algeria anthem Kassaman").split("\n")[0]
    assert first.startswith("algeria/government/15 | Algeria: Government (15 of ")
    assert "National anthem(s): " in first
    assert '"Kassaman" (We Pledge)' in first


def test_a_page_is_shown_in_full(pages: PageIndex) -> None:
    title, *lines = pages.open_page("france/government/1").split("\n")
    assert title.startswith("France: Government (1 of ")
    assert "Capital - name: Paris" in lines
    assert pages.open_page(" France/Government/1\n") == "\n".join([title, *lines])


def test_every_page_and_any_hits_fit_into_an_observation(pages: PageIndex) -> None:
    with sqlite3.connect(PATH) as connection:
        rows = connection.execute("SELECT name, title, text FROM pages").fetchall()
    connection.close()
    assert len(rows) > 13_000
    words = 0
    for name, title, text in rows:
        shown = f"{title}\n{text}"
        assert len(shown) <= MAX_OBSERVATION_LENGTH
        assert set(shown) <= CHARSET
        assert harmless(shown) == shown, name
        words = max(words, len(text.split()))
    assert words <= 120
    rng = np.random.default_rng(0)
    for row in rng.permutation(rows)[:50]:
        hits = pages.search(" ".join(str(row[1]).split()[:20]))
        assert len(hits) <= MAX_OBSERVATION_LENGTH
        assert {*names_in(hits)} <= {r[0] for r in rows}


@pytest.mark.parametrize(
    ("query", "passage"),
    [
        ("capital of France", "France: Capital - name: Paris"),
        ("What is the capital of France?", "France: Capital - name: Paris"),
        ("cote d’ivoire coastline", "Cote d'Ivoire: Coastline: 515 km"),
        ("Kassaman", 'Algeria: National anthem(s) - title: "Kassaman" (We Pledge)'),
        ("Mt. Hillaby", "Barbados: Elevation - highest point: Mount Hillaby 336 m"),
    ],
)
def test_it_shows(passages: PassageIndex, query: str, passage: str) -> None:
    shown = passages.search(query).split("\n")
    assert any(line.startswith(passage) for line in shown)
    assert len(shown) == len(set(shown)) <= 3


def test_any_three_passages_fit_into_an_observation(passages: PassageIndex) -> None:
    with contextlib.closing(sqlite3.connect(passages.path)) as connection:
        rows = connection.execute("SELECT name, title, text FROM pages").fetchall()
    assert len(rows) == 79_575
    lengths = np.array([len(f"{title}: {text}") for _, title, text in rows])
    for name, title, text in rows:
        shown = f"{title}: {text}"
        assert set(shown) <= CHARSET
        assert harmless(shown) == shown, name
        assert 0 < len(text.split()) <= 60
        assert "\n" not in shown
    longest = 0
    for i in np.argsort(lengths)[-30:]:
        shown = passages.search(" ".join(rows[i][1].split() + rows[i][2].split()[:20]))
        assert len(shown) <= MAX_OBSERVATION_LENGTH
        longest = max(longest, *map(len, shown.split("\n")))
    assert longest == 680, "some are cut, so that three of them fit"


def test_words_that_are_nowhere(index: PageIndex | PassageIndex) -> None:
    what = "page" if isinstance(index, PageIndex) else "passage"
    assert index.search("xyzzy") == f"no {what} has these words"


@pytest.mark.parametrize("query", ["", "   ", "_", "\0", "?!", "🙂", "\ud800", "\x1b\x07", "—“”"])
def test_no_words(index: PageIndex | PassageIndex, query: str) -> None:
    with pytest.raises(ToolError, match="search for a few words"):
        index.search(query)


def test_too_many_words(index: PageIndex | PassageIndex) -> None:
    with pytest.raises(ToolError, match="has 33 words; search for at most 32"):
        index.search(" ".join(f"word{i}" for i in range(33)))
    assert index.search("France " * 500) == index.search("France")


@pytest.mark.parametrize(
    "page",
    ["", "france", "france/government/999", "../pages.sqlite", "\0", "\ud800", "' OR 1 --", "%"],
)
def test_unknown_pages(pages: PageIndex, page: str) -> None:
    with pytest.raises(ToolError, match="open one that a search has listed"):
        pages.open_page(page)


def test_a_long_name_is_not_repeated(pages: PageIndex) -> None:
    with pytest.raises(ToolError) as caught:
        pages.open_page("x" * 4000)
    assert len(str(caught.value)) < 200


SYNTAX = [
    '"france',
    'france" OR title:"a',
    "NEAR(france capital, 2)",
    "title: france",
    "{title text} : france",
    "^france",
    "fran*",
    "france AND",
    "AND OR NOT",
    "france NOT capital",
    "france + capital",
    "- france",
    "((((france",
    "found MATCH 'france'",
    "rank MATCH 'bm25(0)'",
    "'; DROP TABLE pages; --",
    "france\0capital",
    "ﬁnland ﷺ İstanbul ẞ",
    "中国 العربية Ελλάδα",
    "\u0301\u0301\u0301 a\u0301",
]


@pytest.mark.parametrize("query", SYNTAX)
def test_no_query_has_a_syntax(index: PageIndex | PassageIndex, query: str) -> None:
    assert index.search(query)


def test_operators_are_words(pages: PageIndex, index: PageIndex | PassageIndex) -> None:
    assert names_in(pages.search("France NOT capital")) == names_in(
        pages.search("not france capital")
    )
    assert index.search("fran*") == index.search("fran")


COMMON = re.findall(
    r"\w+",
    "the of and in to a with for on by is are was from as at or an be that its it which has have "
    "percent total est male female population government",
)
SLOW = {
    "common words": " ".join(COMMON[:32]),
    "one long word": "a" * 4096,
    "long words": " ".join("ab" * 60 + str(i) for i in range(32)),
    "thousands of words": " ".join(f"w{i}" for i in range(1000)),
    "repetition": "population " * 370,
    "underscores": "_" * 4096,
    "phrases": " ".join("_".join(["the", "of"] * 21) + "_" * i for i in range(30))[:4096],
    "phrases in disguise": ("a\U0001e922the\U0001e922of\U0001e922" * 600)[:4096],
    "underscored words": " ".join("_".join(COMMON) + str(i) for i in range(20)),
    "combining marks": "a" + "\u0301" * 4095,
    "expanding capitals": "İ" * 4096,
    "digits": " ".join(str(i) for i in range(32)),
    "letters": " ".join("abcdefghijklmnopqrstuvwxyz"),
}


@pytest.mark.parametrize("query", SLOW.values(), ids=SLOW)
def test_no_query_takes_long(index: PageIndex | PassageIndex, query: str) -> None:
    began = time.perf_counter()
    with contextlib.suppress(ToolError):
        index.search(query)
    assert time.perf_counter() - began < 1.5


def test_a_query_is_ended_once_the_time_is_up(
    index: PageIndex | PassageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = " ".join(COMMON[:32])
    hours = itertools.count(step=3600.0)
    with monkeypatch.context() as patched:
        patched.setattr(search.time, "monotonic", lambda: next(hours))
        with pytest.raises(ToolTimeout, match="took too long"):
            index.search(query)
    assert len(index.search(query).split("\n")) == (5 if isinstance(index, PageIndex) else 3)


REFUSED = [
    "INSERT INTO pages (name) VALUES ('loot')",
    "UPDATE pages SET text = ''",
    "DELETE FROM pages",
    "DROP TABLE pages",
    "CREATE TABLE loot (x)",
    "CREATE TEMP TABLE loot (x)",
    "INSERT INTO found (found) VALUES ('delete-all')",
    "INSERT INTO found (found) VALUES ('rebuild')",
    "INSERT INTO found (found, rank) VALUES ('pgsz', 64)",
    "UPDATE found_data SET block = x''",
    "ATTACH ':memory:' AS loot",
    "PRAGMA query_only = OFF",
    "PRAGMA journal_mode = WAL",
    "PRAGMA data_version = 1",
    "VACUUM INTO 'loot.sqlite'",
    "BEGIN EXCLUSIVE",
    "SELECT load_extension('loot')",
    "SELECT fts5(?1)",
    "SELECT randomblob(1000000000)",
    "SELECT fts5_source_id()",
    "SELECT highlight(found, 1, '', '') FROM found WHERE found MATCH 'a'",
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t",
]


@pytest.mark.parametrize("sql", REFUSED)
def test_behind_the_quotes_nothing_else_is_let_pass(sql: str) -> None:
    with pytest.raises(sqlite3.DatabaseError):
        PageIndex(PATH)._connection.execute(sql).fetchall()


@settings(max_examples=100)
@given(st.text(st.characters(), max_size=300))
def test_any_text_is_answered_or_refused(index: PageIndex | PassageIndex, text: str) -> None:
    for tool in index.tools:
        with contextlib.suppress(ToolError):
            assert isinstance(tool(text), str)
    assert index.search("France")


def test_a_copy_works_like_the_original(index: PageIndex | PassageIndex) -> None:
    copy = pickle.loads(pickle.dumps(index))
    assert copy.search("capital of France") == index.search("capital of France")
    with pytest.raises(sqlite3.DatabaseError):
        copy._connection.execute("DELETE FROM pages")


def test_a_query_finds_the_same_whatever_came_before(
    index: PageIndex | PassageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = type(index)(index.path).search("longest coastline")
    monkeypatch.setattr(search, "_remembered", Remembered(search._MOST_REMEMBERED))
    for query in SYNTAX:
        index.search(query)
    assert index.search("longest coastline") == fresh


def test_what_was_found_is_remembered(
    index: PageIndex | PassageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_remembered", remembered := Remembered[object](3))
    queries = ["France", "capital of France", "Kassaman", "Côte d'Ivoire", "longest coastline"]
    found = [index.search(query) for query in queries]
    assert len(set(found)) == 5
    assert len(remembered) == 2, "three were forgotten when the fourth came"
    with monkeypatch.context() as patched:
        patched.setattr(type(index), "_selected", None)
        assert [type(index)(index.path).search(query) for query in queries[3:]] == found[3:]
    assert [index.search(query) for query in queries] == found


def test_each_form_remembers_its_own(tmp_path: Path) -> None:
    path = tmp_path / "own.sqlite"
    write_pages(path, [("a", "Apples", "red and round")])
    for _ in range(2):
        assert PageIndex(path).search("apple") == "a | Apples: red and round"
        assert PassageIndex(path).search("apple") == "Apples: red and round"


def test_another_file_in_the_same_place_is_searched_anew(tmp_path: Path) -> None:
    path = tmp_path / "own.sqlite"
    for colour in ("red", "green"):
        other = tmp_path / colour
        write_pages(other, [("a", "Apples", colour)])
        other.replace(path)
        assert PassageIndex(path).search("apple") == f"Apples: {colour}"


def test_an_index_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.sqlite"
    write_pages(path, [("a", "Apples", "red and round"), ("p", "Pears", "green, unlike apples")])
    own = PageIndex(path)
    assert names_in(own.search("apple")) == ["a", "p"]
    assert own.open_page("p") == "Pears\ngreen, unlike apples"
    shown = PassageIndex(path).search("apple")
    assert shown == "Apples: red and round\nPears: green, unlike apples"


def test_a_broken_file_is_no_fault_of_the_query(tmp_path: Path) -> None:
    path = tmp_path / "broken.sqlite"
    whole = PATH.read_bytes()
    path.write_bytes(whole[:8192] + b"\xff" * (len(whole) - 8192))
    with pytest.raises(sqlite3.DatabaseError):
        PageIndex(path).search("France")

"""Factbook, Almanac: true answers in texts that the plans find, splits that share nothing."""

import copy
import json
import pickle
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import combinations, islice
from typing import Any

import pytest
from palaestra.envs.almanac import Almanac
from palaestra.envs.factbook import Factbook
from palaestra.envs.questions.factbook_comparisons import triples
from palaestra.envs.questions.factbook_env import FactbookEnv
from palaestra.envs.questions.factbook_facts import COMPARED, FACTS, borders
from palaestra.envs.questions.factbook_pages import Entry, clean, entries, slug
from palaestra.envs.questions.factbook_phrases import PHRASES, listed, spoken
from palaestra.envs.questions.factbook_questions import Question, multi_hop, one_hop
from palaestra.envs.questions.factbook_store import Asked
from palaestra.envs.scoring import folded
from palaestra.envs.tools.search import TextIndex

DISJOINT = ("train", "validation", "test")
LEVELS = FactbookEnv.levels
BOTH = [Factbook, Almanac]


@pytest.fixture(scope="module")
def book() -> dict[str, Entry]:
    return {entry.name: entry for entry in entries()}


@pytest.fixture(scope="module", params=BOTH)
def world(request: pytest.FixtureRequest) -> type[FactbookEnv]:
    made: type[FactbookEnv] = request.param
    return made


@pytest.fixture(scope="module")
def questions(world: type[FactbookEnv]) -> dict[str, Asked]:
    return {split: world.form.asked(split) for split in DISJOINT}


def one_hops(questions: dict[str, Asked], split: str) -> list[Question]:
    return [q for country in questions[split].countries for q in country.values()]


def multi_hops(questions: dict[str, Asked], split: str) -> list[Question]:
    return [q for group in questions[split].groups for q in group]


def draws(
    world: type[FactbookEnv], level: str, split: str, count: int
) -> Iterator[tuple[FactbookEnv, str, dict[str, Any]]]:
    env = world(split, level)
    for i in range(count):
        yield env, *env.reset(seed=0 if i == 0 else None)


def test_the_dialogue_of_the_documentation() -> None:
    wanted = 'What is the capital of the country whose national anthem is "Kassaman"?'
    env = asking_about_kassaman(Factbook)
    question, info = env.reset(seed=0)
    while question != wanted:
        question, info = env.reset()
    hits = env.step("<search>Kassaman</search>")[0]
    assert hits.startswith("algeria/government/15 | Algeria: Government (15 of ")
    assert '"Kassaman" (We Pledge)' in env.step("<open_page>algeria/government/15</open_page>")[0]
    page, *_, info = env.step("<open_page>algeria/government/1</open_page>")
    assert "Capital - name: Algiers" in page
    assert info["gold"] == ("algeria/government/15", "algeria/government/1")
    assert env.step("<answer>Algiers</answer>")[1] == 1.0


def test_a_dialogue_with_passages() -> None:
    env = asking_about_kassaman(Almanac)
    question, info = env.reset(seed=0)
    while info["kind"] != "anthem-capital" or '"Kassaman"' not in question:
        question, info = env.reset()
    assert info["gold"] == (
        'Algeria: National anthem(s) - title: "Kassaman" (We Pledge)',
        "Algeria: Capital - name: Algiers",
    )
    assert env.step("<search>Kassaman</search>")[0].startswith(info["gold"][0] + "\n")
    said, *_, info = env.step("<search>What is the capital of Algeria?</search>")
    assert info["gold"][1] in said.split("\n")
    assert len(said.split("\n")) == 3
    *_, info = env.step("<open_page>algeria/government/1</open_page>")
    assert info["failure"] is not None
    assert env.step("<answer>Algiers</answer>")[1] == 1.0


def asking_about_kassaman(world: type[FactbookEnv]) -> FactbookEnv:
    for split in DISJOINT:
        if any(
            q.kind == "anthem-capital" and q.answer == "Algiers"
            for group in world.form.asked(split).groups
            for q in group
        ):
            return world(split, "multi-hop")
    raise AssertionError("nobody asks about it")


@pytest.mark.parametrize("split", FactbookEnv.splits)
@pytest.mark.parametrize("level", LEVELS)
def test_the_plans_show_the_answer_in_a_gold_text(
    world: type[FactbookEnv], level: str, split: str
) -> None:
    for env, question, info in draws(world, level, split, 50):
        seen, opened, over = question, [], False
        answer, gold = env.task.plan.answer, info["gold"]
        gold_text = ""
        while not over:
            message = env.solution()
            assert message in info["choices"]
            if page := re.fullmatch("<open_page>(.+)</open_page>", message):
                assert f"\n{page[1]} | " in seen, "it opens only what a search has listed"
                opened.append(page[1])
            said, reward, over, truncated, info = env.step(message)
            assert not truncated
            assert info["failure"] is None
            assert info["gold"] == gold
            seen += f"\n{said}"
            gold_text += said if page else ""
        assert reward == 1.0
        if world is Factbook:
            assert tuple(opened) == gold
            assert answer in gold_text
        else:
            assert {*gold} <= {*seen.split("\n")}
            assert answer in "\n".join(gold)


@pytest.mark.parametrize("level", LEVELS)
def test_a_plan_leaves_messages_to_spare(world: type[FactbookEnv], level: str) -> None:
    for env, _, _ in draws(world, level, "train", 200):
        assert len(env.task.plan.calls) + 1 < env.max_turns


@pytest.mark.parametrize("level", LEVELS)
def test_siblings_differ_in_their_answers(world: type[FactbookEnv], level: str) -> None:
    for env, _, info in draws(world, level, "train", 300):
        assert 1 < len(info["choices"]) <= env.max_choices
        answers = env.task.stages[-1]
        assert 6 <= len(answers) <= env.max_choices
        assert len({folded(a) for a in answers}) == len(answers)


def test_splits_share_no_country(questions: dict[str, Asked]) -> None:
    names = {
        split: {q.names["name"] for q in one_hops(questions, split)}
        | {name for triple in questions[split].triples for name in triple.names}
        for split in DISJOINT
    }
    for one, other in combinations(DISJOINT, 2):
        assert not names[one] & names[other]


def test_splits_share_no_question(questions: dict[str, Asked]) -> None:
    identities = {
        split: [(q.kind, *q.names.items()) for q in multi_hops(questions, split)]
        for split in DISJOINT
    }
    for split in DISJOINT:
        assert len(set(identities[split])) == len(identities[split])
    for one, other in combinations(DISJOINT, 2):
        assert not set(identities[one]) & set(identities[other])


def test_how_much_is_asked(world: type[FactbookEnv], questions: dict[str, Asked]) -> None:
    one, multi = ([q for s in DISJOINT for q in f(questions, s)] for f in (one_hops, multi_hops))
    sixes = {split: len(questions[split].sixes) for split in DISJOINT}
    print(f"{len(one)} of one hop, {len(multi)} of several, sixes of countries: {sixes}")
    assert len(one) > 2_000
    assert len(multi) > (1_900 if world is Factbook else 1_800)
    assert {q.kind for q in one} | {q.kind for q in multi} == PHRASES.keys() - {"comparison"}
    assert all(count > 90 for count in sixes.values())


TRUE = [
    ("capital", "France", "Paris"),
    ("capital", "United States", "Washington, D.C."),
    ("currency", "Japan", "JPY"),
    ("peak", "Tanzania", "Kilimanjaro"),
    ("peak", "Pakistan", "K2"),
    ("anthem", "Algeria", "Kassaman"),
    ("independence", "India", "15 August 1947"),
    ("domain", "Germany", ".de"),
    ("area", "Kenya", "580,367"),
    ("coastline", "Norway", "25,148"),
    ("life", "Japan", "85.2"),
    ("height", "Argentina", "6,962"),
    ("airports", "Zambia", "120"),
]


@pytest.mark.parametrize(("fact", "name", "answer"), TRUE)
def test_facts_are_true(book: dict[str, Entry], fact: str, name: str, answer: str) -> None:
    assert FACTS[fact].of(book[name]) == answer
    path = FACTS[fact].path
    for text in (book[name].page_with(path, answer), book[name].passage_with(path, answer)):
        assert text is not None
        assert answer in text.text


@pytest.mark.parametrize(
    ("fact", "name"),
    [
        ("capital", "South Africa"),  # three
        ("capital", "Bolivia"),  # two
        ("capital", "Nauru"),  # none that is official
        ("currency", "United States"),  # none is given
        ("peak", "Tuvalu"),  # unnamed
        ("peak", "The Bahamas"),  # a place on an island
        ("anthem", "Switzerland"),  # four titles
        ("independence", "Guam"),  # none
        ("independence", "France"),  # no official date
        ("domain", "France"),  # several
        ("population", "Bouvet Island"),  # uninhabited
        ("coastline", "Austria"),  # landlocked
        ("height", "Navassa Island"),  # told by a distance
    ],
)
def test_what_is_not_told_plainly_is_not_asked(
    book: dict[str, Entry], fact: str, name: str
) -> None:
    assert FACTS[fact].of(book[name]) is None


def test_only_countries_and_territories_are_asked_about(questions: dict[str, Asked]) -> None:
    for split in DISJOINT:
        for question in one_hops(questions, split) + multi_hops(questions, split):
            names = {question.answer, *question.names.values()}
            assert not names & {"World", "European Union", "none"}


def test_a_clue_means_one_country(questions: dict[str, Asked]) -> None:
    clues = [
        (q.kind, q.names["clue"])
        for split in DISJOINT
        for q in multi_hops(questions, split)
        if "clue" in q.names
    ]
    assert len(set(clues)) == len(clues)
    shared = {"Mount Everest", "Golem Korab", "Mont Nimba", "Pic Marguerite", "Mont Blanc"}
    shared |= {"God Save the King", "La Marseillaise", "Himno Nacional", "Het Wilhelmus"}
    assert not shared & {clue for _, clue in clues}
    assert ("peak-capital", "Kilimanjaro") in clues


def test_neighbours(book: dict[str, Entry], questions: dict[str, Asked]) -> None:
    assert borders(book["Portugal"]) == {"Spain": 1224.0}
    assert borders(book["Russia"])["China"] == 4133.0 + 46.0
    assert "United Kingdom" in borders(book["Ireland"])
    for question in [q for split in DISJOINT for q in multi_hops(questions, split)]:
        if question.kind == "borders-both":
            one, other = (borders(book[name]) for name in question.names.values())
            assert one.keys() & other.keys() == {question.answer}
        if question.kind.startswith("neighbour-"):
            fact = FACTS[question.kind.removeprefix("neighbour-")]
            around = borders(book[question.names["name"]])
            numbers = {name: fact.number_of(book[name]) or 0.0 for name in around}
            assert sorted(numbers, key=numbers.__getitem__)[-1] == question.answer


def test_comparisons_are_true(world: type[FactbookEnv], book: dict[str, Entry]) -> None:
    places = {"largest": 0, "second-largest": 1, "second-smallest": -2, "smallest": -1}
    for env, question, info in draws(world, "comparison", "test", 200):
        rank, fact = re.fullmatch("(.+)-([a-z]+)", info["kind"]).groups()  # type: ignore[union-attr]
        names = [re.search("<answer>(.+)</answer>", c)[1] for c in env.task.stages[-1]]  # type: ignore[index]
        assert all(name in question for name in names)
        ordered = sorted(names, key=lambda n: -(FACTS[fact].number_of(book[n]) or 0.0))
        assert ordered[places[rank]] == env.task.plan.answer


def test_the_cache_holds_what_is_built_today(
    world: type[FactbookEnv], book: dict[str, Entry], questions: dict[str, Asked]
) -> None:
    """Else a change of the builder, under an old key, would change the tasks of new machines."""
    form = world.form
    texts = [tuple(text) for entry in book.values() for text in form.texts(entry)]
    with closing(sqlite3.connect(form.index_path())) as connection:
        assert connection.execute("SELECT name, title, text FROM pages").fetchall() == texts
    finder = form.finder(list(book.values()), form.index(form.index_path()))
    kept = json.loads(form.questions_path().read_text("utf-8"))
    for level, fresh in (("one-hop", one_hop(finder)), ("multi-hop", multi_hop(finder))):
        some = list(islice(fresh, 150))
        assert json.loads(json.dumps(some)) == kept[level][:150]
    some_triples = list(islice(triples(finder, "validation"), 5))
    assert some_triples == questions["validation"].triples[:5]


def test_paraphrases_are_used_by_no_other_split(world: type[FactbookEnv]) -> None:
    for usual, paraphrases in PHRASES.values():
        assert len(usual) == len(paraphrases) == 2
        assert not {*usual} & {*paraphrases}
    for level in LEVELS:
        plain, paraphrased = (
            [env.task.plan for env, _, _ in draws(world, level, split, 100)]
            for split in ("test", "paraphrase")
        )
        assert [p.answer for p in plain] == [p.answer for p in paraphrased]
        assert [p.calls for p in plain] == [p.calls for p in paraphrased]
        assert not {p.question for p in plain} & {p.question for p in paraphrased}


@pytest.mark.parametrize(
    ("truth", "answer", "right"),
    [
        ("Paris", "paris.", True),
        ("Paris", "“Paris”", True),
        ("Paris", "London", False),
        ("Paris", "", False),
        ("Paris", "Paris or London", False),
        ("Washington, D.C.", "washington, d.c", True),
        ("Saint John's", "St. John's", True),
        ("Mt. Fogo", "Mount Fogo", True),
        ("Tripoli", "Tarabulus", True),
        ("Kassaman", "We Pledge", True),
        ("The Gambia", "Gambia", True),
        ("United States", "the USA", False),
        ("United States", "the United States of America", True),
        ("United States", "US", True),
        ("Democratic Republic of the Congo", "the DRC", True),
        ("Democratic Republic of the Congo", "Republic of the Congo", False),
        ("Cote d'Ivoire", "Côte d'Ivoire", True),
        ("15 August 1947", "August 15, 1947", True),
        ("15 August 1947", "15 August 1948", False),
        ("580,367", "580367", True),
        ("580,367", "580,367 sq km", True),
        ("580,367", "580367 km²", True),
        ("580,367", "580,368", False),
        ("85.2", "85.2 years", True),
        ("85.2", "85", False),
        (".de", "de", True),
        ("JPY", "jpy", True),
        ("Niger", "Nigeria", False),
    ],
)
def test_what_is_right(world: type[FactbookEnv], truth: str, answer: str, right: bool) -> None:
    env = world()
    env.reset(seed=0)
    env.task = replace(env.task, plan=env.task.plan._replace(answer=truth))
    assert env.step(f"<answer>{answer}</answer>")[4]["success"] is right


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("<search>?!</search>", "search for a few words"),
        ("<open_page>atlantis/government/1</open_page>", "there is no page"),
    ],
)
def test_a_bad_call_costs_a_turn_and_no_more(message: str, said: str) -> None:
    env = Factbook()
    _, first = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(message)
    assert said in observation
    assert info["failure"] == "tool"
    assert info["choices"] == first["choices"]
    assert (reward, terminated, truncated) == (0.0, False, False)


def test_a_broken_index_is_an_infra_failure(
    world: type[FactbookEnv], monkeypatch: pytest.MonkeyPatch
) -> None:
    env = world()
    env.reset(seed=0)

    def fail(*_: str) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    monkeypatch.setattr(TextIndex, "_rows", fail)
    *_, truncated, info = env.step("<search>France</search>")
    assert truncated
    assert info["failure"] == "infra"
    assert not info["reward_valid"]


@pytest.mark.parametrize("level", LEVELS)
def test_copies_and_snapshots_go_on_alike(world: type[FactbookEnv], level: str) -> None:
    env = world("validation", level)
    env.reset(seed=5)
    env.step(env.solution())
    other = world("validation", level)
    other.set_state(pickle.loads(pickle.dumps(env.get_state())))
    for twin in (other, copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        assert twin.solution() == env.solution()
        assert twin.tools["search"].call({"query": "France"})
    while env.solution().startswith(("<search>", "<open_page>")):
        message = env.solution()
        ours, theirs = env.step(message), other.step(message)
        assert ours[0] == theirs[0]
        assert ours[4]["choices"] == theirs[4]["choices"]


def test_text_is_cleaned() -> None:
    assert clean("a<br><br>b <strong>note:</strong>&nbsp;R&eacute;union") == "a b note: Réunion"
    assert clean("<p style='x'>one</p><p>two</p>") == "one two"
    assert clean("up to <5 and >7") == "up to <5 and >7"
    assert clean("Ulaanbaatar (Улаанбаатар)") == "Ulaanbaatar"
    assert slug("Cote d'Ivoire") == "cote-d-ivoire"


def test_names_in_sentences() -> None:
    assert spoken("Netherlands") == "the Netherlands"
    assert spoken("Dominican Republic") == "the Dominican Republic"
    assert spoken("Dominica") == "Dominica"
    assert spoken("The Gambia") == "The Gambia"
    assert listed(["Peru", "Maldives", "Chad"]) == "Peru, the Maldives and Chad"


def test_everything_compared_is_worded(world: type[FactbookEnv]) -> None:
    kinds = {info["kind"] for _, _, info in draws(world, "comparison", "train", 600)}
    assert kinds == {
        f"{r}-{f}"
        for r in ("largest", "second-largest", "second-smallest", "smallest")
        for f in COMPARED
    }

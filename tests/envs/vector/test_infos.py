"""The infos of a vector are a dictionary in every respect, though it fills as it is read."""

import copy
import json
import pickle
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from palaestra.envs.vector.columns import all_columns, with_finals
from palaestra.envs.vector.infos import Infos
from palaestra.envs.vector.sealed import seal, sealed

INFOS = [
    {"messages": [{"role": "user"}], "success": True, "turn": 3},
    {"messages": [], "success": False, "turn": 4, "rare": 0.5},
    {},
]
FINALS = [None, ("the end", {"messages": ["bye"], "success": True}), None]
LAST = {"failure": None}
OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "dict": dict,
    "unpacked": lambda d: {**d},
    "keyword arguments": lambda d: (lambda **k: k)(**d),
    "or": lambda d: d | LAST,
    "ror": lambda d: LAST | d,
    "ior": lambda d: d.__ior__(LAST),
    "update": lambda d: {"a": 1} | dict(d.items()),
    "copy": lambda d: d.copy(),
    "copy.copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda d: pickle.loads(pickle.dumps(d)),
    "looked up": lambda d: {k: d[k] for k in ("_turn", "turn", "success", "_rare", "rare")},
    "get": lambda d: [d.get("turn"), d.get("_nothing"), d.get("nothing", 3)],
    "in": lambda d: ["turn" in d, "_turn" in d, "nothing" in d, "_nothing" in d, 7 in d],
    "sorted": sorted,
    "reversed": lambda d: {*reversed(d)} == {*d},
    "len": len,
    "bool": bool,
    "pop": lambda d: [d.pop("turn"), d.pop("turn", 5), sorted(d)],
    "popitem": lambda d: [d.popitem() and None, len(d)],
    "setdefault": lambda d: [d.setdefault("turn", 5), d.setdefault("new", 5), sorted(d)],
    "clear": lambda d: [d.clear(), d.get("turn"), "turn" in d, len(d), list(d)],
    "keys": lambda d: sorted(d.keys()),
    "values": lambda d: len(d.values()),
    "instance": lambda d: isinstance(d, dict),
    "json": lambda d: json.dumps(d, default=lambda array: repr(array.tolist()), sort_keys=True),
}


def told(thing: Any) -> Any:
    """Say all of a value in lists and dictionaries, types of arrays included."""
    if isinstance(thing, dict):
        return {key: told(value) for key, value in sorted(thing.items())}
    if isinstance(thing, list | tuple):
        return [told(item) for item in thing]
    return (thing.dtype.str, thing.tolist()) if isinstance(thing, np.ndarray) else thing


def members_say(infos: list[Any], finals: list[Any], from_process: bool) -> Infos:
    """Make the infos of a vector whose members live in this process or in another."""
    finals = finals or [None] * len(infos)
    said = [("", 0.0, False, False, i, f) for i, f in zip(infos, finals, strict=True)]
    if from_process:
        said = [outcome for _, outcome in sealed(seal([*enumerate(said)], {0, 1, 2}), {0, 1, 2})]
    finals = [outcome[5] for outcome in said]
    return Infos([outcome[4] for outcome in said], finals if any(finals) else ())


@pytest.mark.parametrize("from_process", [False, True], ids=["", "from a process"])
@pytest.mark.parametrize("finals", [[], FINALS], ids=["", "finals"])
@pytest.mark.parametrize("read", [(), ("turn",), ("_success", "final_info", "rare")], ids=str)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_infos_do_what_a_dictionary_does(
    operation: str, read: tuple[str, ...], finals: list[Any], from_process: bool
) -> None:
    infos = members_say(INFOS, finals, from_process)
    for key in read:
        infos.get(key)
    whole = with_finals(INFOS, finals) if finals else all_columns(INFOS)
    do = OPERATIONS[operation]
    assert told(do(infos)) == told(do(whole))


def test_what_is_equal_to_infos() -> None:
    assert Infos([{}, {}]) == {}
    assert Infos([{}]) == {}
    assert Infos(INFOS[:1]) != {}
    assert Infos([]) == {}
    assert Infos([{}]) == Infos([])
    assert (Infos([{}]) != Infos([{}])) is False
    assert Infos(INFOS[2:]) | Infos([{}]) == {}
    assert Infos(INFOS[:1]) != Infos([])
    assert repr(Infos([{"a": 1}])) == "{'_a': array([ True]), 'a': array([1])}"


@pytest.mark.parametrize("key", ["nothing", "_nothing", "_", "", 3, None, ("turn",), "final_info"])
def test_a_key_that_nobody_has(key: Any) -> None:
    with pytest.raises(KeyError):
        Infos(INFOS)[key]


def test_what_is_written_stays() -> None:
    for fill in (len, lambda d: d["_turn"], lambda d: d["turn"]):
        infos = Infos(INFOS)
        infos["turn"], infos["episode"] = "mine", {"r": 1}
        fill(infos)
        assert infos["turn"] == "mine"
        assert infos["episode"] == {"r": 1}
        assert [*infos["_turn"]] == [True, True, False]
        del infos["turn"]
        assert "turn" not in infos


def test_an_array_stays_the_same() -> None:
    infos = Infos(INFOS, FINALS)
    turns, end = infos["turn"], infos["final_info"]
    turns[0] = 9
    assert {**infos}["turn"] is turns is infos["turn"]
    assert {**infos}["final_info"] is end


@pytest.mark.parametrize("value", [3, np.zeros(2)], ids=["number", "array"])
def test_infos_are_of_when_they_were_said(value: Any) -> None:
    """An environment may use its dictionaries and arrays again."""
    info, end = {"a": value}, {"a": value}
    infos = Infos([info], [("", end)])
    for mine in (info, end):
        if isinstance(value, np.ndarray):
            value[:] = 9
        mine["a"], mine["b"] = 5, 6
    assert told([*infos["a"]]) == told([*infos["final_info"]["a"]]) != [5]
    assert 9 not in infos["a"]
    assert "b" not in infos
    assert "b" not in infos["final_info"]


def test_a_dictionary_that_invents_values_is_taken_for_what_it_holds() -> None:
    infos = Infos([defaultdict(int, a=1), {"b": 2}])
    assert "nothing" not in infos
    assert "final_info" not in infos
    assert told(infos["_b"].tolist()) == [False, True]


@pytest.mark.parametrize("wrong", [None, [("a", 1)], 3], ids=str)
def test_what_is_no_dictionary_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError):
        Infos([wrong])
